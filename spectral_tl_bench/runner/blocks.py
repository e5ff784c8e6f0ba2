"""What a plan is made of: benchmarks, methods, backbones and seeds, with options and a grid over some of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from spectral_tl_bench.benchmarks import resolve
from spectral_tl_bench.console import is_file, split_names
from spectral_tl_bench.defaults import DEFAULT_BACKBONE
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.listing import methods_named
from spectral_tl_bench.methods.registry import check_known
from spectral_tl_bench.models.backbones import check_backbone_known
from spectral_tl_bench.models.backbones.input_scale import AUTO, read_scale
from spectral_tl_bench.models.backbones.registry import check_input_norm, check_level_norm
from spectral_tl_bench.models.patch_embedding import check_strategy
from spectral_tl_bench.objectives.registry import check_options, objective_entries
from spectral_tl_bench.protocol.names import AS_PUBLISHED, DEFAULT_PROTOCOL
from spectral_tl_bench.protocol.registry import check_protocol_known
from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.runner.request import Request

MOST_CELLS = 1_000_000
"""Of a block: more is a slip."""
SEEDS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
OF_REQUEST = ("weights", "patch_embedding", "input_scale", "level_norm", "input_norm")
"""What of a request a grid may go over, beside its settings and options."""


def read_seeds(entries: Any) -> tuple[int, ...]:
    """Seeds from numbers and texts such as ``3``, ``0-4`` or ``0,2,7-9``, in their order.

    Raises:
        UserError: If something is no seed.
    """
    seeds: list[int] = []
    parts = [part.strip() for entry in _listed(entries) for part in str(entry).split(",")]
    for part in parts:
        match = SEEDS.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < first + MOST_CELLS:
            raise UserError(f"--seed {part!r} is no seed", expected="an integer from 0 on, or several as 0-4")
        seeds += range(first, last + 1)
    return tuple(dict.fromkeys(seeds))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _seeds(value: Any) -> tuple[int, ...]:
    if not _listed(value) or any(isinstance(entry, bool | float) for entry in _listed(value)):
        raise ValueError("seeds are integers from 0 on, or texts such as 0-4")
    try:
        return read_seeds(value)
    except UserError as error:
        raise ValueError(f"{error.what.removeprefix('--seed ')}: {error.expected}") from None


def _names(value: Any) -> Any:
    return split_names(value) if isinstance(value, str) else value


def _methods(value: Any) -> Any:
    names = _names(value)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return names  # refused as what it is
    try:
        return methods_named(names)
    except UserError as error:
        raise ValueError(f"{error.what}, {error.expected}") from None


Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]


class Block(BaseModel):
    """A part of a plan: all combinations of what it lists.

    Attributes:
        benchmarks: Ids, groups or paths of YAML files.
        methods: Full names, with presets and objectives; in a file also ``all`` and ``family:peft``.
        seeds: Seeds; in a file also texts such as ``0-4``.
        options: Of all its methods.
        objective_options: By objective and option.
        grid: Values by name: of an option of the methods, of ``objective.option``, of a setting, or of what
            ``OF_REQUEST`` lists. Where a setting and an option are called the same, it is the setting.
        settings: Of the protocol.
        weights: Of its backbones.
        patch_embedding: How their patch embedding comes from them.
        input_scale: How many times larger images are made before them; ``auto`` by default.
        level_norm: What feature levels pass before a decoder; what the backbones' authors do by default.
        input_norm: How pixels are normalised before them alone; by the source's statistics by default.
        as_published: Run as in the authors' release, validated on the target: by the protocol ``as-published``.
        oracle: Also report the oracle checkpoint.
        from_stage: Folder of a trained first stage to start from.
        name: Shown with its cells, where a plan has several blocks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", max_length=64)
    benchmarks: Names
    methods: Annotated[tuple[str, ...], BeforeValidator(_methods), Field(min_length=1)]
    backbones: Names = (DEFAULT_BACKBONE,)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds)] = (0,)
    options: dict[str, Any] = Field(default_factory=dict)
    objective_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    settings: Overrides = Field(default_factory=Overrides)
    backbone_sizes: dict[str, int] = Field(default_factory=dict)
    weights: str | None = None
    patch_embedding: str | None = None
    input_scale: Annotated[str | None, BeforeValidator(lambda value: value if value is None else str(value))] = None
    level_norm: str | None = None
    input_norm: str | None = None
    protocol: str = DEFAULT_PROTOCOL
    as_published: bool = False
    oracle: bool = False
    from_stage: Path | None = None


def check_names(block: Block) -> None:
    """Look all names up before anything heavy is imported, and refuse what contradicts itself.

    Raises:
        UserError: If a name is unknown, or something is given twice.
    """
    if not block.methods:
        raise UserError("a block names no method", fix="`stbench methods` lists them")
    resolve(list(block.benchmarks))
    check_known(block.methods)
    for backbone in block.backbones:
        check_backbone_known(backbone)
    for strategy in (block.patch_embedding, *block.grid.get("patch_embedding", ())):
        if strategy is not None:
            check_strategy(strategy)
    for scale in (block.input_scale, *block.grid.get("input_scale", ())):
        if scale is not None:
            read_scale(str(scale))
    for norm in (block.level_norm, *block.grid.get("level_norm", ())):
        if norm not in (None, AUTO):
            check_level_norm(str(norm))
    for norm in (block.input_norm, *block.grid.get("input_norm", ())):
        if norm is not None:
            check_input_norm(str(norm))
    check_protocol_known(block.protocol)
    _check_leak(block)
    for request in itertools.islice(requests(block, {}), MOST_CELLS):
        check_options(block.methods, request.objective_options)
        if len(block.backbones) > 1 and request.weights is not None and is_file(request.weights):
            raise UserError(
                f"--weights {request.weights} cannot be those of {' and '.join(block.backbones)}",
                fix="give each backbone a block of its own in a plan, see docs/plans.md",
            )
    _check_grid(block)


def _check_leak(block: Block) -> None:
    """Refuse the protocol that reads the target's labels where it is only named, and another where it is asked for."""
    if block.as_published and "protocol" in block.model_fields_set and block.protocol != AS_PUBLISHED:
        raise UserError(
            f"--as-published is a protocol of its own, and so is --protocol {block.protocol}",
            expected="one of the two",
        )
    if block.protocol == AS_PUBLISHED and not block.as_published:
        raise UserError(
            f"protocol {AS_PUBLISHED} validates on the labels of the target",
            expected="a protocol that keeps them apart, such as published: the same training without the leak",
            fix="if the leak is what you want to see: --as-published instead (in a plan: `as_published: true`)",
        )


def _check_grid(block: Block) -> None:
    taken = {
        **dict.fromkeys(block.options, "-o"),
        **{f"{name}.{key}": "-O" for name, values in block.objective_options.items() for key in values},
        **{name: "--" + name.replace("_", "-") for name in block.settings.model_fields_set},
        **{name: "--" + name.replace("_", "-") for name in OF_REQUEST if getattr(block, name) is not None},
    }
    for name, values in block.grid.items():
        twice = next((value for value in values if [str(other) for other in values].count(str(value)) > 1), None)
        if name in taken:
            raise UserError(f"{name} is given by {taken[name]} and by --grid", expected="one of the two")
        if twice is not None:
            raise UserError(f"--grid {name} has {twice!r} twice", expected="each value once")


def requests(block: Block, where: Mapping[str, Any]) -> Iterator[Request]:
    """A request for each backbone and each point of the grid.

    Args:
        where: Fields of ``Request`` that say where the data are.

    Raises:
        UserError: If a value of the grid is impossible.
    """
    count = len(block.backbones) * len(block.seeds) * len(block.methods)
    for values in block.grid.values():
        count *= len(values)
    if count > MOST_CELLS:
        raise UserError(f"a block of the plan has {count} cells", expected=f"{MOST_CELLS} at most")
    known = objective_entries()
    several = [name for name, values in block.grid.items() if len(values) > 1]
    for backbone, *point in itertools.product(block.backbones, *block.grid.values()):
        chosen = dict(zip(block.grid, point, strict=True))
        words = [block.name, backbone if len(block.backbones) > 1 else "", *(f"{n}={chosen[n]}" for n in several)]
        settings, fields, options, of_objectives = _sorted_out(block, chosen, known)
        yield Request(
            benchmarks=list(block.benchmarks), methods=list(block.methods), backbone=backbone,
            seeds=list(block.seeds), options=options, objective_options=of_objectives, overrides=settings,
            backbone_sizes=dict(block.backbone_sizes), as_published=block.as_published, oracle=block.oracle,
            protocol=AS_PUBLISHED if block.as_published else block.protocol,
            from_stage=block.from_stage, variant=", ".join(filter(None, words)), **fields, **where,
        )  # fmt: skip


def _sorted_out(
    block: Block, chosen: Mapping[str, Any], known: Collection[str]
) -> tuple[Overrides, dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings, fields of a request, method options and objective options at a point; ``known`` are all objectives."""
    settings = {name: value for name, value in chosen.items() if name in Overrides.model_fields}
    fields: dict[str, Any] = {name: getattr(block, name) for name in OF_REQUEST}
    options = dict(block.options)
    of_objectives = {name: dict(values) for name, values in block.objective_options.items()}
    for name, value in chosen.items():
        if name in settings:
            continue
        objective, _, option = name.rpartition(".")
        if objective in known:  # other methods have options with dots, too
            of_objectives.setdefault(objective, {})[option] = value
        elif name in OF_REQUEST:
            fields[name] = str(value)
        else:
            options[name] = value
    return _overrides(block.settings, settings), fields, options, of_objectives


def _overrides(base: Overrides, changed: Mapping[str, Any]) -> Overrides:
    if not changed:
        return base
    try:
        return Overrides.model_validate({**base.model_dump(exclude_unset=True), **changed})
    except ValidationError as error:
        item = error.errors()[0]
        raise UserError(f"--grid {item['loc'][0]}: {item['msg'].lower()}", expected=f"not {item['input']!r}") from None

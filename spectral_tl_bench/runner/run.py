"""Plan the cells of a run and work through them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectral_tl_bench.benchmarks import Benchmark, resolve
from spectral_tl_bench.data.source import locate, open_index
from spectral_tl_bench.data.windows import SlidingWindows
from spectral_tl_bench.defaults import DEFAULT_BACKBONE
from spectral_tl_bench.endings import check_stopped, contained
from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.backbones.lines import weights_line
from spectral_tl_bench.objectives.registry import check_domains, check_options, in_order, make_objectives
from spectral_tl_bench.protocol.registry import DEFAULT_PROTOCOL, get_protocol
from spectral_tl_bench.protocol.settings import Overrides, make_settings
from spectral_tl_bench.runner.cell import Cell, OpenBenchmark, Outcome, Say, is_foreign, run_cell
from spectral_tl_bench.runner.compatibility import check_pair
from spectral_tl_bench.runner.stages import check_given, open_given
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.trial import fate_of


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        benchmarks: Ids, groups or paths of YAML files.
        methods: Entry-point names, each by itself or with a preset and objectives (``name@preset+objective``).
        options: Method options, for every method of the request; they win over a preset's.
        backbone: Backbone name.
        backbone_sizes: Changed sizes of the backbone.
        weights: Pretrained weights of the backbone; see ``get_backbone``.
        patch_embedding: How its patch embedding comes from them.
        seeds: Seeds.
        data_root: ``--data-root``, if given.
        allow_partial: Whether published data may be incomplete.
        trust_data: Whether links and VRTs may lead out of the data root.
        protocol: Name of the protocol.
        overrides: Changed protocol settings.
        oracle: Also report the oracle checkpoint.
        from_stage: Folder of a trained first stage to start from.
        objective_options: Options of objectives by name, for every method that has the objective.
    """

    benchmarks: Sequence[str]
    methods: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)
    backbone: str = DEFAULT_BACKBONE
    backbone_sizes: dict[str, int] = field(default_factory=dict)
    weights: str | None = None
    patch_embedding: str | None = None
    seeds: Sequence[int] = (0,)
    data_root: Path | None = None
    allow_partial: bool = False
    trust_data: bool = False
    protocol: str = DEFAULT_PROTOCOL
    overrides: Overrides = field(default_factory=Overrides)
    oracle: bool = False
    from_stage: Path | None = None
    objective_options: dict[str, dict[str, Any]] = field(default_factory=dict)


def plan(request: Request, say: Say) -> tuple[list[Cell], list[tuple[str, UserError]]]:
    """Turn a request into cells; every mistake that can be found without training is found here.

    Args:
        request: What the user asked for.
        say: Prints one line.

    Returns:
        The cells, and what cannot run with the reason: benchmarks whose data cannot be used, and benchmarks with a
        method whose objectives need more source domains. The others can run.

    Raises:
        UserError: If a benchmark, method, option, backbone or setting is unknown or impossible.
    """
    chosen = resolve(list(request.benchmarks))
    protocol = get_protocol(request.protocol)
    given = open_given(request.from_stage) if request.from_stage is not None else None
    names = list(dict.fromkeys(in_order(name) for name in request.methods))
    methods = {name: make_method(name, request.options) for name in names}
    check_options(names, request.objective_options)
    objectives = {name: make_objectives(name, request.objective_options) for name in names}
    backbone = get_backbone(request.backbone, request.weights, request.patch_embedding, **request.backbone_sizes)
    say = _once(say)
    if line := weights_line(backbone):
        say(line)
    opened, broken = _open_all(chosen, request, say)
    cells: list[Cell] = []
    for chips in opened:
        settings = make_settings(
            chips.benchmark, chips.chip_size, chips.is_small, backbone, request.overrides, protocol
        )
        say(
            f"training: {settings.budget.steps} steps of {settings.budget.batch_size} windows of {settings.window} px, "
            f"after {settings.budget.pretrain_steps} without labels where a method has such a stage (--budget, --steps)"
        )
        able, refused = _able(
            Cell(chips, name, method, backbone, protocol, settings, seed, request.oracle, given, objectives[name])
            for name, method in methods.items()
            for seed in request.seeds
        )
        broken += refused
        try:
            if given is not None:
                for cell in able:
                    check_given(cell, cell.split(), given)
        except UserError as error:
            broken.append((chips.benchmark.id, error))
            continue
        if given is not None and len(request.seeds) > 1:
            say("the given stage serves all seeds: their spread leaves out what another first stage would change")
        cells += able
    return cells, broken


def _once(say: Say) -> Say:
    """Says each line once."""
    said: set[str] = set()

    def once(line: str) -> None:
        if line not in said:
            said.add(line)
            say(line)

    return once


def _open_all(
    chosen: Sequence[tuple[Benchmark, Path | None]], request: Request, say: Say
) -> tuple[list[OpenBenchmark], list[tuple[str, UserError]]]:
    """The benchmarks whose chips are there and can be cut, and the others with the reason."""
    opened, broken = [], []
    for benchmark, own_folder in chosen:
        try:
            chips = _open(benchmark, own_folder, request)
            for seed in request.seeds:
                chips.split(seed)
        except UserError as error:
            broken.append((benchmark.id, error))
            continue
        say(chips.source.line)
        for note in chips.notes:
            say(f"{benchmark.id}: {note}")
        _say_distances(chips, request.seeds, say)
        opened.append(chips)
    return opened, broken


def _say_distances(chips: OpenBenchmark, seeds: Sequence[int], say: Say) -> None:
    """How far apart the parts are: of the first seed, and of further ones where it is another line."""
    lines: dict[str, int] = {}
    for seed in seeds:
        lines.setdefault(chips.split(seed).distances, seed)
    for line, seed in lines.items():
        say(f"{chips.benchmark.id}{f', seed {seed}' if len(lines) > 1 else ''}: {line}")


def _able(cells: Iterable[Cell]) -> tuple[list[Cell], list[tuple[str, UserError]]]:
    """The cells that can run, and the methods that cannot on a benchmark: for their backbone, or their objectives."""
    able: list[Cell] = []
    refused: dict[str, UserError] = {}
    foreign: dict[str, bool] = {}  # by method: the rest of a request is the same for all cells
    for cell in cells:
        name = f"{cell.method_name} on {cell.opened.benchmark.id}"
        if name in refused:
            continue
        if cell.method_name not in foreign:
            foreign[cell.method_name] = is_foreign(cell)
        if foreign[cell.method_name] and (fate := fate_of(functools.partial(_ask, cell))):
            refused[name] = MethodError(f"when it is asked about its options and stages, {fate}")
            continue
        try:
            with contained():
                _check(cell)
        except UserError as error:
            refused[name] = error
            continue
        except Exception as error:  # whatever a foreign class raises when it is asked about its stages
            refused[name] = MethodError(f"it failed before training: {type(error).__name__}: {error}")
            continue
        able.append(cell)
    return able, list(refused.items())


def _ask(cell: Cell) -> None:
    """All that foreign code is asked in this process, and not in that of its cell."""
    _check(cell)
    cell.identity(cell.split())


def _check(cell: Cell) -> None:
    check_pair(cell.method_name, cell.method, cell.task())
    _check_objectives(cell)
    _check_target_images(cell)
    _check_protocol(cell)


def _check_objectives(cell: Cell) -> None:
    if not cell.objectives:
        return
    domains = cell.opened.index.frame.loc[cell.split().chips("train"), "domain"].astype(str).unique()
    check_domains(cell.method_name, cell.objectives, cell.opened.benchmark.id, sorted(domains))
    names = ", ".join(cell.objectives)
    if cell.method.kept_features() is not None:
        raise UserError(f"{names}: objectives need images, not kept features", fix="leave out cache=true")
    if not any(stage.labelled and stage.fit is None for stage in cell.method.stages(cell.task())):
        raise UserError(
            f"{names}: objectives change training by gradients, of which {cell.method_name} has none with labels",
            fix="run the method without objectives",
        )


def _check_protocol(cell: Cell) -> None:
    if cell.method.kept_features() is not None and type(cell.protocol.pixels.windows) is not SlidingWindows:
        raise UserError(
            f"{cell.method_name}: kept features need the sliding windows of the protocol `strict`, "
            f"{cell.protocol.name} has others",
            fix="leave out cache=true",
        )


def _check_target_images(cell: Cell) -> None:
    if not cell.method.target_images:
        return
    if cell.method.kept_features() is not None:
        raise UserError(f"{cell.method_name}: target images do not go with kept features", fix="leave out cache=true")
    if any(stage.shared for stage in cell.method.stages(cell.task())):
        raise UserError(
            f"{cell.method_name} shares a stage with other runs and asks for target images, which they must not see",
            fix="leave out `shared`, or `target_images`",
        )


def _open(benchmark: Benchmark, own_folder: Path | None, request: Request) -> OpenBenchmark:
    source = replace(locate(benchmark, own_folder, request.data_root), trusted=request.trust_data)
    index, track, notes = open_index(benchmark, source, own_folder is not None, request.allow_partial)
    return OpenBenchmark(benchmark, source, index, track, notes)


def execute(
    cells: Sequence[Cell], out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool = False
) -> list[Outcome]:
    """Run cells one after the other in this process; each leaves its record as soon as it ends."""
    outcomes = []
    for cell in cells:
        check_stopped()
        outcomes.append(run_cell(cell, out, hardware, workers, say, fresh))
        say(closing_line(outcomes[-1], len(outcomes), len(cells)))
    return outcomes


def closing_line(outcome: Outcome, number: int, total: int) -> str:
    """One line on how a cell ended."""
    return f"[{number}/{total}] {outcome.cell.title} | {outcome.line}"

"""Benchmarks as data: read a YAML file, check it, list what there is."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spectral_tl_bench.console import is_file, split_names, user_path
from spectral_tl_bench.errors import BenchmarkError, nearest
from spectral_tl_bench.plugins import imported, offered
from spectral_tl_bench.sensors import Sensor

VOID = 255
"""Label value of pixels without ground truth, everywhere inside the suite."""

YAML = (".yaml", ".yml")

LAYOUTS = "spectral_tl_bench.layouts"
"""The entry-point group of the layouts."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PerBand = Annotated[float, Field(allow_inf_nan=False)] | tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LandCover(_Strict):
    """One class of a benchmark: its name, its colour on maps, and the raw label values that mean it."""

    name: Annotated[str, Field(min_length=1)]
    colour: Colour
    raw: Annotated[tuple[int, ...], Field(min_length=1, description="label values in the files")]
    kind: Literal["vegetation", "water", "bare", "built", "other"] = "other"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as numbers from 0 to 255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue


class Labels(_Strict):
    """How raw label values become classes 0..K-1.

    Attributes:
        classes: The classes, in the order of the logits.
        void: Raw values without ground truth.
        other: What any further raw value is: an error (the default), or void as well.
        align: Where a label lies: where its georeference says, or pixel for pixel on its image whatever that says.
        nodata: What a label file's own nodata value and mask hide: void, or nothing, because they are wrong.
    """

    classes: Annotated[tuple[LandCover, ...], Field(min_length=2, max_length=VOID)]
    void: tuple[int, ...] = ()
    other: Literal["error", "void"] = "error"
    align: Literal["georeference", "pixels"] = "georeference"
    nodata: Literal["void", "ignore"] = "void"

    @model_validator(mode="after")
    def _disjoint(self) -> Labels:
        seen: dict[int, str] = dict.fromkeys(self.void, "void")
        for land_cover in self.classes:
            for value in land_cover.raw:
                if value in seen:
                    raise ValueError(f"raw label {value} means both {seen[value]!r} and {land_cover.name!r}")
                seen[value] = land_cover.name
        names = [land_cover.name for land_cover in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("class names must be unique")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in logit order."""
        return tuple(land_cover.name for land_cover in self.classes)


class Domain(_Strict):
    """One region or season.

    Attributes:
        id: Short name, as found in file names or in the user's table.
        name: Name for people.
        season: Season, where the dataset has one.
        chips: Number of chips in the published dataset, if known.
        lon_lat: Approximate centre in degrees, for maps only; exact footprints come from the files.
        scale: Where its files are in a unit of their own: reflectance = stored value * scale + offset, one number or
            one per band. By default the files' tags say it, or they are in the sensor's unit.
        offset: See ``scale``.
    """

    id: Identifier
    name: str = ""
    season: str = ""
    chips: Annotated[int, Field(ge=0)] | None = None
    lon_lat: tuple[float, float] | None = None
    scale: PerBand | None = None
    offset: PerBand | None = None

    @property
    def has_unit(self) -> bool:
        """Whether the benchmark says in what unit its files are."""
        return self.scale is not None or self.offset is not None

    def unit(self, bands: int, default: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scales and offsets, one per band each.

        Args:
            bands: Number of bands.
            default: The sensor's scale, where only an offset is given.
        """
        scale, offset = (
            value if isinstance(value, tuple) else (float(other if value is None else value),) * bands
            for value, other in ((self.scale, default), (self.offset, 0.0))
        )
        return scale, offset


class LayoutChoice(_Strict):
    """How the chips lie on disk: the name of a layout, and its options, which stand beside it.

    Only the name is known here: layouts are classes of ``spectral_tl_bench.data.layouts`` or of anybody's package,
    and check their options themselves.
    """

    model_config = ConfigDict(extra="allow")

    kind: Annotated[str, Field(min_length=1)]

    @property
    def options(self) -> dict[str, Any]:
        """Values by option name."""
        return dict(self.model_extra or {})


class Split(_Strict):
    """How places are cut.

    Attributes:
        place: ``grid``: square blocks on the ground, from the chips' footprints; ``site``: the table's sites.
        block: Side of a block in metres, for ``grid``.
        validation: Share of the source chips that validation should get.
        test: Only for in-domain references: share of all chips that the test part should get.
    """

    place: Literal["grid", "site"] = "grid"
    block: Annotated[float, Field(gt=0)] = 5_120.0
    validation: Annotated[float, Field(gt=0, lt=0.6)] = 0.2
    test: Annotated[float, Field(gt=0, lt=0.8)] | None = None


class Benchmark(_Strict):
    """One benchmark, complete: everything but the pixels.

    Attributes:
        id: Name on the command line and in records.
        title: One line for people.
        version: Changes whenever a number on this benchmark could change.
        dataset: Dataset name.
        gap: What separates source and target.
        groups: Names under which ``--benchmark`` finds it, besides its id.
        citation: Whom to cite.
        notes: What a reader of its results must know.
        sensor: Bands, wavelengths, units.
        chip_size: Native side of a chip in pixels.
        expected: Published numbers of chips, keyed ``source`` and ``target``.
        layout: Where chips, labels, domains and places come from.
        domains: All domains that occur in ``source`` or ``target``.
        source: Ids of the domains to train on.
        target: Ids of the domains to test on; equal to ``source`` for an in-domain reference.
        labels: Classes and label map.
        split: How validation (and an in-domain test part) is cut.
        nodata: What becomes of values that are no measurement (NaN, nodata, masked): refused; filled with the mean of
            the band; or filled, and their pixels void.
        nodata_in: Whether a file's nodata value counts in any band by itself, or only in all bands of a pixel; by
            default 0, which is often data, only in all, and any other value in any.
        void_chips: Chips without one labelled pixel: an error, or skipped with a notice.
    """

    id: Identifier
    title: str
    version: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    dataset: str
    gap: Literal["region", "season", "none"]
    groups: tuple[Identifier, ...] = ()
    citation: str
    notes: tuple[str, ...] = ()
    sensor: Sensor
    chip_size: Annotated[int, Field(ge=8)]
    expected: dict[Literal["source", "target"], int] = Field(default_factory=dict)
    layout: LayoutChoice
    domains: Annotated[tuple[Domain, ...], Field(min_length=1)]
    source: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    target: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    labels: Labels
    split: Split = Split()
    nodata: Literal["refuse", "fill", "void"] = "refuse"
    nodata_in: Literal["any", "all"] | None = None
    void_chips: Literal["error", "skip"] = "error"

    @field_validator("nodata", mode="before")
    @classmethod
    def _earlier_word(cls, value: object) -> object:
        return "refuse" if value == "error" else value

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        for domain in self.domains:
            for name in ("scale", "offset"):
                value = getattr(domain, name)
                if isinstance(value, tuple) and len(value) != len(self.sensor.bands):
                    raise ValueError(f"{name} of domain {domain.id!r} has {len(value)} numbers, not one per band")
                if name == "scale" and (value == 0 or (isinstance(value, tuple) and 0 in value)):
                    raise ValueError(f"scale of domain {domain.id!r} is 0")
        known = [domain.id for domain in self.domains]
        if len(set(known)) != len(known):
            raise ValueError("domain ids must be unique")
        for side, ids in (("source", self.source), ("target", self.target)):
            unknown = [name for name in ids if name not in known]
            if unknown:
                raise ValueError(f"{side} names domain {unknown[0]!r}, which is not in domains ({', '.join(known)})")
            if len(set(ids)) != len(ids):
                raise ValueError(f"{side} names a domain twice")
        shared = set(self.source) & set(self.target)
        if self.gap == "none":
            if set(self.source) != set(self.target) or self.split.test is None:
                raise ValueError("an in-domain reference (gap: none) needs source equal to target and split.test")
        elif shared:
            raise ValueError(f"domain {sorted(shared)[0]!r} is on both sides; source and target must be disjoint")
        elif self.split.test is not None:
            raise ValueError("split.test is only for in-domain references (gap: none)")
        return self

    def domain(self, name: str) -> Domain:
        """The domain with id ``name``."""
        return next(domain for domain in self.domains if domain.id == name)

    @property
    def nodata_key(self) -> str:
        """``nodata`` as seeds and identities know it: an earlier word stands in them, and they must not move."""
        return "error" if self.nodata == "refuse" else self.nodata

    @property
    def in_domain(self) -> bool:
        """Whether this is a reference without a gap."""
        return self.gap == "none"


def splits_folder() -> Path:
    """The folder of the benchmark definitions: inside the installed package, or at the top of a checkout."""
    installed = Path(str(resources.files("spectral_tl_bench"))) / "splits"
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "splits"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses a key given twice, which plain YAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises ``ConstructorError`` naming a repeated key and its line."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # refused further down, with the line
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def read_benchmark(path: Path) -> Benchmark:
    """Read and check one benchmark definition.

    A published dataset's shared facts (sensor, classes, domains) stand once in a file of their own, which a
    definition names under ``extends`` (a path relative to itself); its own keys take precedence.

    Args:
        path: A YAML file.

    Returns:
        The benchmark.

    Raises:
        BenchmarkError: If the file is missing, is no YAML, or a key is missing, misspelt or contradicts another; also
            if no installed package has the layout, or the layout does not have the options.
    """
    raw = _read_definition(path)
    return _validated(raw, path, _layout_problems(raw))


def _read_definition(path: Path) -> dict[str, Any]:
    raw = _read_yaml(path)
    base = raw.pop("extends", None)
    if base is None:
        return raw
    if not isinstance(base, str):
        raise BenchmarkError("'extends' must name a file", where=path, expected="extends: _facts.yaml")
    return {**_read_yaml(path.parent / base), **raw}


def _validated(raw: dict[str, Any], path: Path, layout_problems: Sequence[str] = ()) -> Benchmark:
    try:
        benchmark, problems = Benchmark.model_validate(raw), list(layout_problems)
    except ValidationError as error:
        benchmark, problems = None, [*_problems(error, Benchmark), *layout_problems]
    if benchmark is not None and not problems:
        return benchmark
    more = f" (and {len(problems) - 6} more)" if len(problems) > 6 else ""
    what = "this benchmark definition has " + ("a mistake" if len(problems) == 1 else f"{len(problems)} mistakes")
    raise BenchmarkError(
        what + ":\n    " + "\n    ".join(problems[:6]) + more,
        where=f"{path} (id {raw.get('id', 'missing')!r})",
        fix="compare with a definition that ships with the suite: `stbench benchmarks show mts12-n2s --yaml`",
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BenchmarkError(f"the benchmark definition cannot be read: {reason}", where=path) from None
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise BenchmarkError(f"this is not valid YAML: {error}", where=path, fix="mend the line named above") from None
    if not isinstance(raw, dict):
        raise BenchmarkError("a benchmark definition is a mapping of keys to values", where=path)
    return raw


def _problems(error: ValidationError, model: type[BaseModel], *above: str) -> list[str]:
    """What is wrong, a line for each key; ``above`` are the keys that lead to the model's own."""
    problems = []
    for item in error.errors():
        location = [*above, *(str(part) for part in item["loc"])]
        key = ".".join(location) or "the file as a whole"
        if item["type"] == "missing":
            problems.append(f"key {key!r} is missing")
        elif item["type"] == "extra_forbidden":
            problems.append(f"key {key!r} is not known: {nearest(location[-1], _known_keys(model, item['loc']))}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = "" if isinstance(item["input"], dict) else f", got {item['input']!r:.80}"
            problems.append(f"key {key!r}: {message[0].lower()}{message[1:]}{shown}")
    return problems


def _layout_problems(raw: dict[str, Any]) -> list[str]:
    """What an installed layout says to its options, without a look at any data."""
    layout, split = raw.get("layout"), raw.get("split")
    if not isinstance(layout, dict) or not isinstance(layout.get("kind"), str):
        return []  # said already
    kind = layout["kind"]
    try:
        entry = offered(kind, LAYOUTS, "layout", BenchmarkError)
    except BenchmarkError as error:
        return [f"key 'layout.kind': {error.what}: {error.expected or error.where} ({error.fix})"]
    model = imported(entry, f"layout {kind!r}", BenchmarkError)
    if not (isinstance(model, type) and issubclass(model, BaseModel)) or inspect.isabstract(model):
        return []  # said when the data are opened, by those who know what a layout is
    problems = []
    if isinstance(split, dict) and split.get("place") == "site" and not getattr(model, "sites", False):
        problems.append(f"key 'split': split.place: site needs a table with sites; layout {kind} has none, use grid")
    try:
        model.model_validate({key: value for key, value in layout.items() if key != "kind"})
    except ValidationError as error:
        problems += _problems(error, model, "layout")
    return problems


def _known_keys(model: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        if isinstance(part, int) or model is None:
            continue
        field = model.model_fields.get(part)
        model = _model_in(field.annotation) if field else None
    return list(model.model_fields) if model is not None and hasattr(model, "model_fields") else []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        model = _model_in(part)
        if model is not None:
            return model
    return None


@functools.cache
def builtin_benchmarks() -> dict[str, Benchmark]:
    """The benchmarks that ship with the suite, by id, in the order of their files."""
    folder = splits_folder()
    # Their layouts are the suite's own, and tested; asking every installed package for each would take a while.
    benchmarks = [_validated(_read_definition(path), path) for path in sorted(folder.glob("[!_]*.yaml"))]
    if not benchmarks:
        raise BenchmarkError("no benchmark definitions were found", where=folder, fix="reinstall spectral-tl-bench")
    return {benchmark.id: benchmark for benchmark in benchmarks}


def groups() -> dict[str, list[str]]:
    """Group names and the ids that each stands for."""
    table: dict[str, list[str]] = {}
    for benchmark in builtin_benchmarks().values():
        for group in benchmark.groups:
            table.setdefault(group, []).append(benchmark.id)
    return table


def resolve(names: list[str]) -> list[tuple[Benchmark, Path | None]]:
    """Turn what the user named into benchmarks.

    Args:
        names: Ids, group names, or paths of YAML files; each may hold several, divided by commas. Commas in the path
            of a file that exists divide nothing.

    Returns:
        Benchmarks without repetition, each with the folder of its file when it is the user's own, else None.

    Raises:
        BenchmarkError: If a name is unknown or a file is not usable.
    """
    table, group_table = builtin_benchmarks(), groups()
    chosen: dict[str, tuple[Benchmark, Path | None]] = {}
    files: dict[str, Path] = {}
    for name in [part for entry in names for part in _parts(entry, {*table, *group_table})]:
        if name in table:
            chosen.setdefault(name, (table[name], None))
        elif name in group_table:
            for member in group_table[name]:
                chosen.setdefault(member, (table[member], None))
        else:
            path = _definition_file(name, {*table, *group_table})
            own = read_benchmark(path)
            if own.id in table or own.id in group_table:
                raise BenchmarkError(
                    f"the id {own.id!r} belongs to the suite", where=name, fix="give your benchmark another id"
                )
            if files.setdefault(own.id, path.resolve()) != path.resolve():
                raise BenchmarkError(f"two benchmarks have the id {own.id!r}", where=name)
            chosen[own.id] = (own, path.resolve().parent)
    if not chosen:
        raise BenchmarkError("no benchmark is named", fix="`stbench benchmarks` lists all")
    return list(chosen.values())


def _parts(entry: str, known: Collection[str]) -> list[str]:
    """Names in an entry; a path with commas that is not there stays whole, so that all of it is shown."""
    parts = split_names(entry)
    strange = [part for part in parts if part not in known and not part.lower().endswith(YAML)]
    whole = strange and entry.strip().lower().endswith(YAML) and not any(map(is_file, parts))
    return [entry.strip()] if whole else parts


def _definition_file(name: str, known: Collection[str]) -> Path:
    """The file of a user's own benchmark.

    Raises:
        BenchmarkError: If a name can be none.
    """
    path = user_path(name)
    if name.lower().endswith(YAML):
        return path
    there = os.path.exists(path)  # noqa: PTH110 - answers where Path.exists raises: for a name that is too long
    if there:
        what = "a folder" if path.is_dir() else "a file whose name does not end in .yaml"
        fix = "give the YAML file in it" if path.is_dir() else "give it a name that ends in .yaml"
        raise BenchmarkError(f"{name!r} is {what}, not the definition of a benchmark", where=path, fix=fix)
    raise BenchmarkError(
        f"there is no benchmark {name!r}",
        expected=nearest(name, known),
        fix="`stbench benchmarks` lists all; your own is given as a path that ends in .yaml",
    )

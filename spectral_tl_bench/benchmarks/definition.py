"""What a benchmark is: everything but the pixels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spectral_tl_bench.benchmarks.scenes import Cut
from spectral_tl_bench.sensors import Sensor

VOID = 255
"""Label value of pixels without ground truth, everywhere inside the suite."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
PerBand = Annotated[float, Field(allow_inf_nan=False)] | tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
FurtherTrack = Literal["aerial", "hyperspectral"]
"""Sets of further benchmarks; their results have boards of their own, of the same names."""
DomainRule = Literal["name", "folder", "table", "geometry"]
"""What says of which domain a chip is: its file's name or folder, a table, or where it lies."""
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
        track: The set of further benchmarks that it belongs to, which ``--benchmark track:NAME`` finds; the suite's
            eight and their references have none.
        citation: Whom to cite.
        notes: What a reader of its results must know.
        sensor: Bands, wavelengths, units.
        chip_size: Native side of a chip in pixels.
        expected: Published numbers of chips, keyed ``source`` and ``target``.
        layout: Where chips, labels, domains and places come from.
        cut: Which published files the chips are cut from by ``stbench data cut``, where they are not chips yet.
        domains: All domains that occur in ``source`` or ``target``.
        domains_by: What names the domain of a chip: one rule, or those of the arrangements in which the data are
            had; data that are named by another rule are refused. By default whatever the layout does.
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
    track: FurtherTrack | None = None
    citation: str
    notes: tuple[str, ...] = ()
    sensor: Sensor
    chip_size: Annotated[int, Field(ge=8)]
    expected: dict[Literal["source", "target"], int] = Field(default_factory=dict)
    layout: LayoutChoice
    cut: Cut | None = None
    domains: Annotated[tuple[Domain, ...], Field(min_length=1)]
    domains_by: tuple[DomainRule, ...] = ()
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

    @field_validator("domains_by", mode="before")
    @classmethod
    def _one_rule(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _cuttable(self) -> Benchmark:
        if self.cut is None:
            return self
        known = [domain.id for domain in self.domains]
        unknown = [scenes.domain for scenes in self.cut.scenes if scenes.domain not in known]
        if unknown:
            raise ValueError(f"cut names domain {unknown[0]!r}, which is not in domains ({', '.join(known)})")
        wrong = [scenes for scenes in self.cut.scenes if scenes.bands and len(scenes.bands) != len(self.sensor.bands)]
        if wrong:
            raise ValueError(f"cut takes {len(wrong[0].bands or ())} bands of {wrong[0].domain}, not the sensor's")
        if not self.labels.void:
            raise ValueError("cut fills chips up with void, so labels.void has to name a value")
        return self

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

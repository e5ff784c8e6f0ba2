"""What an audit found, as the JSON that it is kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import write_json

GAP, NULL = "source-target", "train-validation"
"""Pairs of sides: what the benchmark asks about, and what it is to be held against."""

VERSION = 1
Basis = Literal["reproduced", "partial", "sample", "demonstration", "aerial", "hyperspectral", "definition"]
"""The track of the data; ``definition`` where only the benchmark's definition was looked at, and no data."""

Count = Annotated[int, Field(ge=0)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SharedGround(_Facts):
    """Two chips that share ground: their names, square kilometres, and the share of the smaller one's area."""

    one: str
    other: str
    km2: float
    share: float


class Ground(_Facts):
    """How two sides lie to each other.

    Attributes:
        unknown: Why nothing is known; empty where it is.
        exact: False where places are approximate, as the centres of cities are.
        what: What was compared: ``chips``, ``tiles`` or ``domains``.
        sharing: Pairs that share ground.
        shared_km2: Square kilometres that they share; those of several pairs are counted once for each.
        adjacent: Pairs that touch without sharing ground.
        touching: How many of the second side touch or share ground with the first.
        nearest_m: Metres to the nearest of the first side, over the second: min, q05, q25, median, q75, max.
        nearest_pair: The two that are nearest to each other.
        worst: The pairs that share most.
    """

    unknown: str = ""
    exact: bool = True
    what: str = "chips"
    sharing: Count = 0
    shared_km2: float = 0.0
    adjacent: Count = 0
    touching: Count = 0
    nearest_m: dict[str, float] = Field(default_factory=dict)
    nearest_pair: tuple[str, str] | None = None
    worst: tuple[SharedGround, ...] = ()


class Alike(_Facts):
    """Two chips that look alike: correlation of what they look like in coarse pixels; exact where all pixels agree."""

    one: str
    other: str
    exact: bool
    correlation: float


class Copies(_Facts):
    """Chips of two sides that are copies of each other, and the pairs that are most alike."""

    exact: Count
    near: Count
    worst: tuple[Alike, ...] = ()


class Priors(_Facts):
    """Class shares of two sides.

    Attributes:
        one: Labelled pixels per class of the first side.
        other: Of the second.
        jensen_shannon: Distance, to the base 2: 0 for equal shares, 1 for none in common; None without pixels.
        only_one: Classes that only the first side has.
        only_other: Classes that only the second side has.
        labelled: Share of all pixels that have a class, on both sides; None if unknown.
    """

    one: tuple[Count, ...]
    other: tuple[Count, ...]
    jensen_shannon: float | None
    only_one: tuple[str, ...]
    only_other: tuple[str, ...]
    labelled: tuple[float, float] | None = None


class BandShift(_Facts):
    """How far apart a band's values lie on two sides, in the benchmark's unit.

    Attributes:
        wasserstein: Distance of the two distributions.
        in_std: The same in standard deviations of the first side; None where that is constant.
        mean_shift: Mean of the second side less that of the first.
        by_shares: What the second side's class shares alone would shift the mean by: each class with its mean spectrum
            on the first side, classes without one left out. None where that is not known.
    """

    wasserstein: float
    in_std: float | None
    mean_shift: float
    by_shares: float | None = None


class ClassShift(_Facts):
    """The mean spectra of a class on both sides.

    Attributes:
        name: Of the class.
        pixels: On the source side and the target's.
        source: Mean value per band; None where nothing is measured.
        target: Likewise; empty, like ``source``, where a side has too few pixels.
        in_std: Mean over bands of the size of the shift, in the class's own standard deviations in the source.
        angle: Degrees between both spectra: no brightness of the whole spectrum changes it.
        band: Number of the band that is shifted most.
    """

    name: str
    pixels: tuple[Count, Count]
    source: tuple[float | None, ...] = ()
    target: tuple[float | None, ...] = ()
    in_std: float | None = None
    angle: float | None = None
    band: int | None = None


class Told(_Facts):
    """How well a linear classifier of single pixels' spectra tells two sides apart, on places that it has not seen.

    Attributes:
        unknown: Why this was not measured; empty where it was.
        pixel_auc: Area under the ROC curve by pixel: 0.5 is chance.
        chip_auc: By chip, whose score is the mean over its pixels.
        accuracy: Share of the chips that are told right, each side counting one half: 0.5 is chance.
        places: Places of the first and of the second side.
        folds: Parts that were each tested once.
        pixel_chance: Least and largest area by pixel where places were dealt out to the sides at random.
        chip_chance: Likewise by chip.
        deals: How often they were.
    """

    unknown: str = ""
    pixel_auc: float | None = None
    chip_auc: float | None = None
    accuracy: float | None = None
    places: tuple[Count, Count] = (0, 0)
    folds: Count = 0
    pixel_chance: tuple[float, float] | None = None
    chip_chance: tuple[float, float] | None = None
    deals: Count = 0


class Method(_Facts):
    """How much of a method's drop the class shares explain; values are mIoU, means over seeds.

    Attributes:
        label: The method.
        protocol: By which it was trained and tested.
        seeds: Of the records.
        validation: On source validation.
        target: On the target.
        reweighted: What the behaviour on the target would give with the class shares of source validation.
        left_out: Classes of source validation that the target lacks, so that nothing is known of them.
    """

    label: str
    protocol: str
    seeds: tuple[int, ...]
    validation: float | None
    target: float
    reweighted: float | None
    left_out: tuple[str, ...] = ()


class Pixels(_Facts):
    """What the pixels say.

    Attributes:
        per_chip: Pixels that were taken of each chip at most, for bands.
        source: Pixels that were taken on the source side.
        target: On the target's.
        copies: By pair of sides, as ``Audit.ground``.
        bands: Of source and target, per band; None for a band that a side has no measurement of.
        null_bands: Of training and validation.
        classes: Of source and target.
        told: By pair of sides.
    """

    per_chip: Count
    source: Count
    target: Count
    copies: dict[str, Copies]
    bands: tuple[BandShift | None, ...]
    null_bands: tuple[BandShift | None, ...]
    classes: tuple[ClassShift, ...]
    told: dict[str, Told]


class Audit(_Facts):
    """What separates source and target of a benchmark, and training and validation within its source.

    Attributes:
        basis: What was looked at.
        benchmark_version: Of the benchmark's definition.
        manifest: By which records name the same data; empty without data.
        seed: Of the cut into training and validation.
        chips: Number of chips by role.
        ground: By pair of sides: ``source-target`` and ``train-validation``.
        faults: What must not be: ground or chips on both sides.
        about: What the benchmark's definition says about itself.
        broken: Chips that could not be read, with the reason.
        priors: By pair of sides; empty without data.
        pixels: None where no pixel was read.
        methods: Of records that were given.
        method_notes: What is missing there, and why.
    """

    version: Literal[1] = 1
    benchmark: str
    title: str
    benchmark_version: str = ""
    basis: Basis
    manifest: str = ""
    seed: int = 0
    unit: str
    scale: float
    band_names: tuple[str, ...]
    wavelengths: tuple[float, ...]
    class_names: tuple[str, ...]
    class_colours: tuple[str, ...]
    chips: dict[str, Count]
    ground: dict[str, Ground]
    faults: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    broken: dict[str, str] = Field(default_factory=dict)
    priors: dict[str, Priors] = Field(default_factory=dict)
    pixels: Pixels | None = None
    methods: tuple[Method, ...] = ()
    method_notes: tuple[str, ...] = ()


def write_audit(audit: Audit, path: Path) -> None:
    """Write an audit as JSON; floats have the digits that say something."""
    write_json(path, _rounded(audit.model_dump(mode="json")))


def read_audit(path: Path) -> Audit:
    """Read what ``write_audit`` wrote.

    Raises:
        DataError: If it is none.
    """
    try:
        return Audit.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"the audit cannot be read: {error.strerror}", where=path) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"this is no audit: {key}: {first['msg']}", where=path, fix="make it again: stbench data audit"
        ) from None


def _rounded(value: object) -> object:
    """Six digits: the last ones of a sum depend on the processor."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value

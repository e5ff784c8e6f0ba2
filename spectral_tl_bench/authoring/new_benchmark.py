"""A benchmark's YAML and table of chips, from what a folder says and what its owner adds."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from spectral_tl_bench.authoring.folder import SUFFIXES, Chip, Seen, words_of
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import write_text
from spectral_tl_bench.maps.scene import plain_name

TABLE = "chips.csv"
MOST_DOMAINS = 20
_SOURCE_WORDS = ("source", "train", "training", "src")
_DOMAIN_WORDS = ("domain", "region", "season", "area", "country", "city", "valley", "state", "zone", "split")
_SEASONS = frozenset({"spring", "summer", "autumn", "fall", "winter", "jan", "feb", "mar", "apr", "may", "jun", "jul",
                      "aug", "sep", "oct", "nov", "dec"})  # fmt: skip
_BANDS = {
    "coastal": 0.443, "blue": 0.49, "green": 0.56, "red": 0.665, "rededge": 0.705, "nir": 0.842, "nir08": 0.865,
    "nirnarrow": 0.865, "swir1": 1.61, "swir16": 1.61, "swir2": 2.19, "swir22": 2.19, "cirrus": 1.375,
}  # fmt: skip
"""Centre wavelengths that a name stands for whatever the sensor, in micrometres."""
_SENTINEL_2 = {
    "b1": 0.443, "b2": 0.49, "b3": 0.56, "b4": 0.665, "b5": 0.705, "b6": 0.74, "b7": 0.783, "b8": 0.842, "b8a": 0.865,
    "b9": 0.945, "b10": 1.375, "b11": 1.61, "b12": 2.19,
}  # fmt: skip
_PALETTE = (
    "#1f5fc0", "#0b6623", "#e3cf57", "#c2272d", "#b98b5e", "#8ed14f", "#5f9ea0", "#a3a847", "#7a3fa0", "#f08030",
    "#d46fb0", "#606060", "#20b2aa", "#f0c0a0", "#405020", "#90a0f0",
)  # fmt: skip
_KINDS = {
    "vegetation": ("forest", "tree", "grass", "crop", "shrub", "veget", "agricult", "meadow", "orchard", "vineyard"),
    "water": ("water", "river", "lake", "sea", "ocean"),
    "built": ("built", "urban", "building", "road", "impervious", "settlement", "roof"),
    "bare": ("bare", "barren", "soil", "sand", "rock"),
}


@dataclass(frozen=True)
class Domains:
    """A way to tell the chips' domains.

    Attributes:
        how: ``table``, ``folder``, ``name``, ``crs`` or ``none``.
        words: The same for people.
        of: Domain of each chip, in the order of the chips.
    """

    how: str
    words: str
    of: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Chips by domain, the most first."""
        return dict(Counter(self.of).most_common())


@dataclass(frozen=True)
class Answers:
    """What no file says.

    Attributes:
        domains: How the chips' domains are told.
        source: Domains to train on.
        target: Domains to test on; those of ``source`` for an in-domain reference.
        gap: region, season or none.
        gsd: Side of a pixel in metres.
        unit: What a pixel value means.
        scale: Reflectance = value * scale.
        wavelengths: Centres in micrometres, one per band.
        evenly: Whether only the range of the wavelengths is known.
        classes: Raw values by name, in order.
        void: Label values without ground truth.
        nodata: What becomes of values that are no measurement: refuse, fill or void.
    """

    id: str
    title: str
    citation: str
    domains: Domains
    source: tuple[str, ...]
    target: tuple[str, ...]
    gap: str
    gsd: float
    unit: str
    scale: float
    bands: tuple[str, ...]
    wavelengths: tuple[float, ...]
    evenly: bool
    classes: Mapping[str, tuple[int, ...]]
    void: tuple[int, ...]
    nodata: str


def ways_to_domains(seen: Seen) -> list[Domains]:
    """The ways in which the chips' domains may be told, the most telling first; the last one is to have none."""
    found = []
    for path in sorted(seen.folder.glob("*.csv")):
        if (told := _by_table(path, seen.chips)) is not None:
            found.append(told)
    depth = max(len(chip.parts) for chip in seen.chips) - 1
    for level in range(depth):
        told_by = tuple(chip.parts[level] if len(chip.parts) - 1 > level else "" for chip in seen.chips)
        if _telling(told_by):
            found.append(Domains("folder", "by their folders", told_by))
            break
    names = [words_of(chip.parts[-1]) for chip in seen.chips]
    for position in range(min(map(len, names))):
        said = tuple(words[position] for words in names)
        if _telling(said) and not any(word.isdigit() for word in said):
            found.append(Domains("name", f"by word {position + 1} of their names", said))
            break
    if "" not in seen.crs and _telling(seen.crs):
        found.append(Domains("crs", "by their CRS", tuple(identifier(crs[:60]) for crs in seen.crs)))
    unique = {told.of: told for told in reversed(found)}  # the same division twice is one
    kept = [told for told in found if unique[told.of] is told]
    return [*kept, Domains("none", "all in one: an in-domain reference", ("all",) * len(seen.chips))]


def _telling(domains: Sequence[str]) -> bool:
    counts = Counter(domains)
    return 2 <= len(counts) <= MOST_DOMAINS and "" not in counts and min(counts.values()) >= 2


def _by_table(path: Path, chips: Sequence[Chip]) -> Domains | None:
    """What a table of the owner's says: a column that names every chip, and one that divides them."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    columns = [name for name in (rows[0] if rows else {}) if name]
    for key in columns:
        lines = {_stem(str(row[key] or "")): row for row in rows}
        found = [next((lines[name] for name in _names_of(chip) if name in lines), None) for chip in chips]
        told = [row for row in found if row is not None]
        if len(told) < len(chips):
            continue
        others = [name for name in columns if name != key]
        others.sort(key=lambda name: next((at for at, word in enumerate(_DOMAIN_WORDS) if word in name.lower()), 99))
        for column in others:
            domains = tuple(identifier(str(row[column] or "")) for row in told)
            if _telling(domains):
                return Domains("table", f"by the column {column} of {path.name}", domains)
    return None


def _stem(text: str) -> str:
    path = PurePosixPath(text.replace("\\", "/"))
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _names_of(chip: Chip) -> tuple[str, ...]:
    return (chip.name, PurePosixPath(chip.image).stem, PurePosixPath(chip.label).stem)


def identifier(text: str) -> str:
    """Text as a domain or a benchmark may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64]


def usual_source(domains: Domains) -> str:
    """The domain that is trained on where nobody says: one that is called so, else that with the most chips."""
    counts = domains.counts
    named = [name for word in _SOURCE_WORDS for name in counts if word in words_of(name)]
    return named[0] if named else next(iter(counts))


def usual_gap(domains: Domains) -> str:
    """``season`` where all domains are called like seasons or months, ``none`` where there is one."""
    if len(domains.counts) == 1:
        return "none"
    return "season" if all(set(words_of(name)) & _SEASONS for name in domains.counts) else "region"


def usual_unit(seen: Seen) -> tuple[str, float]:
    """A guess at the unit of the pixels, and the scale to reflectance."""
    if seen.scale is not None:
        return "as tagged in the files", seen.scale
    if seen.dtype == "uint8":
        return "8-bit values", 1 / 255
    if seen.dtype.startswith("float"):
        return ("reflectance", 1.0) if seen.highest <= 2 else ("reflectance x 10000", 0.0001)
    return "reflectance x 10000", 0.0001


def usual_void(seen: Seen) -> tuple[int, ...]:
    """What the label files call nodata, and 255 or a negative value beside small class numbers."""
    values = set(seen.values)
    odd = {value for value in values if value < 0} | ({255} & values if len(values) < 100 else set())
    return tuple(sorted((seen.hidden & values) | odd))


def known_wavelengths(seen: Seen) -> tuple[float, ...] | None:
    """Wavelengths that the files say, or that the names of their bands stand for; None where one is not known."""
    plain = [plain_name(name) for name in seen.bands]
    numbered = all(name in _SENTINEL_2 for name in plain) and len(set(plain)) == len(plain)
    found: list[float] = []
    for wave, name in zip(seen.wavelengths, plain, strict=True):
        known = _SENTINEL_2.get(name) if numbered else _BANDS.get(name)
        value = wave if wave is not None else known
        if value is None:
            return None
        found.append(value)
    return tuple(found)


def band_names(seen: Seen) -> tuple[str, ...]:
    """As the files name them, else by number."""
    return seen.bands if all(seen.bands) and len(set(seen.bands)) == len(seen.bands) else tuple(
        f"b{number + 1}" for number in range(len(seen.bands))
    )  # fmt: skip


def definition_of(seen: Seen, answers: Answers) -> dict[str, Any]:
    """The definition, as it stands in the YAML."""
    placed = "" not in seen.crs
    names = [*answers.source, *(name for name in answers.target if name not in answers.source)]
    bands: Any = [
        {"name": name, "wavelength": wave} for name, wave in zip(answers.bands, answers.wavelengths, strict=True)
    ]
    if answers.evenly:
        bands = {"number": len(bands), "first": answers.wavelengths[0], "last": answers.wavelengths[-1]}
    classes = [
        {"name": name, "colour": _colour(seen, raw, number), "raw": list(raw), **_kind(name)}
        for number, (name, raw) in enumerate(answers.classes.items())
    ]
    split: dict[str, Any] = {"place": "grid", "block": _block(seen, answers)} if placed else {"place": "site"}
    split["validation"] = 0.2
    split |= {"test": 0.25} if answers.gap == "none" else {}
    definition: dict[str, Any] = {
        "id": answers.id, "title": answers.title, "version": "1.0", "dataset": answers.id, "gap": answers.gap,
        "citation": answers.citation,
        "sensor": {"name": "unnamed", "gsd": answers.gsd, "unit": answers.unit, "scale": answers.scale, "bands": bands},
        "chip_size": min(seen.size),
        "layout": {"kind": "table", "table": TABLE, "image": "{image}", "label": "{label}", "chip": "chip",
                   "domain": "domain", **({} if placed else {"site": "site"})},
        "domains": [{"id": name} for name in names],
        "domains_by": "table", "source": list(answers.source), "target": list(answers.target),
        "labels": {"void": list(answers.void), "classes": classes},
        "split": split,
    }  # fmt: skip
    if answers.nodata != "refuse":
        definition["nodata"] = answers.nodata
    if any(values <= set(answers.void) for values in seen.only):
        definition["void_chips"] = "skip"
    return definition


def rows_of(seen: Seen, answers: Answers) -> list[dict[str, str]]:
    """The table of chips: those of the domains that take part."""
    used = {*answers.source, *answers.target}
    sites = _sites(seen.chips)
    return [
        {"chip": chip.name, "image": chip.image, "label": chip.label, "domain": domain, "site": site}
        for chip, domain, site in zip(seen.chips, answers.domains.of, sites, strict=True)
        if domain in used
    ]


def write_benchmark(definition: Mapping[str, Any], rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Write table and definition, the table first.

    Args:
        definition: As ``definition_of`` makes it.
        rows: As ``rows_of`` makes them.
        path: The YAML file; the table goes beside it.

    Raises:
        DataError: If there are no rows.
    """
    if not rows:
        raise DataError("no chip is of a domain that takes part", where=path)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path.parent / TABLE, table.getvalue())
    head = "# Made by `stbench init-benchmark`; every key is explained in docs/bring-a-benchmark.md.\n"
    write_text(
        path,
        head
        + yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None),
    )


def _sites(chips: Sequence[Chip]) -> list[str]:
    """What chips come from, by their names: a name without its last numbers, else the chip itself."""
    sites = ["-".join((*chip.parts[:-1], re.sub(r"([_\W]*\d+)+$", "", chip.parts[-1]))) for chip in chips]
    if len(set(sites)) >= max(4, len(chips) // 50) and all(sites):
        return sites
    return [chip.name for chip in chips]


def _block(seen: Seen, answers: Answers) -> float:
    """Side of a block of ground in metres: some chips wide."""
    return float(max(100.0, round(4 * min(seen.size) * answers.gsd, -1)))


def _colour(seen: Seen, raw: Sequence[int], number: int) -> str:
    return next((seen.colours[value] for value in raw if value in seen.colours), _PALETTE[number % len(_PALETTE)])


def _kind(name: str) -> dict[str, str]:
    lower = name.lower()
    return next(({"kind": kind} for kind, words in _KINDS.items() if any(word in lower for word in words)), {})

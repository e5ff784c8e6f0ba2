"""The ground truth of benchmarks, counted from the data once: what the rows of every confusion matrix must add up to.

A truth names the target's chips with their places and the labelled pixels of each class, and the division into
training, validation and target for a number of seeds. With it a record is checked where the data are not at hand.
"""

from __future__ import annotations

import csv
import io
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.files import digest, write_json, write_text
from spectral_tl_bench.leaderboard.submit.rules import resized_to
from spectral_tl_bench.leaderboard.submit.text import quoted
from spectral_tl_bench.results.evidence import Evidence
from spectral_tl_bench.results.schema import Count, Name, Record, Text

ABOUT_FILE = "about.json"
CHIPS_FILE = "chips.csv"
KEPT_SEEDS = tuple(range(10))
_FIRST_COLUMNS = ("chip", "domain", "site")

Rows = dict[str, tuple[str, str, tuple[int, ...]]]
"""Domain, place and pixels per class by chip."""


class SplitFacts(BaseModel):
    """The division that belongs to one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Count
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    train: Count
    validation: Count
    target: Count
    majority_class: Count


class Truth(BaseModel):
    """The ground truth of one benchmark in one version, on data with one manifest.

    Attributes:
        manifest: Hash of what the chips hold, as in ``DataFacts.manifest_hash``.
        kind: ``sample`` for synthetic scenes.
        classes: Names of its classes.
        chip_side: Shorter side of a chip, pixels.
        splits: By seed.
        chips_hash: Hash of ``rows``, so that the two files of a truth belong together.
        rows: The target's chips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: Name
    version: Annotated[str, Field(pattern=r"^\d+\.\d+$")]
    manifest: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    kind: Literal["sample", "files"]
    classes: tuple[Text, ...]
    chip_side: Annotated[int, Field(ge=8)]
    splits: tuple[SplitFacts, ...]
    chips_hash: str
    rows: Rows = Field(exclude=True)

    @cached_property
    def by_seed(self) -> dict[int, SplitFacts]:
        """Divisions by seed."""
        return {facts.seed: facts for facts in self.splits}

    @cached_property
    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Pixels per class (K,) by chip."""
        return {chip: np.array(pixels, dtype=np.int64) for chip, (_, _, pixels) in self.rows.items()}


def rows_hash(rows: Rows) -> str:
    """A hash of a truth's chips."""
    return digest([[chip, *rows[chip][:2], list(rows[chip][2])] for chip in sorted(rows)])


def truth_folder(root: Path, truth: Truth) -> Path:
    """Where a truth is kept."""
    return root / truth.benchmark / f"{truth.version}-{truth.manifest[:16]}"


def write_truth(truth: Truth, root: Path) -> Path:
    """Keep a truth below ``root``; a small CSV that a maintainer can read, and a JSON."""
    folder = truth_folder(root, truth)
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([*_FIRST_COLUMNS, *range(len(truth.classes))])
    for chip in sorted(truth.rows):
        domain, site, pixels = truth.rows[chip]
        table.writerow([chip, domain, site, *pixels])
    write_text(folder / CHIPS_FILE, stream.getvalue())
    write_json(folder / ABOUT_FILE, truth.model_dump(mode="json"))
    return folder


def read_truth(folder: Path) -> Truth:
    """Read one truth.

    Raises:
        RecordError: If it cannot be read, or its files do not belong together.
    """
    import json

    try:
        about = json.loads((folder / ABOUT_FILE).read_text(encoding="utf-8"))
        with (folder / CHIPS_FILE).open(encoding="utf-8", newline="") as stream:
            head, *lines = list(csv.reader(stream))
        number = len(about["classes"])
        if head != [*_FIRST_COLUMNS, *map(str, range(number))]:
            raise ValueError(f"{CHIPS_FILE} has the columns {quoted(', '.join(head))}")
        rows = {line[0]: (line[1], line[2], tuple(int(count) for count in line[3:])) for line in lines}
        truth = Truth.model_validate({**about, "rows": rows})
    except (OSError, ValueError, KeyError, IndexError, TypeError, ValidationError) as error:
        raise RecordError(f"this ground truth cannot be read: {quoted(error, 200)}", where=folder) from None
    wrong = any(len(pixels) != number or min(pixels) < 0 for _, _, pixels in truth.rows.values())
    if wrong or len(rows) != len(lines) or rows_hash(truth.rows) != truth.chips_hash:
        raise RecordError(f"{CHIPS_FILE} is not the one that {ABOUT_FILE} was written with", where=folder)
    if folder != truth_folder(folder.parent.parent, truth):
        raise RecordError("the folder of this ground truth is not called after its content", where=folder)
    return truth


def read_truths(root: Path | None) -> dict[tuple[str, str, str], Truth]:
    """All truths below a folder, by benchmark, version and manifest.

    Raises:
        RecordError: If one cannot be read.
    """
    paths = sorted(root.glob(f"*/*/{ABOUT_FILE}")) if root is not None else []
    truths = [read_truth(path.parent) for path in paths]
    return {(truth.benchmark, truth.version, truth.manifest): truth for truth in truths}


def check_against(record: Record, evidence: Evidence, truth: Truth) -> list[str]:
    """Where evidence says something else than the ground truth."""
    chips = set(evidence.chips)
    missing, unknown = sorted(truth.rows.keys() - chips), sorted(chips - truth.rows.keys())
    if missing or unknown:
        first = f"{quoted(missing[0])} is missing" if missing else f"{quoted(unknown[0])} is not one of them"
        return [
            f"the evidence has {len(chips):,} chips, the target of {record.benchmark} has {len(truth.rows):,}: {first}"
        ]
    wanted = np.stack([truth.counts[chip] for chip in evidence.chips])
    problems: list[str] = []
    if (side := resized_to(record)) is not None:
        wanted, problems = _resized(evidence, wanted, side)
    for checkpoint, matrices in evidence.matrices.items():
        # No entry may exceed its row: else sums of int64 could wrap around to the right number.
        wrong = (matrices.sum(axis=2) != wanted).any(axis=1) | (matrices > wanted[:, :, None]).any(axis=(1, 2))
        if wrong.any():
            number = int(np.argmax(wrong))
            problems.append(
                f"{int(wrong.sum()):,} confusion matrices ({checkpoint}) do not have the ground truth's pixels per "
                f"class, for example chip {quoted(evidence.chips[number])}: rows add up to "
                f"{quoted(matrices[number].sum(axis=1).tolist(), 160)}, the ground truth has "
                f"{quoted(wanted[number].tolist(), 160)}"
            )
    for chip, domain, site in zip(evidence.chips, evidence.domains, evidence.sites, strict=True):
        if (domain, site) != truth.rows[chip][:2]:
            problems.append(
                f"chip {quoted(chip)} is said to lie in {quoted(domain)}, {quoted(site)}; it lies in "
                f"{quoted(truth.rows[chip][0])}, {quoted(truth.rows[chip][1])}"
            )
            break
    return problems


def _resized(evidence: Evidence, counts: np.ndarray[Any, Any], side: int) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The pixels per class (chips, K) of labels that were resized, as the evidence has them, if they can be right.

    How many there are of a class is not known without the data; but resizing to the nearest pixel makes up no class.
    """
    selected = evidence.matrices["selected"]
    if (selected > side**2).any():  # sums could wrap around
        return counts, [f"a confusion matrix counts more pixels than the {side} x {side} of a resized chip"]
    found = selected.sum(axis=2)
    odd = ((found > 0) & (counts == 0)).any(axis=1) | (found.sum(axis=1) > side**2)
    if not odd.any():
        return found, []
    number = int(np.argmax(odd))
    return found, [
        f"{int(odd.sum()):,} confusion matrices cannot be of the ground truth resized to {side} x {side} px, for "
        f"example chip {quoted(evidence.chips[number])}: {quoted(found[number].tolist(), 160)} pixels per class, the "
        f"ground truth has {quoted(counts[number].tolist(), 160)}"
    ]


def check_split(record: Record, truth: Truth) -> list[str]:
    """Where a record's division of the chips is another than the ground truth's; nothing for seeds that it lacks."""
    facts = truth.by_seed.get(record.seed)
    if facts is None or record.data is None:
        return []
    values: dict[str, tuple[object, object]] = {"data.split_hash": (record.data.split_hash, facts.hash)}
    for role in ("train", "validation", "target"):
        values[f"data.chips.{role}"] = (getattr(record.data.chips, role), getattr(facts, role))
    if record.majority_class is not None:
        values["majority_class"] = (record.majority_class, facts.majority_class)
    return [
        f"key '{key}' is {quoted(value)}, for seed {record.seed} it is {quoted(wanted)}"
        for key, (value, wanted) in values.items()
        if value != wanted
    ]


def same_pixels(truth: Truth, other: Truth) -> bool:
    """Whether two truths have the same chips, places, and pixels per class."""
    return truth.classes == other.classes and truth.rows == other.rows

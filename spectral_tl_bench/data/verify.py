"""A copy of a dataset looked through: every file that is broken, every count, every band, and what there is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import complain
from spectral_tl_bench.data.checks import CHECKS, drop_void_chips, fail, notes_on
from spectral_tl_bench.data.copies import check_copies, check_one_file_each
from spectral_tl_bench.data.domains import with_domains
from spectral_tl_bench.data.index import build_index, look_at_all
from spectral_tl_bench.data.labels import LabelMap
from spectral_tl_bench.data.layouts import ChipFiles, FolderLayout, check_sides, gathering, layout_of
from spectral_tl_bench.data.odd_chips import odd_chips
from spectral_tl_bench.data.physics import Finding, band_physics, chips_in_another_unit
from spectral_tl_bench.data.source import DataSource, other_size
from spectral_tl_bench.data.sources.progress import Say
from spectral_tl_bench.data.units import suspicions
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import write_json

MANIFEST = "stbench-manifest-{benchmark}.json"
"""Its name in the folder of a dataset."""


@dataclass(frozen=True)
class Verdict:
    """What was found in a copy of a dataset.

    Attributes:
        base: The dataset's own folder.
        frame: Rows of the chips that can be used, by name.
        broken: Rows of the others: chip, image, problem; those of one kind stand together.
        counts: (domain, chips, published) for each domain; None where it is not known how many were published. Empty
            where the domains of the chips are not known.
        faults: What contradicts the benchmark, apart from broken files.
        notes: What is no fault, and should be known.
        findings: What the bands look like, by domain.
        digest: By which records name what a sound copy holds (``data.manifest``); empty for others.
    """

    base: Path
    frame: pd.DataFrame
    broken: pd.DataFrame
    counts: list[tuple[str, int, int | None]]
    faults: list[str]
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (len(self.broken) or self.faults or any(finding.fault for finding in self.findings))

    def manifest(self) -> dict[str, Any]:
        """What the copy holds: a hash of the pixels of every chip, and the one by which records name all of them."""
        names = {"domain": "domain", "image": "image", "label": "label", "pixels": "content"}
        chips = {
            str(chip): {name: str(row[column]) for name, column in names.items()}
            for chip, row in self.frame.sort_index().iterrows()
        }
        return {"version": 1, "manifest": self.digest, "chips": chips}


def verify(benchmark: Benchmark, source: DataSource, say: Say = complain) -> Verdict:
    """Open every file of a benchmark and hold it against what the benchmark says.

    Files that cannot be used are listed, and the others are looked at all the same. A second call opens only files that
    have changed.

    Args:
        benchmark: The benchmark.
        source: Where its chips are.
        say: Prints one line, about how far it is.

    Raises:
        DataError: If nothing can be looked at: the dataset is not there.
    """
    with gathering() as refused:
        base, frame, broken = look_at_all(benchmark, source.root, trusted=source.trusted, say=say)
    faults: list[str] = [_in_lines(error, base) for error in refused]

    def hold(look: Callable[[], Any]) -> Any:
        try:
            return look()
        except DataError as error:
            if (line := _in_lines(error, base)) not in faults:
                faults.append(line)
        return None

    frame, broken = frame.set_index("chip"), broken.sort_values(["fault", "problem", "image"])
    placed = hold(lambda: with_domains(benchmark, base, frame, source.domains))
    if placed is None:
        return Verdict(base, frame, broken, [], faults, [])
    frame, notes = placed[0], list(placed[1])
    used = [domain for domain in benchmark.domains if domain.id in {*benchmark.source, *benchmark.target}]
    counts = [(domain.id, int((frame["domain"] == domain.id).sum()), domain.chips) for domain in used]
    published = source.kind == "files" and layout_of(benchmark).published
    if published:
        faults += _missing(benchmark, counts)
    hold(lambda: check_sides(benchmark, base, frame["domain"]))
    usual = frame[frame["bands"] == len(benchmark.sensor.bands)]
    if len(frame):
        files = [ChipFiles(str(chip), "", "", row["image"], row["label"]) for chip, row in frame.iterrows()]
        hold(lambda: check_one_file_each(base, files))
        if published:
            faults += hold(lambda: other_size(benchmark, base, frame)) or []
        for one in (*CHECKS, _check_types):
            hold(functools.partial(one, benchmark, base, frame))
        notes += _strange_labels(benchmark, frame)
    if len(usual):
        notes += hold(lambda: check_copies(benchmark, base, usual)) or []
        notes += (hold(lambda: drop_void_chips(benchmark, base, usual)) or ((), (), []))[2]
        notes += [*notes_on(benchmark, usual), *suspicions(benchmark, usual)]
    findings = band_physics(benchmark, usual)
    clear = usual[~usual["domain"].isin([finding.domain for finding in findings if finding.fault])]
    alien, blank = chips_in_another_unit(benchmark, clear)
    if alien:
        hold(lambda: fail(
            f"{len(alien)} of {len(clear)} images are in another unit than the others of their domain", base, alien,
            alien.values(), expected=benchmark.sensor.unit, fix="get these files again",
        ))  # fmt: skip
    if odd := odd_chips(benchmark, clear.drop(index=[*alien, *blank])):
        some = "; ".join(f"{chip}: {what}" for chip, what in [*odd.items()][:5]) + ("; ..." if len(odd) > 5 else "")
        notes.append(
            f"{len(odd)} of {len(clear)} images lie far from the others of their domain, and among them if one thing "
            f"were otherwise: {some} (look at them with `stbench data show`, or get them again)"
        )
    if blank:
        notes.append(f"{len(blank)} images are one value throughout, for example {blank[0]}")
    found = Verdict(base, frame, broken, counts, faults, findings, notes)
    if not found.sound:
        return found
    index = hold(lambda: build_index(benchmark, source.root, trusted=source.trusted, domains=source.domains))
    return found if index is None else replace(found, digest=index.manifest)


def _in_lines(error: DataError, base: Path) -> str:
    """A fault for people, without the folder that all of them lie in."""
    where = [] if error.where is None or Path(str(error.where)) == base else [f"where: {error.where}"]
    more = [f"{name}: {text}" for name, text in (("expected", error.expected), ("to do", error.fix)) if text]
    return "\n  ".join([error.what, *where, *more])


def _check_types(benchmark: Benchmark, base: Path, frame: pd.DataFrame) -> None:
    """Refuse images of another type than was published, or than most."""
    layout = layout_of(benchmark)
    known = layout.types if isinstance(layout, FolderLayout) else ()
    wanted = known or (frame["type"].mode().iloc[0],)
    other = frame.loc[~frame["type"].isin(wanted), "type"]
    if len(other):
        fail(f"{len(other)} of {len(frame)} images hold pixels of another type", base, other.index, other,
             expected=f"{' or '.join(wanted)}" + (", as published" if known else ", as most"),
             fix="get these files again: somebody has converted them")  # fmt: skip


def _strange_labels(benchmark: Benchmark, frame: pd.DataFrame) -> list[str]:
    """What is said of raw label values that the benchmark does not name, where it calls all others void."""
    if benchmark.labels.other != "void":
        return []
    known = {*LabelMap(benchmark.labels).known}
    strange: dict[int, list[str]] = {}
    for chip, values in frame["labels"].items():
        for value in {*map(int, values)} - known:
            strange.setdefault(value, []).append(str(chip))
    return [
        f"the label value {value} of {len(chips)} chips, for example {chips[0]}, is not in the label map: void"
        for value, chips in sorted(strange.items())[:10]
    ]


def _missing(benchmark: Benchmark, counts: Sequence[tuple[str, int, int | None]]) -> list[str]:
    """Domains that have another number of chips than were published; sides, where no domain tells it."""
    lines = [
        f"{domain} has {count} chips, published are {published}"
        for domain, count, published in counts if published is not None and count != published
    ]  # fmt: skip
    if lines:
        return lines
    found = {domain: count for domain, count, _ in counts}
    sides = {side: sum(found[domain] for domain in getattr(benchmark, side)) for side in benchmark.expected}
    return [
        f"the {side} has {sides[side]} chips, published are {expected}"
        for side, expected in benchmark.expected.items() if sides[side] != expected
    ]  # fmt: skip


def write_manifest(verdict: Verdict, path: Path) -> None:
    """Write what a copy holds.

    Raises:
        DataError: If it cannot be written there.
    """
    try:
        write_json(path, verdict.manifest())
    except OSError as error:
        raise DataError(
            f"the manifest cannot be written: {error.strerror}", where=path, fix="--manifest FILE writes it elsewhere"
        ) from None


__all__ = ["MANIFEST", "Verdict", "verify", "write_manifest"]

"""A copy of a dataset looked through: every file that is broken, every count, every band, and what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.checks import check
from spectral_tl_bench.data.domains import with_domains
from spectral_tl_bench.data.index import build_index, look_at_all
from spectral_tl_bench.data.layouts import check_sides, layout_of
from spectral_tl_bench.data.physics import Finding, band_physics
from spectral_tl_bench.data.source import DataSource
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
        broken: Rows of the others: chip, image, problem.
        counts: (domain, chips, published) for each domain; None where it is not known how many were published.
        faults: What contradicts the benchmark, apart from broken files.
        findings: What the bands look like, by domain.
        digest: By which records name what a sound copy holds (``data.manifest``); empty for others.
    """

    base: Path
    frame: pd.DataFrame
    broken: pd.DataFrame
    counts: list[tuple[str, int, int | None]]
    faults: list[str]
    findings: list[Finding]
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


def verify(benchmark: Benchmark, source: DataSource) -> Verdict:
    """Open every file of a benchmark and hold it against what the benchmark says.

    Files that cannot be used are listed, and the others are looked at all the same. A second call opens only files that
    have changed.

    Args:
        benchmark: The benchmark.
        source: Where its chips are.

    Raises:
        DataError: If nothing can be looked at: the dataset is not there, or images have no labels.
    """
    base, frame, broken = look_at_all(benchmark, source.root, trusted=source.trusted)
    frame, faults = frame.set_index("chip"), []

    def hold(look: Callable[[], object]) -> Any:
        try:
            return look()
        except DataError as error:
            faults.append(f"{error.what}" + (f"; expected: {error.expected}" if error.expected else ""))
        return None

    placed = hold(lambda: with_domains(benchmark, base, frame, source.domains))
    if placed is None:
        return Verdict(base, frame, broken, [], faults, [])
    frame = placed[0]
    used = [domain for domain in benchmark.domains if domain.id in {*benchmark.source, *benchmark.target}]
    counts = [(domain.id, int((frame["domain"] == domain.id).sum()), domain.chips) for domain in used]
    if source.kind == "files" and layout_of(benchmark).published:
        faults += _missing(benchmark, counts)
    hold(lambda: check_sides(benchmark, base, frame["domain"]))
    if len(frame):
        hold(lambda: check(benchmark, base, frame))
    usual = frame[frame["bands"] == len(benchmark.sensor.bands)]
    found = Verdict(base, frame, broken, counts, faults, band_physics(benchmark, usual))
    if not found.sound:
        return found
    index = build_index(benchmark, source.root, trusted=source.trusted, domains=source.domains)
    return replace(found, digest=index.manifest)


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
        raise DataError(f"the manifest cannot be written: {error.strerror}", where=path, fix="use --manifest") from None


__all__ = ["MANIFEST", "Verdict", "verify", "write_manifest"]

"""The definition of a benchmark that a record names: the suite's own, or one that stands in the repository."""

from __future__ import annotations

from pathlib import Path

from spectral_tl_bench.benchmarks import Benchmark, builtin_benchmarks, further_benchmarks, read_benchmark, tracks
from spectral_tl_bench.errors import RecordError, UserError, nearest
from spectral_tl_bench.leaderboard.submit.text import quoted
from spectral_tl_bench.results.schema import Record


class Definitions:
    """Benchmarks by id.

    Args:
        folder: Where users' benchmarks are kept in the repository, ``docs/examples``.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._own: dict[str, Benchmark] | None = None

    @property
    def own(self) -> dict[str, Benchmark]:
        """Users' benchmarks by id; files that cannot be used are passed over."""
        if self._own is None:
            self._own = {}
            for path in sorted(self.folder.glob("[!_]*.yaml")) if self.folder else []:
                try:
                    benchmark = read_benchmark(path)
                except UserError:
                    continue
                self._own.setdefault(benchmark.id, benchmark)
        return self._own

    def of(self, record: Record) -> Benchmark:
        """The definition that a record has to agree with.

        Raises:
            RecordError: If there is none, or the record's track is not one for such a benchmark.
        """
        builtin = builtin_benchmarks()
        further = {name: one for name, one in further_benchmarks().items() if one.track == record.track}
        if record.track == "demonstration":
            if record.benchmark in {**builtin, **further_benchmarks()}:
                raise RecordError(f"{record.benchmark} belongs to the suite, so the track cannot be 'demonstration'")
            if record.benchmark not in self.own:
                raise RecordError(
                    f"no definition of the benchmark {quoted(record.benchmark)} is in the repository",
                    expected=nearest(record.benchmark, self.own),
                    fix=f"add its YAML file to {self.folder or 'docs/examples'}; a maintainer looks at it first",
                )
            return self.own[record.benchmark]
        if record.benchmark in further:
            return further[record.benchmark]
        if record.benchmark not in builtin or record.track in tracks():
            raise RecordError(
                f"the suite has no benchmark {quoted(record.benchmark)} on the track {record.track}",
                expected=nearest(record.benchmark, further or builtin),
                fix="results on a benchmark of your own go to the track 'demonstration'",
            )
        return builtin[record.benchmark]


def disagreements(record: Record, benchmark: Benchmark) -> list[str]:
    """Where a record says something else than the current definition of its benchmark."""
    wanted = {
        "benchmark_version": benchmark.version,
        "dataset": benchmark.dataset,
        "gap": benchmark.gap,
        "classes": benchmark.labels.names,
        "source_domains": tuple(benchmark.source),
        "target_domains": tuple(benchmark.target),
    }
    return [
        f"key '{key}' is {quoted(getattr(record, key))}, the benchmark's definition says {quoted(value)}"
        for key, value in wanted.items()
        if getattr(record, key) != value
    ]

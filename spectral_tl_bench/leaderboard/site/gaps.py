"""From which domains to which: mIoU of one row on every target domain of every benchmark, and what the gap costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spectral_tl_bench.leaderboard.site.heat import top_of
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, Fields, View
from spectral_tl_bench.leaderboard.site.writer import Writer

_SEASONS = ("spring", "summer", "autumn", "winter")


@dataclass(frozen=True)
class Matrix:
    """The matrix of one dataset.

    Attributes:
        dataset: Its name.
        benchmarks: The lines: what was trained on.
        domains: The columns: (id, name, season) of each target domain.
        top: End of the colour scale, the same for all rows of the track.
    """

    dataset: str
    benchmarks: list[BenchmarkView]
    domains: list[tuple[str, str, str]]
    top: float


def write_gaps(writer: Writer, view: View) -> None:
    """Write the page for the first row, and the numbers of all others as data."""
    if "gaps" in view.left_out:
        return
    rows = view.scored()
    path = f"{view.track.slug}/gaps.html"
    data = f"{view.track.slug}/gaps.js"
    writer.script(data, "gaps", {row["row"]: row_numbers(view, row) for row in rows})
    writer.page(
        path,
        "gaps.html",
        view=view,
        track=view.track,
        here="gaps",
        matrices=matrices(view),
        rows=rows,
        numbers=row_numbers(view, rows[0]),
        data=data,
    )


def matrices(view: View) -> list[Matrix]:
    """One matrix per dataset, its columns by season where there are seasons."""
    found = []
    for dataset in dict.fromkeys(one.dataset for one in view.benchmarks):
        here = [one for one in view.benchmarks if one.dataset == dataset]
        domains = {name: (name, one.domain_name(name), one.season(name)) for one in here for name in one.target}
        order = sorted(domains.values(), key=lambda one: (_season(one[2]), one[0]))
        values = [
            fields["miou"]
            for (_, benchmark), group in view.domains.items()
            if benchmark in {one.id for one in here}
            for fields in group
        ]
        found.append(Matrix(dataset, here, order, top_of(values)))
    return found


def row_numbers(view: View, row: Fields) -> dict[str, dict[str, Any]]:
    """By benchmark: ``all`` (pooled mIoU), ``reference``, ``drop``, ``low``, ``high``, and ``domains`` by id."""
    found = {}
    for benchmark in view.benchmarks:
        cell = view.entries[row["row"], benchmark.id]
        domains = view.domains.get((row["row"], benchmark.id), [])
        found[benchmark.id] = {
            "all": _short(cell["miou"]),
            "reference": _short(cell["in_domain"]),
            "drop": _short(cell["drop"]),
            "low": _short(cell["drop_low"]),
            "high": _short(cell["drop_high"]),
            "domains": {fields["domain"]: _short(fields["miou"]) for fields in domains},
        }
    return found


def _season(name: str) -> int:
    return _SEASONS.index(name) if name in _SEASONS else len(_SEASONS)


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

"""A track's first page: every row, sortable and filterable."""

from __future__ import annotations

from spectral_tl_bench.leaderboard.site.heat import top_of
from spectral_tl_bench.leaderboard.site.view import Fields, View
from spectral_tl_bench.leaderboard.site.writer import Writer

_ROUNDED = 1e-12


def write_overview(writer: Writer, view: View, path: str) -> None:
    """Write the page.

    Args:
        writer: Where it goes.
        view: The track.
        path: File name in the site.
    """
    values = [cell[name] for cell in view.entries.values() for name in ("miou", "high")]
    writer.page(
        path,
        "overview.html",
        view=view,
        track=view.track,
        here="overview",
        best=best_cells(view),
        top=top_of([*values, *(row["mean_places_high"] for row in view.rows)]),
        families=sorted({row["family"] for row in view.rows}),
        backbones=sorted({row["backbone"] for row in view.rows if row["backbone"]}),
        datasets=list(dict.fromkeys(one.dataset for one in view.benchmarks)),
        gaps=sorted({one.gap for one in view.benchmarks}),
        reasons=reasons(view),
    )


def best_cells(view: View) -> set[tuple[str, str]]:
    """(row, benchmark) of the highest number of each benchmark, and (row, "") of the highest mean; floors aside."""
    found: set[tuple[str, str]] = set()
    for benchmark in view.benchmarks:
        column = [
            (row["row"], view.entries[row["row"], benchmark.id]["miou"])
            for row in view.best_first(benchmark.id)
            if view.entries[row["row"], benchmark.id]["state"] == "completed"
        ]
        found |= {(row, benchmark.id) for row, value in column if value >= column[0][1] - _ROUNDED}
    means = [row for row in view.rows if row["mean"] is not None and not row["is_floor"]]
    highest = max((row["mean"] for row in means), default=0.0)
    return found | {(row["row"], "") for row in means if row["mean"] >= highest - _ROUNDED}


def reasons(view: View, benchmark: str | None = None) -> list[str]:
    """Why intervals are missing: one sentence per benchmark and reason."""
    cells: list[Fields] = [
        cell for cell in view.entries.values() if cell["miou"] is not None and benchmark in (None, cell["benchmark"])
    ]
    return sorted({f"{cell['benchmark']}: {cell['reason']}" for cell in cells if cell["reason"]})

"""The leaderboard as a static site: opened from disk or from any static host, without a network.

Every page is made by one module; ``templates`` hold the HTML, ``static`` the style sheet and the scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.generated import replace_generated
from spectral_tl_bench.leaderboard.site.benchmark import write_benchmarks
from spectral_tl_bench.leaderboard.site.compare import write_compare
from spectral_tl_bench.leaderboard.site.cost import write_cost
from spectral_tl_bench.leaderboard.site.gaps import write_gaps
from spectral_tl_bench.leaderboard.site.method import write_methods
from spectral_tl_bench.leaderboard.site.names import REPORTED, opening, track_of
from spectral_tl_bench.leaderboard.site.overview import write_overview
from spectral_tl_bench.leaderboard.site.reported import write_reported
from spectral_tl_bench.leaderboard.site.rowdata import write_rows
from spectral_tl_bench.leaderboard.site.view import make_view
from spectral_tl_bench.leaderboard.site.writer import FORMAT, Writer


def write_site(analyses: Mapping[str, Analysis], reported: pd.DataFrame | None, out: Path) -> list[Path]:
    """Write the site.

    Args:
        analyses: Numbers by name of the board, one for each track.
        reported: Numbers of papers, as ``leaderboard.reported`` reads them.
        out: Folder; files of an earlier site that are not part of this one are removed from it.

    Returns:
        The files of the site. The same records give the same bytes.

    Raises:
        UserError: If there is nothing to show, or a file is in the way that no report made; nothing is written then.
    """
    papers = reported if reported is not None and len(reported) else None
    names = [*analyses, *([REPORTED] if papers is not None else [])]
    if not names:
        raise UserError("there is neither a record nor a reported number to make a site of")
    writer = Writer(sorted((track_of(name) for name in names), key=lambda track: track.order))
    first = opening(sorted(names, key=lambda name: track_of(name).order))
    writer.static()
    for name in sorted(analyses):
        view = make_view(name, analyses[name])
        for path in _overviews(view.track.slug, name == first):
            write_overview(writer, view, path)
        write_benchmarks(writer, view)
        write_methods(writer, view)
        write_cost(writer, view)
        write_gaps(writer, view)
        write_compare(writer, view)
        write_rows(writer, view)
    if papers is not None:
        for path in _overviews(track_of(REPORTED).slug, first == REPORTED):
            write_reported(writer, papers, path)
    return replace_generated(Path(out), dict(sorted(writer.files.items())), [FORMAT])


def _overviews(folder: str, first: bool) -> list[str]:
    """A track's overview stands in its folder; the one that a visitor sees first stands at the top as well."""
    return [f"{folder}/index.html", *(["index.html"] if first else [])]

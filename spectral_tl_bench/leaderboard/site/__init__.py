"""The leaderboard as a static site: opened from disk or from any static host, without a network.

``pages`` fills the HTML in ``templates``; ``static`` has the style sheet and the scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from spectral_tl_bench.data.audit.facts import Audit
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.beside import beside
from spectral_tl_bench.leaderboard.generated import replace_generated
from spectral_tl_bench.leaderboard.site.names import BESIDE, REPORTED, opening, track_of
from spectral_tl_bench.leaderboard.site.pages import write_track
from spectral_tl_bench.leaderboard.site.reported import write_beside, write_reported
from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.leaderboard.site.writer import FORMAT, Writer


def write_site(
    analyses: Mapping[str, Analysis], reported: pd.DataFrame | None, out: Path, audits: Iterable[Audit] = ()
) -> list[Path]:
    """Write the site.

    Args:
        analyses: Numbers by name of the board, one for each track.
        reported: Numbers of papers, as ``leaderboard.reported`` reads them.
        audits: What was measured of the benchmarks' data.
        out: Folder; files of an earlier site that are not part of this one are removed from it.

    Returns:
        The files of the site. The same records give the same bytes.

    Raises:
        UserError: If there is nothing to show, or a file is in the way that no report made; nothing is written then.
    """
    papers = pd.DataFrame() if reported is None else reported
    both = beside(analyses, papers)
    names = [*analyses, *([BESIDE] if both else []), *([REPORTED] if len(papers) else [])]
    if not names:
        raise UserError("there is neither a record nor a reported number to make a site of")
    writer = Writer(sorted(map(track_of, names)))
    audits = list(audits)
    first = opening([track.name for track in writer.tracks])
    for name in names:
        # A track's overview stands in its folder; the one that a visitor sees first stands at the top as well.
        overviews = [f"{track_of(name).slug}/index.html", *(["index.html"] if name == first else [])]
        if name in analyses:
            write_track(writer, View(name, analyses[name], audits), overviews)
        elif name == BESIDE:
            write_beside(writer, both, overviews)
        else:
            write_reported(writer, papers, overviews)
    return replace_generated(Path(out), dict(sorted(writer.files.items())), [FORMAT])

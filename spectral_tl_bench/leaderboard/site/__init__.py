"""The leaderboard as a static site: opened from disk or from any static host, without a network.

``pages`` fills the HTML in ``templates``; ``static`` has the style sheet and the scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.audit.facts import Audit
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.beside import beside
from spectral_tl_bench.leaderboard.generated import replace_generated
from spectral_tl_bench.leaderboard.site.landing import write_landing
from spectral_tl_bench.leaderboard.site.names import BESIDE, REPORTED, track_of
from spectral_tl_bench.leaderboard.site.pages import write_track
from spectral_tl_bench.leaderboard.site.reported import write_beside, write_reported
from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.leaderboard.site.writer import FORMAT, Writer


def write_site(
    analyses: Mapping[str, Analysis],
    reported: pd.DataFrame | None,
    out: Path,
    audits: Iterable[Audit] = (),
    definitions: Iterable[Benchmark] = (),
) -> list[Path]:
    """Write the site.

    Args:
        analyses: Numbers by name of the board, one for each track.
        reported: Numbers of papers, as ``leaderboard.reported`` reads them.
        audits: What was measured of the benchmarks' data.
        out: Folder; files of an earlier site that are not part of this one are removed from it.
        definitions: Those of users' benchmarks, for their colours, titles and notes.

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
    audits, definitions = list(audits), list(definitions)
    views = [View(name, analysis, audits, definitions) for name, analysis in analyses.items()]
    write_landing(writer, views)
    for view in views:
        write_track(writer, view)
    if both:
        write_beside(writer, both)
    if len(papers):
        write_reported(writer, papers)
    return replace_generated(Path(out), dict(sorted(writer.files.items())), [FORMAT])

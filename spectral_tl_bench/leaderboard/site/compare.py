"""Two rows side by side, computed in the browser from the rows' bootstrap draws."""

from __future__ import annotations

from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.leaderboard.site.writer import Writer


def write_compare(writer: Writer, view: View) -> None:
    """Write the page and its list of rows; the draws are written by ``rowdata``."""
    if "compare" in view.left_out:
        return
    writer.page(
        f"{view.track.slug}/compare.html",
        "compare.html",
        view=view,
        track=view.track,
        here="compare",
        rows=view.scored(),
    )

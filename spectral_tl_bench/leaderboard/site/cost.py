"""Accuracy against cost: trainable parameters and training time."""

from __future__ import annotations

from spectral_tl_bench.leaderboard.site import names
from spectral_tl_bench.leaderboard.site.charts import TIMES, families, scatter
from spectral_tl_bench.leaderboard.site.view import View
from spectral_tl_bench.leaderboard.site.writer import Writer


def write_cost(writer: Writer, view: View) -> None:
    """Write the page."""
    plots = [
        ("parameters", "Mean mIoU against trainable parameters",
         scatter(view, "trainable_max", "trainable parameters (logarithmic)", names.count)),
        ("time", "Mean mIoU against training time",
         scatter(view, "train_seconds", "training time of a run (logarithmic)", names.seconds, TIMES)),
    ]  # fmt: skip
    devices = sorted({cell.record.device for cell in view.analysis.board.records if cell.record.device})
    writer.page(
        f"{view.track.slug}/cost.html",
        "cost.html",
        view=view,
        track=view.track,
        here="cost",
        plots=plots,
        families=families(view),
        devices=devices,
        left_out=sum(row["mean"] is None for row in view.rows if not row["is_floor"]),
    )

"""What a run takes where the user names nothing."""

from __future__ import annotations

import os
from pathlib import Path

from spectral_tl_bench.console import user_path

DEFAULT_BACKBONE = "rgb-mini"
"""The miniature foundation model that comes with the package: pretrained on RGB, as the large ones are."""

HANG_AFTER = 60.0
"""Minutes without a sign of life after which a cell in a process of its own is stopped."""

RESULTS = "runs"
RESULTS_VARIABLE = "STBENCH_RESULTS"
RESULTS_HELP = f"Default: {RESULTS_VARIABLE}, else {RESULTS}."
"""Ends the help of every option that names a folder of results."""


def results_folder() -> Path:
    """The folder that every verb writes results to, and looks for them in, where the user names none.

    Raises:
        UserError: If ``STBENCH_RESULTS`` begins with ~ and there is no such home folder.
    """
    return user_path(os.environ.get(RESULTS_VARIABLE) or RESULTS)

"""A few of the real chips, for tests that need no more of them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from shared import SHARED

CHIPS = SHARED / "data" / "hls-worldcover"


@pytest.fixture
def few_chips(tmp_path: Path) -> Path:
    """Four chips of either region, from four sites."""
    folder = tmp_path / "chips"
    with (CHIPS / "chips.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    of_site = {(row["region"], row["site"]): row for row in rows}
    kept = [row for region in "MW" for row in [one for key, one in of_site.items() if key[0] == region][:4]]
    for kind in ("image", "label"):
        (folder / kind).mkdir(parents=True)
        for row in kept:
            shutil.copy(CHIPS / kind / row["file"], folder / kind)
    with (folder / "chips.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    return folder

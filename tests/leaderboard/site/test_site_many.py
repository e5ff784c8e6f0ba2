"""Many rows: pages of rows in tables, several pages for a method, no file per record."""

from __future__ import annotations

import dataclasses
import re

import pytest

from spectral_tl_bench.leaderboard import board
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.measured import measure_record
from spectral_tl_bench.leaderboard.site import write_site
from spectral_tl_bench.leaderboard.site.view import ROWS_PER_PAGE
from spectral_tl_bench.results.store import read_records

ROWS = 70


@pytest.fixture(scope="module")
def many(store, tmp_path_factory):
    """One record's evidence under many options, on a site of its own."""
    record = next(
        one
        for one in read_records([store])
        if (one.board, one.benchmark, one.status) == ("reproduced", "mts12-n2s", "completed")
    )
    cell = measure_record(record)
    cells = {}
    for number in range(ROWS):
        changes = {"options": {"rank": number}, "fingerprint": f"{number:064x}"}
        cells[changes["fingerprint"]] = dataclasses.replace(cell, record=record.model_copy(update=changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "measure_record", lambda one: cells[one.fingerprint])
        found = board.make_boards([one.record for one in cells.values()])
    root = tmp_path_factory.mktemp("many")
    return root, write_site({"reproduced": analyse(found["reproduced"])}, None, root), record.method


def test_files_grow_with_rows_and_not_with_records(many):
    root, paths, method = many
    names = [path.relative_to(root).as_posix() for path in paths]
    assert sum(name.startswith("reproduced/rows/") for name in names) == ROWS + 1
    pages = [name for name in names if name.startswith(f"reproduced/methods/{method}")]
    assert len(pages) == -(-ROWS // ROWS_PER_PAGE)
    sections = [re.findall(r'<section class="row" id="(r-[0-9a-f]+)"', (root / name).read_text()) for name in pages]
    assert max(map(len, sections)) == ROWS_PER_PAGE and len({id for found in sections for id in found}) == ROWS
    overview = (root / "reproduced/index.html").read_text()
    links = re.findall(rf'href="\.\./reproduced/methods/({method}[^"#]*)#(r-[0-9a-f]+)"', overview)
    where = {id: name.rsplit("/", 1)[1] for name, found in zip(pages, sections, strict=True) for id in found}
    assert len(links) == ROWS and all(where[id] == name for name, id in links)


def test_rows_are_shown_in_pages(many, open_page):
    root, _, method = many
    page = open_page((root / "reproduced/index.html").as_uri(), root=root)
    table, status = page.locator("#overview tbody tr"), page.locator(".foot [role=status]")
    assert table.count() == 50 and status.inner_text() == f"{ROWS + 1} rows, 1 to 50 shown"
    page.get_by_role("button", name="Next").click()
    assert table.count() == ROWS + 1 - 50 and page.get_by_role("button", name="Next").is_disabled()
    page.get_by_label("Search").fill(f"{method} 17")
    assert table.count() == 1 and "rank 17" in table.first.inner_text()
    assert not page.get_by_role("button", name="Next").is_visible()
    page.get_by_label("Search").fill("")
    page.locator("#overview thead button", has_text="Trainable").click()
    assert table.count() == 50 and status.inner_text().startswith(f"{ROWS + 1} rows, 1 to 50")

"""Many rows: tables in parts and pages, several pages for a method, no file per record, no page that is heavy."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest

from spectral_tl_bench.leaderboard import board
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.measured import measure_record
from spectral_tl_bench.leaderboard.site import write_site
from spectral_tl_bench.leaderboard.site.view import ROWS_PER_PAGE
from spectral_tl_bench.results.store import read_records

ROWS, PART = 320, 100
LIMIT = 300_000
"""Bytes of a page, or of data that a page loads."""


@pytest.fixture(scope="module")
def many(store, tmp_path_factory):
    """The evidence of one method under many options, on a site of its own."""
    records = [
        one
        for one in read_records([store])
        if (one.board, one.method, one.seed, one.status) == ("reproduced", "spectralx", 0, "completed")
    ]
    cells = {}
    for place, record in enumerate(records):
        cell = measure_record(record)
        for number in range(ROWS):
            changes = {"options": {"rank": number}, "fingerprint": f"{number:032x}{place:032x}"}
            cells[changes["fingerprint"]] = dataclasses.replace(cell, record=record.model_copy(update=changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(board, "measure_record", lambda one: cells[one.fingerprint])
        found = board.make_boards([one.record for one in cells.values()])
    root = tmp_path_factory.mktemp("many")
    return root, write_site({"reproduced": analyse(found["reproduced"])}, None, root), records[0].method


def parts(root, page):
    """The pages over which a table is spread, by the links of the first."""
    folder, text = (root / page).parent, (root / page).read_text()
    links = re.search(r'<nav class="parts".*?</nav>', text).group()
    return [folder / path for path in re.findall(r'href="([^"#]+)#', links)]


def test_no_page_is_heavy(many):
    root, paths, _ = many
    sizes = {
        path.relative_to(root).as_posix(): path.stat().st_size for path in paths if path.suffix in (".html", ".js")
    }
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


@pytest.mark.parametrize("page", ["reproduced/index.html", "reproduced/benchmarks/mts12-n2s.html"])
def test_a_table_of_many_rows_stands_in_parts_that_are_linked(many, page):
    root, _, _ = many
    pages = parts(root, page)
    found = [re.findall(r'<tr id="(row-[0-9a-f]+)"', path.read_text()) for path in pages]
    assert [len(rows) for rows in found] == [PART, PART, PART, ROWS + 1 - 3 * PART]
    assert len({row for rows in found for row in rows}) == ROWS + 1
    for number, (path, rows) in enumerate(zip(pages, found, strict=True)):
        assert f"Rows {number * PART + 1} to {number * PART + len(rows)} of {ROWS + 1}." in path.read_text()
        assert parts(root, path.relative_to(root)) == pages
        script = path.with_suffix(".rows.js").read_text()
        assert re.findall(r'<tr id="(row-[0-9a-f]+)"', json.loads(f"[{script[len('stbench.put(') : -3]}]")[1]) == rows


def test_files_grow_with_rows_and_not_with_records(many):
    root, paths, method = many
    names = [path.relative_to(root).as_posix() for path in paths]
    assert sum(name.startswith("reproduced/rows/") for name in names) == ROWS + 1
    pages = [name for name in names if name.startswith(f"reproduced/methods/{method}")]
    assert len(pages) == -(-ROWS // ROWS_PER_PAGE)
    sections = [re.findall(r'<section class="row" id="(r-[0-9a-f]+)"', (root / name).read_text()) for name in pages]
    assert max(map(len, sections)) == ROWS_PER_PAGE and len({id for found in sections for id in found}) == ROWS
    overview = "".join(path.read_text() for path in parts(root, "reproduced/index.html"))
    links = re.findall(rf'href="methods/({method}[^"#]*)#(r-[0-9a-f]+)"', overview)
    where = {id: name.rsplit("/", 1)[1] for name, found in zip(pages, sections, strict=True) for id in found}
    assert len(links) == ROWS and all(where[id] == name for name, id in links)
    for name in pages:  # and from the method to the part that has its row
        back = re.findall(r'href="\.\./\.\./reproduced/([^"#]+)#(row-[0-9a-f]+)"', (root / name).read_text())
        assert back and all(f'id="{row}"' in (root / "reproduced" / page).read_text() for page, row in back)


def test_rows_are_shown_in_pages_and_found_in_all_parts(many, open_page):
    root, _, method = many
    page = open_page((root / "reproduced/index.html").as_uri(), root=root)
    table, status = page.locator("#overview tbody tr"), page.locator(".foot [role=status]")
    forward = page.get_by_role("button", name="Next")
    assert table.count() == 50 and status.inner_text() == f"{ROWS + 1} rows, 1 to 50 shown"
    assert not page.locator("nav.parts").is_visible(), "the buttons lead through all parts"
    forward.click()
    assert status.inner_text() == f"{ROWS + 1} rows, 51 to 100 shown" and page.locator("script[src*=rows]").count() == 0
    forward.click()
    status.get_by_text(f"{ROWS + 1} rows, 101 to 150 shown").wait_for()
    page.get_by_label("Search").fill(f"{method} 317")
    assert table.count() == 1 and "rank 317" in table.first.inner_text()
    assert status.inner_text() == f"1 of {ROWS + 1} rows" and not forward.is_visible()
    page.get_by_label("Search").fill("")
    page.locator("#overview thead button", has_text="Trainable").click()
    assert table.count() == 50 and status.inner_text() == f"{ROWS + 1} rows, 1 to 50 shown"


def test_a_search_from_the_address_and_a_link_to_a_row_look_at_all_parts(many, open_page):
    root, _, method = many
    address = (root / "reproduced/index.html").as_uri()
    page = open_page(f"{address}#q={method}+317", root=root)
    page.locator(".foot [role=status]").get_by_text(f"1 of {ROWS + 1} rows").wait_for()
    last = re.findall(r'<tr id="(row-[0-9a-f]+)"', parts(root, "reproduced/index.html")[-1].read_text())[-1]
    page = open_page(f"{address}#{last}", root=root)
    page.locator(f"#{last}").wait_for()
    assert page.locator(".foot [role=status]").inner_text() == f"{ROWS + 1} rows, 301 to {ROWS + 1} shown"


def test_another_part_starts_with_its_own_rows(many, open_page):
    root, _, _ = many
    page = open_page((root / "reproduced/benchmarks/mts12-n2s.2.html").as_uri(), root=root)
    status = page.locator("#results .foot [role=status]")
    assert status.inner_text() == f"{ROWS + 1} rows, 101 to 125 shown"
    page.get_by_role("button", name="Previous").click()
    status.get_by_text(f"{ROWS + 1} rows, 76 to 100 shown").wait_for()
    page.locator("#t-results thead button", has_text="Target mIoU").click()
    assert status.inner_text() == f"{ROWS + 1} rows, 1 to 25 shown"


def test_on_paper_stand_all_rows_that_the_page_has(many, open_page):
    root, _, _ = many
    page = open_page((root / "reproduced/benchmarks/mts12-n2s.2.html").as_uri(), root=root)
    told = []
    for event in ("beforeprint", "afterprint"):
        page.evaluate(f"dispatchEvent(new Event('{event}'))")
        rows = page.locator("#t-results tbody tr").count()
        told.append((rows, page.locator("#results .foot [role=status]").inner_text()))
    assert told == [(PART, f"{ROWS + 1} rows, 101 to 200 shown"), (25, f"{ROWS + 1} rows, 101 to 125 shown")]


def test_rows_that_cannot_be_loaded_are_not_passed_over_in_silence(many, open_page, tmp_path):
    root = shutil.copytree(many[0], tmp_path / "site")
    (root / "reproduced/index.3.rows.js").unlink()
    page = open_page((root / "reproduced/index.html").as_uri(), root=root, lacking="index.3.rows.js")
    page.locator("#overview thead button", has_text="Trainable").click()
    told = "the data could not be loaded: neither sorted nor filtered, this page has rows 1 to 100 of 321"
    page.get_by_text(told).wait_for()
    assert page.locator("nav.parts").is_visible()


def test_without_scripts_the_parts_are_linked(many, open_page):
    root, _, _ = many
    page = open_page((root / "reproduced/index.html").as_uri(), root=root, java_script_enabled=False)
    assert page.locator("#overview tbody tr").count() == PART
    page.locator("nav.parts").get_by_text(f"301 to {ROWS + 1}").click()
    page.locator("nav.parts").get_by_text(f"Rows 301 to {ROWS + 1} of {ROWS + 1}.").wait_for()

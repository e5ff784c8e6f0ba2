"""The whole report: a pure function of the records, in every format; nothing stale, nothing that is not its own."""

from __future__ import annotations

import json
import random
import re
import shutil

import pandas as pd
import pytest

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard import figures
from spectral_tl_bench.leaderboard.report import DEFAULT_FORMATS, FORMATS, write_report
from spectral_tl_bench.leaderboard.reported import COLUMNS, read_reported, reported_folder
from spectral_tl_bench.results.store import read_record, read_records

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
MTS12_ID = {"benchmark": "mts12-id", "gap": "none"}
NO_PAPERS = pd.DataFrame(columns=list(COLUMNS))
TABLES = ("md", "csv", "parquet", "latex")


@pytest.fixture
def many(store, fail):
    return [
        *[store(method=m, seed=s, **b) for m in ("lora", "full") for s in (0, 1) for b in ({}, SPRING)],
        store(method="full", seed=0, **MTS12_ID),
        store(method="frozen"),
        fail(method="frozen", **SPRING),
        store(method="adapted", target_images=True),
        store(track="sample", method="synthetic-only"),
    ]


def picture(figure, suffix):
    """A stand-in for drawing: what the figure says."""
    texts = sorted(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    return f"{suffix} {texts}".encode()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("everything", [pytest.param(True, marks=pytest.mark.slow), False])
def test_delete_everything_generated_report_again_get_the_same_bytes(many, tmp_path, monkeypatch, everything):
    out = tmp_path / "out"
    if not everything:  # drawing takes long: all boards without real figures, and one board with them
        many = [record for record in many if record.benchmark == "mts12-n2s" and record.board == "reproduced"]
        for record in read_records([tmp_path / "store"]):
            if record.fingerprint not in {one.fingerprint for one in many}:
                shutil.rmtree(record.path.parent)
        monkeypatch.setattr(figures, "KINDS", ("parameters", "forest"))
    else:
        monkeypatch.setattr(figures, "render", picture)
    paths = write_report(many, out, FORMATS)
    first = contents(out)
    lists = {f"{name}/.generated.json" for name in ("tables", "figures", "site")}
    assert {path.relative_to(out).as_posix() for path in paths} | lists == set(first)
    assert {name.split("/")[0] for name in first} == {"tables", "figures", "site"}
    for list_file in lists:
        listed = json.loads(first[list_file])["files"]
        assert {f"{list_file.split('/')[0]}/{name}" for name in listed} == {
            name for name in first if name.startswith(list_file.split("/")[0]) and name not in lists
        }
    shutil.rmtree(out)
    random.Random(1).shuffle(many)
    write_report([read_record(record.path) for record in many], out, FORMATS)
    assert contents(out) == first
    write_report(read_records([tmp_path / "store"]), out, FORMATS)  # over what is there
    assert contents(out) == first


def test_names_of_the_tables(many, tmp_path):
    write_report(many, tmp_path, TABLES)
    boards = ("board", "board-sample", "board-reproduced-unlabelled-target")
    long = [f"{board}{table}" for board in boards for table in ("", "-rows", "-cells", "-classes", "-domains")]
    wanted = {f"{name}.{suffix}" for name in [*long, "board-reported"] for suffix in ("csv", "parquet")}
    wanted |= {f"{board}.{suffix}" for board in [*boards, "board-reported"] for suffix in ("md", "tex")}
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {*wanted, ".generated.json"}


def test_what_is_not_made_again_goes_and_foreign_files_stay(many, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "render", picture)
    tmp_path = tmp_path / "out"
    write_report(many, tmp_path, (*TABLES, "figures"))
    (tmp_path / "tables" / "board-notes.md").write_text("mine")
    (tmp_path / "figures" / "mine.pdf").write_text("mine")
    rest = [record for record in many if record.track == "sample"]
    write_report(rest, tmp_path, (*TABLES, "figures"), NO_PAPERS)
    left = {name for name in contents(tmp_path) if not name.endswith(".generated.json")}
    assert {"tables/board-notes.md", "figures/mine.pdf"} < left
    others = left - {"tables/board-notes.md", "figures/mine.pdf"}
    assert others and all(name.startswith(("tables/board-sample", "figures/sample/")) for name in others)


def test_a_format_alone_leaves_the_others(many, tmp_path):
    write_report(many, tmp_path, ("md", "latex"))
    before = contents(tmp_path / "tables")
    write_report(many[-1:], tmp_path, ("md",), NO_PAPERS)
    after = contents(tmp_path / "tables")
    assert {name for name in after if name.endswith(".tex")} == {name for name in before if name.endswith(".tex")}
    assert {name for name in after if name.endswith(".md")} == {"board-sample.md"}


def test_a_file_in_the_way_stops_it_before_anything_is_written(many, tmp_path):
    out = tmp_path / "out"
    (out / "tables").mkdir(parents=True)
    (out / "tables" / "board.md").write_text("my own words")
    with pytest.raises(UserError, match="in the way"):
        write_report(many, out, TABLES)
    assert contents(out) == {"tables/board.md": b"my own words"}


def test_papers_come_along_and_stay_on_a_board_of_their_own(many, tmp_path):
    write_report(many, tmp_path, ("md", "csv"))
    folder = tmp_path / "tables"
    papers = read_reported(reported_folder())
    written = pd.read_csv(folder / "board-reported.csv", keep_default_na=False)
    assert list(written.columns) == list(COLUMNS) and len(written) == len(papers)
    assert written["value"].tolist() == papers["value"].tolist()
    assert "ScaleMAE" in (folder / "board-reported.md").read_text()
    for path in folder.glob("board*"):
        if "reported" not in path.name:
            assert "ScaleMAE" not in path.read_text()
    assert "synthetic-only" not in (folder / "board-reported.md").read_text()


def test_papers_alone_make_a_report(tmp_path):
    write_report([], tmp_path, TABLES)
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert names == {".generated.json", *(f"board-reported.{suffix}" for suffix in ("md", "csv", "parquet", "tex"))}


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match="no format 'markdown'"):
        write_report([], tmp_path, ("markdown",))
    assert set(DEFAULT_FORMATS) < set(FORMATS)


def test_random_weights_are_named_beside_the_backbone(store, tmp_path):
    shape = {"name": "rgb-mini", "width": 96, "depth": 4, "heads": 4, "patch": 8}
    records = [store(0.6, backbone=shape), store(0.8, backbone={**shape, "pretrained": "rgb-mini"})]
    write_report(records, tmp_path / "out", formats=("md", "latex", "site"))
    board = (tmp_path / "out" / "tables" / "board.md").read_text()
    assert "| rgb-mini (random weights) |" in board and "| rgb-mini |" in board
    assert "rgb-mini (random weights)" in (tmp_path / "out" / "tables" / "board.tex").read_text()
    page = next((tmp_path / "out" / "site" / "reproduced" / "methods").glob(f"{records[0].method}*.html")).read_text()
    assert [text for text in re.findall(r"<h2>([^<]+)", page) if "random weights" in text] == [
        f"{records[0].method}, rgb-mini (random weights) "
    ]

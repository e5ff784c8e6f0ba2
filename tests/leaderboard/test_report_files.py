"""Report files: the same records, the same bytes; nothing synthetic on the real board; nothing half written."""

from __future__ import annotations

import io
import json
import random
import re

import pandas as pd
import pytest

import spectral_tl_bench.leaderboard.report as module
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.records import read_record
from spectral_tl_bench.leaderboard.report import escape, write_report
from spectral_tl_bench.leaderboard.table import COLUMNS

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
MTS12_ID = {"benchmark": "mts12-id", "gap": "none"}


@pytest.fixture
def many(store, fail):
    return [
        *[store(method=m, seed=s, **b) for m in ("lora", "full") for s in (0, 1) for b in ({}, SPRING)],
        *[store(method="full", seed=s, **MTS12_ID) for s in (0, 1)],
        store(method="frozen"),
        fail(method="frozen", message="line one\n| <script>alert(1)</script> [x](http://e)", **SPRING),
        store(track="sample", method="synthetic-only"),
    ]


def tables(text):
    """All Markdown tables, as lists of rows of cells."""
    found = []
    for match in re.finditer(r"(?m)(^\|.*\n)+", text):
        rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in match[0].splitlines()]
        found.append([[cell.strip() for cell in row] for row in rows])
    return found


def test_same_records_same_bytes(many, tmp_path):
    first = {path.name: path.read_bytes() for path in write_report(many, tmp_path / "a")}
    assert sorted(first) == ["board-sample.csv", "board-sample.md", "board.csv", "board.md"]
    random.Random(1).shuffle(many)
    again = [read_record(record.path) for record in many]
    assert {path.name: path.read_bytes() for path in write_report(again, tmp_path / "b")} == first
    assert {path.name: path.read_bytes() for path in write_report(again, tmp_path / "a")} == first


def test_synthetic_results_stay_on_their_own_board(many, tmp_path):
    write_report(many, tmp_path)
    for name in ("board.md", "board.csv"):
        assert "synthetic-only" not in (tmp_path / name).read_text()
        assert "Synthetic" not in (tmp_path / name).read_text()
    sample = (tmp_path / "board-sample.md").read_text()
    head = sample.splitlines()[:3]
    assert any("Synthetic" in line and "not a result on real data" in line for line in head)
    assert "Data: Synthetic scenes, seed 1." in sample
    assert "synthetic-only" in sample and "full" not in sample.split("## Cells")[1].split("##")[0].replace("fully", "")


def test_only_sample_records_write_no_real_board(store, tmp_path):
    write_report([store(track="sample")], tmp_path)
    assert sorted(path.name for path in tmp_path.glob("board*")) == ["board-sample.csv", "board-sample.md"]


def test_markdown_says_what_it_must(many, tmp_path):
    write_report(many, tmp_path)
    text = (tmp_path / "board.md").read_text()
    assert MIOU_RULE in text
    assert "gap between cities" in text
    main, cells, floor, failed, configurations = tables(text)
    assert main[0][:5] == ["Rank", "Method", "Backbone", "Configuration", "Seeds"]
    assert main[0][5:9] == ["dfc2020-spring", "mts12-n2s", "Mean", "mts12-id (in-domain)"]
    by_method = {row[1]: row for row in main[2:]}
    assert {by_method["lora"][0], by_method["full"][0]} == {"1", "2"}
    assert (
        by_method["frozen"][0] == "–" and by_method["frozen"][5] == "failed" and by_method["frozen"][7] == "incomplete"
    )
    assert by_method["lora"][8] == "–" and "±" in by_method["full"][8]
    assert main[-1][1] == "majority class" and main[-1][0] == "–"
    drop = cells[0].index("Drop")
    assert {(row[0], row[1]): row[drop] != "–" for row in cells[2:]} == {
        (benchmark, method): (benchmark, method) == ("mts12-n2s", "full")
        for benchmark in ("dfc2020-spring", "mts12-n2s", "mts12-id")
        for method in ("lora", "full", "frozen")
    }
    assert len(floor) == 2 + 3 and len(configurations) == 2 + 3
    assert failed[0] == ["Benchmark", "Method", "Seed", "Kind", "Message"]
    assert failed[2][:4] == ["dfc2020-spring", "frozen", "0", "RuntimeError"]
    names = {row[0] for row in configurations[2:]}
    assert {row[3] for row in main[2:-1]} == names == {row[3] for row in cells[2:]}


def test_inflation_and_worst_domain_are_those_of_the_record(store, tmp_path):
    record = store()
    write_report([record], tmp_path)
    _, cells, *_ = tables((tmp_path / "board.md").read_text())
    row = dict(zip(cells[0], cells[2], strict=True))
    scores = record.scores.selected
    assert row["Selected"] == f"{100 * scores.miou:.2f}"
    assert row["Oracle"] == f"{100 * record.scores.oracle.miou:.2f}"
    assert row["OA"] == f"{100 * scores.oa:.2f}"
    assert row["Inflation"] == f"{100 * (scores.release_miou - scores.miou):+.2f}" != "+0.00"
    assert row["Worst domain"] == f"{scores.worst_domain} {100 * scores.per_domain[scores.worst_domain]:.2f}"


def test_every_table_keeps_its_columns_whatever_the_records_say(store, fail, tmp_path):
    evil = "a|b\nc <img src=x> `d` \\| *e* [f](g)"
    records = [
        store(options={evil: evil}, classes=(evil, "forest", "urban", "bare"), majority_class=0, dataset=evil),
        fail(message=evil, method="full"),
        store(track="sample", statement="# " + evil),
    ]
    write_report(records, tmp_path)
    for path in tmp_path.glob("board*.md"):
        text = path.read_text()
        assert "<" not in text
        for table in tables(text):
            assert {len(row) for row in table} == {len(table[0])}
        assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]


def test_escape():
    assert escape("a|b\n\r\tc") == r"a\|b c"
    assert escape("<b>&amp;</b>") == "&lt;b&gt;&amp;amp;&lt;/b&gt;"
    assert escape(r"\|") == r"\\\|"


def test_csv_has_every_cell_at_full_precision(many, tmp_path):
    write_report(many, tmp_path)
    table = pd.read_csv(io.StringIO((tmp_path / "board.csv").read_text()), float_precision="round_trip")
    assert list(table.columns) == list(COLUMNS)
    by_fingerprint = table.dropna(subset="fingerprint").set_index("fingerprint")
    real = [record for record in many if record.track == "reproduced"]
    assert set(by_fingerprint.index) == {record.fingerprint for record in real}
    for record in real:
        found = by_fingerprint.loc[record.fingerprint]
        assert found["status"] == record.status and found["seed"] == record.seed
        if record.scores is None:
            assert found["error_message"] == record.error.message and pd.isna(found["selected_miou"])
            continue
        for checkpoint, scores in record.scores.blocks().items():
            assert found[f"{checkpoint}_miou"] == scores.miou
            assert found[f"{checkpoint}_kappa"] == scores.kappa
            assert json.loads(found[f"{checkpoint}_per_domain"]) == scores.per_domain
            assert json.loads(found[f"{checkpoint}_iou"]) == list(scores.iou)
    missing = table[table["status"] == "missing"]
    assert sorted(zip(missing["benchmark"], missing["method"], missing["seed"], strict=True)) == [
        ("mts12-id", "frozen", 0), ("mts12-id", "lora", 0), ("mts12-id", "lora", 1),
    ]  # fmt: skip
    assert (table["method"] == "majority class").sum() == 3 * 2
    full = table[(table["method"] == "full") & (table["seed"] == 1)].set_index("benchmark")
    drop = full.loc["mts12-id", "selected_miou"] - full.loc["mts12-n2s", "selected_miou"]
    assert full.loc["mts12-n2s", "drop_from_in_domain"] == pytest.approx(drop)


def test_nothing_is_written_when_a_record_is_bad(many, tmp_path):
    (many[0].path.parent / many[0].evidence.file).unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        write_report(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_exception_while_writing_leaves_the_old_file(many, tmp_path, monkeypatch):
    write_report(many[:2], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*board*")}
    monkeypatch.setattr("pathlib.Path.write_text", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(many, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*board*")} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_exception_while_rendering_writes_nothing(many, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "long_table", lambda board: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        write_report(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()

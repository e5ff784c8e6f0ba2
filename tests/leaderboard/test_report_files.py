"""Markdown and CSV of boards: nothing synthetic among real results; every table whole; nothing half written."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import spectral_tl_bench.leaderboard.report as module
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.markdown import escape
from spectral_tl_bench.leaderboard.report import write_report
from spectral_tl_bench.leaderboard.reported import COLUMNS as REPORTED
from spectral_tl_bench.leaderboard.table import COLUMNS, csv_bytes
from spectral_tl_bench.leaderboard.text import WHY_RELEASE

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


def report(records, out, formats=("md", "csv")):
    """Write a report without numbers of papers and give its folder of tables."""
    write_report(records, out, formats, pd.DataFrame(columns=list(REPORTED)))
    return out / "tables"


def tables(text):
    """All Markdown tables, as lists of rows of cells."""
    found = []
    for match in re.finditer(r"(?m)(^\|.*\n)+", text):
        rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in match[0].splitlines()]
        found.append([[cell.strip() for cell in row] for row in rows])
    return found


def test_synthetic_results_stay_on_their_own_board(many, tmp_path):
    folder = report(many, tmp_path)
    for name in ("board.md", "board.csv"):
        assert "synthetic-only" not in (folder / name).read_text()
        assert "Synthetic" not in (folder / name).read_text()
    sample = (folder / "board-sample.md").read_text()
    head = sample.splitlines()[:3]
    assert any("Synthetic" in line and "not a result on real data" in line for line in head)
    assert "Data: Synthetic scenes, seed 1." in sample
    assert "synthetic-only" in sample and "full" not in sample.split("## Cells")[1].split("##")[0].replace("fully", "")


def test_only_sample_records_write_no_real_board(store, tmp_path):
    folder = report([store(track="sample")], tmp_path, ("md",))
    assert [path.name for path in folder.glob("board*")] == ["board-sample.md"]


def test_markdown_says_what_it_must(many, tmp_path):
    folder = report(many, tmp_path)
    text = (folder / "board.md").read_text()
    assert MIOU_RULE in text
    assert "gap between cities" in text
    main, cells, floor, failed, configurations = tables(text)
    assert main[0][:6] == ["Rank", "Method", "Backbone", "Configuration", "Tuned", "Seeds"]
    assert main[0][6:10] == ["dfc2020-spring", "mts12-n2s", "Mean", "Mean, release"]
    assert main[0][10:12] == ["Difference", "Source validation"] and WHY_RELEASE in text
    reference = main[0].index("mts12-id (in-domain)")
    by_method = {row[1]: row for row in main[2:]}
    assert {by_method["lora"][0], by_method["full"][0]} == {"1", "2"}
    assert (
        by_method["frozen"][0] == "–" and by_method["frozen"][6] == "failed" and by_method["frozen"][8] == "incomplete"
    )
    assert by_method["lora"][reference] == "–" and "±" in by_method["full"][reference]
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
    folder = report([record], tmp_path)
    _, cells, *_ = tables((folder / "board.md").read_text())
    row = dict(zip(cells[0], cells[2], strict=True))
    scores = record.scores.selected
    assert row["Selected"] == f"{100 * scores.miou:.2f}"
    assert row["Oracle"] == f"{100 * record.scores.oracle.miou:.2f}"
    assert row["OA"] == f"{100 * scores.oa:.2f}"
    assert row["Difference"] == f"{100 * (scores.release_miou - scores.miou):+.2f}" != "+0.00"
    assert row["Release"] == f"{100 * scores.release_miou:.2f}"
    assert row["Worst domain"] == f"{scores.worst_domain} {100 * scores.per_domain[scores.worst_domain]:.2f}"


def test_every_table_keeps_its_columns_whatever_the_records_say(store, fail, tmp_path):
    evil = "a|b\nc <img src=x> `d` \\| *e* [f](g)"
    records = [
        store(options={evil: evil}, classes=(evil, "forest", "urban", "bare"), majority_class=0, dataset=evil),
        fail(message=evil, method="full"),
        store(track="sample", statement="# " + evil),
    ]
    folder = report(records, tmp_path)
    for path in folder.glob("board*.md"):
        text = path.read_text()
        assert "<" not in text
        for table in tables(text):
            assert {len(row) for row in table} == {len(table[0])}
        assert [line for line in text.splitlines() if line.startswith("# ")] == [text.splitlines()[0]]


def test_escape():
    assert escape("a|b\n\r\tc") == r"a\|b c"
    assert escape("<b>&amp;</b>") == "&lt;b&gt;&amp;amp;&lt;/b&gt;"
    assert escape(r"\|") == r"\\\|"
    assert escape("_a_ ~~b~~ batch_size\x1b[31m") == r"\_a\_ \~\~b\~\~ batch_size�\[31m"


def test_parameters_of_the_decoder_stand_in_their_own_column(store, tmp_path):
    records = [
        store(parameters={"total": 1_000, "trainable": 100, "decoder": 64}),
        store(method="full", parameters={"total": 1_000, "trainable": 100}),
    ]
    folder = report(records, tmp_path)
    runs = pd.read_csv(folder / "board.csv").set_index("method")
    assert runs["decoder"]["lora"] == 64 and pd.isna(runs["decoder"]["full"])
    ranks, cells = (table for table in tables((folder / "board.md").read_text()) if "In the decoder" in table[0])
    for table in (ranks, cells):
        place, method = table[0].index("In the decoder"), table[0].index("Method")
        assert table[0][place - 1] == "Trainable parameters"
        found = {row[method]: row[place] for row in table[2:]}
        assert found["lora"] == "64" and found["full"] not in ("0", "100")
    rows = pd.read_csv(folder / "board-rows.csv").set_index("method")
    assert rows["decoder_max"]["lora"] == 64


def test_csv_has_every_cell_at_full_precision(many, tmp_path):
    folder = report(many, tmp_path)
    table = pd.read_csv(io.StringIO((folder / "board.csv").read_text()), float_precision="round_trip")
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
        report(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_exception_while_writing_leaves_the_old_files(many, tmp_path, monkeypatch):
    folder = report(many[:2], tmp_path)
    before = {path.name: path.read_bytes() for path in folder.glob("board*")}
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            report(many, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.glob("*") if path.name.startswith("board")} == before
    assert {path.name for path in folder.iterdir()} == {*before, ".generated.json"}
    report(many, tmp_path)  # and the next report goes on from there
    assert (folder / "board-sample.md").is_file()


def test_an_exception_while_rendering_writes_nothing(many, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "long_table", lambda board: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        report(many, tmp_path / "out")
    assert not (tmp_path / "out").exists()


DATA = {
    "kind": "files",
    "chips": {"train": 6, "validation": 2, "target": 64},
    "split_hash": "ab",
    "manifest_hash": "cd",
}


def many_places(frame, seed, places=16):
    """Evidence of as many copies of the four chips, each at sites of its own."""
    parts = [frame(seed + place, truth_seed=place) for place in range(places)]
    for place, part in enumerate(parts):
        part[["chip", "site"]] = part[["chip", "site"]] + f"-{place}"
    return pd.concat(parts, ignore_index=True)


def test_intervals_are_shown_or_said_to_be_not_estimable(store, frame, tmp_path):
    many = [
        store(evidence=many_places(frame, 100 * seed + len(method)), method=method, seed=seed, data=DATA)
        for method in ("lora", "full")
        for seed in (0, 1, 2)
    ]
    many += [store(method=method, seed=seed, **MTS12_ID) for method in ("lora", "full") for seed in (0, 1, 2)]
    folder = report(many, tmp_path)
    analysis = analyse(make_boards(many)["reproduced"])
    main, cells, *_ = tables((folder / "board.md").read_text())
    column, checked, shown = cells[0].index("95 % interval"), 0, 0
    by_name = {(cell["row"], cell["benchmark"]): cell for cell in analysis.entries.to_dict("records")}
    for line in cells[2:]:
        cell = by_name[line[3], line[0]]
        if cell["state"] in {"missing", "failed"}:
            assert line[column] == "–"
        elif cell["estimable"]:
            assert line[column] == f"{100 * cell['low']:.2f} to {100 * cell['high']:.2f}"
            shown += 1
        else:
            assert line[column].startswith("not estimable")
            checked += 1
    assert checked == shown == 2  # the reference has three sites, which are too few to say
    means = {line[3]: line for line in main[2:]}
    for head, low, high in (
        ("95 % over places", "mean_places_low", "mean_places_high"),
        ("95 % over seeds", "mean_low", "mean_high"),
    ):
        for row in analysis.rows.to_dict("records"):
            if row["complete"] and not row["is_floor"]:
                known = f"{100 * row[low]:.2f} to {100 * row[high]:.2f}"
                said = means[row["row"]][main[0].index(head)]
                assert said == ("not estimable" if np.isnan(row[low]) else known)


def test_rows_without_a_rank_are_listed_with_the_reason(many, tmp_path):
    text = (report(many, tmp_path) / "board.md").read_text()
    part = text.split("## Not ranked")[1].split("##")[0]
    assert part.count("\n- ") == 1 and "frozen" in part
    reason = analyse(make_boards(many)["reproduced"]).rows.set_index("method").loc["frozen", "incomplete_reason"]
    assert reason and reason in part


def test_methods_that_saw_target_images_have_a_board_of_their_own(store, tmp_path):
    folder = report([store(method="blind"), store(method="adapted", target_images=True)], tmp_path)
    assert "adapted" not in (folder / "board.md").read_text()
    other = (folder / "board-reproduced-unlabelled-target.md").read_text()
    assert "blind" not in other.split("## Notes")[0] and "given the target's images" in other


def test_long_tables_hold_the_analysis_in_csv_and_parquet(many, tmp_path):
    folder = report(many, tmp_path, ("csv", "parquet"))
    analysis = analyse(make_boards(many)["reproduced"])
    for name in ("rows", "cells", "classes", "domains"):
        wanted = getattr(analysis, "entries" if name == "cells" else name)
        text = pd.read_csv(folder / f"board-{name}.csv", float_precision="round_trip", keep_default_na=False)
        typed = pq.read_table(folder / f"board-{name}.parquet")
        assert list(text.columns) == typed.column_names == ["board", *wanted.columns]
        assert len(text) == len(typed) == len(wanted)
        assert set(text["board"]) == set(typed["board"].to_pylist()) == {"reproduced"}
        for column in wanted.columns:
            values = [None if pd.isna(value) else value for value in wanted[column].tolist()]
            found = typed[column].to_pylist()
            kind = typed.schema.field(column).type
            if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
                assert found == values, column
            else:
                assert found == [None if value is None else str(value) for value in values], column
            if pa.types.is_floating(kind):
                written = [None if value == "" else float(value) for value in text[column].astype(str)]
                assert written == values, column
    runs = pq.read_table(folder / "board.parquet").to_pandas()
    miou = {record.fingerprint: record.scores.selected.miou for record in many if record.scores is not None}
    found = runs.dropna(subset="selected_miou").dropna(subset="fingerprint")
    assert list(runs.columns) == list(COLUMNS) and found["seed"].dtype == "int64"
    assert {name: miou[name] for name in found["fingerprint"]} == dict(
        zip(found["fingerprint"], found["selected_miou"], strict=True)
    )
    assert len(found) == 4 * 2 + 2 + 1


def test_csv_is_what_pandas_writes():
    frame = pd.DataFrame({
        "real": [0.1 + 0.2, -0.0, 1e-5, 1e22, float("nan")],
        "whole": pd.array([1, None, -3, 2**60, 0], dtype="Int64"),
        "flag": [True, False, True, False, True],
        "text": ['say "no"', "a, b", "two\nlines", None, "Zürich\r"],
        "any": pd.Series([1, 0.25, None, float("nan"), "x;y"], dtype=object),
    })  # fmt: skip
    assert csv_bytes(frame) == frame.to_csv(index=False, lineterminator="\n").encode()
    assert csv_bytes(frame[:0]) == b"real,whole,flag,text,any\n"

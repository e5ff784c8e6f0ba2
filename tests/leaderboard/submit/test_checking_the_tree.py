"""``submit --check``: nothing may lie on the leaderboard that has no business there, and no record may have changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from submitting import cells_of, edit, reasons, write_cell

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.changes import changes_since
from spectral_tl_bench.results.published import Pair, write_lines, write_rows
from spectral_tl_bench.results.store import evidence, read_record, read_records, write_record


@pytest.fixture
def board(world, record):
    """A leaderboard with one record."""
    assert world.submit().ok
    return world


def lines(board):
    """The file of lines of the only pair."""
    (path,) = board.results.rglob("*.jsonl")
    return path


def rows(board):
    """The Parquet file of the only pair."""
    return lines(board).with_suffix(".parquet")


def rename(board, name):
    """Call the pair something else."""
    for path in (lines(board), rows(board)):
        path.rename(path.with_name(name + path.suffix))


def rewrite(board, change, **more):
    """Write the rows again, changed, as one row group for each table that ``change`` gives."""
    tables = change(pq.read_table(rows(board)))
    metadata = more.pop("metadata", {})
    schema = tables[0].schema.with_metadata(metadata)
    with pq.ParquetWriter(rows(board), schema, **more) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(metadata))


def column(table, name, values):
    return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values))


def other_rows(board):
    """Rows of one record more."""
    rewrite(board, lambda t: [t, column(t, "fingerprint", ["0" * 64] * len(t))])


def better(table):
    """The same ground truth, all of it right."""
    matrices = []
    for flat in table.column("matrix").to_pylist():
        matrices.append(np.diag(np.array(flat).reshape(8, 8).sum(axis=1)).reshape(-1).tolist())
    return [column(table, "matrix", pa.array(matrices, type=pa.list_(pa.int64())))]


def page(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<script>alert(1)</script>")


def linked(path):
    path.symlink_to(path.rename(path.parents[3] / path.name))


TREES = {
    "a page among the results": (lambda b: page(b.results / "index.html"), "does not belong here"),
    "a page beside the records": (lambda b: page(b.results / "sample" / "index.html"), "does not belong here"),
    "weights beside the records": (lambda b: page(b.results / "sample" / "x.safetensors"), "does not belong here"),
    "evidence without records": (lambda b: page(b.results / "sample" / "x.parquet"), "stands alone"),
    "records without evidence": (lambda b: rows(b).unlink(), "stands alone"),
    "a hidden file": (lambda b: page(b.results / "sample" / ".hidden"), "does not belong here"),
    "an unknown track": (lambda b: page(b.results / "real" / "x" / "y"), "is no track"),
    "a folder of a run": (lambda b: page(b.results / "sample" / "more" / "x"), "a folder where none belongs"),
    "a folder among the chips": (
        lambda b: page(next(b.results.rglob("chips.json")).parent / "more" / "x"), "expected: what `stbench submit`",
    ),
    "an interrupted submission": (lambda b: page(b.results / ".submit-abc" / "x"), "was interrupted"),
    "a linked file": (lambda b: (b.results / "README.md").symlink_to("/etc/hostname"), "symbolic link"),
    "linked lines": (lambda b: linked(lines(b)), "symbolic link"),
    "linked evidence": (lambda b: linked(rows(b)), "symbolic link"),
    "a linked folder": (lambda b: (b.results / "partial").symlink_to(b.runs), "symbolic link"),
    "a record under another method": (lambda b: rename(b, "lora"), "belongs to sample/pixel-mlp.jsonl"),
    "a record on another track": (lambda b: (b.results / "sample").rename(b.results / "partial"), "belongs to"),
    "another fingerprint": (lambda b: edit(lines(b), lambda r: r.update(fingerprint="0" * 64)), "edited after the run"),
    "an edited score": (
        lambda b: edit(lines(b), lambda r: r["scores"]["last"].update(oa=1.0)),
        "'scores.last.oa' is 1.0",
    ),
    "a name that Windows reserves": (lambda b: rename(b, "aux"), "reserved on Windows"),
    "a name with a space": (lambda b: rename(b, "a b"), "cannot be the name"),
    "a name that differs in case": (
        lambda b: [shutil.copy(p, p.with_name("Pixel-MLP" + p.suffix)) for p in (lines(b), rows(b))],
        "nothing but case",
    ),
    # the lines
    "a line twice": (lambda b: lines(b).write_text(lines(b).read_text() * 2), "has the same fingerprint as"),
    "an empty line": (lambda b: lines(b).write_text(lines(b).read_text() + "\n"), "not JSON in UTF-8"),
    "a line that is no record": (lambda b: lines(b).write_text(lines(b).read_text() + "{}\n"), "not a valid record"),
    "a line that is no JSON": (lambda b: lines(b).write_text(lines(b).read_text()[:-9]), "not JSON"),
    "a key twice": (lambda b: lines(b).write_text(lines(b).read_text().replace('"seed": 0', '"seed": 1, "seed": 0')),
                    "given twice"),
    "another order of keys": (
        lambda b: lines(b).write_text(json.dumps(dict(reversed(json.loads(lines(b).read_text()).items()))) + "\n"),
        "not written as",
    ),
    "other spaces": (lambda b: lines(b).write_text(lines(b).read_text().replace('": ', '":  ')), "not written as"),
    "nested beyond reason": (
        lambda b: lines(b).write_text(lines(b).read_text().replace('"options": {', '"options": {"x": ' + "[" * 9_000)),
        "levels deep",
    ),
    "a line beyond all length": (
        lambda b: lines(b).write_text(lines(b).read_text() + '"' + "x" * 2**20 + '"\n'),
        "at most 1,048,576 are allowed",
    ),
    "lines of 2 GB": (lambda b: os.truncate(lines(b), 2 * 2**30), "2,147,483,648 bytes"),
    "too many lines": (lambda b: lines(b).write_text("{}\n" * 10_001), "more than 10,000 records"),
    "text of schema 1": (
        lambda b: edit(lines(b), lambda r: r.update(schema_version=1, evidence={**r["evidence"], "file": "x.parquet"})),
        "no published evidence",
    ),
    # the rows
    "rows of 2 GB": (lambda b: os.truncate(rows(b), 2 * 2**30), "2,147,483,648 bytes"),
    "rows that are no Parquet": (lambda b: page(rows(b)), "the evidence cannot be read"),
    "rows of no record": (other_rows, "holds rows of no record: '0000"),
    "rows of another record alone": (
        lambda b: rewrite(b, lambda t: [column(t, "fingerprint", ["0" * 64] * len(t))]), "its evidence is missing",
    ),
    "rows of two records in one group": (
        lambda b: rewrite(b, lambda t: [pa.concat_tables([t, column(t, "fingerprint", ["0" * 64] * len(t))])]),
        "one row group for each record",
    ),
    "rows of one record in two groups": (
        lambda b: rewrite(b, lambda t: [t.slice(0, 3), t.slice(3)]), "one row group for each record",
    ),
    "rows without statistics": (
        lambda b: rewrite(b, lambda t: [t], write_statistics=False), "one row group for each record",
    ),
    "one more column": (
        lambda b: rewrite(b, lambda t: [t.append_column("note", pa.array(["<script>"] * len(t)))]), "has the columns",
    ),
    "a page in the file's metadata": (
        lambda b: rewrite(b, lambda t: [t], metadata={"page": "<script>"}), "carries 'b'page'' besides its rows",
    ),
    "other matrices": (lambda b: rewrite(b, better), "not what the record was written with"),
    "another place": (
        lambda b: rewrite(b, lambda t: [column(t, "site", ["x"] * len(t))]), "not what the record was written with",
    ),
    "a long text, many times": (
        lambda b: rewrite(b, lambda t: [column(t, "site", ["x" * 300] * len(t))]), "a text of 300 bytes",
    ),
    "no picture": (
        lambda b: rewrite(b, lambda t: [column(t, "picture", pa.array([None] * len(t), type=pa.binary()))]),
        "its picture cannot be read",
    ),
    "a page as picture": (
        lambda b: rewrite(b, lambda t: [column(t, "picture", [b"<script>", *[None] * (len(t) - 1)])]),
        "the picture is not the file that the record was written with",
    ),
    "a second picture": (
        lambda b: rewrite(b, lambda t: [column(t, "picture", [t.column("picture")[0].as_py()] * len(t))]),
        "a picture that the record does not show",
    ),
    "a giant as picture": (
        lambda b: rewrite(b, lambda t: [column(t, "picture", [b"x" * 5_000_000, *[None] * (len(t) - 1)])]),
        "more than it can need",
    ),
    # the rest
    "a table that is a page": (lambda b: page(b.results / "reported" / "x.csv"), "markup or script"),
    "a table with a formula": (
        lambda b: (page(b.results / "reported" / "x.csv"), (b.results / "reported" / "x.csv").write_text("=1+1\n")),
        "formula",
    ),
    "a folder among the tables": (lambda b: page(b.results / "reported" / "more" / "x.csv"), "where none belongs"),
    "another label of the chips": (
        lambda b: next(b.results.rglob("label.png")).write_bytes(
            pq.read_table(rows(b)).column("picture")[0].as_py()),
        "not what is drawn here",
    ),
    "script in the list of chips": (
        lambda b: next(b.results.rglob("chips.json")).write_text('{"chips": ["<script>"]}'), "not what is drawn here",
    ),
    "chips that no record shows": (
        lambda b: (p := next(b.results.rglob("chips.json")).parent).rename(p.with_name("mts12-n2s-" + "0" * 16)),
        "no record shows these chips",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_refused(board, name):
    change, reason = TREES[name]
    change(board)
    found = board.check()
    assert not found.ok and reason in reasons(found), reasons(found)


def test_what_belongs_there_is_no_finding(board):
    reported = board.results / "reported"
    reported.mkdir()
    (reported / "numbers.csv").write_text("method,miou\nSpectralX,-0.5\n")
    (board.results / "README.md").write_text("text")
    (reported / "README.md").write_text("text")
    assert board.check().ok, reasons(board.check())


def test_no_results_are_a_user_s_mistake(world):
    shutil.rmtree(world.results)
    with pytest.raises(UserError, match="no results to check"):
        world.check()


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def committed(board):
    git(board.root / "checkout", "init", "-q")
    git(board.root / "checkout", "add", "-A")
    git(board.root / "checkout", "commit", "-q", "-m", "base")
    return board


def test_a_pull_request_may_add_records_and_not_change_them(committed):
    board = committed
    (cell,) = cells_of("pixel-mlp", seeds=(1,))
    write_cell(board.root / "more", cell)
    before = lines(board).read_bytes().splitlines()
    assert board.submit(board.root / "more").ok
    changes = changes_since("HEAD", board.results)
    assert changes.before == {"sample/pixel-mlp.jsonl": tuple(before)}
    found = board.check(changes=changes)
    assert found.ok, reasons(found)
    assert len(found.checked) == 2 and [one.record.seed for one in found.checked] == [1, 0]

    text = lines(board).read_text()
    lines(board).write_text(text.replace('"device": "x86_64 CPU"', '"device": "faster"', 1))
    changes = changes_since("HEAD", board.results)
    assert "is changed or removed" in reasons(board.check(changes=changes))
    assert board.check(changes=changes, replace=True).ok
    lines(board).write_text(text.splitlines()[1] + "\n")
    found = reasons(board.check(changes=changes_since("HEAD", board.results)))
    assert "is changed or removed" in found and "holds rows of no record" in found
    lines(board).unlink()
    assert "is changed or removed" in reasons(board.check(changes=changes_since("HEAD", board.results)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (better, "not what the record was written with"),
        (lambda t: [column(t, "picture", [b"<script>", *[None] * (len(t) - 1)])], "the picture is not the one"),
    ],
)
def test_a_pull_request_may_not_change_what_a_line_stands_on(committed, change, reason):
    rewrite(committed, change)
    assert reason in reasons(committed.check(changes=changes_since("HEAD", committed.results)))


def test_rows_may_be_packed_anew(committed):
    """Other compression, other bytes, the same content."""
    rewrite(committed, lambda table: [table], compression="none")
    found = committed.check(changes=changes_since("HEAD", committed.results))
    assert found.ok and len(found.checked) == 1, reasons(found)


def test_a_copy_of_a_record_that_did_not_change_is_found(committed):
    board = committed
    (original,) = read_records([board.results])
    (cell,) = cells_of("frozen")
    copied = read_record(write_cell(board.root / "copy", cell))
    value = copied.model_dump(mode="json", exclude={"scores", "evidence"})
    path = write_record(board.root / "copy", value, evidence(original))
    pair = Pair(board.results / "sample" / "frozen.jsonl")
    write_lines([read_record(path)], pair.path)
    write_rows([read_record(path)], pair.rows)
    found = board.check(changes=changes_since("HEAD", board.results))
    assert "of another method: a copied result" in reasons(found)


@pytest.mark.parametrize("reference", ["--output=/tmp/x", "no-such-commit", ""])
def test_a_reference_that_is_no_commit_is_a_user_s_mistake(committed, reference):
    with pytest.raises(UserError):
        changes_since(reference, committed.results)

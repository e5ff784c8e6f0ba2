"""``submit --check``: nothing may lie on the leaderboard that has no business there, and no record may have changed."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from submitting import cells_of, edit, reasons, write_cell

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.submit.changes import changes_since
from spectral_tl_bench.results.store import read_record


@pytest.fixture
def board(world, record):
    """A leaderboard with one record."""
    assert world.submit().ok
    return world


def home(board):
    (path,) = board.results.rglob("record.json")
    return path.parent


def page(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<script>alert(1)</script>")


TREES = {
    "a page among the results": (lambda b: page(b.results / "index.html"), "does not belong here"),
    "a page beside a record": (lambda b: page(home(b) / "index.html"), "does not belong to the record"),
    "weights beside a record": (lambda b: page(home(b) / "selected.safetensors"), "does not belong to the record"),
    "a second evidence": (lambda b: page(home(b) / "evidence-01234567.parquet"), "does not belong to the record"),
    "a hidden file": (lambda b: page(b.results / "sample" / ".hidden"), "does not belong here"),
    "an unknown track": (lambda b: page(b.results / "real" / "x" / "y"), "is no track"),
    "a folder too deep": (lambda b: page(home(b) / "more" / "x"), "a folder where none belongs"),
    "a folder without a record": (lambda b: page(home(b).parent / ("0" * 16) / "x"), "record.json cannot be read"),
    "an interrupted submission": (lambda b: page(b.results / ".submit-abc" / "x"), "was interrupted"),
    "a linked file": (lambda b: (b.results / "README.md").symlink_to("/etc/hostname"), "symbolic link"),
    "a linked folder": (lambda b: (b.results / "partial").symlink_to(b.runs), "symbolic link"),
    "a record under another method": (lambda b: home(b).parent.rename(home(b).parents[1] / "lora"), "belongs to"),
    "a record on another track": (lambda b: (b.results / "sample").rename(b.results / "partial"), "belongs to"),
    "a record under another fingerprint": (lambda b: home(b).rename(home(b).parent / ("0" * 16)), "belongs to sample/"),
    "an edited score": (
        lambda b: edit(home(b) / "record.json", lambda r: r["scores"]["last"].update(oa=1.0)),
        "'scores.last.oa' is 1.0",
    ),
    "a folder that Windows reserves": (lambda b: page(b.results / "sample" / "aux" / "x"), "reserved on Windows"),
    "a folder with a space": (lambda b: page(b.results / "sample" / "a b" / "x"), "cannot be the name"),
    "a folder that differs in case": (
        lambda b: shutil.copytree(home(b).parent, home(b).parents[1] / "Pixel-MLP"), "nothing but case",
    ),
    "a table that is a page": (lambda b: page(b.results / "reported" / "x.csv"), "markup or script"),
    "a table with a formula": (
        lambda b: (page(b.results / "reported" / "x.csv"), (b.results / "reported" / "x.csv").write_text("=1+1\n")),
        "formula",
    ),
    "a folder among the tables": (lambda b: page(b.results / "reported" / "more" / "x.csv"), "where none belongs"),
    "another label of the chips": (
        lambda b: shutil.copy(next(home(b).glob("*.png")), next(b.results.rglob("label.png"))),
        "not what is drawn here",
    ),
    "script in the list of chips": (
        lambda b: next(b.results.rglob("chips.json")).write_text('{"chips": ["<script>"]}'), "not what is drawn here",
    ),
    "chips that no record shows": (
        lambda b: (p := next(b.results.rglob("chips.json")).parent).rename(p.with_name("pictures-" + "0" * 16)),
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
    new = write_cell(board.root / "more", cell)
    assert board.submit(board.root / "more").ok
    changes = changes_since("HEAD", board.results)
    assert changes.touched == () and changes.folders == {f"sample/mts12-n2s/pixel-mlp/{new.parent.name}"}
    found = board.check(changes=changes)
    assert found.ok, reasons(found)
    assert len(found.checked) == 2

    (old,) = [path for path in board.results.rglob("record.json") if path.parent.name != new.parent.name]
    edit(old, lambda value: value.update(device="faster"))
    changes = changes_since("HEAD", board.results)
    assert changes.touched == (old.relative_to(board.results).as_posix(),)
    assert "is changed or removed" in reasons(board.check(changes=changes))
    assert board.check(changes=changes, replace=True).ok
    shutil.rmtree(old.parent)
    assert "is changed or removed" in reasons(board.check(changes=changes_since("HEAD", board.results)))


def test_a_copy_of_a_record_that_did_not_change_is_found(committed):
    from spectral_tl_bench.results.store import evidence, write_record

    board = committed
    (original,) = board.results.rglob("record.json")
    (cell,) = cells_of("frozen")
    copied = read_record(write_cell(board.root / "copy", cell))
    value = copied.model_dump(mode="json", exclude={"scores", "evidence"})
    path = write_record(board.root / "copy", value, evidence(read_record(original)))
    shutil.copytree(path.parent, board.results / "sample" / "mts12-n2s" / "frozen" / path.parent.name)
    found = board.check(changes=changes_since("HEAD", board.results))
    assert "of another method: a copied result" in reasons(found)


@pytest.mark.parametrize("reference", ["--output=/tmp/x", "no-such-commit", ""])
def test_a_reference_that_is_no_commit_is_a_user_s_mistake(committed, reference):
    with pytest.raises(UserError):
        changes_since(reference, committed.results)

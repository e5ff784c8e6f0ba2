"""``stbench clean`` removes what it names, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import typer
from stored import Store, show, store

from spectral_tl_bench.runner import clean
from spectral_tl_bench.runner.lease import Lease
from spectral_tl_bench.runner.status import cells_of

__all__ = ["show", "store"]


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


@pytest.fixture
def full(store: Store) -> Store:
    """A store with cells in every state."""
    (store.done("lora") / "log.txt").write_text("a log\n")
    (store.failed("dora") / "error.txt").write_text("why\n")
    store.stopped("full")
    store.stopped("oft", ended="paused")
    store.job("lora", "1")
    stage = store.root / ".resume" / "stage-0123456789abcdef"
    stage.mkdir()
    (stage / "last.ckpt").write_bytes(b"x")
    return store


def removed(store: Store, show, *arguments: str) -> set[str]:
    before = tree(store.root)
    show("clean", *arguments, "--yes")
    assert tree(store.root) <= before
    return before - tree(store.root)


def in_cell(store: Store, method: str) -> str:
    return str(store.folder(method).relative_to(store.root))


def test_without_a_name_it_explains(full, show):
    before = tree(full.root)
    text = show("clean", code=2)
    assert "--failed" in text and "stbench status" in text and "stbench cache" in text and tree(full.root) == before
    assert "stbench cache clear" in " ".join(show("clean", "--help").split())


def test_without_a_terminal_or_a_yes_nothing_goes(full, show):
    before = tree(full.root)
    assert "add --yes" in show("clean", "--failed", code=2)
    assert tree(full.root) == before


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_it_lists_and_asks(full, show, monkeypatch, answer, code):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def confirm(question: str, abort: bool) -> None:
        assert question.startswith("remove 1 of them") and abort
        if answer == "n":
            raise typer.Abort

    monkeypatch.setattr("typer.confirm", confirm)
    before = tree(full.root)
    show("clean", "--failed", code=code)
    assert (tree(full.root) == before) is (answer == "n")


def test_each_option_removes_its_own(full, show):
    dora, whole = in_cell(full, "dora"), in_cell(full, "full")
    key = full.folder("full").name
    assert removed(full, show, "--failed") == {f"{dora}/record.json", f"{dora}/error.txt"}
    assert removed(full, show, "--stale") == {f".resume/{key}/progress.json", f".resume/{key}/last.ckpt"}
    assert removed(full, show, "--logs") == {f"{in_cell(full, name)}/log.txt" for name in ("lora", "full", "oft")}
    paused = full.folder("oft").name
    assert removed(full, show, "--checkpoints") == {f".resume/{paused}/progress.json", f".resume/{paused}/last.ckpt"}
    assert removed(full, show, "--jobs") == {f".jobs/{full.folder('lora').name}.json"}
    assert removed(full, show, "--failed", "--stale", "--logs", "--checkpoints", "--jobs") == set()
    assert tree(full.root) == {
        path for path in tree(full.root) if path.startswith((in_cell(full, "lora"), ".resume/stage-", whole))
    }
    assert "record.json" in {path.name for path in full.folder("lora").iterdir()}


def test_an_option_goes_for_the_named_cells_alone(full, show):
    assert removed(full, show, "mts12-n2s/full", "--logs") == {f"{in_cell(full, 'full')}/log.txt"}
    assert removed(full, show, "mts12-n2s/lora", "--logs") == {f"{in_cell(full, 'lora')}/log.txt"}


def test_a_named_cell_goes_whole_a_finished_one_only_when_that_is_said(full, show):
    key = full.folder("full").name
    assert removed(full, show, "mts12-n2s/full") == {
        f"{in_cell(full, 'full')}/log.txt", f".resume/{key}/progress.json", f".resume/{key}/last.ckpt",
    }  # fmt: skip
    before = tree(full.root)
    text = show("clean", "mts12-n2s/lora", "--yes", code=2)
    assert "is finished" in text and "--finished" in text and tree(full.root) == before
    assert "--finished is for cells" in show("clean", "--finished", "--failed", "--yes", code=2)
    gone = removed(full, show, full.folder("lora").name, "--finished")
    assert {path.rpartition("/")[2] for path in gone} >= {"record.json", "log.txt"}
    assert all(path.startswith((in_cell(full, "lora"), ".jobs/")) for path in gone)


def test_what_runs_stays(full, show):
    lease = Lease(full.folder("full"))
    assert lease.take()
    with lease:
        before = tree(full.root)
        text = show("clean", "--stale", "--logs", "mts12-n2s/full", "--yes")
        assert "stays" in text and "process" in text and "nothing to remove" in text and tree(full.root) == before
        assert "runs:" in show("clean", "mts12-n2s/full", "--yes", code=2)
        assert not any("stage-" in path for path in removed(full, show, "--checkpoints"))


def test_a_queued_cell_stays(full, show):
    full.job("ssf", "9")
    assert "cancel its job first" in show("clean", "mts12-n2s/ssf", "--yes", code=2)
    removed(full, show, "--jobs")
    assert f".jobs/{full.folder('ssf').name}.json" in tree(full.root)


def test_what_begins_to_run_after_the_question_stays(full):
    going, _ = clean.to_remove(full.root, cells_of(full.root), clean.Wishes(logs=True))
    with Lease(full.folder("full")) as lease:
        assert lease.take()
        (line,) = clean.remove(going)
    assert "a run has begun to use it" in line and (full.folder("full") / "log.txt").exists()
    assert not (full.folder("lora") / "log.txt").exists()


def test_links_are_not_followed(full, show, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    checkpoints = full.root / ".resume" / full.folder("full").name
    for path in checkpoints.iterdir():
        path.unlink()
    checkpoints.rmdir()
    checkpoints.symlink_to(outside)
    (full.folder("dora") / "a-link").symlink_to(outside)
    text = show("clean", "--stale", "--failed", "--checkpoints", "--yes")
    assert (outside / "mine.txt").read_text() == "mine"
    assert not full.folder("dora").exists(), "the link in it went, and not what it leads to"
    assert checkpoints.is_symlink() and ("link" in text or checkpoints.is_symlink())


def test_half_written_files_and_dead_leases_go_with_the_stale(full, show):
    folder = full.folder("lora")
    (folder / ".record-abc123.json").write_text("{")
    claim = folder.parent / f".{folder.name}.claim"
    claim.write_text("elsewhere-1~2~3")
    os.utime(claim, (1, 1))
    gone = removed(full, show, "mts12-n2s/lora", "--stale")
    assert {path.rpartition("/")[2] for path in gone} == {".record-abc123.json", claim.name}

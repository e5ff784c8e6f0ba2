"""``stbench status`` and ``stbench logs``: what a store says about its cells, however their runs have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from stored import show, store
from tiny import run_main

from spectral_tl_bench.cli import status as verbs
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.standing import Standing, standing_of
from spectral_tl_bench.runner.status import cells_of, find_cell
from spectral_tl_bench.storage import signs

__all__ = ["show", "store"]


# ---------------------------------------------------------------------------------------------- states


def test_every_state_is_told(store, show):
    done = store.done("lora")
    store.failed("dora", "CUDA out of memory\nmore lines")
    store.stopped("full")
    store.stopped("oft", ended="paused")
    store.job("ssf", "123_4")
    store.job("unknown", "5", named=False)
    with store.running("ia3"):
        text = show("status")
    rows = {line.split()[1]: line for line in text.splitlines()[1:-1]}
    miou = read_record(done / "record.json").scores.selected.miou
    assert f"done     {done.name[:8]}  target mIoU {100 * miou:.2f} %" in rows["lora"]
    assert rows["dora"].endswith("RuntimeError: CUDA out of memory") and "failed" in rows["dora"]
    assert rows["full"].endswith("stopped at segment, step 120 of 400, 3 h ago; the same command goes on")
    assert rows["oft"].endswith("paused at segment, step 120 of 400, 3 h ago; the same command goes on")
    assert rows["ssf"].endswith("job 123_4, slurm") and "queued" in rows["ssf"]
    assert f"process {os.getpid()} on " in rows["ia3"] and "segment, step 30 of 400, " in rows["ia3"]
    assert rows["ia3"].endswith("2 min left")
    assert text.splitlines()[-1] == "1 done, 1 running, 2 queued, 1 paused, 1 stopped, 1 failed"


def test_filters_and_json(store, show):
    store.done("lora"), store.done("lora", seed=1), store.failed("dora"), store.stopped("full")
    (failed,) = json.loads(show("status", "--json", "--state", "failed"))
    assert (failed["method"], failed["seed"], failed["reason"]) == ("dora", 0, "RuntimeError: it broke")
    assert failed["folder"] == str(store.folder("dora")) and failed["miou"] is None
    cells = json.loads(show("status", "--json", "-m", "lora", "-b", "mts12-n2s"))
    assert [(cell["seed"], cell["state"]) for cell in cells] == [(0, "done"), (1, "done")]
    (stopped,) = json.loads(show("status", "--json", "--method", "full"))
    assert (stopped["stage"], stopped["step"], stopped["steps"]) == ("segment", 120, 400)
    assert json.loads(show("status", "--json", "-b", "other")) == []
    assert "there are no such cells" in show("status", "-b", "other")
    assert "running" in show("status", "--state", "runing", code=2)


def test_an_empty_store_has_no_cells_and_a_missing_one_is_a_mistake(store, show, monkeypatch, capsys):
    assert "there are no such cells" in show("status")
    (store.root / "mts12-n2s" / "lora" / ("ab" * 8)).mkdir(parents=True)  # an empty folder is no cell
    assert "there are no such cells" in show("status")
    assert run_main(monkeypatch, ["status", "--records", store.root / "missing"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_what_came_last_counts(store):
    """A run after a failure, and a failure after a run."""
    store.failed("lora")
    time.sleep(0.01)
    store.stopped("lora", hours=0)
    store.failed("dora")
    store.stopped("dora", hours=5)
    record = store.done("full") / "record.json"
    store.stopped("full", hours=0)
    assert store.states() == {"lora-0": "stopped", "dora-0": "failed", "full-0": "done"}
    with store.running("full"):
        assert store.states()["full-0"] == "running", "run again with --fresh"
    record.write_text("{")
    assert store.states()["full-0"] in ("failed", "stopped")


def test_a_dead_owner_is_seen(store):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    folder = store.stopped("lora")
    claim = folder.parent / f".{folder.name}.claim"
    claim.write_text(f"{signs.host()}~{process.pid}~00000000")
    assert store.states() == {"lora-0": "stopped"}
    claim.write_text("elsewhere-12~42~00000000")
    assert store.states() == {"lora-0": "running"}, "nobody here can know better yet"
    old = time.time() - signs.LOST - 10
    os.utime(claim, (old, old))
    assert store.states() == {"lora-0": "stopped"}


def test_the_queue_is_asked_once_for_all_jobs(store):
    for number, method in enumerate(("lora", "dora", "full", "oft")):
        store.job(method, str(number))
    store.done("oft")
    store.failed("dora"), os.utime(store.folder("dora") / "record.json", (1, 1))
    asked: list[list[str]] = []

    def queue(numbers):
        asked.append(list(numbers))
        return {"0": "PENDING", "1": "RUNNING"}

    cells = {cell.method: cell for cell in cells_of(store.root, queue)}
    assert asked == [["0", "1", "2", "3"]]
    states = {name: (cell.state, cell.job_state) for name, cell in cells.items()}
    assert states["lora"] == ("queued", "PENDING") and states["dora"] == ("queued", "RUNNING")
    assert states["full"] == ("stopped", "gone") and states["oft"][0] == "done"
    assert cells["full"].detail == "job 2 has left the queue; stopped; the same command goes on"


def test_damaged_files_and_links_break_nothing(store, tmp_path):
    store.stopped("lora")
    (store.root / ".resume" / store.folder("lora").name / "progress.json").write_text('{"step": []}')
    (store.root / ".jobs").mkdir()
    (store.root / ".jobs" / "0123456789abcdef.json").write_text("[1")
    (store.root / "linked").symlink_to(tmp_path)
    (store.root / "mts12-n2s" / "a file").write_text("")
    store.failed("dora", "\x1b[31mred\x07")
    cells = {cell.method: cell for cell in cells_of(store.root)}
    assert cells["lora"].state == "stopped" and cells["lora"].standing is None
    assert cells["dora"].reason == "RuntimeError: ?[31mred?"


def test_thousands_of_records_are_listed_quickly_and_without_heavy_imports(store):
    content = (store.done("lora") / "record.json").read_bytes()
    for number in range(3000):
        folder = store.root / "mts12-n2s" / f"method{number % 30}" / f"{number:016x}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_bytes(content)
    code = (
        "import sys, time; from spectral_tl_bench.cli.main import app; began = time.process_time()\n"
        "app(['status', '--records', sys.argv[1]], standalone_mode=False)\n"
        "print(time.process_time() - began, [name for name in ('torch', 'pandas', 'lightning') if name in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, store.root], capture_output=True, text=True, check=True
    ).stdout
    *_, counts, last = printed.splitlines()
    assert counts == "3001 done" and last.endswith(" []")
    assert float(last.split()[0]) < 3.0


# ---------------------------------------------------------------------------------------------- how far a cell is


def test_how_far_a_cell_is_is_written_and_goes_with_its_end(store, monkeypatch):
    fields = store.fields("lora", 0)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12"), monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    name = fields["fingerprint"][:16]
    with pytest.raises(KeyboardInterrupt), standing_of(store.root, fields) as keeper:
        assert Standing.read(store.root, name).stage == "preparing"
        keeper.note("segment", 0, 10)
        time.sleep(0.02)
        keeper.note("segment", 1, 10)  # too soon after the last one
        assert Standing.read(store.root, name).step == 0
        keeper._last, keeper._began = keeper._last - 60, keeper._began - 60
        keeper.note("segment", 5, 10)
        standing = Standing.read(store.root, name)
        assert (standing.step, standing.steps, standing.job, standing.pid) == (5, 10, "12_3", os.getpid())
        assert 59 < standing.left < 70
        raise KeyboardInterrupt
    assert Standing.read(store.root, name).ended == "interrupted"
    assert [path.name for path in (store.root / ".resume" / name).iterdir()] == ["progress.json"]


def test_where_it_cannot_be_written_nothing_ends(store):
    (store.root / ".resume").write_text("a file in the way")
    with standing_of(store.root, store.fields("lora", 0)) as keeper:
        keeper.note("segment", 1, 10)
    assert Standing.read(store.root, "ab" * 8) is None


# ---------------------------------------------------------------------------------------------- logs


def test_a_cell_is_named_by_its_fingerprint_or_its_names(store, show):
    for seed in (0, 1):
        store.stopped("lora", seed=seed)
    store.stopped("full")
    cells = cells_of(store.root)
    one = store.folder("lora", 1)
    assert find_cell(cells, one.name[:10]).folder == find_cell(cells, "mts12-n2s/lora/1").folder == one
    assert find_cell(cells, "mts12-n2s/full").folder == store.folder("full")
    assert "a line" in show("logs", one.name)
    text = show("logs", "mts12-n2s/lora", code=2)
    assert "names 2 cells" in text and one.name in text and store.folder("lora", 0).name in text
    assert "there is no cell 'mts12-n2s/other'" in show("logs", "mts12-n2s/other", code=2)
    assert "there is no cell 'zz'" in show("logs", "zz", code=2)


def test_the_log_of_the_cell_of_its_failure_or_of_its_job(store, show):
    folder = store.failed("lora")
    store.job("lora", "7")
    (folder / "error.txt").write_text("Traceback of it\n")
    (store.root / "jobs").mkdir()
    (store.root / "jobs" / "out.txt").write_text("slurmstepd: killed\n")
    assert show("logs", "mts12-n2s/lora") == "Traceback of it\n"
    (folder / "log.txt").write_text("".join(f"line {number}\n" for number in range(10)))
    assert show("logs", "mts12-n2s/lora", "--tail", "2") == "line 8\nline 9\n"
    assert show("logs", "mts12-n2s/lora", "--tail", "0") == ""
    assert len(show("logs", "mts12-n2s/lora").splitlines()) == 10
    assert show("logs", "mts12-n2s/lora", "--error") == "Traceback of it\n"
    assert show("logs", "mts12-n2s/lora", "--job") == "slurmstepd: killed\n"
    (store.root / "jobs" / "out.txt").unlink()
    assert "has no such log" in show("logs", "mts12-n2s/lora", "--job", code=2)
    assert "exclude each other" in show("logs", "mts12-n2s/lora", "--job", "--error", code=2)


def test_a_log_is_followed_until_the_cell_ends(store, show, monkeypatch):
    monkeypatch.setattr(verbs, "POLL", 0.02)
    folder, lease = store.folder("lora"), store.running("lora")
    folder.mkdir()
    (folder / "log.txt").write_text("first\n")

    def go_on() -> None:
        time.sleep(0.3)
        with (folder / "log.txt").open("a") as stream:
            stream.write("sec")
            stream.flush()
            time.sleep(0.1)
            stream.write("ond\nthird\n")
        time.sleep(0.1)
        lease._claim.release()

    thread = threading.Thread(target=go_on)
    thread.start()
    assert show("logs", "mts12-n2s/lora", "--follow") == "first\nsecond\nthird\n"
    thread.join()

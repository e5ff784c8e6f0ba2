"""Several processes: they share what they make without locks, and the dead hold up nobody."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from storing import get, names, read, silent, write

from spectral_tl_bench.storage import STAGES, obtain, signs


def _process(number: int, queue, started, barrier) -> None:
    signs.POLL = 0.02

    def slow(folder: Path) -> None:
        queue.put("made")
        started.set()
        time.sleep(1.0)
        write(f"by {number}")(folder)

    barrier.wait(60)
    queue.put(obtain(STAGES, "k", read, slow, say=queue.put))


def test_two_processes_make_an_entry_once(cache):
    context = multiprocessing.get_context("spawn")
    queue, started, barrier = context.Queue(), context.Event(), context.Barrier(2)
    processes = [context.Process(target=_process, args=(number, queue, started, barrier)) for number in (0, 1)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=60) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert results.count("made") == 1
    assert results.count("another process is making first stage k, waiting") == 1
    (one, other) = (result for result in results if isinstance(result, tuple))
    assert one[0] == other[0] and {one[1], other[1]} == {False, True}
    assert names(cache / "stages") == {"k"}


def test_two_that_cannot_see_each_other_make_the_same_entry(cache, monkeypatch):
    """Claims are advice: without them, both make it and both can use it."""
    monkeypatch.setattr(signs.Claim, "take", lambda self: True)
    barrier, results = threading.Barrier(2), []

    def make(folder):
        write("same")(folder)
        barrier.wait(20)

    def work():
        results.append(obtain(STAGES, "k", read, make, say=silent))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [("same", False)] * 2 and names(cache / "stages") == {"k"}


KILLED = """
import sys, time
from pathlib import Path
from spectral_tl_bench.storage import STAGES, obtain
def make(folder):
    (folder / "text").write_text("half")
    print("begun", flush=True)
    time.sleep(600)
obtain(STAGES, "k", Path.read_text, make)
"""


def killed() -> None:
    """A process that was killed while it made the entry k."""
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    process.stdout.close()


def test_a_process_that_was_killed_holds_up_nobody_and_its_remains_go(cache):
    killed()
    remains = names(cache / "stages")
    assert ".k.claim" in remains and any(name.endswith(".part") for name in remains)
    began = time.monotonic()
    assert get() == ("made", False) and time.monotonic() - began < 5
    assert names(cache / "stages") == {"k"}


def test_a_process_that_is_killed_while_another_waits(cache, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    said: list[str] = []
    results: list[tuple[str, bool]] = []
    thread = threading.Thread(target=lambda: results.append(get(say=said.append)))
    thread.start()
    while not said:
        time.sleep(0.02)
    assert said == ["another process is making first stage k, waiting"] and not results
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    process.stdout.close()
    thread.join(20)
    assert results == [("made", False)] and len(said) == 1


def claim_of_another_machine(cache: Path) -> Path:
    claim = cache / "stages" / ".k.claim"
    claim.parent.mkdir(parents=True)
    claim.write_text("elsewhere~1~abc")
    return claim


def test_a_claim_of_another_machine_without_a_sign_of_life_is_passed_over(cache, monkeypatch):
    claim = claim_of_another_machine(cache)
    monkeypatch.setattr(signs, "STALE", 0.3)
    said: list[str] = []
    began = time.monotonic()
    assert get(say=said.append) == ("made", False)
    assert 0.3 <= time.monotonic() - began < 5 and "waiting" in said[0] and not claim.exists()
    claim.write_text("elsewhere~1~abc")
    os.utime(claim, (time.time() - 2 * signs.LOST,) * 2)
    assert get("other") == ("made", False)
    STAGES.path("k").rename(cache / "away")
    assert get() == ("made", False), "a claim of long ago is not waited for at all"


def test_a_claim_of_another_machine_that_is_touched_is_waited_for(cache, monkeypatch):
    claim = claim_of_another_machine(cache)
    monkeypatch.setattr(signs, "STALE", 0.4)
    results: list[tuple[str, bool]] = []
    thread = threading.Thread(target=lambda: results.append(get(text="mine", say=lambda _: None)))
    thread.start()
    for step in range(20):
        os.utime(claim, (time.time() + step, time.time() + step))
        time.sleep(0.05)
    assert not results
    STAGES.path("k").mkdir()
    write("theirs")(STAGES.path("k"))
    thread.join(20)
    assert results == [("theirs", True)] and claim.exists(), "it is theirs to take away"


def test_signs_are_touched_as_long_as_the_work_goes_on(cache, monkeypatch):
    monkeypatch.setattr(signs, "BEAT", 0.05)

    def make(folder):
        for path in (cache / "stages" / ".k.claim", folder.parent):
            os.utime(path, (1, 1))
        time.sleep(0.5)
        assert all(time.time() - path.stat().st_mtime < 60 for path in (cache / "stages" / ".k.claim", folder.parent))
        write("made")(folder)

    assert obtain(STAGES, "k", read, make) == ("made", False)


def test_a_claim_that_was_taken_over_is_not_removed(cache):
    claim = cache / "stages" / ".k.claim"

    def make(folder):
        claim.write_text("elsewhere~1~abc")
        write("made")(folder)

    assert obtain(STAGES, "k", read, make) == ("made", False)
    assert claim.read_text() == "elsewhere~1~abc"

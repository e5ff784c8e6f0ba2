"""Runs of ``stbench run`` that are killed at random points and started again.

As a script: ``python killing.py FOLDER KILLS ARGUMENT...``. All is imported once, and each run is a process that is
forked off. It ends itself by SIGKILL, which nothing can catch, up to some milliseconds after a point that is drawn: in
training, in validation, in testing, as a checkpoint is written, or as the result is.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = ("training", "validation", "testing", "checkpoint", "writing")
AFTER = 0.03  # seconds, at most, from a point to the end
TWICE = 0.3  # share of the runs that are killed a second time


def left_by(record: Path) -> dict[str, Any]:
    """What must be the same, whatever happened before the record was written."""
    fields = json.loads(record.read_text())
    return {
        "weights": (record.parent / "selected.safetensors").read_bytes(),
        "evidence": fields["evidence"],
        "scores": fields["scores"],
        "selection": fields["selection"],
        "stages": [(stage["name"], stage["steps"], stage["trainable"]) for stage in fields["stages"]],
        "objectives": [stage["options"].get("objectives") for stage in fields["stages"]],
        "fingerprint": fields["fingerprint"],
    }


class _Points:
    """Counts the points at which a run may be killed, and kills it at one of them."""

    def __init__(self, phase: str | None, number: int, delay: float) -> None:
        self.phase, self.number, self.delay, self.state = phase, number, delay, "training"
        self.seen: Counter[str] = Counter()

    def reached(self, phase: str) -> None:
        self.seen[phase] += 1
        if phase == self.phase and self.seen[phase] == self.number:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def watch(self) -> None:
        from spectral_tl_bench.evaluation.evaluate import ChipEvaluator
        from spectral_tl_bench.runner import cell
        from spectral_tl_bench.training.task import StageTask

        def during(state: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                self.state = state
                return function(*arguments, **named)

            return call

        def noted(function: Callable[..., Any], phase: Callable[[], str | None]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                if (now := phase()) is not None:
                    self.reached(now)
                return function(*arguments, **named)

            return call

        cell.test = during("testing", cell.test)
        cell.write_or_rescue = during("writing", cell.write_or_rescue)
        StageTask.training_step = noted(StageTask.training_step, lambda: "training")
        StageTask.validation_step = noted(StageTask.validation_step, lambda: "validation")
        ChipEvaluator.add = noted(ChipEvaluator.add, lambda: "testing" if self.state == "testing" else None)
        os.fsync = noted(os.fsync, lambda: {"training": "checkpoint", "writing": "writing"}.get(self.state))


def run(arguments: list[str], log: Path, phase: str | None = None, number: int = 0, delay: float = 0.0) -> Counter[str]:
    """One run, in a process of its own; gives how many points of each phase it has passed, if it was not killed."""
    counts = log.with_suffix(".json")
    counts.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        points = _Points(phase, number, delay)
        points.watch()
        with log.open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        from spectral_tl_bench.cli.main import main

        sys.argv = ["stbench", "run", *arguments]
        code = 0
        try:
            main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        counts.write_text(json.dumps(points.seen))
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Counter()
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"exit code {os.WEXITSTATUS(status)}\n{log.read_text()[-4000:]}")
    return Counter(json.loads(counts.read_text()))


def record_in(out: Path) -> Path:
    """The one record below a folder."""
    (record,) = out.glob("*/*/*/record.json")
    return record


def campaign(folder: Path, kills: int, arguments: list[str]) -> list[str]:
    """Kill runs at random points, start them again, and compare what they leave with that of a run in peace.

    Args:
        folder: Where all goes, the cache too.
        kills: How many runs are killed, some of them twice.
        arguments: Of ``stbench run``, without ``--out`` and ``--checkpoint-every``.

    Returns:
        A line for each run.
    """
    from spectral_tl_bench.storage import STAGES

    stages = STAGES.path("any").parent
    drawn = random.Random(0)
    log, often = folder / "log.txt", ["--checkpoint-every", ".2s"]
    run([*arguments, "--out", str(folder / "peace"), "--checkpoint-every", "0"], log)
    expected = left_by(record_in(folder / "peace"))
    shutil.rmtree(stages, ignore_errors=True)
    points = run([*arguments, "--out", str(folder / "often"), *often], log)
    lines = []
    for number in range(kills):
        out, ended, started = folder / f"killed-{number}", [], time.monotonic()
        shutil.rmtree(stages, ignore_errors=True)
        command = [*arguments, "--out", str(out), *often]
        for _ in range(2 if drawn.random() < TWICE else 1):
            phase = PHASES[number % len(PHASES)] if not ended else drawn.choice(PHASES)
            at = drawn.randint(1, max(1, points[phase]))
            killed = not run(command, log, phase, at, drawn.uniform(0, AFTER))
            ended.append(f"{phase} {at}/{points[phase]}{'' if killed else ' (not reached)'}")
        run(command, log)
        found = left_by(record_in(out))
        differ = [name for name in expected if expected[name] != found[name]]
        resumed = json.loads(record_in(out).read_text())["environment"].get("resumed", "0")
        left = [str(path) for path in out.glob(".resume/*")]
        verdict = f"other {', '.join(differ)}" if differ else f"left {left}" if left else "the same"
        seconds = time.monotonic() - started
        lines.append(f"{verdict}: killed in {', then '.join(ended)}; resumed {resumed}; {seconds:.1f} s")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
        shutil.rmtree(out)
    return lines


if __name__ == "__main__":
    place, count, *rest = sys.argv[1:]
    from spectral_tl_bench.runner import ready  # noqa: F401 - imports what is slow to import

    campaign(Path(place), int(count), rest)

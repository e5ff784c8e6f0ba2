"""What runs in a job: the command for some cells, and the wish to be queued again when it was not allowed to finish.

The command is a process of its own, which this one watches: that outlives its being killed, and no library in it can
take the signals. It gets one signal only, the wish to pause, and what it leaves at the next step is on disk when the
job is queued again, from here and from nowhere else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from spectral_tl_bench.pause import EXIT_CODE
from spectral_tl_bench.runner.slurm.queue import LOGS, note, read_entry
from spectral_tl_bench.runner.standing import FILE as PROGRESS
from spectral_tl_bench.runner.standing import FOLDER as RESUME
from spectral_tl_bench.runner.standing import job_of_process

STALLS = 3
"""Endings in a row without any progress after which a job is not queued again."""
SUBMIT_AGAIN = "the same command submits it again"
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
_POLL = 0.2


@dataclass(frozen=True)
class Batch:
    """Some cells of a run, as a job.

    Attributes:
        arguments: Of ``stbench run``, without executor and cells.
        cells: The first 16 digits of their fingerprints.
        out: Root of the records.
        folder: Where the command was given.
        lead: Seconds before the time limit at which SLURM sends a signal.
    """

    arguments: tuple[str, ...]
    cells: tuple[str, ...]
    out: Path
    folder: Path
    lead: int

    def __call__(self) -> None:
        """Run, and have this job queued again if the cells could not be finished.

        Raises:
            SystemExit: With the exit code of the command, unless all went well; never with 143, by which the job's
                script knows that SLURM's signal came before anybody took it.
        """
        job, is_first = job_of_process(), _is_first()
        before = self._progress()
        code, asked = self._watched([sys.executable, "-u", *command_line(self.arguments, self.cells)])
        if code == 0:
            return
        if is_first:
            reason, again = self._what_next(job, code, asked, self._progress() != before)
            self._tell(f"{reason}, {'queued again' if again else SUBMIT_AGAIN}")
            if again and (refused := requeue(job)):
                self._tell(f"{reason}, but SLURM would not queue it again ({refused}): {SUBMIT_AGAIN}")
        sys.exit({-signal.SIGTERM: 1, 128 + signal.SIGTERM: 1}.get(code, code if code > 0 else 128 - code))

    def _what_next(self, job: str, code: int, asked: set[int], progress: bool) -> tuple[str, bool]:
        """Why the command has ended, and whether this job is to be queued again."""
        if code > 0 and code != EXIT_CODE and not (asked and code > 128):
            return f"ended with exit code {code}, see its log", False
        state, why = state_of(job)
        if state not in ("RUNNING", "") and "TimeLimit" not in why:
            return f"stopped from outside (SLURM: {state.lower()})", False
        if signal.SIGTERM in asked:
            reason = "preempted"
        elif asked:
            reason = "out of time"
        else:
            hint = ", as it happens when memory runs out" if code == -signal.SIGKILL else ""
            reason = "paused" if code == EXIT_CODE else f"killed by signal {-code}{hint}"
        stalls = 0 if progress or signal.SIGTERM in asked else self._stalls() + 1
        note(self.out, self.cells, stalls=stalls)
        if stalls >= STALLS:
            return f"{reason}, {stalls} times in a row without a new checkpoint or record: given up", False
        return reason, True

    def _tell(self, reason: str) -> None:
        """Say why the cells are not finished: in the job's log, and where `stbench status` looks."""
        note(self.out, self.cells, reason=reason)
        print(reason, flush=True)  # noqa: T201 - the job's log

    def _stalls(self) -> int:
        known = [read_entry(self.out, cell).get("stalls", 0) for cell in self.cells]
        return max((count for count in known if isinstance(count, int)), default=0)

    def _progress(self) -> set[tuple[str, int]]:
        """What the cells have left so far, other than lines about where they are."""
        kept = self.out / RESUME
        found = [path for cell in self.cells for path in self.out.glob(f"*/*/{cell}/record.json")]
        # A first stage that several cells share is under a name of its own.
        for folder in (*(kept / cell for cell in self.cells), *kept.glob("stage-*")):
            found += [path for path in folder.rglob("*") if path.name != PROGRESS]
        marks = set()
        for path in found:
            try:
                marks.add((str(path), path.stat().st_mtime_ns))
            except OSError:  # just replaced
                continue
        return marks

    def _watched(self, command: Sequence[str]) -> tuple[int, set[int]]:
        """Run the command and pass on the wish to pause; its exit code, and the signals that came.

        When it has not paused shortly before the time limit, it is ended: SLURM would end this process too, and nobody
        would queue the job again.
        """
        asked: set[int] = set()
        child: subprocess.Popen[bytes] | None = None
        last = float("inf")

        def ask(number: int, _frame: FrameType | None) -> None:
            nonlocal last
            if not asked and number != signal.SIGTERM:
                last = time.monotonic() + self.lead - min(30.0, self.lead / 4)
            asked.add(number)
            if child is not None and child.poll() is None:
                child.send_signal(signal.SIGUSR1)

        for number in _SIGNALS:  # in place of submitit's, which would decide by itself whether the job is queued again
            signal.signal(number, ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # held back since the job started
        # SLURM may signal all processes of a job: these two are for this one alone.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGTERM})
        try:
            child = subprocess.Popen(command, cwd=self.folder, env=_environment(), stdin=subprocess.DEVNULL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if asked:
            child.send_signal(signal.SIGUSR1)
        while child.poll() is None:
            if time.monotonic() > last:
                child.kill()
            time.sleep(_POLL)
        return child.wait(), asked


def command_line(arguments: Sequence[str], cells: Sequence[str]) -> list[str]:
    """Arguments of Python that run some cells of a command."""
    return ["-m", "spectral_tl_bench.cli.main", "run", *arguments, "--only", ",".join(cells)]


def note_own_job(out: Path, cells: Sequence[str]) -> None:
    """Note that cells run in this job, if this is one; a script that the user has submitted has noted nothing yet."""
    if "SLURM_JOB_ID" in os.environ and _is_first():
        job = job_of_process()
        note(out, cells, executor="slurm", job=job, log=f"{LOGS}/{job}_0_log.out", reason="")


def _is_first() -> bool:
    return os.environ.get("SLURM_PROCID", "0") == "0"


def state_of(job: str) -> tuple[str, str]:
    """A job's state in the queue and the reason for it; empty where SLURM does not say."""
    command = ["squeue", "-h", "-t", "all", "-j", job, "-o", "%T|%r"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    state, _, reason = done.stdout.strip().partition("|")
    return state, reason


def requeue(job: str) -> str:
    """Have a job, or one element of an array, queued again.

    Returns:
        Why not; empty if it is.
    """
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"


def _environment() -> dict[str, str]:
    """That of the command, in which Lightning takes a single task for one outside SLURM, and requeues nothing."""
    alone = os.environ.get("SLURM_NTASKS", "1") == "1"
    return {**os.environ, **({"SLURM_JOB_NAME": "interactive"} if alone else {})}

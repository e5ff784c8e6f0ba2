"""How far a cell is, in a small file for whoever asks: ``.resume/<cell>/progress.json`` below the store.

It is written over and over while a cell runs, goes with the record, and stays behind where a cell was stopped. It is
for people; no result depends on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spectral_tl_bench.pause import Paused
from spectral_tl_bench.pulse import watched

FOLDER = ".resume"
FILE = "progress.json"
INTERVAL = 2.0
"""Seconds between two notes within a stage."""
DIGITS = 16
"""Of the fingerprint, in the names of folders."""


@dataclass(frozen=True)
class Standing:
    """How far a cell is, or was when it ended without a record.

    Attributes:
        job: Number of the batch job, if any.
        since: When this run of the cell began, ISO 8601.
        at: When this was written.
        step: Step of the stage.
        steps: Steps of the stage; 0 where there are none.
        left: Seconds until the end of the stage, about; None where they are not known.
        ended: How it ended without a record: empty while it runs, ``paused``, ``interrupted``, or a message.
    """

    benchmark: str
    method: str
    seed: int
    host: str
    pid: int
    job: str
    since: str
    at: str
    stage: str = "preparing"
    step: int = 0
    steps: int = 0
    left: float | None = None
    ended: str = ""

    @classmethod
    def read(cls, root: Path, cell: str) -> Standing | None:
        """That of a cell in a store; None where there is none that can be read.

        Args:
            cell: Name of the cell's folder.
        """
        try:
            value = json.loads((root / FOLDER / cell / FILE).read_text(encoding="utf-8"))
            known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
            standing = cls(**known)
            datetime.fromisoformat(standing.at), datetime.fromisoformat(standing.since)
            return replace(standing, step=int(standing.step), steps=int(standing.steps))
        except (OSError, ValueError, TypeError, AttributeError):
            return None


class Keeper:
    """Writes down how far a cell is, as long as it runs.

    Args:
        fields: What is known about the cell: benchmark, method, seed, fingerprint.
    """

    def __init__(self, root: Path, fields: Mapping[str, Any]) -> None:
        self.folder = root / FOLDER / fields["fingerprint"][:DIGITS]
        self.standing = Standing(
            fields["benchmark"], fields["method"], fields["seed"], socket.gethostname(), os.getpid(), job_of_process(),
            since=_now(), at=_now(),
        )  # fmt: skip
        self._last, self._stage, self._first, self._began = 0.0, "", 0, 0.0

    @property
    def who(self) -> str:
        """The process that runs the cell, in words."""
        job = f", job {self.standing.job}" if self.standing.job else ""
        return f"process {self.standing.pid} on {self.standing.host}{job}"

    def note(self, stage: str, step: int, steps: int) -> None:
        """Take note of a step; it is written where the last note is long enough ago, or the stage a new one."""
        now = time.monotonic()
        new = stage != self._stage or step < self.standing.step
        if new:
            self._stage, self._first, self._began = stage, step, now
        elif now - self._last < INTERVAL and step != steps:
            return
        done = step - self._first
        left = (now - self._began) / done * (steps - step) if done > 0 else None
        self.write(stage=stage, step=step, steps=steps, left=left and round(left, 1))

    def write(self, **changes: Any) -> None:
        """Write it down, changed; on a full disk this is left out."""
        self._last = time.monotonic()
        self.standing = replace(self.standing, at=_now(), **changes)
        new = self.folder / f".{FILE}-{os.getpid()}"
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(asdict(self.standing)), encoding="utf-8")
            new.replace(self.folder / FILE)


def forget(root: Path, cell: str) -> None:
    """Take away how far a cell is, since it has a record."""
    folder = root / FOLDER / cell
    with contextlib.suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)
        folder.rmdir()  # unless there is something else in it


@contextlib.contextmanager
def standing_of(root: Path, fields: Mapping[str, Any]) -> Iterator[Keeper]:
    """Keep how far a cell is while the block runs; an exception that leaves it is noted as the cell's end."""
    keeper = Keeper(root, fields)
    keeper.write()
    try:
        with watched(keeper.note):
            yield keeper
    except Paused:
        keeper.write(ended="paused")
        raise
    except BaseException as error:
        keeper.write(ended="interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
        raise


def job_of_process() -> str:
    """The batch job that this process belongs to, ``123`` or ``123_4``; empty where there is none.

    An element of an array has a number of its own as well. That of one element is the array's, by which `scontrol
    requeue` would take all elements.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

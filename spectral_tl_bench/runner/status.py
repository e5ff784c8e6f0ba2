"""The cells of a store and how each stands, read from what lies there; nothing heavy is imported.

Of thousands of records only a few fields are read, and nothing is checked: that is for ``stbench report``.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from spectral_tl_bench.console import in_percent
from spectral_tl_bench.defaults import RESULTS_VARIABLE
from spectral_tl_bench.errors import RecordError, UserError
from spectral_tl_bench.runner.standing import FOLDER, Standing
from spectral_tl_bench.storage.signs import Holder, holder_of

STATES = ("done", "running", "queued", "paused", "stopped", "failed")
JOBS = ".jobs"
QueueStates = Callable[[Sequence[str]], Mapping[str, str]]
"""The states of batch jobs by their numbers; one that the queue no longer knows is missing."""
_CELL = re.compile(r"[0-9a-f]{16}")
_AGAIN = "the same command goes on"


@dataclass(frozen=True)
class CellStatus:
    """One cell of a store.

    Attributes:
        key: The name of its folder: the first digits of its fingerprint.
        benchmark: Id of the benchmark; empty where it is not known.
        state: One of ``STATES``.
        folder: Its folder, which need not be there; None where it is not known.
        miou: Target mIoU, once it is done.
        holder: The process that runs it, or ran it and has left its lease.
        standing: How far it is, or was when it was stopped.
        job: What is known about its batch job.
        job_state: The state of that, as the queue says it.
    """

    key: str
    benchmark: str = ""
    method: str = ""
    seed: int | None = None
    state: str = "stopped"
    folder: Path | None = None
    miou: float | None = None
    reason: str = ""
    holder: Holder | None = None
    standing: Standing | None = None
    job: Mapping[str, Any] = field(default_factory=dict)
    job_state: str = ""

    @property
    def name(self) -> str:
        """Benchmark, method and seed."""
        return f"{self.benchmark or '?'}/{self.method or '?'}/{'?' if self.seed is None else self.seed}"

    @property
    def detail(self) -> str:
        """What there is to say about its state."""
        if self.state == "done":
            return "" if self.miou is None else f"target mIoU {in_percent(self.miou)}"
        if self.state == "failed":
            return self.reason
        if self.state == "queued":
            return ", ".join(
                filter(None, [f"job {self.job.get('job')}", self.job_state, str(self.job.get("executor", ""))])
            )
        if self.state == "running":
            return self._running()
        left = f"job {self.job.get('job')} has left the queue; " if self.job and self.job_state == "gone" else ""
        left += f"{_one_line(str(self.job['reason']))}; " if self.job.get("reason") else ""
        where, ago = "", ""
        if self.standing is not None:
            where, ago = f" at {_place(self.standing)}", f", {_long(_age(self.standing.at))} ago"
            if self.standing.ended not in ("", "paused", "interrupted"):
                ago += f" ({_one_line(self.standing.ended)})"
        return f"{left}{self.state}{where}{ago}; {_AGAIN}"

    def _running(self) -> str:
        parts = [] if self.holder is None else [f"process {self.holder.pid} on {self.holder.host}"]
        if self.standing is not None:
            parts += [f"job {self.standing.job}"] * bool(self.standing.job)
            parts += [f"for {_long(_age(self.standing.since))}", _place(self.standing)]
            if self.standing.left is not None:
                parts.append(f"{_long(max(0.0, self.standing.left - _age(self.standing.at)))} left")
        return ", ".join(parts)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for scripts."""
        standing = self.standing
        return {
            "fingerprint": self.key, "benchmark": self.benchmark, "method": self.method, "seed": self.seed,
            "state": self.state, "detail": self.detail, "folder": None if self.folder is None else str(self.folder),
            "miou": self.miou, "reason": self.reason,
            "host": self.holder.host if self.holder else None, "pid": self.holder.pid if self.holder else None,
            "job": self.job.get("job") or (standing.job if standing else "") or None, "job_state": self.job_state,
            **{name: getattr(standing, name, None) for name in ("since", "at", "stage", "step", "steps", "left")},
        }  # fmt: skip


def cells_of(root: Path, queue_states: QueueStates | None = None) -> list[CellStatus]:
    """The cells of a store, sorted by name.

    Args:
        queue_states: Asks for the states of batch jobs; without it, jobs that were submitted count as queued.

    Raises:
        RecordError: If there is no such folder.
    """
    if not root.is_dir():
        raise RecordError(
            "there is no such folder of records", where=root,
            fix=f"run something first, or name it: --records, or {RESULTS_VARIABLE}",
        )  # fmt: skip
    folders = {folder.name: folder for folder in _folders(root)}
    jobs = {path.stem: _read(path) for path in _plain(root / JOBS, ".json")}
    waiting = {path.name for path in _directories(root / FOLDER)}
    keys = [key for key in {*folders, *jobs, *waiting} if _CELL.fullmatch(key)]
    numbers = sorted({str(job["job"]) for key, job in jobs.items() if key in keys and "job" in job})
    known = None if queue_states is None or not numbers else queue_states(numbers)
    cells = (_cell(root, key, folders.get(key), jobs.get(key, {}), known, key in waiting) for key in keys)
    found = [cell for cell in cells if cell is not None]
    return sorted(
        found, key=lambda cell: (cell.benchmark, cell.method, -1 if cell.seed is None else cell.seed, cell.key)
    )


def find_cell(cells: Sequence[CellStatus], name: str) -> CellStatus:
    """The cell that a user names.

    Args:
        name: Digits that its fingerprint begins with, or benchmark/method, or benchmark/method/seed.

    Raises:
        UserError: If there is none, or more than one.
    """
    words = name.strip("/").split("/")
    if len(words) == 1:
        found = [cell for cell in cells if cell.key.startswith(name.lower()[:16])]
    else:
        found = [cell for cell in cells if [cell.benchmark, cell.method, str(cell.seed)][: len(words)] == words]
    if len(found) == 1:
        return found[0]
    if found:
        listed = "".join(f"\n    {cell.key}  {cell.name}  {cell.state}" for cell in found[:10])
        more = f"\n    and {len(found) - 10} more" if len(found) > 10 else ""
        raise UserError(f"{name!r} names {len(found)} cells:{listed}{more}", fix="give more of its fingerprint")
    raise UserError(
        f"there is no cell {name!r}", expected="the beginning of a fingerprint, or benchmark/method, or "
        "benchmark/method/seed", fix="`stbench status` lists the cells",
    )  # fmt: skip


def _cell(
    root: Path, key: str, folder: Path | None, job: Mapping[str, Any], known: Mapping[str, str] | None, waits: bool
) -> CellStatus | None:
    """A cell from what lies in the store; None where that is nothing but an empty folder."""
    standing = Standing.read(root, key) if waits else None
    record, written = (None, 0.0) if folder is None else _record(folder)
    holder = None if folder is None else holder_of(folder)
    names: dict[str, Any] = {"benchmark": folder.parts[-3], "method": folder.parts[-2]} if folder is not None else {}
    for source in (job, vars(standing) if standing else {}, record or {}):
        names |= {name: source[name] for name in ("benchmark", "method", "seed") if name in source}
    if folder is None and names.get("benchmark") and names.get("method"):
        folder = root / names["benchmark"] / names["method"] / key
        holder = holder_of(folder)
    job_state = str(known.get(str(job.get("job")), "gone")) if job and known is not None else ""
    state = _state(record, written, holder, standing, job, job_state)
    if not (state or waits or (folder is not None and folder.is_dir() and any(os.scandir(folder)))):
        return None
    failure = (record or {}).get("error") or {}
    return CellStatus(
        key, **names, state=state or "stopped", folder=folder, holder=holder, standing=standing, job=job,
        job_state=job_state, miou=_miou(record or {}) if state == "done" else None,
        reason=_one_line(f"{failure.get('kind')}: {failure.get('message')}") if state == "failed" else "",
    )  # fmt: skip


def _state(
    record: Mapping[str, Any] | None, written: float, holder: Holder | None, standing: Standing | None,
    job: Mapping[str, Any], job_state: str,
) -> str:  # fmt: skip
    """One of ``STATES``; empty where nothing is known. A job or a run counts more than an older failure."""
    done = record is not None and record.get("status") == "completed"
    if holder is not None and holder.lives:
        return "running"
    if done:
        return "done"
    if job and job_state != "gone" and (record is None or written <= _seconds(job.get("submitted"))):
        return "queued"
    if standing is not None and (record is None or _seconds(standing.at) >= int(written)):
        return "paused" if standing.ended == "paused" else "stopped"
    return "failed" if record is not None else "stopped" if job or holder is not None else ""


def _folders(root: Path) -> Iterator[Path]:
    """The folders of cells, those included that have but a lease; links are not followed."""
    for benchmark in _directories(root):
        for method in _directories(benchmark):
            with os.scandir(method) as entries:
                for entry in entries:
                    name = entry.name.removeprefix(".").removesuffix(".claim")
                    if _CELL.fullmatch(name) and (name != entry.name or entry.is_dir(follow_symlinks=False)):
                        yield method / name


def _directories(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    yield from (path for path in found if not path.name.startswith("."))


def _plain(folder: Path, suffix: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.suffix == suffix and not path.name.startswith(".")]
    except OSError:
        return []


def _record(folder: Path) -> tuple[dict[str, Any] | None, float]:
    """The record of a cell's folder, unchecked, and when it was written; None where there is none."""
    path = folder / "record.json"
    try:
        written = path.stat().st_mtime
    except OSError:
        return None, 0.0
    return _read(path) or {"error": {"kind": "RecordError", "message": "the record cannot be read"}}, written


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _miou(record: Mapping[str, Any]) -> float | None:
    try:
        return float(record["scores"]["selected"]["miou"])
    except (KeyError, TypeError, ValueError):
        return None


def _seconds(moment: object) -> float:
    """A moment in ISO 8601 as seconds since the epoch; 0 where it is none."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return 0.0


def _age(moment: str) -> float:
    return max(0.0, time.time() - _seconds(moment))


def _place(standing: Standing) -> str:
    stage = _one_line(standing.stage)
    return f"{stage}, step {standing.step} of {standing.steps}" if standing.steps else stage


def _long(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _one_line(text: str) -> str:
    """The first line, without what would steer a terminal."""
    line = (text.strip().splitlines() or [""])[0][:300]
    return "".join(char if char.isprintable() else "?" for char in line)

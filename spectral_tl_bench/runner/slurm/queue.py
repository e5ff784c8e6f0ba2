"""Which cells are queued: a small file for each of them beside the records, and what SLURM says of its job.

The files are advice: whatever they say, a cell is finished when its record is there, and two runs of one cell share the
work. They keep one cell from being submitted twice, from whatever machine, and lead from a cell to its job and log.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import write_json
from spectral_tl_bench.storage.signs import Claim

FOLDER = ".jobs"
LOGS = f"{FOLDER}/logs"
UNKNOWN = "UNKNOWN"
"""State of a job of which SLURM says nothing at the moment, as when its controller does not answer."""
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
"""States from which no job comes back by itself."""
_JOB = re.compile(r"\d+(_\d+)?")
_PATIENCE = 60.0  # seconds that SLURM has to answer


def entry_path(out: Path, cell: str) -> Path:
    """The file of a cell, by the first 16 digits of its fingerprint."""
    return out / FOLDER / f"{cell}.json"


def read_entry(out: Path, cell: str) -> dict[str, Any]:
    """What is known about a cell's job; empty where nothing is, or the file is damaged."""
    try:
        entry = json.loads(entry_path(out, cell).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def note(out: Path, cells: Iterable[str], **facts: Any) -> None:
    """Add facts to what is known about the jobs of cells."""
    for cell in cells:
        write_json(entry_path(out, cell), {**read_entry(out, cell), **facts})


@contextlib.contextmanager
def one_at_a_time(out: Path) -> Iterator[None]:
    """Have nobody else look for queued cells and submit others meanwhile, from this machine or another one."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    claim = Claim(out / FOLDER / "submission")
    while not claim.take():
        claim.wait(lambda: False)
    try:
        yield
    finally:
        claim.release()


def active_jobs(out: Path, cells: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The cells whose jobs wait or run, with job and state.

    A cell whose submission was cut off before its job's number was noted is found by the job's name.

    Raises:
        UserError: If SLURM does not answer, so that nobody knows.
    """
    entries = {cell: entry for cell in cells if (entry := read_entry(out, cell)).get("executor") == "slurm"}
    states = queue_states(str(entry["job"]) for entry in entries.values() if entry.get("job"))
    names = _queued_names() if any(not entry.get("job") for entry in entries.values()) else {}
    active = {}
    for cell, entry in entries.items():
        job = str(entry.get("job") or names.get(str(entry.get("name")), ""))
        state = states.get(job, "" if entry.get("job") or not job else "PENDING")
        if state == UNKNOWN:
            raise UserError("SLURM does not answer, so nobody knows which cells are queued", fix="try again later")
        if state and state not in ENDED:
            active[cell] = (job, state)
    return active


def queue_states(jobs: Iterable[str]) -> dict[str, str]:
    """The states of jobs, as SLURM names them.

    The queue is asked first, then the accounts for jobs that have left it; a cluster may have no accounts.

    Args:
        jobs: Ids, ``123`` or ``123_4``.

    Returns:
        The state by id. A job that neither knows is left out: it has ended, nobody knows how. Where the queue cannot
        be asked, every job that the accounts do not show as ended is ``UNKNOWN``.
    """
    wanted = {job for job in jobs if _JOB.fullmatch(job)}
    if not wanted:
        return {}
    queue = _ask("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T", "-j", _arrays(wanted))
    states = _states(queue or "", wanted)
    if left := wanted - states.keys():
        past = _states(_ask("sacct", "-n", "-X", "-P", "-o", "JobID,State", "-j", _arrays(left)) or "", left)
        states |= {job: state for job, state in past.items() if state in ENDED or queue is None}
    if queue is None:
        states |= dict.fromkeys(wanted - states.keys(), UNKNOWN)
    return states


def _arrays(jobs: Iterable[str]) -> str:
    return ",".join(sorted({job.partition("_")[0] for job in jobs}))


def _states(text: str, wanted: set[str]) -> dict[str, str]:
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 1)
    return {job: state.split()[0] for job, state in rows if job in wanted and state.strip()}


def _queued_names() -> Mapping[str, str]:
    """Jobs in the queue by name: the number of the array."""
    text = _ask("squeue", "-h", "-o", "%F|%j")
    if text is None:
        raise UserError("SLURM does not answer, so nobody knows which cells are queued", fix="try again later")
    return {name: job for job, name in (line.split("|", 1) for line in text.splitlines() if "|" in line)}


def _ask(*command: str) -> str | None:
    """What a command of SLURM prints; None where it is missing or has no answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" in done.stderr:  # it has forgotten all of these jobs
        return ""
    return done.stdout if done.returncode == 0 else None

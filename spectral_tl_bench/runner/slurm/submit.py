"""Submit cells as arrays of jobs, through submitit, or write a script that does."""

from __future__ import annotations

import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import write_text
from spectral_tl_bench.pause import EXIT_CODE
from spectral_tl_bench.runner.cell import Cell, Say, facts_of, finished
from spectral_tl_bench.runner.slurm.job import Batch
from spectral_tl_bench.runner.slurm.profile import Profile
from spectral_tl_bench.runner.slurm.queue import FOLDER, LOGS, active_jobs, entry_path, note, one_at_a_time
from spectral_tl_bench.runner.survey import survey

DIGITS = 16
"""Of a fingerprint, by which a cell is called."""
LARGEST_ARRAY = 1000
"""Jobs in one array: what SLURM allows where nobody has changed it."""
_HOLD = (
    "import os, signal, sys; "
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
PYTHON = f"{shlex.quote(sys.executable)} -I -S -c {shlex.quote(_HOLD)}"
"""Python that holds SLURM's signals back until ``Batch`` takes them: a job that is preempted while it starts would end
as failed, and nobody would queue it again."""
_AFTER = r"""code=$?
# Preempted so early that nobody had yet held the signal back: what has taken it ends with another code.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}
if [ "$code" = 143 ] && [ "$(squeue -h -j "$job" -o %T)" = RUNNING ]; then scontrol requeue "$job"; fi
exit "$code"
"""
_ROUND = 5.0  # seconds between two looks at what has ended


def select(cells: Sequence[Cell], wanted: str | None) -> list[Cell]:
    """The cells that are called by name, or all.

    Args:
        wanted: The first digits of fingerprints, separated by commas; None for all cells.

    Raises:
        UserError: If there is none of a name: what the run would compute has changed since.
    """
    if wanted is None:
        return list(cells)
    names = [name for name in wanted.split(",") if name]
    known = {name_of(cell): cell for cell in cells}
    if missing := [name for name in names if name not in known]:
        raise UserError(
            f"this run has no cell {', '.join(missing)}: something that changes its result is different now",
            expected="the data, code and options of the submission", fix="submit the run again",
        )  # fmt: skip
    return [known[name] for name in names]


def name_of(cell: Cell) -> str:
    """What a cell is called in the queue, and its folder in the store."""
    return cell.fingerprint()[:DIGITS]


class Submission:
    """How the cells of a run are submitted.

    Args:
        executor: ``slurm`` or ``sbatch-script``.
        arguments: Of ``stbench run``, without what concerns the executor.

    Raises:
        UserError: If submitit is needed and missing, or there is no SLURM here.
    """

    def __init__(self, executor: str, profile: Profile, arguments: Sequence[str], wait: bool = False) -> None:
        self.executor, self.profile, self.wait = executor, profile, wait
        self.arguments = tuple(arguments)
        if executor == "slurm":
            _submitit()
        if "--fresh" in arguments:
            raise UserError(
                f"--fresh does not go with --executor {executor}: a job that is queued again would begin anew",
                fix="remove the records, or use another --out",
            )

    def run(self, cells: Sequence[Cell], out: Path, say: Say) -> bool:
        """Submit what is neither finished nor queued.

        Args:
            out: Root of the record store.

        Returns:
            Whether all is well: False if the jobs were waited for and not all cells are finished.

        Raises:
            UserError: If SLURM refuses, or does not answer.
        """
        out = checked_folder(out.absolute())
        left = {name_of(look.cell): look.cell for look in survey(cells, out).looks if not look.done}
        say(f"{len(cells)} cells, {len(cells) - len(left)} finished")
        with one_at_a_time(out):
            active = active_jobs(out, left)
            for name, (job, state) in active.items():
                say(f"{left[name].title} | {state.lower()} in job {job}")
            names = [name for name in left if name not in active]
            for name in names if self.executor == "slurm" else ():
                cell = left[name]
                note(out, [name], benchmark=cell.opened.benchmark.id, method=cell.method_name, seed=cell.seed)
            jobs = self._submit(names, out, say) if names else []
        if not names:
            say("nothing to submit" if left else "nothing left to do")
        if jobs:
            records = f"--records {shlex.quote(str(out))}"
            say(f"watch: squeue -j {','.join(jobs)}   stbench status {records}   stbench logs {names[0]} {records}")
            say("the same command submits what is neither finished nor queued then")
        return _wait(left, out, say) if self.wait and self.executor == "slurm" else True

    def _submit(self, names: Sequence[str], out: Path, say: Say) -> list[str]:
        """The ids of the arrays."""
        size = self.profile.cells_per_job
        groups = [tuple(names[start : start + size]) for start in range(0, len(names), size)]
        arrays = [groups[start : start + LARGEST_ARRAY] for start in range(0, len(groups), LARGEST_ARRAY)]
        if self.executor == "sbatch-script":
            for array in arrays:
                path = write_script(array, self.arguments, out, self.profile)
                say(f"wrote {path} for {len(array)} jobs; read it, then: sbatch {path}")
            return []
        ids = []
        for array in arrays:
            jobs = self._submit_array(array, out)
            ids.append(jobs[0].partition("_")[0])
            limit = f", at most {self.profile.array_limit} at a time" if self.profile.array_limit else ""
            say(f"submitted {sum(map(len, array))} cells as {len(array)} jobs, array {ids[-1]}{limit}")
        return ids

    def _submit_array(self, groups: Sequence[Sequence[str]], out: Path) -> list[str]:
        """Submit jobs, one for each group of cells.

        What is about to be submitted is noted before, by the name of the jobs: whoever finds the note without a
        number, because this process has ended between the two, knows what to look for.
        """
        submitit = _submitit()
        name = f"stbench-{uuid.uuid4().hex[:12]}"
        names = [cell for group in groups for cell in group]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        note(out, names, executor="slurm", name=name, job="", submitted=now, log="", reason="", stalls=0)
        profile, flags = self.profile, self.profile.flags()
        flags.pop("ntasks-per-node")
        executor = submitit.SlurmExecutor(folder=out / LOGS, python=PYTHON)
        executor.update_parameters(
            job_name=name, nodes=profile.nodes, ntasks_per_node=profile.tasks_per_node, setup=list(profile.setup),
            teardown=_AFTER.splitlines(), signal_delay_s=profile.lead, stderr_to_stdout=True,
            array_parallelism=profile.array_limit or LARGEST_ARRAY,
            srun_args=["--open-mode=append", *([f"--cpus-per-task={profile.cpus}"] if profile.cpus else [])],
            additional_parameters={**flags, "requeue": True}, time=None, wckey=None,
        )  # fmt: skip
        batches = [Batch(self.arguments, tuple(group), out, Path.cwd(), profile.lead) for group in groups]
        try:
            with executor.batch():
                jobs = [executor.submit(batch) for batch in batches]
        except submitit.core.utils.FailedJobError as error:
            for cell in names:
                entry_path(out, cell).unlink(missing_ok=True)
            raise UserError(f"sbatch refused: {error}", fix="change the profile, or --slurm KEY=VALUE") from None
        for job, group in zip(jobs, groups, strict=True):
            note(out, group, job=job.job_id, log=f"{LOGS}/{job.job_id}_0_log.out")
        return [job.job_id for job in jobs]


def checked_folder(out: Path) -> Path:
    """The folder, if its name can be written into a script.

    Raises:
        UserError: If SLURM would read something else into it.
    """
    if "%" in str(out) or not str(out).isprintable():
        raise UserError("--out has a % or a control character in its path, which SLURM would replace", where=out,
                        fix="use another folder")  # fmt: skip
    return out


def _is_done(cell: Cell, out: Path, say: Say) -> bool:
    fields, path = facts_of(cell, out, 1)
    return finished(cell, path, fields, say) is not None


def _wait(cells: Mapping[str, Cell], out: Path, say: Say, sleep: Callable[[float], None] = time.sleep) -> bool:
    """Wait until the jobs of cells have ended; say of each cell how."""
    left = dict(cells)
    while left:
        active = active_jobs(out, left)
        for name, cell in list(left.items()):
            done = _is_done(cell, out, say)
            if done or name not in active:
                del left[name]
                say(f"[{len(cells) - len(left)}/{len(cells)}] {cell.title} | {'finished' if done else 'not finished'}")
        if left:
            sleep(_ROUND)
    return all(_is_done(cell, out, say) for cell in cells.values())


def _submitit() -> Any:
    import shutil

    try:
        import submitit
    except ImportError:
        raise UserError("--executor slurm needs submitit", fix='pip install "spectral-tl-bench[slurm]"') from None
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "--executor slurm, but there is no sbatch here", expected="a login node of a SLURM cluster",
            fix="use --executor local, or sbatch-script and carry the script there",
        )  # fmt: skip
    return submitit


_BODY = """
set -u
# The cells of this job: one line of the list for each job of the array.
cells=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {cells})
job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID  # by the bare number, scontrol requeue may take the whole array
{alone}
# SLURM's signal before the time limit, or at preemption: training is asked to pause at its next step.
asked=
trap 'asked=yes; kill -USR1 "$run" 2>/dev/null' USR1 USR2 TERM
cd -- {folder} || exit 1
{command} --only "$cells" &
run=$!
while true; do
  wait "$run"
  code=$?
  kill -0 "$run" 2>/dev/null || break  # else it was the signal that has ended the wait
done

# {paused}: it has paused, and goes on from there when it runs again. What scancel has ended stays ended.
if [ "$code" = {paused} ] || {{ [ -n "$asked" ] && [ "$code" -gt 128 ]; }}; then
  case $(squeue -h -t all -j "$job" -o '%T %r') in
    RUNNING* | *TimeLimit*) scontrol requeue "$job" ;;
  esac
fi
exit "$code"
"""


def write_script(groups: Sequence[Sequence[str]], arguments: Sequence[str], out: Path, profile: Profile) -> Path:
    """Write the script of one array, and the list of its cells beside it.

    Args:
        groups: The cells of each job.
        arguments: Of ``stbench run``, without what concerns the executor.
        out: Root of the records, absolute.
    """
    name = f"stbench-{uuid.uuid4().hex[:12]}"
    path = out / FOLDER / f"{name}.sh"
    cells = path.with_suffix(".cells")
    write_text(cells, "".join(",".join(group) + "\n" for group in groups))
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    write_text(path, script_text(name, len(groups), cells, arguments, out, profile))
    return path


def script_text(
    name: str, jobs: int, cells: Path, arguments: Sequence[str], out: Path, profile: Profile
) -> str:  # fmt: skip
    """The text of the script."""
    limit = f"%{profile.array_limit}" if profile.array_limit else ""
    flags: dict[str, str | bool] = {
        "job-name": name, "array": f"0-{jobs - 1}{limit}", "output": f"{out / LOGS}/%A_%a_0_log.out",
        "open-mode": "append", "requeue": True, "signal": f"B:USR2@{profile.lead}", **profile.flags(),
    }  # fmt: skip
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{key}" if value is True else f"#SBATCH --{key}={shlex.quote(str(value))}"
              for key, value in flags.items()]  # fmt: skip
    lines += ["", *profile.setup] if profile.setup else []
    alone = profile.nodes * profile.tasks_per_node == 1
    command = [_stbench(), "run", *arguments] if alone else ["srun", _stbench(), "run", *arguments]
    body = _BODY.format(
        cells=shlex.quote(str(cells)), folder=shlex.quote(str(Path.cwd())), paused=EXIT_CODE,
        command=shlex.join(command),
        alone="export SLURM_JOB_NAME=interactive  # Lightning starts and requeues nothing\n" if alone else "",
    )  # fmt: skip
    return "\n".join(lines) + "\n" + body


def _stbench() -> str:
    """The command of this installation."""
    beside = Path(sys.executable).parent / "stbench"
    return str(beside) if os.access(beside, os.X_OK) else "stbench"

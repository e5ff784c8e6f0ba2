"""A plain script for sbatch, for sites that want to read first what runs on them."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from spectral_tl_bench.files import write_text
from spectral_tl_bench.pause import EXIT_CODE
from spectral_tl_bench.runner.slurm.profile import Profile
from spectral_tl_bench.runner.slurm.queue import FOLDER, LOGS

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
        profile: What each job asks for.

    Returns:
        The script.
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

"""Submitting cells, with programs that pretend to be SLURM's; tests/slurm has a real one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.runner.run import plan
from spectral_tl_bench.runner.slurm import job, queue
from spectral_tl_bench.runner.slurm.job import Batch
from spectral_tl_bench.runner.slurm.profile import Profile, read_profile
from spectral_tl_bench.runner.slurm.submit import PYTHON, Submission, name_of, script_text, select
from tests.tiny import make_request, quiet

SBATCH = 'echo "$(cat "$1" | grep array=)" >> {log}; echo "Submitted batch job 77"'


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts shell scripts on the search path under the names of programs; they may write into the file returned."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    log.touch()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CONF", raising=False)

    def put(**programs: str) -> Path:
        for name, text in programs.items():
            (folder / name).write_text("#!/bin/bash\n" + text.replace("{log}", str(log)) + "\n")
            (folder / name).chmod(0o755)
        return log

    put(srun="true", sbatch=SBATCH, squeue='echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
        sacct="echo disabled >&2; exit 1")  # fmt: skip
    return put


@pytest.fixture
def cells(tree):
    return plan(make_request(tree, "majority", "lora", seeds=(0, 1)), quiet)[0]


def submission(*changes: str, executor: str = "slurm") -> Submission:
    return Submission(executor, read_profile(None, changes), ["--method=lora"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["partitio=x"], "did you mean partition"),
        (["cpus=many"], "cpus"),
        (["cpus=0"], "cpus"),
        (["time=soon"], "expected minutes, H:MM:SS"),
        (["time=1", "pause_before=60"], "no less than the time limit"),
        (["mem=1G\n#SBATCH --uid=0"], "one line"),
        (["setup=a\x1b[0m"], "one line"),
        (["sbatch.array=0-9"], "set by stbench"),
        (["sbatch.partition=x"], "key of its own"),
        (["sbatch.--x y=1"], "long name"),
        (["account=a", "account=b"], "given twice"),
    ],
)
def test_what_is_no_profile_is_refused(changes, said):
    with pytest.raises(UserError, match=re.escape(said)):
        read_profile(None, changes)


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_a_profile_is_found_by_name_and_changed_by_single_values(ending, tmp_path, monkeypatch):
    texts = {
        "toml": 'time = "1:30:00"\ncpus = 4\nsetup = ["module load x"]\n[sbatch]\nexclusive = true\nnice = 10\n',
        "yaml": "time: 1:30:00\ncpus: 4\nsetup: [module load x]\nsbatch: {exclusive: true, nice: 10}\n",
    }
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "stbench").mkdir()
    (tmp_path / "stbench" / f"gpu.{ending}").write_text(texts[ending])
    monkeypatch.setenv("STBENCH_PROFILE", "gpu")
    profile = read_profile(None, ["cpus=2", "sbatch.exclude=n1"])
    assert profile.setup == ("module load x",)
    wanted = {"time": "1:30:00", "cpus-per-task": "2", "exclusive": True, "nice": "10", "exclude": "n1"}
    assert profile.flags().items() >= wanted.items()
    assert read_profile(str(tmp_path / "stbench" / f"gpu.{ending}")).cpus == 4
    with pytest.raises(UserError, match="no profile 'other'"):
        read_profile("other")
    with pytest.raises(UserError, match="no profile"):
        read_profile("../stbench/gpu")


@pytest.mark.parametrize(("time", "lead"), [(None, 300), ("8:00:00", 300), ("4", 60), ("0:30", 7), ("1-0", 300)])
def test_the_wish_to_pause_comes_in_time_also_under_short_limits(time, lead):
    assert Profile(time=time).lead == lead


def test_states_come_from_the_queue_then_from_the_accounts(pretend):
    pretend(squeue='echo "1_0|RUNNING"; echo "1_1|PENDING"; echo "2|FAILED"')
    pretend(sacct='echo "1_2|CANCELLED by 0"; echo "3|COMPLETED"')
    states = queue.queue_states(["1_0", "1_1", "1_2", "2", "3", "4", "no; id", ""])
    assert states == {"1_0": "RUNNING", "1_1": "PENDING", "1_2": "CANCELLED", "2": "FAILED", "3": "COMPLETED"}
    pretend(squeue="echo unable to contact >&2; exit 1")
    assert queue.queue_states(["3", "4"]) == {"3": "COMPLETED", "4": "UNKNOWN"}
    assert queue.queue_states([]) == {}


def test_what_is_queued_is_not_submitted_again_what_has_ended_is(pretend, cells, tmp_path):
    out, log = tmp_path / "runs", pretend()
    lines: list[str] = []
    submission("array_limit=2", "cells_per_job=3").run(cells, out, lines.append)
    assert log.read_text().split() == ["#SBATCH", "--array=0-1%2"]
    entries = {name_of(cell): queue.read_entry(out, name_of(cell)) for cell in cells}
    assert [entry["job"] for entry in entries.values()] == ["77_0"] * 3 + ["77_1"]
    assert all(entry["log"] == f".jobs/logs/{entry['job']}_0_log.out" for entry in entries.values())
    pretend(squeue='echo "77_0|RUNNING"; echo "77_1|FAILED"')
    submission().run(cells, out, lines.append)
    assert len(log.read_text().splitlines()) == 2
    assert queue.read_entry(out, name_of(cells[3]))["job"] == "77"
    assert sum("running in job 77_0" in line for line in lines) == 3
    pretend(squeue="exit 1")
    with pytest.raises(UserError, match="SLURM does not answer"):
        submission().run(cells, out, quiet)
    assert len(log.read_text().splitlines()) == 2


def test_a_submission_that_was_cut_off_is_found_by_its_name(pretend, cells, tmp_path):
    out, log = tmp_path / "runs", pretend()
    queue.note(out, [name_of(cells[0])], executor="slurm", name="stbench-abc", job="")
    pretend(squeue='case "$*" in *%j*) echo "88|stbench-abc" ;; *) exit 1 ;; esac')
    submission().run(cells[:1], out, quiet)
    assert not log.read_text()
    pretend(squeue='case "$*" in *%j*) echo "88|other" ;; *) exit 1 ;; esac')
    submission().run(cells[:1], out, quiet)
    assert log.read_text()


def test_two_logins_at_once_submit_each_cell_once(pretend, cells, tmp_path):
    out = tmp_path / "runs"
    log = pretend(sbatch="sleep 0.5; touch {log}.queued; " + SBATCH)
    pretend(squeue=f'[ -e {log}.queued ] || exit 1; for i in 0 1 2 3; do echo "77_$i|PENDING"; done')
    threads = [threading.Thread(target=submission().run, args=(cells, out, quiet)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.read_text().splitlines()) == 1


def test_a_refused_submission_leaves_no_trace(pretend, cells, tmp_path):
    pretend(sbatch="echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    with pytest.raises(UserError, match="invalid partition specified: nowhere"):
        submission("partition=nowhere").run(cells, tmp_path / "runs", quiet)
    assert not list((tmp_path / "runs" / ".jobs").glob("*.json"))


def test_where_nothing_can_be_submitted_it_is_said_before_any_data_are_read(
    stbench, small, tmp_path, monkeypatch, capsys
):
    run = ["run", "-m", "lora", "-b", "mts12-n2s", "--data-root", tmp_path / "none", "--out", tmp_path / "runs", *small]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stbench(*run, "--executor", "slurm") == 2
    assert "there is no sbatch here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert stbench(*run, "--executor", "slurm") == 2
    assert "needs submitit" in capsys.readouterr().err
    assert stbench(*run, "--executor", "dask") == 2
    assert "one of local, slurm, sbatch-script" in capsys.readouterr().err
    assert stbench(*run, "--slurm", "cpus=1") == 2
    assert "add --executor slurm" in capsys.readouterr().err
    assert stbench(*run, "--executor", "sbatch-script", "--fresh") == 2
    assert "would begin anew" in capsys.readouterr().err
    assert stbench(*run[:-1], f"{run[-1]}", "--executor", "sbatch-script", "--slurm", "mem=1\n2") == 2
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_slurm_would_read_otherwise_is_refused(pretend, cells, tmp_path):
    with pytest.raises(UserError, match="%"):
        submission(executor="sbatch-script").run(cells, tmp_path / "50%j", quiet)


def test_cells_are_called_by_their_fingerprints(stbench, small, tree, cells, tmp_path, capsys):
    assert select(cells, f"{name_of(cells[2])},{name_of(cells[0])}") == [cells[2], cells[0]]
    run = ["run", "-m", "majority", "-s", "0", "-s", "1", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial",
           *small, "--out", tmp_path / "runs"]  # fmt: skip
    assert stbench(*run, "--only", "0123456789abcdef") == 2
    assert "submit the run again" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("mts12-n2s/*/*/record.json"))


@pytest.mark.slow
def test_the_script_runs_the_same_command_with_every_value_quoted(stbench, small, tree, tmp_path, capsys, pretend):
    out = tmp_path / "it's $HOME; a folder"
    run = [
        "run",
        "-m",
        "majority",
        "-s",
        "0",
        "--seed=1",
        "-b",
        "mts12-n2s",
        "--data-root",
        tree,
        "--allow-partial",
        *small,
    ]
    assert stbench(*run, "--out", out, "--executor=sbatch-script", "--slurm", "constraint=a|b&c") == 0
    script = Path(re.search(r"sbatch (.*\.sh)", capsys.readouterr().out)[1])
    text = script.read_text()
    assert "#SBATCH --array=0-1\n" in text
    assert "#SBATCH --constraint='a|b&c'\n" in text
    assert "--executor" not in text
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    pretend(squeue='echo "RUNNING None"', scontrol='echo "$*" >> {log}')
    job = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "6", "SLURM_PROCID": "0"}
    subprocess.run(["bash", script], env={**os.environ, **job}, check=True, capture_output=True)
    (record,) = out.glob("mts12-n2s/majority/*/record.json")
    assert json.loads(record.read_text())["seed"] == 1
    assert queue.read_entry(out, record.parent.name)["job"] == "5_1"
    capsys.readouterr()
    assert stbench(*run, "--out", out, "--executor=sbatch-script") == 0
    assert "2 cells, 1 finished" in capsys.readouterr().out


def test_the_script_asks_for_several_tasks_where_a_cell_has_several(tmp_path):
    text = script_text("x", 3, tmp_path / "c", ["-m", "a b"], tmp_path, Profile(nodes=2, tasks_per_node=4))
    assert "#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n" in text
    assert re.search(r"^srun \S*stbench run -m 'a b' --only", text, re.MULTILINE)
    assert "interactive" not in text


@pytest.fixture
def as_job(pretend, tmp_path, monkeypatch) -> Iterator[Callable[..., tuple[int, list[str], dict[str, object]]]]:
    """Runs a piece of Python as the command of a job: exit code, what was asked of scontrol, and what is noted."""
    log = pretend(squeue='echo "RUNNING|None"', scontrol='echo "$*" >> {log}')
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in job._SIGNALS}
    for number in job._SIGNALS:  # what submitit would do: it must not be called
        signal.signal(number, lambda *_: pytest.fail("submitit's handler was called"))

    def run(code: str, lead: int = 300) -> tuple[int, list[str], dict[str, object]]:
        log.write_text("")
        monkeypatch.setattr(job, "command_line", lambda *_: ["-c", code])
        ending = 0
        try:
            Batch((), ("abc",), tmp_path, tmp_path, lead)()
        except SystemExit as error:
            ending = int(error.code or 0)
        return ending, log.read_text().splitlines(), queue.read_entry(tmp_path, "abc")

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_that_could_not_finish_is_queued_again_alone_and_once(as_job, pretend):
    assert as_job("") == (0, [], {})
    code, asked, entry = as_job("import sys; sys.exit(75)")
    assert (code, asked) == (75, ["requeue 12_3"])
    assert entry["reason"] == "paused, queued again"
    assert as_job("import sys; sys.exit(1)")[:2] == (1, [])
    code, asked, entry = as_job("import sys; sys.exit(2)")
    assert (code, asked) == (2, [])
    assert "exit code 2" in str(entry["reason"])
    pretend(scontrol="echo no right >&2; exit 1")
    assert "would not queue it again (no right)" in str(as_job("import sys; sys.exit(75)")[2]["reason"])


def test_the_command_is_asked_to_pause_by_one_signal_whatever_slurm_sends(as_job):
    for sent, why in ((signal.SIGUSR2, "out of time"), (signal.SIGUSR1, "out of time"), (signal.SIGTERM, "preempted")):
        code, asked, entry = as_job(
            "import os, signal, sys, time\n"
            "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
            "os.kill(os.getpid(), signal.SIGUSR2)\n"  # those that SLURM sends to all processes of a job are blocked
            "os.kill(os.getpid(), signal.SIGTERM)\n"
            f"os.kill(os.getppid(), {int(sent)})\n"
            "time.sleep(20)\n"
        )
        assert (code, asked) == (75, ["requeue 12_3"])
        assert entry["reason"] == f"{why}, queued again"


def test_a_command_that_does_not_pause_in_time_is_ended_before_slurm_ends_the_job(as_job):
    deaf = "import os, signal, time; signal.signal(signal.SIGUSR1, signal.SIG_IGN)"
    deaf += "; os.kill(os.getppid(), signal.SIGUSR2); time.sleep(60)"
    code, asked, entry = as_job(deaf, lead=1)
    assert (code, asked) == (128 + signal.SIGKILL, ["requeue 12_3"])
    assert entry["reason"] == "out of time, queued again"


def test_without_progress_a_job_is_given_up_after_three_endings_with_progress_never(as_job, tmp_path):
    killed = "import os; os.kill(os.getpid(), 9)"
    assert [as_job(killed)[1] for _ in range(3)] == [["requeue 12_3"], ["requeue 12_3"], []]
    assert "3 times in a row" in str(queue.read_entry(tmp_path, "abc")["reason"])
    checkpoint = tmp_path / ".resume" / "abc" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    progress = f"import pathlib; pathlib.Path({str(checkpoint)!r}).touch(); {killed}"
    assert all(as_job(progress)[1] == ["requeue 12_3"] for _ in range(4))


def test_what_was_cancelled_is_not_queued_again(as_job, pretend):
    pretend(squeue='echo "COMPLETING|None"')
    code, asked, entry = as_job("import sys; sys.exit(75)")
    assert (code, asked) == (75, [])
    assert entry["reason"] == "stopped from outside (SLURM: completing), the same command submits it again"
    pretend(squeue='echo "COMPLETING|TimeLimit"')
    assert as_job("import sys; sys.exit(75)")[1] == ["requeue 12_3"]


def test_a_signal_while_the_job_starts_is_kept_until_somebody_takes_it():
    """As SLURM sends it to a job that it preempts in its first second."""
    code = (
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('alive', flush=True); "
        "signal.signal(signal.SIGTERM, lambda *_: print('asked')); "
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})"
    )
    done = subprocess.run(f'{PYTHON} -u -c "{code}" more', shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert (done.stdout, done.returncode) == ("alive\nasked\n", 0)

"""Cells in processes of their own: the same results, and a process that dies takes nothing else along."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny import install, make_request

from spectral_tl_bench.cores import available_cores
from spectral_tl_bench.results.store import read_record, read_records, verify
from spectral_tl_bench.runner.processes import automatic_jobs, execute_in_processes
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

CPU = Hardware("cpu")

DIES = """
import os
from torch import nn
from spectral_tl_bench.methods.base import Method

class Dies(Method):
    '''Ends its process without a word, as a killed one does.'''

    def build(self, task):
        os._exit(9)
"""


def quiet(_: str) -> None:
    pass


def test_a_temporary_folder_of_too_long_a_path(tree, tmp_path):
    """Batch systems give such: no socket has an address there, by which processes hand over batches and cells."""
    long = tmp_path / "job" / ("x" * 100)
    long.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "spectral_tl_bench.cli.main",
        "run",
        "-m",
        "pixel-mlp",
        "-b",
        "mts12-n2s",
        "-s",
        "0",
        "-s",
        "1",
    ]
    command += ["--data-root", tree, "--allow-partial", "--out", tmp_path / "runs", "--jobs", "2", "--workers", "2"]
    command += ["--steps", "2", "--batch-size", "2", "--validations", "1", "--accelerator", "cpu"]
    environ = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "too long" not in done.stderr and len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == 2
    assert not list(long.iterdir())


def test_two_processes_do_what_one_does(tree, tmp_path):
    cells, broken = plan(make_request(tree, "full", seeds=(0, 1)), quiet)
    assert broken == [] and len(cells) == 2
    said: list[str] = []
    apart = execute_in_processes(cells, tmp_path / "apart", CPU, 0, said.append, False, 2)
    together = execute(cells, tmp_path / "together", CPU, 0, quiet)
    assert [outcome.state for outcome in apart] == ["done", "done"]
    for one, other in zip(apart, together, strict=True):
        assert one.cell.seed == other.cell.seed and one.record.parent.name == other.record.parent.name
        assert verify(read_record(one.record)) == verify(read_record(other.record))
    assert len([line for line in said if "target mIoU" in line]) == 2
    assert {line.partition(" | ")[0] for line in said if "mIoU" not in line} == {"mts12-n2s"}, "and what they say"
    again = execute_in_processes(cells, tmp_path / "apart", CPU, 0, quiet, False, 2)
    assert [outcome.state for outcome in again] == ["found", "found"]


def test_a_process_that_dies_fails_its_cell_and_leaves_the_finished_ones(tree, tmp_path, monkeypatch):
    install(tmp_path / "site", "deadly", DIES, {"dies": "deadly:Dies"}, monkeypatch)
    cells, _ = plan(make_request(tree, "full"), quiet)
    execute_in_processes(cells, tmp_path / "runs", CPU, 0, quiet, False, 1)
    deadly, _ = plan(make_request(tree, "dies"), quiet)
    for jobs in (1, 2):
        others, _ = plan(make_request(tree, "frozen", seeds=(jobs,)), quiet)
        outcomes = execute_in_processes([*deadly, *cells, *others], tmp_path / "runs", CPU, 0, quiet, False, jobs)
        assert [outcome.state for outcome in outcomes] == ["failed", "found", "done"]
        assert "ProcessDied: exited with code 9" in outcomes[0].message
    assert [record.method for record in read_records([tmp_path / "runs"])] == ["dies", "frozen", "frozen", "full"]


def test_real_data_get_one_process_and_the_sample_one_per_core(tree, monkeypatch):
    import dataclasses

    cells, _ = plan(make_request(tree, "full", seeds=(0, 1, 2)), quiet)
    assert automatic_jobs(cells) == 1
    sample = [dataclasses.replace(cell, opened=dataclasses.replace(cell.opened, track="sample")) for cell in cells]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert automatic_jobs(sample) == min(3, available_cores(), 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert automatic_jobs(sample) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_command_takes_jobs(tree, tmp_path, stbench, small, jobs):
    assert (
        stbench("run", "-m", "full", "-b", "mts12-n2s", "--data-root", tree, "--out", tmp_path, "--jobs", jobs, *small)
        == 0
    )
    assert len(read_records([tmp_path])) == 1

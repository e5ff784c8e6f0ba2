"""The same cell gives the same confusion matrices, however many cores and jobs there are."""

from __future__ import annotations

import pytest
import torch
from tiny import make_request

from spectral_tl_bench.results.store import load_evidence, read_records
from spectral_tl_bench.runner.processes import execute_in_processes
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware, computing_threads

METHODS = ("nearest-mean", "pixel-mlp", "full", "lora")


def quiet(_: str) -> None:
    pass


def results(out):
    records = {(record.method, record.seed): record for record in read_records([out])}
    return {
        key: (record.environment["threads"], record.selection.trace, {
            name: value.tolist() for name, value in load_evidence(record).matrices.items()
        })
        for key, record in records.items()
    }  # fmt: skip


@pytest.mark.slow
def test_one_job_two_jobs_and_other_settings_of_pytorch_give_the_same(tree, tmp_path):
    cells, _ = plan(make_request(tree, *METHODS), quiet)
    one, two = tmp_path / "one", tmp_path / "two"
    with computing_threads(2):  # what PyTorch takes for itself on two cores
        execute_in_processes(cells, one, Hardware("cpu"), 0, quiet, False, 1)
        assert torch.get_num_threads() == 2, "it is as before"
    execute_in_processes(cells, two, Hardware("cpu"), 0, quiet, False, 2)
    first = results(one)
    assert first == results(two) and len(first) == len(METHODS)
    assert {threads for threads, *_ in first.values()} == {"1"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_number_may_be_chosen_and_is_in_the_record(tree, tmp_path, stbench, small, jobs):
    arguments = ["-m", "nearest-mean", "-m", "majority", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial"]
    assert stbench("run", *arguments, "--out", tmp_path, *small, "--threads", 2, "--jobs", jobs) == 0
    assert {record.environment["threads"] for record in read_records([tmp_path])} == {"2"}


def test_lightning_and_readers_leave_it_alone(tree, tmp_path, monkeypatch):
    import dataclasses

    seen = []
    cells, _ = plan(make_request(tree, "full"), quiet)
    stages = type(cells[0].method).stages

    def noted(self, task):
        return [
            dataclasses.replace(stage, after_step=lambda *_: seen.append(torch.get_num_threads()))
            for stage in stages(self, task)
        ]

    monkeypatch.setattr(type(cells[0].method), "stages", noted)
    with computing_threads(2):
        execute(cells, tmp_path, Hardware("cpu"), 1, quiet)
    assert seen == [1, 1]

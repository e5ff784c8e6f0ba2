"""The precision of a record is the one that was used: what a device cannot do is refused before the first step."""

from __future__ import annotations

import pytest
import torch
from tiny import make_request, make_tree

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import gradient
from spectral_tl_bench.training.hardware import Hardware, checked_hardware

CPU = Hardware("cpu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("precision"))


def run(tree, out, *methods, precision, **more):
    cells, broken = plan(make_request(tree, *methods, precision=precision, **more), lambda _: None)
    assert not broken
    return execute(cells, out, CPU, 0, lambda _: None)


def test_what_a_device_cannot_do_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"16-mixed needs a GPU[\s\S]*bf16-mixed or 32-true"):
        checked_hardware("auto", precision="16-mixed")
    checked_hardware("auto", precision="bf16-mixed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "an old one")
    with pytest.raises(UserError, match="an old one has no bfloat16"):
        checked_hardware("gpu", precision="bf16-mixed")
    checked_hardware("gpu", precision="16-mixed")
    with pytest.raises(UserError, match="needs a GPU"):
        checked_hardware("cpu", precision="16-mixed")


def test_what_lightning_would_change_is_refused(tree, tmp_path, monkeypatch):
    """By whatever way it comes to a stage: Lightning takes bfloat16 on a CPU where 16-mixed is asked for."""
    monkeypatch.setattr(gradient, "_run", None)
    (outcome,) = run(tree, tmp_path, "frozen", precision="16-mixed")
    assert outcome.state == "refused" and "16-mixed would be bf16-mixed here" in outcome.message


def test_a_record_says_what_each_stage_was_computed_in(tree, tmp_path):
    outcomes = run(tree, tmp_path, "frozen", "nearest-mean", precision="bf16-mixed")
    frozen, closed = (read_record(outcome.record).stages[-1].options for outcome in outcomes)
    assert frozen["precision"] == "bf16-mixed" and closed["precision"] == "32-true"
    assert frozen["tested_in"] == closed["tested_in"] == "32-true"


@pytest.mark.slow
def test_a_first_stage_says_it_too(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    (outcome,) = run(tree, tmp_path / "runs", "spectralx", precision="bf16-mixed")
    stages = read_record(outcome.record).stages
    assert [stage.options["precision"] for stage in stages] == ["bf16-mixed"] * 2


def test_a_plain_record_says_nothing_of_it(tree, tmp_path):
    (outcome,) = run(tree, tmp_path, "nearest-mean", precision="32-true")
    options = read_record(outcome.record).stages[-1].options
    assert "precision" not in options and "tested_in" not in options

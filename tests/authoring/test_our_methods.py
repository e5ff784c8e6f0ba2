"""Every method of the suite passes the checks that it asks of others."""

from __future__ import annotations

import pytest
from shared import slow_but

from spectral_tl_bench.authoring.check import CHECKS, check_method, failures
from spectral_tl_bench.methods.registry import load_method, method_entries
from spectral_tl_bench.runner import stages

SMALL = {"unet": "unet@small", "deeplabv3plus": "deeplabv3plus@small", "adabn": "adabn@small"}
"""Large networks, checked with a preset."""

ALWAYS_RUN = ("nearest-mean", "linear-probe", "spectralx")
"""Run on chips by default: in closed form, by gradients on features, and in two stages."""

ALWAYS_IN_MEMORY = (*ALWAYS_RUN, "lora", "rein", "vpt-deep", "adabn", "self-training")
"""Checked without chips by default: in layers, between blocks, beside tokens, without a backbone, on target images."""

CLOSED_FORM = {"majority", "nearest-mean"}


def ours() -> list[str]:
    return [
        name
        for name in method_entries()
        if load_method(name).__module__.startswith(("spectral_tl_bench.", "spectralx."))
    ]


@pytest.mark.parametrize("name", slow_but(ALWAYS_IN_MEMORY.__contains__, ours()))
def test_it_passes_in_memory(name):
    verdicts = check_method(SMALL.get(name, name), runs=False)
    assert not failures(verdicts), "\n".join(map(str, failures(verdicts)))
    skipped = {one.check for one in verdicts if one.state == "not applicable"}
    assert skipped == ({"void"} if name in CLOSED_FORM else set())


@pytest.mark.parametrize("name", ALWAYS_RUN)
def test_it_passes_the_wall(name):
    verdicts = check_method(name, only=["wall"])
    assert not failures(verdicts), "\n".join(map(str, failures(verdicts)))
    assert verdicts[-1].check == "wall" and verdicts[-1].state == "pass"


def test_the_wall_looks_at_first_stages_too(monkeypatch, tmp_path):
    """The run with another target would find the first stage of the run before, and say nothing about its training."""
    trained = []
    plain = stages.train_shared

    def train(*arguments, **more):
        trained.append(1)
        return plain(*arguments, **more)

    monkeypatch.setattr(stages, "train_shared", train)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path))
    assert not failures(check_method("spectralx", only=["wall"]))
    assert len(trained) == 2 and not (tmp_path / "stages").exists(), "nor are they left in the user's cache"


@pytest.mark.slow
@pytest.mark.parametrize("name", ours())
def test_it_passes_everything(name):
    verdicts = check_method(SMALL.get(name, name))
    assert not failures(verdicts), "\n".join(map(str, failures(verdicts)))
    assert [one.check for one in verdicts] == [check.name for check in CHECKS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("spectralx@" + preset, {}) for preset in load_method("spectralx").presets),
        ("linear-probe", {"cache": "true"}),
    ],
)
def test_presets_pass_in_memory(name, options):
    assert not failures(check_method(name, options, runs=False))

"""A cell that is cut off goes on from its last checkpoint, and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from killing import left_by
from tiny import CHIP, CPU, make_request, quiet

from spectral_tl_bench import pause
from spectral_tl_bench.runner.definitions import Cell, Outcome
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.sample import write_dfc2020
from spectral_tl_bench.training.task import StageTask

DFC = "dfc2020-autumn"  # of several source domains
OFTEN = replace(CPU, checkpoint_steps=2)


def cells_of(tree: Path, *methods: str, **settings) -> list[Cell]:
    settings = {"steps": 9, "validations": 3, "pretrain_steps": 5, **settings}
    return plan(make_request(tree, *methods, **settings), quiet)[0]


def run(cells: list[Cell], out: Path, hardware=OFTEN, workers: int = 0, say=quiet, fresh: bool = False) -> Outcome:
    (outcome,) = execute(cells, out, hardware, workers, say, fresh)
    return outcome


@pytest.fixture(scope="module")
def cities(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cities")
    write_dfc2020(root / "DFC2020", chip=CHIP, chips_per_city=4)
    return root


@pytest.fixture
def cut(monkeypatch) -> Iterator:
    """Has a run end in the middle of its n-th training step, of all stages together, as if it were killed there."""
    true_step = StageTask.training_step
    seen: list[int] = []

    def cut_at(number: int | None) -> list[int]:
        seen.clear()

        def step(self, batch, batch_idx):
            seen.append(batch_idx)
            if len(seen) == number:
                raise pause.Paused
            return true_step(self, batch, batch_idx)

        monkeypatch.setattr(StageTask, "training_step", step)
        return seen

    yield cut_at
    pause.clear()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("full", {"schedule": "cosine"}),
        ("lora", {"options": {"dropout": 0.2}}),
        ("adalora", {}),
        ("spectralx@paper", {}),
        ("full+swad", {"validations": 9}),
        ("full+groupdro+mixstyle+swad", {"benchmarks": (DFC,), "validations": 9}),
        ("full+vrex+coral+spectralaug", {"benchmarks": (DFC,)}),
        ("frozen", {"options": {"cache": True, "cache_copies": 8, "train_patch_embed": False}}),
    ],
)
def test_a_run_that_is_cut_off_ends_as_if_nothing_had_happened(tree, cities, tmp_path, cut, method, settings):
    cells = cells_of(cities if "benchmarks" in settings else tree, method, **settings)
    seen = cut(None)
    straight = left_by(run(cells, tmp_path / "straight", CPU))
    total = len(seen)
    out = tmp_path / "cut"
    lengths = []
    for number in (4, 4, 3):
        seen = cut(number)
        outcome = run(cells, out, say=print)
        if outcome.state == "done":
            break
        lengths.append(len(seen))
        assert outcome.state == "paused"
    seen = cut(None)
    ended = run(cells, out)
    assert left_by(ended.record) == straight
    assert len(seen) < total
    assert not (out / ".resume").exists()
    assert json.loads(ended.record.read_text())["environment"]["resumed"] == str(len(lengths))

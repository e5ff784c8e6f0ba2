"""Third step of a cell: the target is opened, and the checkpoints are tested on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from spectral_tl_bench import pause
from spectral_tl_bench.data.loaders import EvaluationData
from spectral_tl_bench.data.shares import agreed
from spectral_tl_bench.evaluation.evaluate import evaluate_together
from spectral_tl_bench.models.weights import State
from spectral_tl_bench.pulse import at
from spectral_tl_bench.results.predictions import chips_to_show
from spectral_tl_bench.runner.build import BuiltRun
from spectral_tl_bench.training.trained import TrainedModel, load_state


@dataclass(frozen=True)
class TestedModel:
    """What testing leaves.

    Attributes:
        evidence: One row per target chip and checkpoint, as ``results.store.write_record`` takes it.
        predictions: Class maps (H, W) of the selected checkpoint for a few chips, by name.
        target: The target's chips, as images.
    """

    __test__ = False  # no test of pytest's

    evidence: pd.DataFrame
    predictions: dict[str, Any]
    target: EvaluationData


def test(built: BuiltRun, trained: TrainedModel) -> TestedModel:
    """Open the target, after training and selection are over, and test every checkpoint that counts."""
    cell, index = built.cell, built.cell.opened.index
    chips = built.split.chips("target")
    pixels = _target(built)
    target = built.inputs.target(pixels)
    trained.stages[-1].options.update(built.inputs.facts())
    tester = _Tester(built, trained, target, dict.fromkeys(chips_to_show(index.frame.loc[chips])))
    parts = [
        tester.table(*trained.selected, averaged=trained.averaged is not None).assign(checkpoint="selected"),
        tester.table(*trained.last).assign(checkpoint="last"),
    ]
    if cell.oracle:
        tables = [tester.table(step, state) for step, state in trained.all_states()]
        metric = cell.protocol.metric
        best = max([*tables, *tester.done.values()], key=lambda part: metric.value(sum(part["matrix"])))
        parts.append(best.assign(checkpoint="oracle"))
    return TestedModel(pd.concat(parts, ignore_index=True), tester.shown, pixels)


def assist(built: BuiltRun, trained: TrainedModel) -> None:
    """Test in a process other than a group's first, which says how often and with which weights."""
    target, normalise = _target(built), built.source.normaliser()
    while agreed(None):
        classes = len(built.cell.opened.benchmark.labels.names)
        evaluate_together(trained.module, normalise, target, classes, built.hardware.device)


def leaked(built: BuiltRun) -> EvaluationData | None:
    """The target's chips, labels and all, for a protocol that selects on them; None for any other."""
    return built.inputs.target(_target(built)) if built.cell.protocol.selection.on_target else None


def _target(built: BuiltRun) -> EvaluationData:
    chips = built.split.chips("target")
    return EvaluationData(
        built.cell.opened.benchmark, built.cell.opened.index, chips, built.loading, built.images.statistics
    )


test.__test__ = False  # type: ignore[attr-defined]


class _Tester:
    """Tests checkpoints, each once, and keeps the first one's predictions of the chips to be shown."""

    def __init__(self, built: BuiltRun, trained: TrainedModel, target: EvaluationData, shown: dict[str, Any]) -> None:
        self.built, self.trained, self.target, self.shown = built, trained, target, shown
        self.done: dict[tuple[int, bool], pd.DataFrame] = {}
        self.chips = 0
        self.normalise, self.classes = built.source.normaliser(), len(built.cell.opened.benchmark.labels.names)

    def table(self, step: int, state: State, averaged: bool = False) -> pd.DataFrame:
        """One row per chip: chip, domain, site, matrix."""
        key = (step, averaged)
        if key not in self.done:
            load_state(self.trained.module, state)
            self.chips = 0
            at("testing", 0, len(self.target.rows))
            what = "the average up to step" if averaged else "step"
            self.built.workplace.say(
                f"{self.built.cell.title} | testing {what} {step} on {len(self.target.rows)} target chips"
            )
            agreed(True)  # the other processes of a group take part: see ``assist``
            self.done[key] = evaluate_together(
                self.trained.module, self.normalise, self.target, self.classes, self.built.hardware.device,
                lambda *_: pause.check(), self._show, self.shown,
            )  # fmt: skip
        return self.done[key]

    def _show(self, chip: str, prediction: Any) -> None:
        self.chips += 1
        at("testing", self.chips, len(self.target.rows))
        if chip in self.shown and self.shown[chip] is None:  # the selected checkpoint comes first
            self.shown[chip] = prediction

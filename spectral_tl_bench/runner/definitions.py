"""What is to be run: an opened benchmark, a method, settings, a seed; and how it ended."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import in_percent
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.kept_splits import kept_split
from spectral_tl_bench.data.normalisation import BandStatistics, Normalise
from spectral_tl_bench.data.source import DataSource, Track
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.identity import RunIdentity, Texts, backbone_inputs, benchmark_digest, fingerprint_of
from spectral_tl_bench.methods.base import Backbone, Method, Task
from spectral_tl_bench.methods.registry import distribution_of, split_name
from spectral_tl_bench.objectives.base import Objective
from spectral_tl_bench.protocol.base import Protocol
from spectral_tl_bench.protocol.numerics import numerics_of
from spectral_tl_bench.protocol.settings import RunSettings
from spectral_tl_bench.results.tuning import Tuning
from spectral_tl_bench.training.stage_store import StageCard


@dataclass(frozen=True)
class GivenStage:
    """A trained first stage that the user names."""

    folder: Path
    card: StageCard


@dataclass(frozen=True)
class OpenBenchmark:
    """A benchmark with its chips found and checked."""

    benchmark: Benchmark
    source: DataSource
    index: ChipIndex
    track: Track
    notes: tuple[str, ...]
    _splits: dict[int, SplitTable] = field(init=False, repr=False, compare=False, default_factory=dict)
    _statistics: dict[int, BandStatistics] = field(init=False, repr=False, compare=False, default_factory=dict)
    _tiny: dict[int, bool] = field(init=False, repr=False, compare=False, default_factory=dict)

    @functools.cached_property
    def chip_size(self) -> int:
        """The shortest side of a chip, in pixels."""
        return int(self.index.frame[["height", "width"]].to_numpy().min())

    @property
    def is_small(self) -> bool:
        """Whether the small budget is the default: published settings are for the published data."""
        return self.track not in ("reproduced", "partial") or self.chip_size != self.benchmark.chip_size

    def split(self, seed: int) -> SplitTable:
        """Who does what, from benchmark and seed; cut once for all methods of a run.

        Raises:
            DataError: If the source cannot be cut by place.
        """
        if seed not in self._splits:
            self._splits[seed] = kept_split(self.benchmark, self.index, seed)
        return self._splits[seed]

    def statistics(self, seed: int) -> BandStatistics:
        """Those of the training chips, from benchmark and seed.

        Raises:
            DataError: If the source cannot be cut by place.
        """
        if seed not in self._statistics:
            self._statistics[seed] = BandStatistics.of(self.index, self.split(seed).chips("train"))
        return self._statistics[seed]

    def tiny(self, seed: int) -> bool:
        """Whether a band of the training chips varies by so little that it was once taken for constant."""
        if seed not in self._tiny:
            self._tiny[seed] = self.statistics(seed).tiny
        return self._tiny[seed]


@dataclass(frozen=True)
class Cell:
    """What is to be run.

    Attributes:
        method_name: Full name of the method, with preset and objectives.
        settings: Its settings.
        seed: Seed; 0 is a seed like any other.
        oracle: Also evaluate every validated checkpoint on the target, to report the best one as the oracle.
        given: A trained first stage to start from; by default the run looks for its own, or trains it.
        objectives: What it is trained with, by name.
        variant: What tells it from other cells of a plan with this method and seed, in words.
        tuning: The search that chose its options and settings, for the record; it changes no number.
    """

    opened: OpenBenchmark
    method_name: str
    method: Method
    backbone: Backbone
    protocol: Protocol
    settings: RunSettings
    seed: int
    oracle: bool = False
    given: GivenStage | None = None
    objectives: Mapping[str, Objective] = field(default_factory=dict)
    variant: str = ""
    tuning: Tuning | None = None
    _known: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    @property
    def title(self) -> str:
        """Benchmark, method and seed, for progress lines."""
        return f"{self.opened.benchmark.id} | {self.method_title} | seed {self.seed}"

    @property
    def method_title(self) -> str:
        """The method, and what tells the cell from others of a plan."""
        return f"{self.method_name} ({self.variant})" if self.variant else self.method_name

    def split(self) -> SplitTable:
        """Who does what, from benchmark and seed."""
        return self.opened.split(self.seed)

    def resolved(self) -> Cell:
        """The same with the method's options as they act for this backbone and budget."""
        return replace(self, method=self.method.resolved(self.task()))

    def task(self) -> Task:
        """What the method is told."""
        benchmark = self.opened.benchmark
        # The random weights of a backbone that a given stage stands on belong to that stage.
        seed = self.seed if self.given is None else self.given.card.identity.seed
        return Task(
            benchmark=benchmark.id, bands=benchmark.sensor.band_names, wavelengths=benchmark.sensor.wavelengths,
            gsd=benchmark.sensor.gsd, classes=benchmark.labels.names, domains=tuple(benchmark.source),
            window=self.settings.window, budget=self.settings.budget,
            backbone=replace(self.backbone, seed=seed, statistics=self._reflectances()).for_sensor(
                benchmark.sensor.wavelengths, benchmark.sensor.gsd
            ),
        )  # fmt: skip

    def _reflectances(self) -> tuple[tuple[float, ...], ...]:
        """Mean and deviation of the training chips in reflectance, where the backbone is given pictures of it."""
        if self.backbone.input_norm != "reflectance":
            return ()
        return self.opened.statistics(self.seed).reflectances(self.opened.benchmark.sensor.scale)

    def method_seed_name(self) -> str:
        """What stands for the method's class in the seeds of a shared first stage."""
        return self.method.seed_name or f"{distribution_of(self.method_name)[0]}:{split_name(self.method_name)[0]}"

    def objective_options(self) -> dict[str, dict[str, Any]]:
        """Options by objective, complete."""
        return {name: objective.model_dump(mode="json") for name, objective in self.objectives.items()}

    def backbone_facts(self) -> dict[str, Any] | None:
        """The backbone, without the means to build it; None where the method uses none."""
        return self.backbone.facts() if self.method.uses_backbone else None

    def identity(self, split: SplitTable) -> RunIdentity:
        """Everything that can change the result, and nothing else (no device, no readers)."""
        return RunIdentity(**self._inputs(split, lambda _name, _depends_on, make: make()))

    def fingerprint(self, texts: Texts | None = None) -> str:
        """That of its identity; computed once.

        Args:
            texts: Keeps what cells of one plan have in common.
        """
        if "fingerprint" not in self._known:
            self._known["fingerprint"] = fingerprint_of(self._inputs(self.split(), texts or Texts()))
        return self._known["fingerprint"]

    def _inputs(
        self, split: SplitTable, of: Callable[[str, tuple[object, ...], Callable[[], Any]], Any]
    ) -> dict[str, Any]:
        """What ``of`` makes of each field of the identity, from its name, what it depends on, and its value."""
        opened, method, backbone = self.opened, self.method, self.backbone
        benchmark, used = opened.benchmark, method.uses_backbone
        parts: dict[str, tuple[tuple[object, ...], Callable[[], Any]]] = {
            "benchmark": ((opened,), lambda: benchmark.id),
            "definition": ((opened,), lambda: benchmark_digest(benchmark.model_dump(mode="json"))),
            "manifest": ((opened,), lambda: opened.index.manifest),
            "split": ((split,), lambda: split.hash),
            "method": ((self.method_name,), lambda: self.method_name),
            "options": ((method,), lambda: method.model_dump(mode="json")),
            "objectives": ((self.objectives,), self.objective_options),
            "backbone": ((backbone, used), lambda: backbone_inputs(self.backbone_facts())),
            "settings": ((self.settings,), lambda: self.settings.model_dump(mode="json")),
            "stage": ((self.given,), lambda: self.given and self.given.card.tensors),
            "seed": ((self.seed,), lambda: self.seed),
            "numerics": (
                (self.protocol, self.method_name, method, self.objectives, backbone, self._tiny(),
                 self._plateau()), self.numerics
            ),
        }  # fmt: skip
        return {name: of(name, *part) for name, part in parts.items()}

    def numerics(self) -> dict[str, str]:
        """The numerics version of every component that takes part."""
        versions = numerics_of(
            self.protocol, self.method_name, self.method, self.objectives, self.backbone, self._plateau()
        )
        # Only there has the rule for constant bands moved a number; results on all other data stay what they are.
        return {**versions, "normalisation": f"{versions['normalisation']}, tiny bands"} if self._tiny() else versions

    def _plateau(self) -> bool:
        return self.settings.budget.plateau is not None

    def _tiny(self) -> bool:
        return self.protocol.pixels.normalise is Normalise and self.opened.tiny(self.seed)


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    ``done``, ``found`` (a finished record was there), ``failed``, ``refused`` (user's data), or ``paused``: it has
    stopped where it can go on. ``busy`` is no end: another run has the cell, the message says which, and ``record`` is
    where its record will be.
    """

    cell: Cell
    state: str
    record: Path | None
    miou: float | None
    message: str = ""

    @property
    def line(self) -> str:
        """How it ended, in words."""
        if self.miou is None:
            return f"{self.state}: {self.message}"
        return f"{'finished before, ' if self.state == 'found' else ''}target mIoU {in_percent(self.miou)}"

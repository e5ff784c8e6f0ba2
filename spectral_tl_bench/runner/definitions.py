"""What is to be run: an opened benchmark, a method, settings, a seed; and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.source import DataSource, Track
from spectral_tl_bench.data.splits import SplitTable, make_split
from spectral_tl_bench.files import digest
from spectral_tl_bench.identity import benchmark_facts, package_code, suite_code
from spectral_tl_bench.methods.base import Backbone, Method, Task
from spectral_tl_bench.objectives.base import Objective
from spectral_tl_bench.protocol.settings import RunSettings
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

    def split(self, seed: int) -> SplitTable:
        """Who does what, from benchmark and seed; cut once for all methods of a run.

        Raises:
            DataError: If the source cannot be cut by place.
        """
        if seed not in self._splits:
            self._splits[seed] = make_split(self.benchmark, self.index, seed)
        return self._splits[seed]


@dataclass(frozen=True)
class Cell:
    """What is to be run.

    Attributes:
        opened: The benchmark and its chips.
        method_name: Full name of the method, with preset and objectives.
        method: The method with its options.
        backbone: The backbone.
        settings: Protocol settings.
        seed: Seed; 0 is a seed like any other.
        oracle: Also evaluate every validated checkpoint on the target, to report the best one as the oracle.
        given: A trained first stage to start from; by default the run looks for its own, or trains it.
        objectives: What it is trained with, by name.
    """

    opened: OpenBenchmark
    method_name: str
    method: Method
    backbone: Backbone
    settings: RunSettings
    seed: int
    oracle: bool = False
    given: GivenStage | None = None
    objectives: Mapping[str, Objective] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Benchmark, method and seed, for progress lines."""
        return f"{self.opened.benchmark.id} | {self.method_name} | seed {self.seed}"

    def split(self) -> SplitTable:
        """Who does what, from benchmark and seed."""
        return self.opened.split(self.seed)

    def task(self) -> Task:
        """What the method is told."""
        benchmark = self.opened.benchmark
        # The random weights of a backbone that a given stage stands on belong to that stage.
        seed = self.seed if self.given is None else self.given.card.identity.seed
        return Task(
            benchmark=benchmark.id, bands=benchmark.sensor.band_names, wavelengths=benchmark.sensor.wavelengths,
            gsd=benchmark.sensor.gsd, classes=benchmark.labels.names, domains=tuple(benchmark.source),
            window=self.settings.window, budget=self.settings.budget,
            backbone=replace(self.backbone, seed=seed).for_sensor(benchmark.sensor.wavelengths, benchmark.sensor.gsd),
        )  # fmt: skip

    def method_class(self) -> str:
        """Where the method's class is, as ``module:Class``."""
        return f"{type(self.method).__module__}:{type(self.method).__qualname__}"

    def objective_options(self) -> dict[str, dict[str, Any]]:
        """Options by objective, complete."""
        return {name: objective.model_dump(mode="json") for name, objective in self.objectives.items()}

    def backbone_facts(self) -> dict[str, Any] | None:
        """The backbone, without the means to build it; None where the method uses none."""
        return self.backbone.facts() if self.method.uses_backbone else None

    def fingerprint(self, split: SplitTable) -> str:
        """A hash of everything that can change the result, and of nothing else (no device, no readers)."""
        benchmark = self.opened.benchmark
        return digest(
            benchmark_facts(benchmark.model_dump(mode="json")),
            self.opened.index.manifest,
            split.hash,
            self.method_name,
            self.method_class(),
            self.method.model_dump(mode="json"),
            self.backbone_facts(),
            self.settings.model_dump(mode="json"),
            self.seed,
            suite_code(),
            package_code(type(self.method).__module__),
            self.given and self.given.card.tensors,
            self.objective_options(),
            [
                (f"{type(one).__module__}:{type(one).__qualname__}", package_code(type(one).__module__))
                for one in self.objectives.values()
            ],
        )


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: ``done``, ``found`` (a finished record was there), ``failed`` or ``refused`` (user's data)."""

    cell: Cell
    state: str
    record: Path | None
    miou: float | None
    message: str = ""

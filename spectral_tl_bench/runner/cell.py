"""One cell of a run: one benchmark, one method, one seed; from chips to a stored record."""

from __future__ import annotations

import gc
import platform
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from spectral_tl_bench import __version__
from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, Normalise, SourceData
from spectral_tl_bench.data.source import SYNTHETIC, DataSource, Track
from spectral_tl_bench.data.splits import SplitTable, make_split
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.files import atomic_path, digest, seed_from, write_text
from spectral_tl_bench.leaderboard.records import RECORD_FILE, read_record, record_folder, write_record
from spectral_tl_bench.methods.base import Backbone, Method, Task
from spectral_tl_bench.methods.registry import distribution_of
from spectral_tl_bench.runner.fingerprint import benchmark_facts, package_code, suite_code
from spectral_tl_bench.runner.settings import RunSettings
from spectral_tl_bench.training.fit import Fitted, Hardware, State, fit, load_state

Say = Callable[[str], None]

WEIGHTS_FILE = "selected.safetensors"
ERROR_FILE = "error.txt"


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
        method_name: Entry-point name of the method.
        method: The method with its options.
        backbone: The backbone.
        settings: Protocol settings.
        seed: Seed; 0 is a seed like any other.
        oracle: Also evaluate every validated checkpoint on the target, to report the best one as the oracle.
    """

    opened: OpenBenchmark
    method_name: str
    method: Method
    backbone: Backbone
    settings: RunSettings
    seed: int
    oracle: bool = False

    @property
    def title(self) -> str:
        """Benchmark, method and seed, for progress lines."""
        return f"{self.opened.benchmark.id} | {self.method_name} | seed {self.seed}"

    def split(self) -> SplitTable:
        """Who does what, from benchmark and seed."""
        return self.opened.split(self.seed)

    def backbone_facts(self) -> dict[str, Any]:
        """The backbone's name and sizes."""
        facts = asdict(self.backbone)
        facts.pop("make")
        return facts

    def fingerprint(self, split: SplitTable) -> str:
        """A hash of everything that can change the result, and of nothing else (no device, no readers)."""
        benchmark = self.opened.benchmark
        return digest(
            benchmark_facts(benchmark.model_dump(mode="json")),
            self.opened.index.manifest,
            split.hash,
            self.method_name,
            f"{type(self.method).__module__}:{type(self.method).__qualname__}",
            self.method.model_dump(mode="json"),
            self.backbone_facts(),
            self.settings.model_dump(mode="json"),
            self.seed,
            suite_code(),
            package_code(type(self.method).__module__),
        )


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: ``done``, ``found`` (a finished record was there), ``failed`` or ``refused`` (user's data)."""

    cell: Cell
    state: str
    record: Path | None
    miou: float | None
    message: str = ""


def run_cell(cell: Cell, out: Path, hardware: Hardware, workers: int, say: Say, fresh: bool = False) -> Outcome:
    """Run one cell, or find its finished record.

    A method that raises ends its own cell: the failure is stored as a record, with the traceback beside it.

    Args:
        cell: What to run.
        out: Root of the record store.
        hardware: Device and precision.
        workers: Reader processes.
        say: Prints one line.
        fresh: Run again even where a finished record exists.

    Returns:
        The outcome.
    """
    split = cell.split()
    fingerprint = cell.fingerprint(split)
    path = record_folder(out, cell.opened.benchmark.id, cell.method_name, fingerprint) / RECORD_FILE
    if not fresh and path.is_file():
        found = read_record(path)
        if found.scores is not None and not (cell.oracle and found.scores.oracle is None):
            return Outcome(cell, "found", path, found.scores.selected.miou)
    fields = _common_fields(cell, split, fingerprint)
    try:
        result, evidence, weights = _measure(cell, split, hardware, workers, say)
    except UserError as error:
        stored = write_record(out, {**fields, "status": "failed", "error": _failure(error)})
        return Outcome(cell, "refused", stored, None, str(error))
    except Exception as error:  # whatever a method raises; its own cell ends, the others go on
        stored = write_record(out, {**fields, "status": "failed", "error": _failure(error)})
        log = stored.parent / ERROR_FILE
        write_text(log, traceback.format_exc())
        message = f"{type(error).__name__}: {_short(error)}\n  where: {log} holds the traceback"
        return Outcome(cell, "failed", stored, None, message)
    # The record comes last: a cell counts as finished from then on. Clones, since safetensors refuses shared memory.
    with atomic_path(path.parent / WEIGHTS_FILE) as temporary:
        save_file({name: value.contiguous().clone() for name, value in weights.items()}, temporary)
    stored = write_record(out, {**fields, **result, "status": "completed"}, evidence)
    (stored.parent / ERROR_FILE).unlink(missing_ok=True)
    record = read_record(stored)
    return Outcome(cell, "done", stored, record.scores.selected.miou if record.scores else None)


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["(no message)"])[0][:300]


def _failure(error: Exception) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": str(error)[:4000]}


def _measure(
    cell: Cell, split: SplitTable, hardware: Hardware, workers: int, say: Say
) -> tuple[dict[str, Any], pd.DataFrame, State]:
    started = time.monotonic()
    benchmark, settings, index = cell.opened.benchmark, cell.settings, cell.opened.index
    loading = LoaderSettings(settings.window, settings.stride, settings.budget.batch_size, workers)
    source = SourceData(benchmark, index, split, loading, seed_from("order", benchmark.id, cell.seed))
    task = Task(
        benchmark=benchmark.id, bands=benchmark.sensor.band_names, wavelengths=benchmark.sensor.wavelengths,
        gsd=benchmark.sensor.gsd, classes=benchmark.labels.names, domains=tuple(benchmark.source),
        window=settings.window, budget=settings.budget, backbone=cell.backbone,
    )  # fmt: skip
    weight_seed = seed_from("weights", benchmark.id, cell.method_name, cell.seed)
    torch.manual_seed(weight_seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    module = cell.method.build(task)
    declared = {parameter for parameter in module.parameters() if parameter.requires_grad}
    trainable = sum(parameter.numel() for parameter in declared)
    total = sum(parameter.numel() for parameter in module.parameters())
    hardware = replace(hardware, precision=settings.precision)
    work = Path(tempfile.mkdtemp(prefix="stbench-"))
    try:
        fitted = fit(
            module, cell.method.stages(task), source, settings.budget, task.num_classes, folder=work,
            validations=settings.validations, weight_seed=weight_seed, hardware=hardware, say=say, title=cell.title,
            keep_all=cell.oracle,
        )  # fmt: skip
        trained = time.monotonic()
        device = _device(hardware)
        target = EvaluationData(benchmark, index, split.chips("target"), loading, source.statistics)
        evidence = _evaluate_checkpoints(cell, fitted, source, target, task.num_classes, device, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        gc.collect()  # Lightning's trainers hold their modules in cycles; many cells may follow in this process
    finished = time.monotonic()
    memory = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_memory()
    result = {
        "majority_class": source.majority_class,
        "parameters": {"total": total, "trainable": trainable},
        "stages": [asdict(stage) for stage in fitted.stages],
        "seconds": {"train": trained - started, "evaluate": finished - trained, "total": finished - started},
        "peak_memory_mb": memory,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " CPU",
        "selection": {
            "step": fitted.selected[0],
            "value": max(value for _, value in fitted.trace),
            "trace": fitted.trace,
        },
    }
    return result, evidence, fitted.selected[1]


def _evaluate_checkpoints(
    cell: Cell, fitted: Fitted, source: SourceData, target: EvaluationData, classes: int, device: torch.device, say: Say
) -> pd.DataFrame:
    """The target is opened here, after training and selection are over."""
    normalise = Normalise(source.statistics)
    done: dict[int, pd.DataFrame] = {}

    def table(step: int, state: State) -> pd.DataFrame:
        if step not in done:
            load_state(fitted.module, state)
            say(f"{cell.title} | testing step {step} on {len(target.rows)} target chips")
            done[step] = evaluate(fitted.module, normalise, target, classes, device)
        return done[step]

    parts = [
        table(*fitted.selected).assign(checkpoint="selected"),
        table(*fitted.last).assign(checkpoint="last"),
    ]
    if cell.oracle:
        tables = [table(step, state) for step, state in fitted.all_states()]
        best = max([*tables, *done.values()], key=lambda part: score(sum(part["matrix"])).miou)
        parts.append(best.assign(checkpoint="oracle"))
    return pd.concat(parts, ignore_index=True)


def _device(hardware: Hardware) -> torch.device:
    cuda = torch.cuda.is_available() and hardware.accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda" if cuda else "cpu")


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _data_facts(cell: Cell, split: SplitTable) -> dict[str, Any]:
    return {
        "kind": cell.opened.source.kind,
        "chips": {role: len(split.chips(role)) for role in ("train", "validation", "target")},
        "split_hash": split.hash,
        "manifest_hash": cell.opened.index.manifest,
        "notes": [*cell.opened.notes, *split.notes],
    }


def _common_fields(cell: Cell, split: SplitTable, fingerprint: str) -> dict[str, Any]:
    benchmark = cell.opened.benchmark
    return {
        "benchmark": benchmark.id,
        "benchmark_version": benchmark.version,
        "dataset": benchmark.dataset,
        "gap": benchmark.gap,
        "method": cell.method_name,
        "family": cell.method.family,
        "options": cell.method.model_dump(mode="json"),
        "backbone": cell.backbone_facts(),
        "protocol": cell.settings.protocol,
        "seed": cell.seed,
        "settings": cell.settings.model_dump(mode="json"),
        "track": cell.opened.track,
        "fingerprint": fingerprint,
        "classes": list(benchmark.labels.names),
        "source_domains": list(benchmark.source),
        "target_domains": list(benchmark.target),
        "environment": _environment(cell.method_name),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "statement": SYNTHETIC if cell.opened.track == "sample" else None,
        "data": _data_facts(cell, split),
    }


def _environment(method_name: str) -> dict[str, str]:
    package, package_version = distribution_of(method_name)
    facts = {
        "python": platform.python_version(),
        "platform": platform.system().lower(),
        "spectral-tl-bench": __version__,
        f"method package {package}": package_version,
        "suite code": suite_code(),
    }
    for name in ("torch", "torchgeo", "lightning", "timm", "peft", "rasterio", "kornia"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts

"""Trees of a few small chips, and what the tests of training and running share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.cli.main import main
from spectral_tl_bench.data.loaders import LoaderSettings, SourceData
from spectral_tl_bench.data.source import DataSource, open_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.methods.base import Budget, Stage, Task
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.runner.cell import OpenBenchmark
from spectral_tl_bench.runner.run import Request
from spectral_tl_bench.sample import write_mts12
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.train import TrainingRun, train
from spectral_tl_bench.training.trained import TrainedModel

torch.set_num_threads(1)  # threads only get into each other's way with models this small

SIZES = {"width": 32, "depth": 2, "heads": 2, "patch": 8}
CHIP = 32
CPU = Hardware("cpu")


def quiet(_line: str) -> None:
    """Says nothing."""


def make_tree(root: Path, chip: int = CHIP, north: int = 8, south: int = 4) -> Path:
    """A data root with a small MTS12."""
    write_mts12(root / "MTS12", chip=chip, north=north, south=south)
    return root


def open_tree(root: Path, name: str = "mts12-n2s") -> OpenBenchmark:
    """A benchmark on a small tree."""
    benchmark = builtin_benchmarks()[name]
    source = DataSource("files", root, "")
    return OpenBenchmark(benchmark, source, *open_index(benchmark, source, own=False, allow_partial=True))


def make_source(root: Path, name: str = "mts12-n2s", order_seed: int = 0, batch_size: int = 2) -> SourceData:
    """What training sees of a small tree."""
    one = open_tree(root, name)
    split = make_split(one.benchmark, one.index, 0)
    return SourceData(one.benchmark, one.index, split, LoaderSettings(16, 8, batch_size), order_seed)


def make_task(bands: int = 4, window: int = 32, classes: int = 3, **budget: Any) -> Task:
    """What a method is told, without any data."""
    return Task(
        benchmark="made-up",
        bands=tuple(f"B{band}" for band in range(bands)),
        wavelengths=tuple(0.4 + 0.05 * band for band in range(bands)),
        gsd=10.0,
        classes=tuple(f"class {number}" for number in range(classes)),
        domains=("here",),
        window=window,
        budget=Budget(**budget),
        backbone=get_backbone("compact", **SIZES),
    )


def make_request(
    root: Path | None, *methods: str, benchmarks: tuple[str, ...] = ("mts12-n2s",), **more: Any
) -> Request:
    """A run of two steps; settings of ``Overrides`` and fields of ``Request`` may be given by name."""
    settings = {"steps": 2, "pretrain_steps": 1, "batch_size": 2, "validations": 2}
    settings |= {key: more.pop(key) for key in list(more) if key in Overrides.model_fields}
    fields = {"backbone": "compact", "backbone_sizes": SIZES, "allow_partial": True, **more}
    return Request(benchmarks, methods or ("full",), data_root=root, overrides=Overrides(**settings), **fields)


def fit(
    module: nn.Module, stages: list[Stage], source: SourceData, budget: Budget, classes: int, *, say: Say = quiet,
    hardware: Hardware = CPU, weight_seed: int = 0, title: str = "a title", **more: Any,
) -> TrainedModel:  # fmt: skip
    """Train a module; ``more`` are fields of ``TrainingRun``."""
    return train(
        TrainingRun(
            module, stages, source, budget, classes, weight_seed=weight_seed, hardware=hardware, say=say, title=title,
            **more,
        )
    )  # fmt: skip


class Pixelwise(nn.Module):
    """Two 1x1 convolutions with dropout in between."""

    def __init__(self, bands: int = 24, classes: int = 8, dropout: float = 0.5) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(bands, 8, 1), nn.GELU(), nn.Dropout(dropout), nn.Conv2d(8, classes, 1)
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


def run_main(monkeypatch: pytest.MonkeyPatch, arguments: Iterable[object]) -> int:
    """Run the command in this process, through its entry point, and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["stbench", *map(str, arguments)])
    try:
        main()
    except SystemExit as ending:
        return int(ending.code or 0)
    return 0


def install(
    site: Path, package: str, code: str, entries: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    group: str = "methods",
) -> Path:  # fmt: skip
    """Install a package of one module as pip would leave it, with entry points in our group.

    Args:
        site: Folder to make and to put on ``sys.path``.
        package: Name of the module; the distribution is called the same.
        code: Its code.
        entries: Object reference by method name.
        monkeypatch: Takes it all back at the end of the test.
        group: Which of our entry-point groups.

    Returns:
        Path of the module.
    """
    info = site / f"{package}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[spectral_tl_bench.{group}]\n{lines}")
    module = site / f"{package}.py"
    module.write_text(code)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, package, raising=False)
    return module

"""First step of a cell: data, module and first stage, ready to be trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from spectral_tl_bench.data.loaders import LoaderSettings, SourceData, TargetImages
from spectral_tl_bench.data.splits import SplitTable
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.features.identity import Identify
from spectral_tl_bench.features.kept import FeatureRun, ImageRun
from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods.adapters_io import changeable
from spectral_tl_bench.methods.base import Stage
from spectral_tl_bench.methods.parts import in_decoder
from spectral_tl_bench.protocol.numerics import feature_versions, named_parts
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.room import OUT, bytes_of_result, bytes_of_weights
from spectral_tl_bench.runner.seeds import order_seed, weight_seed
from spectral_tl_bench.runner.stages import FirstStage, prepare
from spectral_tl_bench.storage.output import check_folder
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.progress import Say


@dataclass(frozen=True)
class Workplace:
    """Where and with what a cell is run; none of it changes a number.

    Attributes:
        out: Root of the record store.
        workers: Readers: processes, or threads where all chips are packed.
    """

    out: Path
    hardware: Hardware
    workers: int
    say: Say


@dataclass(frozen=True)
class BuiltRun:
    """A cell that is ready to be trained.

    Attributes:
        workplace: Where it is run, with the precision of its settings.
        inputs: Whether it runs on these or on kept features.
        trainee: What is trained: the module, or its decoder on kept features.
        source: Training windows and validation chips, as the trainee wants them.
        first: The first stage that the module holds; None where the method shares none.
        seed: Of weights and training.
        changeable: Names of the weights that are not those of the pretrained backbone.
        trainable: How many of them require a gradient.
        decoder: How many of these turn features into logits or pixels.
        started: When it began, on the monotonic clock.
    """

    cell: Cell
    split: SplitTable
    workplace: Workplace
    module: nn.Module
    stages: Sequence[Stage]
    loading: LoaderSettings
    images: SourceData
    inputs: ImageRun | FeatureRun
    trainee: nn.Module
    source: SourceData
    first: FirstStage | None
    seed: int
    changeable: set[str]
    total: int
    trainable: int
    decoder: int
    started: float

    @property
    def hardware(self) -> Hardware:
        """Device and precision."""
        return self.workplace.hardware


def build(cell: Cell, split: SplitTable, workplace: Workplace) -> BuiltRun:
    """Open the source, build the method's module, and put its first stage into it.

    Args:
        split: Who does what; of the target, only the sizes of chips are read.

    Raises:
        UserError: If data, first stage or features cannot be used, or there is no room for the result.
    """
    started = time.monotonic()
    settings, task = cell.settings, cell.task()
    hardware = replace(workplace.hardware, precision=settings.precision, compile=settings.compile)
    workplace = replace(workplace, hardware=hardware)
    loading = LoaderSettings(
        settings.window, settings.stride, settings.budget.batch_size, workplace.workers,
        pinned=hardware.device.type == "cuda", rules=cell.protocol.pixels,
    )  # fmt: skip
    images = _source(cell, split, loading)
    seed = _seed(cell)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    module = cell.method.build(task)
    kept = changeable(module)
    check_folder(workplace.out, OUT, bytes_of_result(cell, split) + bytes_of_weights(module, kept))
    total = sum(parameter.numel() for parameter in module.parameters())
    trained = {name: value.numel() for name, value in module.named_parameters() if value.requires_grad}
    parts = cell.method.parts()
    decoder = sum(size for name, size in trained.items() if in_decoder(name, parts))
    stages = cell.method.stages(task)
    first = prepare(cell, split, module, images, hardware, workplace.say, workplace.out)
    features = on_features(cell, split, module, images, hardware, workplace.say)
    inputs = features or ImageRun(module, images)
    return BuiltRun(
        cell, split, workplace, module, stages, loading, images, inputs, *inputs.source(), first, seed,
        kept | (first.carried if first else set()), total, sum(trained.values()), decoder, started,
    )  # fmt: skip


def on_features(
    cell: Cell, split: SplitTable, module: nn.Module, source: SourceData, hardware: Hardware, say: Say
) -> FeatureRun | None:
    """Cut a run in two, if its method asks for it.

    Args:
        split: Who does what; of the target, only the sizes of chips are read.
        hardware: Device, and how much room features may take.

    Returns:
        The run on features; None where the method runs on images.

    Raises:
        UserError: If the features would take too much room.
        MethodError: If the method's module or stages are not made for it.
    """
    wanted = cell.method.kept_features()
    if wanted is None:
        return None
    task, benchmark = cell.task(), cell.opened.benchmark
    odd = [
        stage.name for stage in cell.method.stages(task) if not stage.labelled or stage.shared or stage.fit is not None
    ]
    if odd:
        raise MethodError(
            f"stage {odd[0]!r} of method {cell.method_name} cannot run on kept features",
            expected="stages with labels that train a decoder by gradients",
            fix="leave out cache=true",
        )
    identify = Identify(
        task, module, wanted, source.statistics, benchmark.dataset, benchmark.nodata_key, hardware.device,
        feature_versions(cell.numerics()) | named_parts(cell.protocol, ("normalisation", "windows")),
    )  # fmt: skip
    run = FeatureRun(
        module, source, wanted, identify, hardware.feature_limit, hardware.device,
        lambda line: say(f"{cell.title} | {line}"), cell.method_name,
    )  # fmt: skip
    frame = cell.opened.index.frame.loc[split.chips("target")]
    run.check_room([(int(high), int(wide)) for high, wide in zip(frame["height"], frame["width"], strict=True)])
    return run


def _seed(cell: Cell) -> int:
    seed = weight_seed(cell.opened.benchmark.id, cell.method_name, cell.seed)
    fixed = cell.method.kept_features()
    return seed_from(seed, "head", fixed.head_seed) if fixed is not None and fixed.head_seed else seed


def _source(cell: Cell, split: SplitTable, loading: LoaderSettings) -> SourceData:
    """What training sees; target images are there only for methods that ask for them, whose results stand apart."""
    benchmark, index = cell.opened.benchmark, cell.opened.index
    source = SourceData(benchmark, index, split, loading, order_seed(benchmark.id, cell.seed))
    if cell.method.target_images:
        chips = split.chips("target")
        source.target_images = TargetImages(benchmark, index, chips, loading, source.statistics)
    return source

"""How much of a method's tokens depends on the image: images, module and settings for ``token_shares``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from spectral_tl_bench.benchmarks import builtin_benchmarks, resolve
from spectral_tl_bench.data.loaders import LoaderSettings, Normalise, SourceData
from spectral_tl_bench.data.source import locate, open_index
from spectral_tl_bench.errors import MethodError, RecordError, UserError
from spectral_tl_bench.inspect.invented import NO_BENCHMARK, invented_task
from spectral_tl_bench.inspect.token_shares import Share, probe
from spectral_tl_bench.methods.base import Backbone, Budget, Method, Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones.input_scale import check_window
from spectral_tl_bench.protocol.settings import Overrides, RunSettings, make_settings
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.results.backbones import recorded_backbone
from spectral_tl_bench.results.store import RECORD_FILE, read_record
from spectral_tl_bench.runner.definitions import Cell, OpenBenchmark
from spectral_tl_bench.runner.seeds import order_seed, weight_seed
from spectral_tl_bench.training.trained import load_state

RANDOM = NO_BENCHMARK
"""In place of a benchmark: random images."""


@dataclass(frozen=True)
class ProbeRequest:
    """What the user asked for.

    Attributes:
        method: Entry-point name, by itself or with a preset.
        benchmark: Id or YAML file; None for the first one, ``none`` for random images.
        data_root: ``--data-root``, if given.
        trust_data: Whether links and VRTs may lead out of the data root.
        chips: Number of images, at least 2.
        bands: Channels of random images.
        window: Side of the images in pixels; by default that of a run.
        seed: Seed of weights and split.
        weights: Weights that a run stored beside its record, whose settings then hold.
        backbone_file: The pretrained weights that the user names for the backbone of that record.
        settings: Of that record.
    """

    method: str
    options: Mapping[str, Any]
    backbone: Backbone
    benchmark: str | None = None
    data_root: Path | None = None
    trust_data: bool = False
    chips: int = 16
    bands: int = 13
    window: int | None = None
    seed: int = 0
    weights: Path | None = None
    backbone_file: Path | None = None
    settings: RunSettings | None = None


@dataclass(frozen=True)
class ProbeReport:
    """What was looked at, in lines for the user, and what was found."""

    about: tuple[str, ...]
    shares: tuple[Share, ...] = field(default_factory=tuple)


def run_probe(request: ProbeRequest) -> ProbeReport:
    """Build a method and look at its tokens.

    Raises:
        UserError: If a name, an option, a size or the weights are wrong, or the method has no vision transformer.
    """
    if request.weights is not None:
        request = _as_recorded(request, request.weights)
    method = make_method(request.method, dict(request.options))
    noise = request.benchmark == RANDOM
    task, images, lines = _random_images(request) if noise else _source_images(request, method)
    if request.backbone.seed is not None:  # that of a given stage
        task = replace(task, backbone=replace(task.backbone, seed=request.backbone.seed))
    torch.manual_seed(weight_seed(task.benchmark, request.method, request.seed))
    try:
        module = method.build(task)
        if request.weights is not None:
            load_state(module, _read_weights(request.weights))
        shares = probe(module, images)
    except UserError:
        raise
    except Exception as error:  # whatever a method raises
        raise MethodError(
            f"method {request.method!r} cannot be probed: {type(error).__name__}: {error}",
            where=f"backbone {task.backbone.name}, {task.num_bands} bands, windows of {task.window} px",
        ) from error
    state = f"weights of {request.weights}" if request.weights else f"at its random start, seed {request.seed}"
    return ProbeReport((f"{request.method} on {task.backbone.name}, {state}", *lines), tuple(shares))


def _as_recorded(request: ProbeRequest, weights: Path) -> ProbeRequest:
    """The request with the settings of the record beside the weights, which hold only what training changed."""
    path = weights.parent / RECORD_FILE
    if not weights.is_file() or not path.is_file():
        raise RecordError(
            "there are no weights with a record beside them",
            where=weights,
            expected=f"selected.safetensors in the folder of a {RECORD_FILE}",
        )
    record = read_record(path)
    if record.method != request.method:
        raise UserError(
            f"the weights are those of method {record.method}, not of {request.method}", where=path,
            fix=f"stbench methods probe {record.method} --weights {weights}",
        )  # fmt: skip
    if request.options:
        raise UserError("--option beside --weights: the options are those of the record", where=path)
    facts, settings = record.backbone, RunSettings.model_validate(record.settings)
    # A first stage that was given by the user brings the random weights of its own backbone.
    seeds = [stage.options["stage_seed"] for stage in record.stages if "stage_seed" in stage.options]
    backbone = request.backbone if facts is None else recorded_backbone(facts, request.backbone_file, path)
    backbone = replace(backbone, seed=next((seed for seed in seeds if isinstance(seed, int)), record.seed))
    return replace(
        request, options=record.options, backbone=backbone, benchmark=request.benchmark or record.benchmark,
        seed=record.seed, window=settings.window, settings=settings,
    )  # fmt: skip


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RecordError(f"the weights cannot be read: {error}", where=path) from None


def _random_images(request: ProbeRequest) -> tuple[Task, Tensor, tuple[str, ...]]:
    """White noise, the same in every run."""
    token = request.backbone.token
    window = request.window or max(1, 64 // token) * token
    check_window(request.backbone, window)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(request.chips, request.bands, window, window, generator=generator)
    task = invented_task(
        replace(request.backbone, seed=request.seed), bands=request.bands, classes=2, window=window, budget=Budget()
    )
    return task, images, (f"images: {request.chips} of white noise, {request.bands} bands, {window} px",)


def _source_images(request: ProbeRequest, method: Method) -> tuple[Task, Tensor, tuple[str, ...]]:
    """Windows of different training chips, normalised by the statistics of all training chips."""
    chosen = resolve([request.benchmark or next(iter(builtin_benchmarks()))])
    if len(chosen) != 1:
        raise UserError(f"--benchmark {request.benchmark} names {len(chosen)} benchmarks", expected="one, or none")
    benchmark, own_folder = chosen[0]
    location = replace(locate(benchmark, own_folder, request.data_root), trusted=request.trust_data)
    opened = OpenBenchmark(
        benchmark, location, *open_index(benchmark, location, own_folder is not None, allow_partial=True)
    )
    overrides = Overrides(window=request.window)
    fitting = make_settings(benchmark, opened.chip_size, opened.is_small, request.backbone, overrides, STRICT)
    settings = request.settings or fitting
    window = settings.window
    loading = LoaderSettings(window, settings.stride, settings.budget.batch_size)
    source = SourceData(
        benchmark, opened.index, opened.split(request.seed), loading, order_seed(benchmark.id, request.seed)
    )
    chips = [(source.collection.datasets[dataset], number) for dataset, number, _ in source.collection.chips()]
    count = min(request.chips, len(chips))
    if count < 2:
        raise UserError(f"{benchmark.id} has {len(chips)} training chip here", expected="at least two to compare")
    spread = [chips[place * len(chips) // count] for place in range(count)]
    windows = [dataset.read_window(number, 0, 0, window, window)["image"] for dataset, number in spread]
    images = Normalise(source.statistics)(torch.stack(windows))
    task = Cell(opened, request.method, method, request.backbone, STRICT, settings, request.seed).task()
    return task, images, (location.line, f"images: {count} training chips of {benchmark.id}, {window} px of each")

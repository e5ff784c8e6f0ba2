"""Trained weights as a network that can be used: built again, and told how images have to be given to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import user_path
from spectral_tl_bench.data.normalisation import BandStatistics
from spectral_tl_bench.data.units import Summary
from spectral_tl_bench.errors import AdapterError, UserError
from spectral_tl_bench.methods.adapters_io import AdapterCard, Use, load_adapter, read_card
from spectral_tl_bench.methods.base import Backbone, Task
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.protocol.settings import RunSettings
from spectral_tl_bench.results.backbones import recorded_backbone
from spectral_tl_bench.results.finding import existing_roots, find_record, is_fingerprint
from spectral_tl_bench.results.schema import BackboneFacts
from spectral_tl_bench.results.store import RECORD_FILE, WEIGHTS_FILE


@dataclass(frozen=True)
class LoadedModel:
    """A trained network, and how images have to be given to it.

    Attributes:
        module: Maps normalised images (B, C, H, W) to logits (B, K, H, W); in evaluation mode.
        transforms: Maps images (B, C, H, W) in the benchmark's unit to normalised ones.
        benchmark: What it was trained for: bands, unit, classes with their colours.
        window: Side of the images that it was trained on, in pixels.
        stride: Step between windows in the protocol's test.
        statistics: Of its training chips, per band, in the benchmark's unit.
        method: Name of the method.
        track: What it was trained on; ``sample`` for synthetic scenes.
        fingerprint: Of the run that trained it.
    """

    module: nn.Module
    transforms: nn.Module
    benchmark: Benchmark
    window: int
    stride: int
    statistics: Summary
    method: str
    track: str
    fingerprint: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.benchmark.labels.names

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names, in the order of the channels."""
        return self.benchmark.sensor.band_names

    @property
    def title(self) -> str:
        """Method and benchmark, for people; says so where the training scenes were synthetic."""
        return f"{self.method}, trained on {self.benchmark.id}" + (
            " (synthetic sample)" if self.track == "sample" else ""
        )

    def __repr__(self) -> str:
        weights = sum(one.numel() for one in self.module.parameters())
        return (
            f"<{self.title}: {len(self.bands)} bands, {len(self.classes)} classes, windows of {self.window} px, "
            f"{weights:,} weights>"
        )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W) in the benchmark's unit."""
        return self.module(self.transforms(images))

    def to(self, device: torch.device | str) -> LoadedModel:
        """The same on another device."""
        return replace(self, module=self.module.to(device), transforms=self.transforms.to(device))


def load_model(path: Path | str, *, backbone_weights: Path | str | None = None) -> LoadedModel:
    """Build a trained network again.

    Args:
        path: ``selected.safetensors`` of a run, the record beside it, their folder, or how the fingerprint of a
            record in the usual folder of results begins.
        backbone_weights: The pretrained weights of its backbone, where the run read them from a file.

    Raises:
        AdapterError: If there are no such weights, or they were stored by an older version.
        RecordError: If no fingerprint, or more than one, begins so.
        UserError: If method or backbone are not installed, or the backbone's weights cannot be had or are others.
    """
    file = _weights_file(user_path(path))
    card = read_card(file)
    use = card.use
    if use is None:
        raise AdapterError(
            "the weights do not say how to use them: bands, unit and statistics are missing", where=file,
            expected="weights that `stbench run` of version 0.2 or later has stored", fix="train again",
        )  # fmt: skip
    pixels = get_protocol(use.protocol).pixels
    if not pixels.windows.overlaps:
        raise UserError(
            f"protocol {use.protocol} reads whole chips, each scaled by itself, so there is no map of larger scenes",
            where=file, expected="weights of a run with --protocol strict",
        )  # fmt: skip
    settings = RunSettings.model_validate(use.settings)
    statistics = BandStatistics(*(torch.tensor(values, dtype=torch.float64).numpy() for values in (use.mean, use.std)))
    extra = None if backbone_weights is None else user_path(backbone_weights)
    backbone = _backbone(card, use, statistics, extra, file)
    task = Task(
        benchmark=card.benchmark, bands=card.bands, wavelengths=card.wavelengths, gsd=card.gsd, classes=card.classes,
        domains=tuple(use.benchmark.source), window=card.window, budget=settings.budget, backbone=backbone,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # what is drawn is replaced by what is stored, or comes from its own seed
        module = make_method(card.method, dict(card.options)).build(task)
    load_adapter(module, file)
    return LoadedModel(
        module.eval(), pixels.normalise(statistics).eval(), use.benchmark, settings.window, settings.stride,
        Summary(statistics.mean, statistics.std, torch.tensor(use.low, dtype=torch.float64).numpy()),
        card.method, use.track, use.fingerprint,
    )  # fmt: skip


def _weights_file(path: Path) -> Path:
    if not path.exists() and is_fingerprint(str(path)):
        record = find_record(str(path), existing_roots(None))
        path = record.path or path
    if path.is_dir():
        path = path / WEIGHTS_FILE
    elif path.name == RECORD_FILE:
        path = path.with_name(WEIGHTS_FILE)
    if not path.is_file():
        raise AdapterError(
            "there are no trained weights", where=path, expected=f"the {WEIGHTS_FILE} of a run, or its folder",
            fix="a published record comes without weights: train it again with `stbench run`",
        )  # fmt: skip
    return path


def _backbone(card: AdapterCard, use: Use, statistics: BandStatistics, file: Path | None, where: Path) -> Backbone:
    try:
        facts = BackboneFacts.model_validate(card.backbone)
    except ValidationError:
        raise AdapterError(f"the backbone {card.backbone.get('name')!r} cannot be built again", where=where) from None
    # A method without a backbone keeps the default one in its task, whose weights nobody needs.
    needed = make_method(card.method, dict(card.options)).uses_backbone
    backbone = recorded_backbone(facts, file, where) if needed else get_backbone(facts.name, "none")
    told = () if facts.input_norm != "reflectance" else statistics.reflectances(use.benchmark.sensor.scale)
    return replace(backbone, seed=card.backbone_seed, statistics=told).for_sensor(card.wavelengths, card.gsd)

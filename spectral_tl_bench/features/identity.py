"""What features depend on, gathered from a run's parts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from spectral_tl_bench.data.index import content_key
from spectral_tl_bench.data.loaders import BandStatistics
from spectral_tl_bench.data.rasters import ChipCollection
from spectral_tl_bench.features.modules import DECODER
from spectral_tl_bench.features.store import FeatureIdentity
from spectral_tl_bench.methods.base import KeptFeatures, Task
from spectral_tl_bench.models.decoders import takes_images
from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.provenance import package_code, versions_of

CONTENT_DIGITS = 16
LIBRARIES = ("torch", "timm")
IMAGE = -1
"""Stands among the levels for the image itself."""


class Identify:
    """Gives the identity of features from chips, stride, symmetries and kept levels; all else is fixed for a run.

    It knows the bands and the weights, and no chip: chips are named when it is called.

    Args:
        module: What the method built; its weights are hashed now.
        wanted: What the method declares.
        statistics: Of the source training chips.
        nodata: What is done with pixels that hold no measurement.
        numerics: Numerics version of every component that takes part.
    """

    def __init__(
        self, task: Task, module: nn.Module, wanted: KeptFeatures, statistics: BandStatistics, dataset: str,
        nodata: str, device: torch.device, numerics: Mapping[str, str],
    ) -> None:  # fmt: skip
        kind = type(module)
        levels = getattr(module, "levels", None)
        levels = tuple(levels if levels is not None else task.backbone.levels)
        extractor = getattr(kind, "features", kind.forward)
        self._fixed = {
            "backbone": task.backbone.facts(),
            "seed": task.backbone.seed,
            "weights": weights_digest(module, lambda name: not name.startswith(DECODER)),
            "extractor": f"{extractor.__module__}:{extractor.__qualname__}",
            "levels": (*levels, IMAGE) if takes_images(getattr(module, "decoder", None)) else levels,
            "dataset": dataset,
            "bands": task.bands,
            "wavelengths": task.wavelengths,
            "gsd": task.gsd,
            "nodata": nodata,
            "mean": tuple(float(value) for value in statistics.mean),
            "std": tuple(float(value) for value in statistics.std),
            "window": task.window,
            "dtype": wanted.dtype,
            "device": device.type,
            "numerics": dict(numerics),
            "code": code_of(module),
        }

    def __call__(self, collection: ChipCollection, stride: int, copies: int, kept: tuple[int, ...]) -> FeatureIdentity:
        """The identity of the features of all windows of a collection."""
        chips = tuple(
            (str(row["chip"]), content_key(row, CONTENT_DIGITS), int(row["height"]), int(row["width"]))
            for _, _, row in collection.chips()
        )
        return FeatureIdentity.model_validate(
            {**self._fixed, "chips": chips, "stride": stride, "copies": copies, "kept": kept}
        )


def code_of(module: nn.Module) -> Mapping[str, str]:
    """Hashes of the code of plug-ins, decoders aside, and versions of the libraries, which differ in last digits."""
    frozen = [child for name, child in module.named_modules() if not f"{name}.".startswith(DECODER)]
    extractor = getattr(type(module), "features", None)
    modules = {type(child).__module__ for child in frozen[1:]}  # the first is the whole, the decoder's code with it
    modules |= {extractor.__module__} if extractor is not None else set()
    packages = sorted({name.partition(".")[0] for name in modules} - {*LIBRARIES, "spectral_tl_bench", "spectralx"})
    return {package: package_code(package) for package in packages} | versions_of(LIBRARIES)

"""Samples as TorchGeo's own datasets give them, so that its loaders and data modules take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rasterio.transform import from_origin

from spectral_tl_bench.data.rasters import SpectralChips

Transforms = Callable[[dict[str, Any]], dict[str, Any]]


class AsTorchGeo:
    """Leaves of a sample what the installed TorchGeo has in its own: it stacks nothing else.

    Up to 0.8 these are ``image``, ``mask``, ``crs`` and ``bounds``; later ``image``, ``mask``, and the tensors
    ``bounds`` and ``transform``.

    Args:
        dataset: Whose samples they are.
        then: Called with what is left.
    """

    def __init__(self, dataset: SpectralChips, then: Transforms | None = None) -> None:
        self.dataset, self.then = dataset, then

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The same sample with fewer keys."""
        plain = {name: sample[name] for name in ("image", "mask")}
        if hasattr(self.dataset, "_slice_to_tensor"):
            x, y, _ = sample["bounds"]
            plain["bounds"] = self.dataset._slice_to_tensor(sample["bounds"])
            plain["transform"] = torch.tensor(from_origin(x.start, y.stop, *self.dataset.res))
        else:
            plain |= {name: sample[name] for name in ("crs", "bounds")}
        return plain if self.then is None else self.then(plain)

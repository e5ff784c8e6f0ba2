"""CORAL: features with the same mean and covariance in every source domain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError, nearest
from spectral_tl_bench.methods.base import Batch
from spectral_tl_bench.objectives.base import Objective, Setting


def covariance(features: Tensor) -> Tensor:
    """The covariance (C, C) of features (N, C), N >= 2."""
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def coral_distance(first: Tensor, second: Tensor) -> Tensor:
    """Squared difference of the means, plus that of the covariances, of features (N, C).

    Each is the mean over its entries, C and C x C, as in DomainBed. Deep CORAL itself (equation 1) has no means, and a
    quarter of the second.
    """
    means = (first.mean(dim=0) - second.mean(dim=0)).square().mean()
    return means + (covariance(first) - covariance(second)).square().mean()


def pixel_features(tensor: Tensor) -> Tensor:
    """Features (B, N, C) of maps (B, C, h, w) or tokens (B, N, C)."""
    return tensor.flatten(2).transpose(1, 2) if tensor.ndim == 4 else tensor


class Coral(Objective):
    """Aligns means and covariances of features over all pairs of source domains in a batch.

    The features are the input of the classifier: of the linear layer or convolution with one output per class that is
    called last, before logits are resized. Every place counts, labelled or not. ``layer`` names another module, whose
    input is then taken. With ``features=windows`` they are averaged over the places of a window first, which comes next
    to DomainBed's features of whole images, and needs batches with many windows of each domain. Distance, mean over
    the pairs of domains and ``weight`` are those of DomainBed.
    """

    numerics_version = 2

    reference: ClassVar[str] = (
        "Sun and Saenko, Deep CORAL, ECCV Workshops 2016, as Gulrajani and Lopez-Paz, DomainBed, ICLR 2021, compute it"
    )
    source_code: ClassVar[str] = "facebookresearch/DomainBed, from memory: not checked against the code"
    differs: ClassVar[tuple[str, ...]] = (
        "Features are those of pixels, of which a batch has many; DomainBed has one per image, and 32 images of each "
        "domain in a batch. `features=windows` averages them over a window.",
        "The loss beside the penalty is the method's, over all labelled pixels; DomainBed's is the mean over domains.",
    )
    domains_needed: ClassVar[int] = 2
    later: ClassVar[Mapping[str, Any]] = {"features": "pixels"}

    weight: float = Field(1.0, ge=0, description="multiple of the distance")
    features: Literal["pixels", "windows"] = Field(
        "pixels", description="what is aligned: features of pixels, or their means over each window"
    )
    layer: str = Field("", description="name of the module whose input is aligned; default: the classifier")
    balanced: bool = Field(True, description="draw each source domain equally often")

    _classes: int = PrivateAttr(0)
    _caught: list[tuple[Tensor, Tensor]] = PrivateAttr(default_factory=list)
    _used: str = PrivateAttr("")

    def wants_balance(self) -> bool:
        """As the option says."""
        return self.balanced

    def begin(self, setting: Setting) -> None:
        """Note how a classifier is known."""
        self._classes, self._caught = setting.num_classes, []

    @contextmanager
    def wrap(self, module: nn.Module, batch: Batch) -> Iterator[None]:
        """Keep the features of a forward pass."""
        inputs: dict[str, Tensor] = {}

        def hook(name: str) -> Any:
            def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
                inputs.pop(name, None)
                inputs[name] = arguments[0]

            return keep

        handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in self._layers(module)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if not inputs:
            raise MethodError(
                "coral found no classifier to take features from: no layer with one output per class was called"
                if not self.layer
                else f"coral: the forward pass does not call the module {self.layer!r}",
                fix="name a module: -O coral.layer=NAME",
            )
        self._used, features = list(inputs.items())[-1]
        pixels = pixel_features(features)
        self._caught.append((pixels if self.features == "pixels" else pixels.mean(1, keepdim=True), batch["domain"]))

    def _layers(self, module: nn.Module) -> list[tuple[str, nn.Module]]:
        named = dict(module.named_modules())
        if not self.layer:
            return [(name, layer) for name, layer in named.items() if _outputs(layer) == self._classes]
        if self.layer not in named:
            raise MethodError(
                f"coral.layer is {self.layer!r}, which is no module of the method", expected=nearest(self.layer, named)
            )
        return [(self.layer, named[self.layer])]

    def penalty(self, module: nn.Module, batch: Batch) -> Tensor:
        """The distance, averaged over the pairs of domains with two features or more; zero where there are none."""
        del module
        caught, self._caught = self._caught, []
        by_domain = []
        for domain in batch["domain"].unique().tolist():
            parts = [features[owner == domain].flatten(0, 1) for features, owner in caught if (owner == domain).any()]
            joined = torch.cat(parts).float() if parts else batch["image"].new_zeros(0, 1)
            if len(joined) > 1:
                by_domain.append(joined)
        domain_pairs = list(combinations(by_domain, 2))
        if not domain_pairs:
            return batch["image"].new_zeros(())
        with torch.autocast(batch["image"].device.type, enabled=False):
            return self.weight * torch.stack([coral_distance(first, second) for first, second in domain_pairs]).mean()

    def facts(self) -> dict[str, Any]:
        """Which features were aligned."""
        return {"features": f"input of {self._used}"}


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    return module.out_features if isinstance(module, nn.Linear) else None

"""A segmentation module cut in two: frozen features, and the decoder that trains on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from spectral_tl_bench.errors import MethodError

DECODER = "decoder."


class TwoParts(Protocol):
    """What a module needs for its features to be kept: ``decoder(features(images), (H, W))`` are its logits."""

    decoder: nn.Module

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps (B, D, h, w), one per level, and last the images, where the decoder takes them."""


class FeatureMaps:
    """The features of a batch; takes the place of its images.

    Args:
        maps: One tensor (B, D, h, w) per level, and (B, 0) for a level that the decoder does not look at.
        window: Side of the images that they come from, in pixels.
    """

    def __init__(self, maps: list[Tensor], window: int) -> None:
        self.maps, self.window = maps, window

    def __len__(self) -> int:
        return len(self.maps[0])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, D, H, W): height and width are those of the images."""
        return len(self), self.maps[0].shape[1], self.window, self.window

    def to(self, *arguments: Any, **more: Any) -> FeatureMaps:
        """The same on another device."""
        return FeatureMaps([feature_map.to(*arguments, **more) for feature_map in self.maps], self.window)

    def pin_memory(self) -> FeatureMaps:
        """The same in memory that a GPU can read."""
        return FeatureMaps([feature_map.pin_memory() for feature_map in self.maps], self.window)


class _Noted(list[Tensor]):
    """A list that notes which of its members are looked at; a part of it notes them for the whole."""

    def __init__(self, maps: list[Tensor], places: Sequence[int] = (), used: set[int] | None = None) -> None:
        super().__init__(maps)
        self.places = places or range(len(maps))
        self.used: set[int] = set() if used is None else used

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        if isinstance(place, slice):
            return _Noted(found, self.places[place], self.used)
        self.used.add(self.places[place])
        return found

    def __iter__(self) -> Iterator[Tensor]:
        self.used.update(self.places)
        return super().__iter__()

    def __reversed__(self) -> Iterator[Tensor]:
        self.used.update(self.places)
        return super().__reversed__()


def without(maps: list[Tensor], kept: Sequence[int]) -> list[Tensor]:
    """The same list with (B, 0) in the places that are not kept."""
    return [
        feature_map if place in kept else feature_map.new_empty(len(feature_map), 0)
        for place, feature_map in enumerate(maps)
    ]


class HeadOnFeatures(nn.Module):
    """The decoder alone, on features that were computed before; its weights keep their names.

    Args:
        decoder: Called as ``decoder(features, image_size)``.
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: FeatureMaps) -> Tensor:
        """Features to logits (B, K, H, W)."""
        return self.decoder([feature_map.float() for feature_map in features.maps], (features.window, features.window))


class HeadOnImages(nn.Module):
    """The decoder on features that are computed at every step and rounded as stored ones are.

    Args:
        dtype: What features are rounded to.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.decoder: nn.Module = cast(TwoParts, module).decoder
        self._whole, self.dtype = [module], dtype  # in a list: only the decoder is part of this module

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) to logits (B, K, H, W)."""
        maps = compute_features(self._whole[0].to(images.device), images)
        rounded = [feature_map.to(self.dtype).float() for feature_map in maps]
        return self.decoder(rounded, tuple(images.shape[-2:]))


def compute_features(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Features in float32, whatever the precision of the training around it, without dropout and gradient.

    Args:
        module: A module of two parts.
        images: (B, C, H, W), normalised.
    """
    for name, child in module.named_children():
        if not f"{name}.".startswith(DECODER):
            child.eval()
    # no_grad rather than inference_mode: a decoder that trains on these saves them for its gradient.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return cast(TwoParts, module).features(images.float())


def check_parts(module: nn.Module, images: Tensor, method: str) -> tuple[list[Tensor], tuple[int, ...]]:
    """Refuse a module whose features could not be kept.

    Args:
        images: A few normalised images (B, C, H, W), on the device of the module.
        method: Name for the message.

    Returns:
        The features of ``images``, and the places in that list that the decoder looks at: a linear classifier of the
        last map needs no other.

    Raises:
        MethodError: If the module has not two parts, something outside its decoder trains, or the two parts do not
            make its output.
    """
    fix = "leave out cache=true"
    if not callable(getattr(module, "features", None)) or not isinstance(getattr(module, "decoder", None), nn.Module):
        raise MethodError(
            f"features of method {method} cannot be kept: its module is not made of two parts",
            where=type(module).__qualname__,
            expected="a method features(images) and a submodule decoder(features, image_size)", fix=fix,
        )  # fmt: skip
    trains = [name for name, value in module.named_parameters() if value.requires_grad and not name.startswith(DECODER)]
    if trains:
        raise MethodError(
            f"features of method {method} cannot be kept: {trains[0]} and {len(trains) - 1} more parameters outside "
            "the decoder train, so the features change with every step",
            fix=fix + ", or freeze them (-o train_patch_embed=false)",
        )
    was_training = module.training
    module.eval()
    maps = compute_features(module, images)
    size = tuple(images.shape[-2:])
    decoder, noted = cast(TwoParts, module).decoder, _Noted(maps)
    with torch.no_grad():
        whole, parts = module(images), decoder(noted, size)
        used = tuple(sorted(noted.used))
        try:  # a look that was not noticed, as from compiled code, is found out here
            enough = torch.equal(decoder(without(maps, used), size), parts)
        except (RuntimeError, IndexError, ValueError):
            enough = False
    module.train(was_training)
    if not torch.allclose(whole, parts, atol=1e-5, rtol=1e-4):
        raise MethodError(
            f"features of method {method} cannot be kept: decoder(features(images)) is not what its module returns, "
            f"the largest difference is {float((whole - parts).abs().max()):.2g}",
            where=type(module).__qualname__, fix=fix,
        )  # fmt: skip
    return maps, used if enough else tuple(range(len(maps)))

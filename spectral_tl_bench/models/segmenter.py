"""A vision transformer and a decoder, put together to a segmentation module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from spectral_tl_bench.models.decoders import build_decoder, resolved, takes_images

if TYPE_CHECKING:
    from spectral_tl_bench.methods.base import Task


class ViTSegmenter(nn.Module):
    """Feature maps after some blocks of a ViT, decoded to logits.

    Args:
        backbone: A timm ``VisionTransformer``.
        decoder: Called as ``decoder(features, image_size)``.
        levels: The blocks (0-based) whose outputs are decoded.
    """

    def __init__(self, backbone: nn.Module, decoder: nn.Module, levels: Sequence[int]) -> None:
        super().__init__()
        self.backbone, self.decoder, self.levels = backbone, decoder, list(levels)

    def features(self, images: Tensor) -> list[Tensor]:
        """Four feature maps (B, D, h, w), and behind them the images, where the decoder takes them."""
        needed = sorted(set(self.levels))
        maps = self.backbone.forward_intermediates(  # type: ignore[operator]
            images, indices=needed, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        by_level = dict(zip(needed, maps, strict=True))
        maps = [by_level[level] for level in self.levels]
        return [*maps, images] if takes_images(self.decoder) else maps

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K, H, W)."""
        return self.decoder(self.features(images), tuple(images.shape[-2:]))


class NormedSegmenter(ViTSegmenter):
    """The same with the backbone's final norm on the last map, as features are read that no decoder refines."""

    def features(self, images: Tensor) -> list[Tensor]:
        """The same features, the last map behind the norm, which sees each token by itself."""
        features, last = super().features(images), len(self.levels) - 1
        norm = cast(Any, self.backbone).norm
        features[last] = norm(features[last].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return features


def build_segmenter(task: Task, decoder: str = "upernet", normed: bool = False) -> ViTSegmenter:
    """The task's backbone with a decoder on it; everything in it trains until a method freezes some.

    Decoders that train take block outputs as they are, whatever the backbone: their first layer can rescale any
    channel. ``normed`` is for a decoder that is one linear map.

    Args:
        task: What the method is told.
        decoder: Kind of decoder, as ``build_decoder`` knows it, or ``auto``.
        normed: Pass the last map through the backbone's final norm; the maps of a pyramid have none.

    Raises:
        UserError: If there is no such decoder.
    """
    backbone, kind = task.backbone.build(task.num_bands, task.window), resolved(decoder, task)
    head = build_decoder(task.backbone.widths, task.num_classes, kind=kind, bands=task.num_bands)
    if normed and task.backbone.kind == "vit":
        return NormedSegmenter(backbone, head, task.backbone.levels)
    backbone.norm = nn.Identity()  # the decoder takes block outputs, so its weights would only be counted
    return ViTSegmenter(backbone, head, task.backbone.levels)

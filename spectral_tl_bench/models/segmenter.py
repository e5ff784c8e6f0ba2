"""A vision transformer and a decoder, put together to a segmentation module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from spectral_tl_bench.models.decoders import build_decoder

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
        """Four feature maps (B, D, h, w)."""
        needed = sorted(set(self.levels))
        maps = self.backbone.forward_intermediates(  # type: ignore[operator]
            images, indices=needed, norm=False, output_fmt="NCHW", intermediates_only=True
        )
        by_level = dict(zip(needed, maps, strict=True))
        return [by_level[level] for level in self.levels]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K, H, W)."""
        return self.decoder(self.features(images), tuple(images.shape[-2:]))


def build_segmenter(task: Task, decoder: str = "upernet") -> ViTSegmenter:
    """The task's backbone with a decoder on it; everything in it trains until a method freezes some.

    Args:
        task: What the method is told.
        decoder: Kind of decoder, as ``build_decoder`` knows it.

    Raises:
        UserError: If there is no such decoder.
    """
    backbone = task.backbone.build(task.num_bands, task.window)
    backbone.norm = nn.Identity()  # the decoder takes block outputs, so its weights would only be counted
    head = build_decoder(task.backbone.widths, task.num_classes, kind=decoder)
    return ViTSegmenter(backbone, head, task.backbone.levels)

"""A vision transformer and a decoder, put together to a segmentation module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.models.backbones.input_norm import input_norm
from spectral_tl_bench.models.decoders import build_decoder, resolved, takes_images

if TYPE_CHECKING:
    from spectral_tl_bench.methods.base import Task


def level_norm_of(backbone: nn.Module) -> str:
    """What the feature levels of a network pass before a decoder: ``none``, ``final`` or ``plain``."""
    return str(getattr(backbone, "level_norm", "none"))


def plain_norm(maps: Tensor) -> Tensor:
    """Each token of maps (B, D, h, w) with mean 0 and deviation 1 over its channels: a LayerNorm without weights."""
    return functional.layer_norm(maps.movedim(1, -1), maps.shape[1:2]).movedim(-1, 1)


class ViTSegmenter(nn.Module):
    """Feature maps after some blocks of a ViT, decoded to logits.

    Args:
        backbone: A timm ``VisionTransformer``.
        decoder: Called as ``decoder(features, image_size)``.
        levels: The blocks (0-based) whose outputs are decoded.
        reading: How the bands are normalised that the backbone reads, where they do not stay as they come.
        composites: G groups of bands that the backbone reads one after the other, as a batch that is G times larger;
            their maps are joined along channels. By default it reads all bands at once.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        levels: Sequence[int],
        composites: Sequence[Sequence[int]] = (),
        reading: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.levels = backbone, decoder, list(levels)
        self.composites, self.reading = tuple(tuple(group) for group in composites), reading

    def features(self, images: Tensor) -> list[Tensor]:
        """Four feature maps (B, D, h, w), or (B, G D, h, w) of G composites, normalised as the backbone has it.

        Behind them the images, where the decoder takes them.
        """
        seen = images[:, [band for group in self.composites for band in group]] if self.composites else images
        if self.reading is not None:
            seen = self.reading(seen)
        if self.composites:
            maps = self._maps(seen.reshape(-1, len(self.composites[0]), *images.shape[-2:]))
            maps = [one.unflatten(0, (len(images), -1)).flatten(1, 2) for one in maps]
        else:
            maps = self._maps(seen)
        return [*maps, images] if takes_images(self.decoder) else maps

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Maps of what the backbone reads at once."""
        needed = sorted(set(self.levels))
        kind = level_norm_of(self.backbone)
        maps = self.backbone.forward_intermediates(  # type: ignore[operator]
            images, indices=needed, norm=kind == "final", output_fmt="NCHW", intermediates_only=True
        )
        if kind == "plain":
            maps = [plain_norm(one) for one in maps]
        by_level = dict(zip(needed, maps, strict=True))
        return [by_level[level] for level in self.levels]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K, H, W)."""
        return self.decoder(self.features(images), tuple(images.shape[-2:]))


class NormedSegmenter(ViTSegmenter):
    """The same with the backbone's final norm on the last map, as features are read that no decoder refines."""

    def features(self, images: Tensor) -> list[Tensor]:
        """As without the norm; kept features are known by the name of this function."""
        return super().features(images)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The last one is behind the norm, which sees each token by itself."""
        *others, last = super()._maps(images)
        norm = cast(Any, self.backbone).norm
        return [*others, norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)]


def build_segmenter(task: Task, decoder: str = "upernet", normed: bool = False) -> ViTSegmenter:
    """The task's backbone with a decoder on it; everything in it trains until a method freezes some.

    Decoders that train take block outputs as they are, where the backbone's ``level_norm`` says nothing else: their
    first layer can rescale any channel. ``normed`` is for a decoder that is one linear map.

    Args:
        decoder: Kind of decoder, as ``build_decoder`` knows it, or ``auto``.
        normed: Pass the last map through the backbone's final norm; the maps of a pyramid have none.

    Raises:
        UserError: If there is no such decoder.
    """
    composites, reading = task.backbone.composites, input_norm(task.backbone)
    backbone = task.backbone.alone().build(len(composites[0]) if composites else task.num_bands, task.window)
    kind = resolved(decoder, task)
    head = build_decoder(task.backbone.widths, task.num_classes, kind=kind, bands=task.num_bands)
    if normed and task.backbone.kind == "vit" and task.backbone.level_norm == "none":
        return NormedSegmenter(backbone, head, task.backbone.levels, composites, reading)
    if task.backbone.level_norm != "final":
        backbone.norm = nn.Identity()  # the decoder takes block outputs, so its weights would only be counted
    return ViTSegmenter(backbone, head, task.backbone.levels, composites, reading)

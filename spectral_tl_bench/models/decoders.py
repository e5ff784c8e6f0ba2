"""Decoders that turn the feature maps of a vision transformer into logits, the same for every method."""

from __future__ import annotations

from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (4, 8, 16, 32)
"""Pixels per cell of the four pyramid levels, whatever the patch of the backbone."""


class PyramidNeck(nn.Module):
    """Makes a feature pyramid from four maps of one size, as plain vision transformers need it.

    Each map gets a 1x1 convolution and is resized to a stride of 4, 8, 16 and 32 pixels; for a patch of 16 these
    are the factors 4, 2, 1 and 1/2 of the token grid (SpectralX, ISPRS J. 239, 2026, neck).

    Args:
        width: Channels of the incoming maps.
        channels: Channels of the outgoing maps.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(width, channels, 1) for _ in STRIDES)

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> list[Tensor]:
        """Maps four (B, width, h, w) to (B, channels, H/4, W/4) ... (B, channels, H/32, W/32)."""
        levels = []
        for projection, feature, stride in zip(self.projections, features, STRIDES, strict=True):
            size = [-(-side // stride) for side in image_size]
            levels.append(functional.interpolate(projection(feature), size=size, mode="bilinear", align_corners=False))
        return levels


class UPerNet(nn.Module):
    """Pyramid neck and the UPerNet decoder of segmentation-models-pytorch (Xiao et al., ECCV 2018).

    Normalisation is over groups rather than over the batch: a batch of one, or a pooled 1x1 map, has no batch
    statistics.

    Args:
        width: Channels of the incoming maps.
        num_classes: Number of logit channels.
        channels: Inner channels.
    """

    def __init__(self, width: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.neck = PyramidNeck(width, channels)
        self.decoder = UPerNetDecoder((0, 0, *[channels] * len(STRIDES)), encoder_depth=5, decoder_channels=channels)
        _batch_to_group_norm(self.decoder)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from four maps (B, width, h, w)."""
        pyramid = self.neck(features, image_size)
        fused = self.decoder([pyramid[0], pyramid[0], *pyramid])
        logits = self.classifier(self.dropout(fused))
        return functional.interpolate(logits, size=image_size, mode="bilinear", align_corners=False)


def _batch_to_group_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            groups = next(groups for groups in (16, 8, 4, 2, 1) if child.num_features % groups == 0)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _batch_to_group_norm(child)


def build_decoder(width: int, num_classes: int, channels: int | None = None) -> nn.Module:
    """The suite's decoder for four ViT feature maps.

    Args:
        width: Channels of each map (the token width).
        num_classes: Number of logit channels.
        channels: Inner channels; by default 512 for wide backbones and 32 for the compact one.

    Returns:
        A module called as ``decoder(features, image_size)``.
    """
    return UPerNet(width, num_classes, channels or (512 if width >= 384 else 32))


__all__ = ["PyramidNeck", "UPerNet", "build_decoder"]

"""What the decoders share: normalisation over groups, and the way from features to logits."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

DROPOUT = 0.1
"""Share of channels that are dropped in training before the last layer, in every decoder but ``linear``."""


class Head(nn.Module):
    """Dropout, 1x1 convolution to logits, bilinear upsampling to the image.

    Args:
        channels: Incoming channels.
        num_classes: Number of logit channels.
        dropout: Share of channels dropped in training.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float = DROPOUT) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def classify(self, fused: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from (B, channels, h, w)."""
        logits = self.classifier(self.dropout(fused))
        return functional.interpolate(logits, size=image_size, mode="bilinear", align_corners=False)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, normalisation over groups, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), group_norm(outputs), nn.ReLU(inplace=True)
    )


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation over at most 16 groups of at least two channels, so that a map of one pixel has statistics."""
    groups = next((groups for groups in (16, 8, 4, 2) if channels % groups == 0 and channels > groups), 1)
    return nn.GroupNorm(groups, channels)


def normalise_over_groups(module: nn.Module) -> None:
    """Replace what normalises over the batch, or a channel by itself, by ``group_norm``, in place.

    A batch of one, or a pooled 1x1 map, has no batch statistics; and a prediction must not depend on the other images
    of its batch.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, group_norm(child.num_features))
        elif isinstance(child, nn.GroupNorm) and child.num_groups == child.num_channels:
            setattr(module, name, group_norm(child.num_channels))
        else:
            normalise_over_groups(child)

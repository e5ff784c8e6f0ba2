"""The pixel path: what a pixel's own spectrum says, added to what a decoder says of the maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

HIDDEN = 64


class WithPixels(nn.Module):
    """A decoder of maps, and a per-pixel MLP of all bands whose logits are added to its own.

    The backbone sees what its filters let through, at the size of its tokens; the MLP sees every band of every pixel,
    and nothing around it.

    Args:
        maps: The decoder of the maps.
        bands: Image channels C.
    """

    takes_images = True
    """Features have one more entry for it, the last: the normalised images (B, C, H, W)."""

    def __init__(self, maps: nn.Module, bands: int, num_classes: int) -> None:
        super().__init__()
        self.maps = maps
        self.pixels = nn.Sequential(
            nn.Conv2d(bands, HIDDEN, 1), nn.GELU(), nn.Conv2d(HIDDEN, HIDDEN, 1), nn.GELU(),
            nn.Conv2d(HIDDEN, num_classes, 1),
        )  # fmt: skip

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """Logits (B, K, H, W) from the maps and, behind them, the images."""
        pixels = self.pixels(features[-1])  # first: an objective aligns what the last classifier is given
        return pixels + self.maps(features[:-1], image_size)


def takes_images(decoder: nn.Module | None) -> bool:
    """Whether a decoder wants the images behind the maps."""
    return bool(getattr(decoder, "takes_images", False))

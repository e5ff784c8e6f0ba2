"""How pixels are normalised before a backbone alone, where that is not by the source's statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.registry import check_pictures
from spectral_tl_bench.models.patch_embedding import RGB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spectral_tl_bench.models.backbones.spec import BackboneSpec

BRIGHTEST = 0.3
"""Reflectance that becomes white, as in true-colour pictures of land."""


class WindowNorm(nn.Module):
    """Each band of each window with mean 0 and deviation 1; one without differences becomes 0."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return functional.instance_norm(images)


class ReflectanceNorm(nn.Module):
    """Reflectances of 0 to 0.3 as 0 to 1, cut there as those of 8-bit pictures are, then a mean and a deviation.

    Args:
        statistics: Mean and deviation of the source's training chips in reflectance, for each of the C bands that
            come standardised by them.
        colours: For each band, its place among red, green and blue.
        expected: Mean and deviation of red, green and blue from 0 to 1, as the weights expect them.
    """

    mean: Tensor
    std: Tensor
    expected_mean: Tensor
    expected_std: Tensor

    def __init__(
        self,
        statistics: tuple[Sequence[float], Sequence[float]],
        colours: Sequence[int],
        expected: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        super().__init__()
        per_band = [[part[colour] for colour in colours] for part in expected]
        names = ("mean", "std", "expected_mean", "expected_std")
        for name, values in zip(names, (*statistics, *per_band), strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W), standardised by the source's statistics, to (B, C, H, W) as the weights expect them."""
        shown = ((images * self.std + self.mean) / BRIGHTEST).clamp(0, 1)
        return (shown - self.expected_mean) / self.expected_std


def input_norm(spec: BackboneSpec) -> nn.Module | None:
    """What bands pass before a backbone, in the order in which it reads them; None where they stay standardised.

    Args:
        spec: The backbone, with the sensor's wavelengths, the source's statistics, and its composites if it has any.

    Raises:
        UserError: If reflectances are asked for, and the backbone or the source do not tell what that needs.
    """
    if spec.input_norm == "source":
        return None
    if spec.input_norm == "window":
        return WindowNorm()
    check_pictures(spec)
    if not spec.statistics:
        raise UserError(
            "input norm 'reflectance' needs the statistics of the source in reflectance, which a run has",
            fix="leave out --input-norm",
        )
    if spec.composites:
        bands = [band for group in spec.composites for band in group]
        colours = [place for group in spec.composites for place in range(len(group))]
    else:
        bands = list(range(len(spec.wavelengths)))
        colours = [min(range(3), key=lambda k: abs(RGB[k] - value)) for value in spec.wavelengths]
    mean, std = ([part[band] for band in bands] for part in spec.statistics)
    return ReflectanceNorm((mean, std), colours, spec.card.pixels)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from spectralx import SpectralX, SpectralXConfig

CLASSES = 5


def build(
    bands: int = 5,
    size: int = 32,
    patch: int = 8,
    depth: int = 4,
    wavelengths: list[float] | None = None,
    **options: Any,
) -> SpectralX:
    torch.manual_seed(0)
    backbone = VisionTransformer(
        img_size=size, patch_size=patch, in_chans=bands, embed_dim=48, depth=depth, num_heads=4, num_classes=0
    )
    wavelengths = [0.4 + 0.05 * band for band in range(bands)] if wavelengths is None else wavelengths
    return SpectralX(backbone, wavelengths, CLASSES, size, config=SpectralXConfig(**options))


def stir(model: torch.nn.Module) -> None:
    """Moves parameters that start at zero, so that nothing is cut off from its gradient."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


@pytest.fixture
def make() -> Callable[..., SpectralX]:
    return build


@pytest.fixture
def shake() -> Callable[[torch.nn.Module], None]:
    return stir

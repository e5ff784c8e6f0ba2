"""Images that show what stage 1 has learned: what the model sees, and what it makes of the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from spectralx.masked import hide_pixels, patchify
from spectralx.model import SpectralX


class Reconstruction(NamedTuple):
    """Images (B, C, H, W) in the unit of the input.

    Attributes:
        masked: The input with hidden patches set to zero, as the model sees it.
        reconstruction: Visible patches as they are, hidden ones as predicted.
    """

    masked: Tensor
    reconstruction: Tensor


@torch.no_grad()
def reconstruct(model: SpectralX, images: Tensor, generator: Generator | None = None) -> Reconstruction:
    """Hides patches of images and lets the model fill them in.

    Predictions are normalised per patch, so mean and spread of the true patch are put back: what is judged is the
    pattern inside patches, and the relation of the bands, not the overall brightness of a patch.

    Args:
        model: Built with ``reconstruction``; its mode is left as it is.
        images: (B, C, H, W).
        generator: Source of the mask's chance, on the device of the images.

    Returns:
        Masked images and reconstructions.

    Raises:
        RuntimeError: If the model was built without ``reconstruction``.
    """
    predicted, mask = model.reconstruct(images, generator)
    patches = patchify(images, model.patch).float()
    mean = patches.mean(dim=-1, keepdim=True)
    spread = ((patches - mean).square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    hidden = mask.hidden[..., None] > 0
    filled = torch.where(hidden, predicted.float() * spread + mean, patches)
    return Reconstruction(
        hide_pixels(images, mask.hidden, model.patch), unpatchify(filled, images.shape, model.patch).to(images.dtype)
    )


def unpatchify(patches: Tensor, shape: torch.Size, patch: int) -> Tensor:
    """Images of ``shape`` (B, C, H, W) from their patches (B, L, C * patch * patch); undoes ``patchify``."""
    batch, bands, height, width = shape
    cells = patches.view(batch, height // patch, width // patch, bands, patch, patch)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, bands, height, width)

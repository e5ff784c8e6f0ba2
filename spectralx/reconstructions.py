"""Images that show what stage 1 has learned: what the model is asked, and what it makes of the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from spectralx.masked import hidden_pixels, hide_pixels
from spectralx.model import SpectralX


class Reconstruction(NamedTuple):
    """Images (B, C, H, W) in the unit of the input.

    Attributes:
        masked: The input with hidden patches set to zero.
        reconstruction: Visible patches as they are, hidden ones as predicted.
    """

    masked: Tensor
    reconstruction: Tensor


@torch.no_grad()
def reconstruct(model: SpectralX, images: Tensor, generator: Generator | None = None) -> Reconstruction:
    """Hides patches of images and lets the model fill them in.

    Predictions of the light decoder are normalised per patch, so mean and spread of the true patch are put back: what
    is judged is the pattern inside patches, and the relation of the bands, not the overall brightness of a patch.

    Args:
        model: Built with ``reconstruction``; its mode is left as it is.
        images: (B, C, H, W).
        generator: Source of the mask's chance, on the device of the images.

    Raises:
        RuntimeError: If the model was built without ``reconstruction``.
    """
    picture, mask = model.reconstruct(images, generator)
    hidden = hidden_pixels(mask.hidden, images.shape[-2:], model.patch) > 0
    filled = torch.where(hidden, picture, images.float()).to(images.dtype)
    return Reconstruction(hide_pixels(images, mask.hidden, model.patch), filled)

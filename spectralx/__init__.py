"""SpectralX, the reference model of the suite; needs PyTorch and timm, and nothing of the suite."""

from spectralx.config import READINGS, SpectralXConfig
from spectralx.model import Segmentation, SpectralX

NUMERICS_VERSION = 2
"""Raised by hand whenever a number of the model may change: values at the start, outputs, losses, gradients."""

__all__ = ["NUMERICS_VERSION", "READINGS", "Segmentation", "SpectralX", "SpectralXConfig"]

"""SpectralX, the reference model of the suite; needs PyTorch and timm, and nothing of the suite."""

from spectralx.config import READINGS, SpectralXConfig
from spectralx.model import Segmentation, SpectralX

__all__ = ["READINGS", "Segmentation", "SpectralX", "SpectralXConfig"]

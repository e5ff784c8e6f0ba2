"""Spectral TL Bench: spectral transfer learning for land-cover segmentation, measured one way."""

__version__ = "0.1.0"

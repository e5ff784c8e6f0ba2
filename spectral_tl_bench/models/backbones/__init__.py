"""Backbones by name: what methods adapt, with the weights and the bands that a run chooses."""

from spectral_tl_bench.models.backbones.backbone import SIZES, Backbone, Card, Hub, Weights
from spectral_tl_bench.models.backbones.registry import (
    GROUP,
    backbone_entries,
    check_backbone_known,
    get_backbone,
    load_backbone,
)

__all__ = [
    "GROUP",
    "SIZES",
    "Backbone",
    "Card",
    "Hub",
    "Weights",
    "backbone_entries",
    "check_backbone_known",
    "get_backbone",
    "load_backbone",
]

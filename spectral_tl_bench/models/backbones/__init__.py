"""Backbones by name: what methods adapt, with the weights and the bands that a run chooses."""

from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.registry import (
    GROUP,
    backbone_entries,
    check_backbone_known,
    get_backbone,
    load_backbone,
)
from spectral_tl_bench.models.backbones.spec import SIZES, BackboneSpec, Card, Hub, Weights

__all__ = [
    "GROUP", "SIZES", "Backbone", "BackboneSpec", "Card", "Hub", "Weights", "backbone_entries",
    "check_backbone_known", "get_backbone", "load_backbone",
]  # fmt: skip

"""Baselines that add nothing to a backbone: they differ in which of its weights train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from spectral_tl_bench.methods.base import Recipe, Task
from spectral_tl_bench.methods.budget import FINE_TUNING
from spectral_tl_bench.methods.options import EMBED_DIFFERS, NORMS_TEXT, PATCH_EMBED_TEXT, OnKeptFeatures, WithDecoder
from spectral_tl_bench.models.decoders import PIXELS
from spectral_tl_bench.models.segmenter import build_segmenter


class Full(WithDecoder):
    """Full fine-tuning: backbone and decoder train."""

    numerics_version = 1

    family: ClassVar[str] = "full"
    recipe: ClassVar[Recipe] = FINE_TUNING
    places: ClassVar[str] = "everything"

    def build(self, task: Task) -> nn.Module:
        """Everything trains."""
        return build_segmenter(task, self.decoder)


class Frozen(WithDecoder, OnKeptFeatures):
    """Frozen backbone: the decoder trains, and the patch embedding, which no RGB model has for these bands."""

    numerics_version = 1

    family: ClassVar[str] = "frozen"
    places: ClassVar[str] = "nothing in the blocks"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "pixels": {"decoder": "light+pixels", "train_patch_embed": False}
    }
    """The floor of pretrained features: what they and a pixel's own spectrum say, added."""

    train_patch_embed: bool = Field(True, description=PATCH_EMBED_TEXT)

    def build(self, task: Task) -> nn.Module:
        """The transformer blocks keep their weights."""
        module = build_segmenter(task, self.decoder)
        module.backbone.requires_grad_(False)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        return module


class LinearProbe(OnKeptFeatures):
    """Linear probe: one 1x1 convolution on the last feature map of a frozen backbone, after its final norm."""

    numerics_version = 2

    family: ClassVar[str] = "frozen"
    recipe: ClassVar[Recipe] = Recipe(
        rate=1e-3, source="Oquab et al., DINOv2, TMLR 2024: the release's linear segmentation"
    )
    reference: ClassVar[str] = (
        "Alain and Bengio, ICLR Workshop 2017; on patch tokens as in Oquab et al., DINOv2, TMLR 2024, sec. 7.4"
    )
    places: ClassVar[str] = "on the patch tokens of the last block, after the final norm"
    starts: ClassVar[str] = "the convolution as PyTorch draws it"
    differs: ClassVar[tuple[str, ...]] = (
        "A layer reads the bands that the pretraining did not have; it stays as it was made from the pretrained one.",
        "Oquab et al. put batch norm in front of the linear layer; here there is none. Not checked against the code.",
        "The maps of a pyramid (ResNet, Swin) pass no norm.",
    )

    later: ClassVar[Mapping[str, Any]] = {"pixels": False}

    train_patch_embed: bool = Field(False, description=PATCH_EMBED_TEXT)
    pixels: bool = Field(False, description="add the logits of a per-pixel MLP of all bands")

    def build(self, task: Task) -> nn.Module:
        """The convolution trains; its logits are resized to the image."""
        module = build_segmenter(task, f"linear{PIXELS}" if self.pixels else "linear", normed=True)
        module.backbone.requires_grad_(False)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        return module


class BitFit(WithDecoder):
    """BitFit: every bias of the frozen backbone trains, those of its LayerNorms included.

    timm has one bias for queries, keys and values together. Its third for the keys trains without effect, since it
    adds the same number to all entries of a row of the attention before the softmax.
    """

    numerics_version = 1

    family: ClassVar[str] = "peft"
    reference: ClassVar[str] = "Ben Zaken et al., BitFit, ACL 2022, sec. 3"
    places: ClassVar[str] = "every bias of the backbone"
    starts: ClassVar[str] = "the values of the backbone: untrained it changes nothing"
    differs: ClassVar[tuple[str, ...]] = (EMBED_DIFFERS,)
    later: ClassVar[Mapping[str, Any]] = {"train_norms": False}

    train_norms: bool = Field(False, description=f"{NORMS_TEXT}; without, their biases alone train (paper)")
    train_patch_embed: bool = Field(True, description=f"{PATCH_EMBED_TEXT}; without, its bias alone trains")

    def build(self, task: Task) -> nn.Module:
        """Biases, patch embedding and decoder train."""
        module = build_segmenter(task, self.decoder)
        for name, parameter in module.backbone.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
        for child in module.backbone.modules():
            if self.train_norms and isinstance(child, nn.LayerNorm):
                child.requires_grad_(True)
        if self.train_patch_embed:
            module.backbone.patch_embed.requires_grad_(True)
        return module

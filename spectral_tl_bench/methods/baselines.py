"""Baselines that add nothing to a backbone: they differ in which of its weights train."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.methods.kept_features import OnKeptFeatures
from spectral_tl_bench.methods.options import DECODER_TEXT, PATCH_EMBED_TEXT, Decoder
from spectral_tl_bench.models.segmenter import build_segmenter


class Full(Method):
    """Full fine-tuning: backbone and decoder train."""

    numerics_version = 1

    family: ClassVar[str] = "full"

    decoder: Decoder = Field("upernet", description=DECODER_TEXT)

    def build(self, task: Task) -> nn.Module:
        """Everything trains."""
        return build_segmenter(task, self.decoder)


class Frozen(OnKeptFeatures):
    """Frozen backbone: the decoder trains, and the patch embedding, which no RGB model has for these bands."""

    numerics_version = 1

    family: ClassVar[str] = "frozen"

    train_patch_embed: bool = Field(True, description=PATCH_EMBED_TEXT)
    decoder: Decoder = Field("upernet", description=DECODER_TEXT)

    def build(self, task: Task) -> nn.Module:
        """The transformer blocks keep their weights."""
        module = build_segmenter(task, self.decoder)
        module.backbone.requires_grad_(False)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        return module


class LinearProbe(OnKeptFeatures):
    """Linear probe: one 1x1 convolution on the last feature map of a frozen backbone."""

    numerics_version = 1

    family: ClassVar[str] = "frozen"
    reference: ClassVar[str] = (
        "Alain and Bengio, ICLR Workshop 2017; on patch tokens as in Oquab et al., DINOv2, TMLR 2024, sec. 7.4"
    )

    train_patch_embed: bool = Field(False, description=PATCH_EMBED_TEXT)

    def build(self, task: Task) -> nn.Module:
        """The convolution trains; its logits are resized to the image."""
        module = build_segmenter(task, "linear")
        module.backbone.requires_grad_(False)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        return module


class BitFit(Method):
    """BitFit: every bias of the frozen backbone trains, those of its LayerNorms included.

    timm has one bias for queries, keys and values together. Its third for the keys trains without effect, since it
    adds the same number to all entries of a row of the attention before the softmax.
    """

    numerics_version = 1

    family: ClassVar[str] = "peft"
    reference: ClassVar[str] = "Ben Zaken et al., BitFit, ACL 2022, sec. 3"

    train_patch_embed: bool = Field(True, description=f"{PATCH_EMBED_TEXT}; without, its bias alone trains")
    decoder: Decoder = Field("upernet", description=DECODER_TEXT)

    def build(self, task: Task) -> nn.Module:
        """Biases, patch embedding and decoder train."""
        module = build_segmenter(task, self.decoder)
        for name, parameter in module.backbone.named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
        if self.train_patch_embed:
            module.backbone.patch_embed.requires_grad_(True)
        return module

"""The baselines: what to compare with before anything clever."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.models.decoders import build_decoder
from spectral_tl_bench.models.segmenter import ViTSegmenter

LINEAR_LAYERS = r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
"""The linear layers of every transformer block, in timm's names."""


def _segmenter(task: Task) -> ViTSegmenter:
    backbone = task.backbone.build(task.num_bands, task.window)
    backbone.norm = nn.Identity()  # the decoder takes block outputs, so its weights would only be counted
    decoder = build_decoder(task.backbone.width, task.num_classes)
    return ViTSegmenter(backbone, decoder, task.backbone.levels)


class Full(Method):
    """Full fine-tuning: backbone and decoder train."""

    family: ClassVar[str] = "full"

    def build(self, task: Task) -> nn.Module:
        """Everything trains."""
        return _segmenter(task)


class Frozen(Method):
    """Frozen backbone: the decoder trains, and the patch embedding, which no RGB model has for these bands."""

    family: ClassVar[str] = "frozen"

    train_patch_embed: bool = Field(True, description="train the patch embedding (C bands to tokens)")

    def build(self, task: Task) -> nn.Module:
        """The transformer blocks keep their weights."""
        module = _segmenter(task)
        module.backbone.requires_grad_(False)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        return module


class Lora(Method):
    """Low-rank adaptation of every linear layer of the frozen backbone, by HuggingFace peft."""

    family: ClassVar[str] = "peft"
    reference: ClassVar[str] = "Hu et al., LoRA, ICLR 2022"

    rank: int = Field(16, ge=1)
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    train_patch_embed: bool = Field(True, description="train the patch embedding (C bands to tokens)")
    train_norms: bool = Field(True, description="train the LayerNorms of the backbone")

    def build(self, task: Task) -> nn.Module:
        """Low-rank matrices, patch embedding, norms and decoder train; the frozen weights do not."""
        from peft import LoraConfig, inject_adapter_in_model

        module = _segmenter(task)
        module.backbone.requires_grad_(False)
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=LINEAR_LAYERS)
        module.backbone = inject_adapter_in_model(config, module.backbone)
        module.backbone.patch_embed.requires_grad_(self.train_patch_embed)
        if self.train_norms:
            for child in module.backbone.modules():
                if isinstance(child, nn.LayerNorm):
                    child.requires_grad_(True)
        return module

"""What the adapter methods share: a frozen backbone with adapters in it, under a trained decoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import nn

from spectral_tl_bench.methods.adapters.place import MARK, check_vit, freeze
from spectral_tl_bench.methods.base import Part, Task
from spectral_tl_bench.methods.options import EMBED_DIFFERS, NORMS_TEXT, WithDecoder
from spectral_tl_bench.models.segmenter import build_segmenter


class AdapterMethod(WithDecoder):
    """Base class: a subclass says how its adapter is put into the backbone."""

    family: ClassVar[str] = "peft"
    differs: ClassVar[tuple[str, ...]] = (EMBED_DIFFERS,)

    train_patch_embed: bool = Field(True, description="train the patch embedding: RGB models have none for these bands")
    train_norms: bool = Field(False, description=NORMS_TEXT)

    def build(self, task: Task) -> nn.Module:
        """Adapters and decoder train, patch embedding and norms as the options say; nothing else."""
        module = build_segmenter(task, decoder=self.decoder)
        check_vit(module.backbone, task.backbone.name, grouped=True)
        freeze(module.backbone, patch_embed=self.train_patch_embed, norms=self.train_norms)
        module.backbone = self.insert(module.backbone)
        return module

    @abstractmethod
    def insert(self, backbone: nn.Module) -> nn.Module:
        """Puts the adapter into a frozen timm vision transformer and gives what takes the backbone's place."""

    def parts(self) -> Sequence[Part]:
        """The adapter is what publications count; they keep the patch embedding, which fits their images."""
        return (
            Part("adapter", lambda name: MARK in name),
            Part("patch embedding", lambda name: ".patch_embed." in name, counted=False),
        )

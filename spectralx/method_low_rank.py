"""LoRA and SLR as the SpectralX paper and its release count and use them: with biases, and a low-rank patch path."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from spectral_tl_bench.methods.adapters.place import check_vit
from spectral_tl_bench.methods.base import Method, Stage, Task
from spectral_tl_bench.methods.tuners import refuse_bypassed
from spectral_tl_bench.models.decoders import build_decoder
from spectral_tl_bench.models.segmenter import ViTSegmenter
from spectralx.low_rank import Kind, adapt


class LowRankMethod(Method):
    """Low-rank factors beside frozen linear layers, a low-rank patch path, trained LayerNorms and decoder.

    The last LayerNorm is among the trained ones, because published parameter counts include it. The decoder takes
    block outputs, which it does not touch: its two vectors get no gradient and stay as they are.
    """

    family: ClassVar[str] = "peft"
    kind: ClassVar[Kind]

    rank: int = Field(16, ge=1, description="rank of the factors and channels of the low-rank patch path")
    reading: Literal["paper", "released"] = Field(
        "paper", description="adapt all blocks, or as in SpectralX's released code the last block of every quarter"
    )

    def build(self, task: Task) -> nn.Module:
        """Factors, patch path, norms and decoder train; the frozen weights do not."""
        backbone = task.backbone.build(task.num_bands, task.window)
        check_vit(backbone, task.backbone.name)
        refuse_bypassed(backbone, "all", fix="choose another backbone, such as vit-large")
        adapt(backbone, self.kind, self.rank, None if self.reading == "paper" else task.backbone.levels)
        return ViTSegmenter(backbone, build_decoder(task.backbone.width, task.num_classes), task.backbone.levels)

    def stages(self, task: Task) -> list[Stage]:
        """One stage; the last LayerNorm gets no gradient in it."""
        why = "the decoder takes block outputs; published counts hold the last LayerNorm"
        return [Stage("segment", task.budget.steps, unreached={"backbone.norm.": why})]


class LoraBiased(LowRankMethod):
    """LoRA as in the SLR and SpectralX papers: both factors with a bias, no factor alpha / rank."""

    numerics_version = 1

    reference: ClassVar[str] = "Hu et al., LoRA, ICLR 2022; variant of Scheibenreif et al., CVPR 2024"
    kind: ClassVar[Kind] = "lora"


class Slr(LowRankMethod):
    """Scaled low rank: LoRA with biases between learned scales of the input and output channels."""

    numerics_version = 1

    reference: ClassVar[str] = (
        "Scheibenreif et al., Parameter Efficient Self-Supervised Geospatial Domain Adaptation, CVPR 2024"
    )
    kind: ClassVar[Kind] = "slr"

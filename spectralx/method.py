"""Hands SpectralX to the suite: the only module here that knows ``spectral_tl_bench``."""

from __future__ import annotations

from typing import ClassVar, Literal, Self, cast

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.methods.base import VOID, Backbone, Batch, Method, Stage, Task
from spectralx.config import READINGS, Reading, SpectralXConfig
from spectralx.model import SpectralX
from spectralx.trainable import chooser


def reconstruction_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Loss of stage 1: masked reconstruction of the images, and the balance of the experts."""
    return cast(SpectralX, module).forward_reconstruction(batch["image"])


def segmentation_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Loss of stage 2: cross-entropy over labelled pixels, and the balance of the experts; 0 if all are void."""
    logits, balance = cast(SpectralX, module).segment(batch["image"])
    mask = batch["mask"].long()
    labelled = (mask != VOID).sum()
    total = functional.cross_entropy(logits.float(), mask, ignore_index=VOID, reduction="sum")
    return total / labelled.clamp(min=1) + balance * (labelled > 0)


class SpectralXMethod(Method):
    """Hyper tokenizer, experts and Are-adapter on a frozen backbone, in two stages.

    Options whose default is None take the value of the reading.
    """

    family: ClassVar[str] = "spectralx"
    reference: ClassVar[str] = "SpectralX, ISPRS J. Photogramm. Remote Sens. 239, 2026, 774-792; arXiv 2508.01731"

    reading: Reading = Field("paper", description="follow the publication or the authors' released code")
    pretrain: bool = Field(True, description="run stage 1, masked reconstruction of unlabelled source chips")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches that stage 1 hides")
    hyper_tokenizer: bool = Field(True, description="tokens from HyperT; otherwise from the frozen patch embedding")
    aomoa: bool = Field(True, description="experts beside the MLPs at the end of every quarter")
    are_adapter: bool = Field(True, description="re-weight tokens by attributes; needs the hyper tokenizer")
    experts: int = Field(4, ge=2, description="experts per AoMoA layer, of which a token uses two")
    rank: int = Field(16, ge=1, description="inner channels of the low-rank patch path")
    stem_widths: tuple[int, ...] | None = Field(None, description="stem channels; by default from the token width")
    attribute_mlp: float | None = Field(
        None,
        gt=0,
        description="relative hidden width in HyperT's perception blocks; 4, or 2 below width 384",
    )
    decoder: Literal["shared", "own"] = Field("shared", description="the suite's decoder, or the model's neck and head")
    decoder_channels: int | None = Field(None, ge=1, description="inner channels of the decoder; by default its own")
    reconstruction_depth: int = Field(2, ge=1, description="blocks of the reconstruction decoder")
    train_hyper_tokenizer: bool | None = Field(None, description="train HyperT, or leave it at its random start")
    balance: float | None = Field(None, ge=0, description="coefficient of the balance loss")
    matching: Literal["soft", "hard"] | None = Field(None, description="how the Are-adapter matches attributes")
    combine: Literal["stable", "exponential"] | None = Field(None, description="how expert outputs are joined")
    positions: Literal["resolution", "mixed", "backbone"] | None = Field(
        None, description="position encoding; pretrained backbones other than Scale-MAE keep their own"
    )

    @model_validator(mode="after")
    def _are_adapter_has_attributes(self) -> Self:
        if self.are_adapter and not self.hyper_tokenizer:
            raise ValueError("are_adapter needs the hyper tokenizer: set are_adapter=false too")
        return self

    def config(self, backbone: Backbone) -> SpectralXConfig:
        """The model's options for a backbone."""
        positions = self.positions
        if positions is None and backbone.pretrained != "none" and "scale" not in backbone.pretrained.lower():
            positions = "backbone"
        chosen = {
            "train_hyper_tokenizer": self.train_hyper_tokenizer,
            "balance": self.balance,
            "matching": self.matching,
            "combine": self.combine,
            "positions": positions,
        }
        differences = READINGS[self.reading] | {name: value for name, value in chosen.items() if value is not None}
        return SpectralXConfig(
            reading=self.reading,
            hyper_tokenizer=self.hyper_tokenizer,
            aomoa=self.aomoa,
            are_adapter=self.are_adapter,
            reconstruction=self.pretrain,
            levels=backbone.levels,
            experts=self.experts,
            rank=self.rank,
            stem_widths=self.stem_widths,
            attribute_mlp=self.attribute_mlp or (4.0 if backbone.width >= 384 else 2.0),
            head_channels=self.decoder_channels,
            mask_ratio=self.mask_ratio,
            decoder_depth=self.reconstruction_depth,
            **differences,
        )

    def build(self, task: Task) -> SpectralX:
        """The model for a benchmark; what no stage trains has ``requires_grad=False``."""
        backbone = task.backbone.build(task.num_bands, task.window)
        decoder = None
        if self.decoder == "shared":
            from spectral_tl_bench.models.decoders import build_decoder

            decoder = build_decoder(task.backbone.width, task.num_classes, self.decoder_channels)
        return SpectralX(
            backbone,
            task.wavelengths,
            task.num_classes,
            task.window,
            task.gsd,
            self.config(task.backbone),
            decoder,
        )

    def stages(self, task: Task) -> list[Stage]:
        """Reconstruction without labels, then segmentation."""
        config = self.config(task.backbone)
        facts = config.differences()
        segment = Stage(
            "segment", task.budget.steps, loss=segmentation_loss, trainable=chooser(config, "segment"), options=facts
        )
        if not self.pretrain or task.budget.pretrain_steps == 0:
            return [segment]
        reconstruct = Stage(
            "reconstruct",
            task.budget.pretrain_steps,
            labelled=False,
            loss=reconstruction_loss,
            trainable=chooser(config, "reconstruct"),
            options={**facts, "mask_ratio": self.mask_ratio},
        )
        return [reconstruct, segment]

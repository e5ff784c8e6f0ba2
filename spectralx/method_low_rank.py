"""LoRA and SLR as the SpectralX paper and its release count and use them: with biases, and a low-rank patch path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.adapters.place import check_free_sequence, check_vit
from spectral_tl_bench.methods.base import Batch, Part, Shared, Stage, Task
from spectral_tl_bench.methods.options import NORMS_TEXT, WithDecoder
from spectral_tl_bench.methods.tuners import refuse_bypassed
from spectral_tl_bench.models.decoders import build_decoder, resolved
from spectral_tl_bench.models.segmenter import ViTSegmenter
from spectralx.backbone import check_backbone, norm_before, own_tokens, rotary_table, token_side, with_prefix
from spectralx.blocks import run_block
from spectralx.low_rank import Kind, adapt, is_added, is_norm
from spectralx.masked import Mask, ReconstructionDecoder, draw_mask, masked_error

RECONSTRUCTION = "reconstruction."
DECODER_DEPTH = 2
"""Blocks of the decoder that the stage without labels trains and leaves behind."""


class LowRankMethod(WithDecoder):
    """Low-rank factors beside frozen linear layers, a low-rank patch path, trained LayerNorms and decoder.

    The last LayerNorm is among the trained ones, because published parameter counts include it. The decoder takes
    block outputs, which it does not touch: with labels its two vectors get no gradient and stay as they are.
    """

    family: ClassVar[str] = "peft"
    kind: ClassVar[Kind]
    source_code: ClassVar[str] = "the release of SpectralX, whose baseline this is; revision not noted"
    places: ClassVar[str] = "qkv, proj, fc1 and fc2 of every block, and beside the patch embedding"
    starts: ClassVar[str] = "A N(0, 1), B and biases 0, scales 1; the patch path as PyTorch draws convolutions"
    later: ClassVar[Mapping[str, Any]] = {"train_norms": True, "decoder": "upernet"}

    rank: int = Field(16, ge=1, description="rank of the factors and channels of the low-rank patch path")
    reading: Literal["paper", "released"] = Field(
        "paper", description="adapt all blocks, or as in SpectralX's released code the last block of every quarter"
    )
    train_norms: bool = Field(True, description=f"{NORMS_TEXT} (SpectralX and SLR papers)")

    def build(self, task: Task) -> nn.Module:
        """Factors, patch path, norms and decoder train; the frozen weights do not."""
        return ViTSegmenter(self.adapted(task), self.head(task), task.backbone.levels)

    def adapted(self, task: Task) -> nn.Module:
        """The backbone with factors and patch path in it."""
        backbone = task.backbone.build(task.num_bands, task.window)
        check_vit(backbone, task.backbone.name)
        refuse_bypassed(backbone, "all", fix="choose another backbone, such as vit-large")
        blocks = None if self.reading == "paper" else task.backbone.levels
        return adapt(backbone, self.kind, self.rank, blocks, self.train_norms)

    def head(self, task: Task) -> nn.Module:
        """The decoder that was chosen."""
        kind = resolved(self.decoder, task)
        return build_decoder(task.backbone.width, task.num_classes, kind=kind, bands=task.num_bands)

    def stages(self, task: Task) -> list[Stage]:
        """One stage; the last LayerNorm gets no gradient in it."""
        if task.backbone.level_norm == "final":
            return [Stage("segment", task.budget.steps)]
        why = "the decoder takes block outputs; published counts hold the last LayerNorm"
        unreached = {"backbone.norm.": why} if self.train_norms else {}
        return [Stage("segment", task.budget.steps, unreached=unreached)]

    def parts(self) -> Sequence[Part]:
        """What the publications count, and decoders."""
        return (
            Part("low-rank patch path", lambda name: ".patch_embed." in name and is_added(name)),
            Part("low-rank factors", is_added),
            Part("LayerNorms", lambda name: name.startswith("backbone.") and is_norm(name)),
            Part("decoder", lambda name: name.startswith("decoder."), kind="decoder"),
            Part("reconstruction decoder", lambda name: name.startswith(RECONSTRUCTION), kind="decoder"),
            Part("backbone, rest", lambda name: name.startswith("backbone.")),
        )


class LoraBiased(LowRankMethod):
    """LoRA as in the SLR and SpectralX papers: both factors with a bias, no factor alpha / rank."""

    numerics_version = 1

    reference: ClassVar[str] = "Hu et al., LoRA, ICLR 2022; variant of Scheibenreif et al., CVPR 2024"
    kind: ClassVar[Kind] = "lora"
    differs: ClassVar[tuple[str, ...]] = (
        "Hu et al. have no biases, scale the update by alpha / rank and keep the LayerNorms.",
        "SpectralX's released code adapts the last block of every quarter: -o reading=released.",
        "One stage, with labels; whether the release gives this row its first stage, too, was not checked.",
    )


class Reconstructing(ViTSegmenter):
    """A segmenter that can also fill in hidden patches of its images.

    Args:
        backbone: timm vision transformer with low-rank parts in it.
        decoder: Called as ``decoder(features, image_size)``.
        levels: The blocks (0-based) whose outputs are decoded.
        bands: Image channels C.
        window: Side of the images that it is built for, in pixels.
        gsd: Ground sampling distance in metres.
        mask_ratio: Share of patches to hide.
    """

    def __init__(
        self, backbone: nn.Module, decoder: nn.Module, levels: Sequence[int],
        *, bands: int, window: int, gsd: float, mask_ratio: float,
    ) -> None:  # fmt: skip
        super().__init__(backbone, decoder, levels)
        parts = cast(Any, backbone)
        self.patch, self.mask_ratio = token_side(backbone), mask_ratio
        width = parts.embed_dim
        inner = max(16, width // 2 // 16 * 16)
        self.reconstruction = ReconstructionDecoder(
            width, inner, DECODER_DEPTH, window // self.patch, bands, self.patch, gsd, make_adapter=None
        )

    def reconstruct(self, images: Tensor, generator: Generator | None = None) -> tuple[Tensor, Mask]:
        """What it predicts of images (B, C, H, W), of which the blocks see the patches that are not hidden.

        Args:
            images: (B, C, H, W).
            generator: Source of the mask's chance, on the device of the images.

        Returns:
            Predictions (B, L, C * patch * patch), normalised per patch as in ``masked_error``, and the mask.
        """
        backbone = cast(Any, self.backbone)
        grid = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        mask = draw_mask(len(images), grid[0] * grid[1], self.mask_ratio, images.device, generator)
        tokens = with_prefix(backbone, own_tokens(backbone, images), None, grid)
        prefix = tokens.shape[1] - grid[0] * grid[1]
        tokens = norm_before(backbone, torch.cat([tokens[:, :prefix], mask.select(tokens[:, prefix:])], dim=1))
        rotary = rotary_table(backbone, grid, mask)
        for block in backbone.blocks:
            tokens, _ = run_block(block, tokens, None, rotary)
        predicted, _ = self.reconstruction(backbone.norm(tokens), mask, prefix, grid)
        return predicted, mask


def reconstruction_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Error on hidden patches, whose pixels are normalised per patch."""
    segmenter, images = cast(Reconstructing, module), batch["image"]
    predicted, mask = segmenter.reconstruct(images)
    return masked_error(predicted, images, mask.hidden, segmenter.patch)


class Slr(LowRankMethod):
    """Scaled low rank: LoRA with biases between learned scales of the input and output channels, in two stages.

    First the low-rank parts learn to fill in hidden patches of source images, without labels, beside a light decoder
    that is left behind; then they are trained with labels. ``pretrain=False`` leaves the first stage out.
    """

    numerics_version = 2

    reference: ClassVar[str] = (
        "Scheibenreif et al., Parameter Efficient Self-Supervised Geospatial Domain Adaptation, CVPR 2024"
    )
    kind: ClassVar[Kind] = "slr"
    differs: ClassVar[tuple[str, ...]] = (
        "The decoder of the first stage is new and light, two blocks; not checked against the code.",
        "The first stage has the budget's steps without labels, source images alone, and the suite's optimiser.",
        "Patches are hidden as in SpectralX's first stage, 75 %; not checked against the code.",
        "SpectralX's released code adapts the last block of every quarter: -o reading=released.",
    )
    later: ClassVar[Mapping[str, Any]] = {**LowRankMethod.later, "pretrain": False, "mask_ratio": 0.75}

    pretrain: bool = Field(True, description="run the first stage, masked reconstruction of unlabelled source images")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of patches that the first stage hides")

    def build(self, task: Task) -> nn.Module:
        """Low-rank parts, norms and both decoders train; the frozen weights do not.

        Raises:
            MethodError: If the backbone cannot run on some of its patches.
        """
        if not self._two_stages(task):
            return super().build(task)
        backbone = self.adapted(task)
        try:
            check_backbone(backbone)
            check_free_sequence(backbone)
        except (TypeError, MethodError) as error:
            raise MethodError(
                f"{task.backbone.name} cannot run on the patches that are not hidden: {error}",
                fix="leave the first stage out (-o pretrain=false), or choose another backbone",
            ) from error
        return Reconstructing(
            backbone, self.head(task), task.backbone.levels,
            bands=task.num_bands, window=task.window, gsd=task.gsd, mask_ratio=self.mask_ratio,
        )  # fmt: skip

    def stages(self, task: Task) -> list[Stage]:
        """Reconstruction without labels, then segmentation."""
        (segment,) = super().stages(task)
        if not self._two_stages(task):
            return [segment]
        first = Stage(
            "reconstruct", task.budget.pretrain_steps, labelled=False, loss=reconstruction_loss,
            trainable=self._learns_first, options={"mask_ratio": self.mask_ratio}, shared=self._shared(),
        )  # fmt: skip
        return [first, replace(segment, trainable=self._learns_last)]

    def _two_stages(self, task: Task) -> bool:
        return self.pretrain and task.budget.pretrain_steps > 0

    def _learns_first(self, name: str) -> bool:
        return name.startswith(RECONSTRUCTION) or self._adapts(name)

    def _learns_last(self, name: str) -> bool:
        return name.startswith("decoder.") or self._adapts(name)

    def _adapts(self, name: str) -> bool:
        return name.startswith("backbone.") and (is_added(name) or (self.train_norms and is_norm(name)))

    def _shared(self) -> Shared:
        """What the first stage learns, and the frozen weights under it; most options act in it."""

        def relies_on(name: str) -> bool:
            return name.startswith("backbone.") and not self._learns_first(name)

        canonical = self.model_copy(update={"decoder": self.later["decoder"]})
        return Shared(canonical, self._learns_first, relies_on, free=frozenset({"mask_ratio"}))

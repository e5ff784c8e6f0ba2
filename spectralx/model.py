"""SpectralX: a frozen vision transformer that reads any set of bands (ISPRS J. Photogramm. Remote Sens. 239, 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn import functional

from spectralx import positions
from spectralx.aomoa import AoMoA
from spectralx.are_adapter import AreAdapter
from spectralx.backbone import (
    check_backbone,
    computes_positions,
    is_rotary,
    norm_before,
    own_tokens,
    rotary_table,
    token_side,
    with_prefix,
)
from spectralx.blocks import MlpAdapter, check_block, run_block
from spectralx.config import SpectralXConfig
from spectralx.hyper_tokenizer import Attributes, HyperTokenizer, LowRankPatchPath
from spectralx.masked import Mask, ReconstructionDecoder, TokenDecoder, draw_mask, hide_pixels
from spectralx.neck_head import NeckAndHead
from spectralx.positions import Grid
from spectralx.pretrained_decoders import DecoderWeights
from spectralx.trainable import StageName, chooser


class Segmentation(NamedTuple):
    """Logits (B, K, H, W) and the scalar balance loss, already multiplied by its coefficient."""

    logits: Tensor
    balance: Tensor


class SpectralX(nn.Module):
    """Segmentation by a frozen vision transformer with a hyper tokenizer, experts and an Are-adapter.

    Training has two stages: ``forward_reconstruction`` on images alone, then ``segment`` with labels.
    ``trainable_names`` says which parameters each of them changes; all others stay as they are.

    Images may have any size that the patch side divides. ``image_size`` fixes the sizes of attribute map, queries and
    Are-adapter; for images of another size they are interpolated, which costs accuracy where sizes differ much.

    Args:
        backbone: timm ``VisionTransformer`` or ``Eva`` (rotary positions); stays in evaluation mode.
        wavelengths: Centre wavelengths in micrometres, one per image channel; a time series repeats them.
        num_classes: Logit channels K.
        image_size: Side of the images in pixels, or their height and width: multiples of the patch side.
        gsd: Ground sampling distance in metres.
        decoder: Called as ``decoder(features, (H, W))`` with four maps (B, D, h, w), and behind them the images where
            it has an attribute ``takes_images`` that is true; by default an own UPerNet.
        bands: Image channels C; by default those of the backbone's patch embedding. A backbone for other bands, such
            as an RGB one, serves as well as long as the hyper tokenizer takes the place of its patch embedding.
        pretrained_decoder: The decoder of the backbone's pretraining, where its weights bring one; see
            ``SpectralXConfig.reconstruction_decoder``.

    Attributes:
        config: The options as they hold for this backbone, see ``SpectralXConfig.settled``.

    Raises:
        ValueError: If sizes or wavelengths do not fit together.
        TypeError: If the backbone or its blocks are not timm's.
    """

    position: Tensor
    plain_position: Tensor

    def __init__(
        self,
        backbone: VisionTransformer | Eva,
        wavelengths: Sequence[float],
        num_classes: int,
        image_size: int | Grid,
        gsd: float = 10.0,
        config: SpectralXConfig | None = None,
        decoder: nn.Module | None = None,
        bands: int | None = None,
        pretrained_decoder: DecoderWeights | None = None,
    ) -> None:
        super().__init__()
        config = config or SpectralXConfig()
        check_backbone(backbone)
        if config.positions == "backbone" and computes_positions(backbone):
            raise ValueError(
                f"positions=backbone adds a table, and {type(backbone).__name__} computes its positions instead: "
                "leave it at positions=resolution"
            )
        width, depth = backbone.embed_dim, len(backbone.blocks)
        patch = token_side(backbone)
        own_bands = backbone.patch_embed.proj.in_channels
        bands = own_bands if bands is None else bands
        config = config.settled(
            rotary=is_rotary(backbone),
            decoder_bands=pretrained_decoder.bands if pretrained_decoder else None,
            bands=bands,
        )
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        _check(config, width, patch, bands, wavelengths, size)
        if not config.hyper_tokenizer and bands != own_bands:
            raise ValueError(f"the backbone's patch embedding reads {own_bands} bands, expected {bands}")
        self.config, self.bands, self.image_size, self.gsd = config, bands, size, gsd
        self.patch, self.grid = patch, (size[0] // patch, size[1] // patch)
        self.cells = config.attribute_cells or attribute_cells(self.grid, width)
        self.levels = config.levels or quarter_ends(depth)
        if len(self.levels) != 4 or not all(0 <= level < depth for level in self.levels):
            raise ValueError(f"levels are {self.levels}, expected four block numbers below {depth}")

        self.backbone = backbone
        self.hyper_tokenizer = self._hyper_tokenizer(wavelengths, width, gsd) if config.hyper_tokenizer else None
        self.patch_path = LowRankPatchPath(bands, width, patch, config.rank)
        adapter = partial(
            AoMoA,
            experts=config.experts,
            top_k=config.top_k,
            gate_std=config.gate_std,
            ties=config.ties,
            combine=config.combine,
            balance=config.balance > 0,
            start=config.adapter_start,
        )
        self.adapters = nn.ModuleDict()
        for level in sorted(set(self.levels)) if config.aomoa else ():
            check_block(backbone.blocks[level])
            self.adapters[str(level)] = MlpAdapter(backbone.blocks[level], adapter)
        self.are_adapter: AreAdapter | None = None
        if self.hyper_tokenizer is not None and config.are_adapter:
            self.are_adapter = AreAdapter(
                width, self.hyper_tokenizer.attributes, self.grid, config.matching, config.match_temperature, self.cells
            )
        head_channels = config.head_channels or width // 2
        self.decoder = (
            decoder if decoder is not None else NeckAndHead(width, num_classes, head_channels, config.head_eps)
        )
        self.reconstruction: TokenDecoder | None = None
        beside = adapter if config.aomoa else None
        if config.reconstruction and config.reconstruction_decoder == "pretrained" and pretrained_decoder is not None:
            self.reconstruction = pretrained_decoder.build(bands, patch, self.grid, gsd, beside)
        elif config.reconstruction:
            inner = config.decoder_width or max(16, width // 2 // 16 * 16)
            self.reconstruction = ReconstructionDecoder(
                width, inner, config.decoder_depth, self.grid, bands, patch, gsd, beside
            )
        for name, resolution in (("position", gsd), ("plain_position", 1.0)):
            encoding = positions.spatial(width, *self.grid, resolution)
            self.register_buffer(name, encoding, persistent=False)
        if self.hyper_tokenizer is not None:
            self.hyper_tokenizer.statistics_drift = config.drifting_statistics
        choose = chooser(config)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(choose(name))
        self.train()

    def _hyper_tokenizer(self, wavelengths: Sequence[float], width: int, gsd: float) -> HyperTokenizer:
        return HyperTokenizer(
            self.bands,
            wavelengths,
            self.grid,
            self.patch,
            width,
            cells=self.cells,
            gsd=gsd,
            widths=self.config.stem_widths,
            heads=self.config.attribute_heads,
            window=self.config.attribute_window,
            mlp=self.config.attribute_mlp,
            query_std=self.config.query_std,
            token_scale=self.config.token_scale,
        )

    def trainable_names(self, stage: StageName | None = None) -> frozenset[str]:
        """Names of the parameters that a stage trains; without ``stage``, that either does."""
        choose = chooser(self.config, stage)
        return frozenset(name for name, _ in self.named_parameters() if choose(name))

    def train(self, mode: bool = True) -> SpectralX:
        """Sets the mode of all but what is frozen: its batch statistics and dropout must not act."""
        super().train(mode)
        self.backbone.eval()
        if self.hyper_tokenizer is not None and not self.config.train_hyper_tokenizer:
            self.hyper_tokenizer.train(mode and self.config.drifting_statistics)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) of images (B, C, H, W)."""
        return self.segment(images).logits

    def segment(self, images: Tensor) -> Segmentation:
        """Logits of images (B, C, H, W), and the balance loss to add in training."""
        grid = self._grid(images)
        tokens, attributes = self._embed(images)
        tokens = self._placed(tokens, grid, plain=self.config.positions == "mixed")
        features, _, balance = self._encode(tokens, grid, attributes)
        if getattr(self.decoder, "takes_images", False):
            features = [*features, images]
        logits = self.decoder(features, (images.shape[-2], images.shape[-1]))
        return Segmentation(logits, self.config.balance * balance)

    def forward_reconstruction(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Loss of stage 1 on images (B, C, H, W): error on hidden patches plus balance loss.

        Args:
            images: (B, C, H, W).
            generator: Source of the mask's chance, on the device of the images.

        Returns:
            Scalar.

        Raises:
            RuntimeError: If the model was built without ``reconstruction``.
        """
        decoder, (predicted, balance), mask = self._reconstruct(images, generator)
        return decoder.error(predicted, images, mask.hidden) + self.config.balance * balance

    def reconstruct(self, images: Tensor, generator: Generator | None = None) -> tuple[Tensor, Mask]:
        """What stage 1 predicts of images (B, C, H, W), and what was hidden from it.

        Args:
            images: (B, C, H, W).
            generator: Source of the mask's chance, on the device of the images.

        Returns:
            Predicted images (B, C, H, W), of visible patches too, and the mask.

        Raises:
            RuntimeError: If the model was built without ``reconstruction``.
        """
        decoder, (predicted, _), mask = self._reconstruct(images, generator)
        return decoder.picture(predicted, images), mask

    def _reconstruct(
        self, images: Tensor, generator: Generator | None
    ) -> tuple[TokenDecoder, tuple[Any, Tensor], Mask]:
        """The decoder, what it predicts with the balance loss, and the mask; only visible tokens are encoded."""
        if self.reconstruction is None:
            raise RuntimeError("this model cannot reconstruct: build it with SpectralXConfig(reconstruction=True)")
        grid = self._grid(images)
        if grid[0] * grid[1] < 2:
            raise ValueError(f"images are {tuple(images.shape)}: one patch, expected at least two, one to hide")
        mask = draw_mask(len(images), grid[0] * grid[1], self.config.mask_ratio, images.device, generator)
        seen = images if self.config.stage1_image == "whole" else hide_pixels(images, mask.hidden, self.patch)
        tokens, _ = self._embed(seen)
        tokens = self._placed(tokens, grid, plain=False, mask=mask)
        _, encoded, balance = self._encode(tokens, grid, None, mask)
        predicted, extra = self.reconstruction(self.backbone.norm(encoded), mask, self.backbone.num_prefix_tokens, grid)
        return self.reconstruction, (predicted, balance + extra), mask

    def _grid(self, images: Tensor) -> Grid:
        """Rows and columns of patches."""
        bands, height, width = images.shape[1:]
        if bands != self.bands or height % self.patch or width % self.patch or not height or not width:
            raise ValueError(
                f"images are {tuple(images.shape)}, expected (B, {self.bands}, H, W) with H and W multiples of the "
                f"patch side {self.patch}; the model was built for {self.image_size}"
            )
        return height // self.patch, width // self.patch

    def _embed(self, images: Tensor) -> tuple[Tensor, Attributes | None]:
        if self.hyper_tokenizer is not None:
            tokens, attributes = self.hyper_tokenizer(images)
            return self.patch_path(images, tokens), attributes
        return self.patch_path(images, own_tokens(self.backbone, images)), None

    def _placed(self, tokens: Tensor, grid: Grid, plain: bool, mask: Mask | None = None) -> Tensor:
        """Adds positions and class token; keeps the visible ones of the patches."""
        prefix = self.backbone.num_prefix_tokens
        position = None
        if self.config.positions != "backbone":
            position = self.plain_position if plain else self.position
            if grid != self.grid:
                resolution = 1.0 if plain else self.gsd
                position = positions.spatial(tokens.shape[-1], *grid, resolution, device=position.device)
        full = with_prefix(self.backbone, tokens, position, grid)
        if mask is not None:
            full = torch.cat([full[:, :prefix], mask.select(full[:, prefix:])], dim=1)
        return norm_before(self.backbone, full)

    def _encode(
        self, tokens: Tensor, grid: Grid, attributes: Attributes | None, mask: Mask | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Feature maps at the levels (only without mask), the last tokens, and the sum of balance losses."""
        prefix = self.backbone.num_prefix_tokens
        media = None
        if self.are_adapter is not None and attributes is not None:
            media = self.are_adapter.media(attributes)
        adapters = dict(self.adapters.items())
        rotary = rotary_table(self.backbone, grid, mask)
        maps: dict[int, Tensor] = {}
        balance = tokens.new_zeros((), dtype=torch.float32)
        for index, block in enumerate(self.backbone.blocks):
            tokens, extra = run_block(block, tokens, adapters.get(str(index)), rotary)
            balance = balance + extra
            if index not in self.levels or mask is not None:
                continue
            patches = tokens[:, prefix:]
            if self.are_adapter is not None and media is not None:
                patches = self.are_adapter(patches, media, grid)
                tokens = torch.cat([tokens[:, :prefix], patches], dim=1)
            if self.config.final_norm == "all":
                patches = self.backbone.norm(patches)
            if self.config.final_norm == "plain":
                patches = functional.layer_norm(patches, patches.shape[-1:])
            maps[index] = patches.transpose(1, 2).unflatten(2, grid)
        return [maps[level] for level in self.levels] if mask is None else [], tokens, balance


def attribute_cells(grid: Grid, width: int) -> int:
    """Places of the attribute map per patch side: 2, as in ViT-L at 224 px, or 1 for narrow backbones.

    The spectral block is as wide as the map has places: with 2 it may be at most twice as wide as the tokens.
    """
    return 2 if 4 * grid[0] * grid[1] <= 2 * width else 1


def quarter_ends(depth: int) -> tuple[int, ...]:
    """The last block (0-based) of every quarter of a transformer; 5, 11, 17, 23 of 24."""
    return tuple(max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4))


def _check(
    config: SpectralXConfig, width: int, patch: int, bands: int, wavelengths: Sequence[float], size: Grid
) -> None:
    if width % 4:
        raise ValueError(f"the backbone is {width} wide, expected a multiple of 4")
    if size[0] % patch or size[1] % patch or min(size) < patch or size[0] * size[1] < 2 * patch**2:
        raise ValueError(f"image_size is {size}, expected multiples of the patch side {patch}, at least two patches")
    if bands < 1 or not wavelengths:
        raise ValueError(f"{bands} bands and {len(wavelengths)} wavelengths, expected at least one of each")
    if config.strict_wavelengths and len(wavelengths) != bands:
        raise ValueError(
            f"{len(wavelengths)} wavelengths for {bands} bands, expected one each "
            "(a time series repeats them per date; reading='released' accepts any number)"
        )

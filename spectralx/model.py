"""SpectralX: a frozen vision transformer that reads any set of bands (ISPRS J. Photogramm. Remote Sens. 239, 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn

from spectralx import positions
from spectralx.aomoa import AoMoA
from spectralx.are_adapter import AreAdapter
from spectralx.blocks import MlpAdapter, check_block, run_block
from spectralx.config import SpectralXConfig
from spectralx.hyper_tokenizer import Attributes, HyperTokenizer, LowRankPatchPath
from spectralx.masked import Mask, ReconstructionDecoder, draw_mask, hide_pixels, masked_error
from spectralx.neck_head import NeckAndHead
from spectralx.trainable import StageName, chooser


class Segmentation(NamedTuple):
    """Logits (B, K, H, W) and the scalar balance loss, already multiplied by its coefficient."""

    logits: Tensor
    balance: Tensor


class SpectralX(nn.Module):
    """Segmentation by a frozen vision transformer with a hyper tokenizer, experts and an Are-adapter.

    Training has two stages: ``forward_reconstruction`` on images alone, then ``segment`` with labels.
    ``trainable_names`` says which parameters each of them changes; all others stay as they are.

    Args:
        backbone: timm ``VisionTransformer`` for square images of ``image_size``; stays in evaluation mode.
        wavelengths: Centre wavelengths in micrometres, one per image channel; a time series repeats them.
        num_classes: Logit channels K.
        image_size: Side of the images in pixels, a multiple of the patch side.
        gsd: Ground sampling distance in metres.
        config: Options.
        decoder: Called as ``decoder(features, (H, W))`` with four maps (B, D, h, w); by default an own UPerNet.
        bands: Image channels C; by default those of the backbone's patch embedding. A backbone for other bands, such
            as an RGB one, serves as well as long as the hyper tokenizer takes the place of its patch embedding.

    Raises:
        ValueError: If sizes or wavelengths do not fit together.
        TypeError: If the backbone's blocks are not timm's.
    """

    position: Tensor
    plain_position: Tensor

    def __init__(
        self,
        backbone: VisionTransformer,
        wavelengths: Sequence[float],
        num_classes: int,
        image_size: int,
        gsd: float = 10.0,
        config: SpectralXConfig | None = None,
        decoder: nn.Module | None = None,
        bands: int | None = None,
    ) -> None:
        super().__init__()
        config = config or SpectralXConfig()
        width, depth = backbone.embed_dim, len(backbone.blocks)
        patch = int(backbone.patch_embed.patch_size[0])
        own_bands = backbone.patch_embed.proj.in_channels
        bands = own_bands if bands is None else bands
        _check(config, width, patch, bands, wavelengths, image_size)
        if not config.hyper_tokenizer and bands != own_bands:
            raise ValueError(f"the backbone's patch embedding reads {own_bands} bands, expected {bands}")
        self.config, self.bands, self.image_size = config, bands, image_size
        self.patch, self.grid = patch, image_size // patch
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
            combine=config.combine,
            balance=config.balance > 0,
        )
        self.adapters = nn.ModuleDict()
        for level in sorted(set(self.levels)) if config.aomoa else ():
            check_block(backbone.blocks[level])
            self.adapters[str(level)] = MlpAdapter(backbone.blocks[level], adapter)
        self.are_adapter: AreAdapter | None = None
        if self.hyper_tokenizer is not None and config.are_adapter:
            self.are_adapter = AreAdapter(
                width, self.hyper_tokenizer.attributes, self.grid, config.matching, config.match_temperature
            )
        head_channels = config.head_channels or width // 2
        self.decoder = decoder if decoder is not None else NeckAndHead(width, num_classes, head_channels)
        self.reconstruction: ReconstructionDecoder | None = None
        if config.reconstruction:
            inner = config.decoder_width or max(16, width // 2 // 16 * 16)
            outputs = bands * patch * patch
            self.reconstruction = ReconstructionDecoder(
                width, inner, config.decoder_depth, self.grid, outputs, gsd, adapter if config.aomoa else None
            )
        for name, resolution in (("position", gsd), ("plain_position", 1.0)):
            encoding = positions.spatial(width, self.grid, self.grid, resolution)
            self.register_buffer(name, encoding, persistent=False)
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
            gsd=gsd,
            widths=self.config.stem_widths,
            heads=self.config.attribute_heads,
            window=self.config.attribute_window,
            mlp=self.config.attribute_mlp,
            query_std=self.config.query_std,
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
        tokens, attributes = self._embed(images)
        tokens = self._with_prefix(tokens, plain=self.config.positions == "mixed")
        features, _, balance = self._encode(tokens, attributes)
        logits = self.decoder(features, (images.shape[-2], images.shape[-1]))
        return Segmentation(logits, self.config.balance * balance)

    def forward_reconstruction(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Loss of stage 1 on images (B, C, H, W): error on hidden patches plus balance loss.

        Hidden patches are blanked before anything looks at the image, and only visible tokens are encoded.

        Args:
            images: (B, C, H, W).
            generator: Source of the mask's chance, on the device of the images.

        Returns:
            Scalar.

        Raises:
            RuntimeError: If the model was built without ``reconstruction``.
        """
        if self.reconstruction is None:
            raise RuntimeError("this model cannot reconstruct: build it with SpectralXConfig(reconstruction=True)")
        mask = draw_mask(len(images), self.grid**2, self.config.mask_ratio, images.device, generator)
        tokens, _ = self._embed(hide_pixels(images, mask.hidden, self.patch))
        tokens = self._with_prefix(tokens, plain=False, mask=mask)
        _, encoded, balance = self._encode(tokens, None)
        visible = self.backbone.norm(encoded)[:, self.backbone.num_prefix_tokens :]
        predicted, extra = self.reconstruction(visible, mask)
        error = masked_error(predicted, images, mask.hidden, self.patch)
        return error + self.config.balance * (balance + extra)

    def _embed(self, images: Tensor) -> tuple[Tensor, Attributes | None]:
        expected = (self.bands, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"images are {tuple(images.shape)}, expected (B, {', '.join(map(str, expected))})")
        if self.hyper_tokenizer is not None:
            tokens, attributes = self.hyper_tokenizer(images)
            return self.patch_path(images, tokens), attributes
        return self.patch_path(images, self.backbone.patch_embed(images).flatten(1, -2)), None

    def _with_prefix(self, tokens: Tensor, plain: bool, mask: Mask | None = None) -> Tensor:
        """Adds positions and class token; keeps the visible ones of the patches."""
        prefix = self.backbone.num_prefix_tokens
        if self.config.positions == "backbone":
            # timm reads the grid off the shape where images may change their size
            dynamic = getattr(self.backbone, "dynamic_img_size", False)
            full = self.backbone._pos_embed(tokens.unflatten(1, (self.grid, self.grid)) if dynamic else tokens)
        else:
            tokens = tokens + (self.plain_position if plain else self.position)
            own = (self.backbone.cls_token, getattr(self.backbone, "reg_token", None))
            full = torch.cat([*(t.expand(len(tokens), -1, -1) for t in own if t is not None), tokens], dim=1)
        if mask is not None:
            full = torch.cat([full[:, :prefix], mask.select(full[:, prefix:])], dim=1)
        return self.backbone.norm_pre(full)

    def _encode(self, tokens: Tensor, attributes: Attributes | None) -> tuple[list[Tensor], Tensor, Tensor]:
        """Feature maps at the levels (only with all patches), the last tokens, and the sum of balance losses."""
        prefix = self.backbone.num_prefix_tokens
        complete = tokens.shape[1] == prefix + self.grid**2
        media = None
        if self.are_adapter is not None and attributes is not None:
            media = self.are_adapter.media(attributes)
        adapters = dict(self.adapters.items())
        maps: dict[int, Tensor] = {}
        balance = tokens.new_zeros((), dtype=torch.float32)
        for index, block in enumerate(self.backbone.blocks):
            tokens, extra = run_block(block, tokens, adapters.get(str(index)))
            balance = balance + extra
            if index not in self.levels or not complete:
                continue
            patches = tokens[:, prefix:]
            if self.are_adapter is not None and media is not None:
                patches = self.are_adapter(patches, media)
                tokens = torch.cat([tokens[:, :prefix], patches], dim=1)
            maps[index] = patches.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return [maps[level] for level in self.levels] if complete else [], tokens, balance


def quarter_ends(depth: int) -> tuple[int, ...]:
    """The last block (0-based) of every quarter of a transformer; 5, 11, 17, 23 of 24."""
    return tuple(max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4))


def _check(
    config: SpectralXConfig, width: int, patch: int, bands: int, wavelengths: Sequence[float], image_size: int
) -> None:
    if width % 4:
        raise ValueError(f"the backbone is {width} wide, expected a multiple of 4")
    if image_size % patch or image_size < 2 * patch:
        raise ValueError(
            f"image_size is {image_size}, expected a multiple of the patch side {patch}, at least two patches"
        )
    if bands < 1 or not wavelengths:
        raise ValueError(f"{bands} bands and {len(wavelengths)} wavelengths, expected at least one of each")
    if config.strict_wavelengths and len(wavelengths) != bands:
        raise ValueError(
            f"{len(wavelengths)} wavelengths for {bands} bands, expected one each "
            "(a time series repeats them per date; reading='released' accepts any number)"
        )

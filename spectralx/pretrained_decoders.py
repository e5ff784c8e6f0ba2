"""Decoders that come with a backbone's weights, those of Scale-MAE and SatMAE++, with experts in them.

Sizes come from the weights. What they do is taken from the papers (Reed et al., Scale-MAE, ICCV 2023, section 3; Noman
et al., SatMAE++, CVPR 2024) and, for SatMAE++, from a re-publication of its model under Apache-2.0; docs/spectralx.md
says what could not be compared with the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectralx.blocks import MakeAdapter
from spectralx.masked import Mask, TokenDecoder, hidden_pixels
from spectralx.positions import Grid, resized
from spectralx.trainable import DECODER_ADAPTERS, IMAGE_LAYERS

EPS = 1e-6
"""Of every LayerNorm in these decoders."""

RENAMED = {"decoder_embed": "embed", "decoder_blocks": "blocks", "decoder_norm": "norm", "decoder_pred": "predict"}
"""First steps of published names that are others here; ``mask_token_decoder`` goes before ``mask_token``."""

OWN_NAMES = frozenset({"fpn", "fcn_high", "fcn_low", "proj_up_conv", "proj_up_norm", "up_block"})
"""First steps of published names that are the same here."""

SQUARED, ABSOLUTE = 0.6, 0.4
"""Weights of SatMAE++'s losses at the image's size and at twice the size, as the release of SpectralX has them."""

Kind = Literal["scale-mae", "satmae++"]


class DecoderError(ValueError):
    """Weights are not those of a whole decoder."""


@dataclass(frozen=True)
class DecoderWeights:
    """The decoder of a pretraining.

    Attributes:
        kind: Whose it is.
        bands: Channels that it reconstructs.
        tensors: Its weights, under the names of the module that ``build`` makes.
    """

    kind: Kind
    bands: int
    tensors: Mapping[str, Tensor]

    @classmethod
    def find(cls, tensors: Mapping[str, Tensor]) -> Self | None:
        """The decoder among the tensors of a weights file, under their published names; None for none that is known."""
        ours = {}
        for name, value in tensors.items():
            first, dot, rest = name.partition(".")
            if first in RENAMED or first in OWN_NAMES:
                ours[RENAMED.get(first, first) + dot + rest] = value
        token = tensors.get("mask_token_decoder", tensors.get("mask_token"))
        if token is not None:
            ours["mask_token"] = token.flatten()
        if "embed.weight" not in ours:
            return None
        if "fcn_low.pred.7.weight" in ours:
            last = _like(ours, "fcn_low.pred.7")
            return cls("scale-mae", int(last.out_channels), ours)
        if "proj_up_conv.weight" in ours and "predict.weight" in ours:
            return cls("satmae++", int(ours["proj_up_conv.weight"].shape[1]), ours)
        return None

    def build(
        self,
        bands: int,
        patch: int,
        grid: Grid,
        resolution: float,
        make_adapter: MakeAdapter | None,
    ) -> PretrainedDecoder:
        """The decoder with these weights, except for the layers that read or make other bands than theirs.

        Args:
            bands: Image channels C.
            patch: Patch side in pixels.
            grid: Rows and columns of patches.
            resolution: Ground sampling distance in metres.
            make_adapter: Makes the experts beside a linear layer; None for no experts.

        Raises:
            DecoderError: If weights are missing or do not fit together.
        """
        make = {"scale-mae": ScaleMAEDecoder, "satmae++": SatMAEDecoder}[self.kind]
        try:
            decoder = make(self.tensors, bands, patch, grid, resolution, make_adapter)
        except KeyError as error:
            raise DecoderError(f"the decoder of {self.kind} lacks {error.args[0]}") from None
        for name, value in decoder.state_dict().items():
            own_bands = name.startswith(IMAGE_LAYERS) and bands != self.bands
            if own_bands or name.partition(".")[0] in DECODER_ADAPTERS:
                continue
            if name not in self.tensors or self.tensors[name].shape != value.shape:
                found = tuple(self.tensors[name].shape) if name in self.tensors else "nothing"
                raise DecoderError(f"the decoder of {self.kind}: {name} is {found}, expected {tuple(value.shape)}")
            value.copy_(self.tensors[name])
        return decoder


class PretrainedDecoder(TokenDecoder):
    """What the two have in common: prefix tokens come along, and experts stand beside the first linear layer.

    Args:
        tensors: Weights under the names of this module; sizes are taken from them.
        bands: Image channels C.
        patch: Patch side in pixels.
        grid: Rows and columns of patches.
        resolution: Ground sampling distance in metres.
        make_adapter: None for no experts.

    Raises:
        KeyError: If a weight that tells a size is missing.
    """

    in_metres: ClassVar[bool]
    """Whether positions are in metres; otherwise in grid cells."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        bands: int,
        patch: int,
        grid: Grid,
        resolution: float,
        make_adapter: MakeAdapter | None,
    ) -> None:
        inner, width = tensors["embed.weight"].shape
        depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        super().__init__(width, inner, depth, grid, resolution if self.in_metres else 1.0, make_adapter, EPS)
        self.bands, self.patch = bands, patch
        self.embed_adapter = make_adapter(width, inner) if make_adapter else None
        self.add_heads(tensors, make_adapter)

    def add_heads(self, tensors: Mapping[str, Tensor], make_adapter: MakeAdapter | None) -> None:
        """Makes what turns decoded tokens into images."""
        raise NotImplementedError

    def maps(self, tokens: Tensor, mask: Mask, prefix: int, grid: Grid | None) -> tuple[Tensor, Tensor]:
        """Decoded tokens as a map (B, inner, rows, columns), and a scalar balance loss.

        Args:
            tokens: Encoded prefix tokens and visible patches (B, prefix + V, width).
            mask: Which patches are visible.
            grid: Rows and columns of the whole image's patches, if they are others than this module was built for.
        """
        embedded, first = _beside(self.embed, self.embed_adapter, tokens)
        decoded, balance = self.decode(embedded, mask, prefix, grid)
        return decoded.transpose(1, 2).unflatten(2, grid or self.grid), first + balance


class ScaleMAEDecoder(PretrainedDecoder):
    """Three blocks, two sizes of feature maps, and an image of the low and one of the high frequencies.

    Every upsampling step of the heads doubles the size of their maps; targets are made at the size that comes out.
    """

    in_metres = True

    def add_heads(self, tensors: Mapping[str, Tensor], _make_adapter: MakeAdapter | None) -> None:
        """Makes the feature maps, and a head for either image."""
        self.fpn = FeatureMaps(tensors)
        self.fcn_high = ImageHead(tensors, "fcn_high", self.bands)
        self.fcn_low = ImageHead(tensors, "fcn_low", self.bands)

    def forward(
        self, tokens: Tensor, mask: Mask, prefix: int, grid: Grid | None = None
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Images (B, C, h, w) of low and of high frequencies, of two sizes, and a scalar balance loss."""
        decoded, balance = self.maps(tokens, mask, prefix, grid)
        smaller, larger = self.fpn(decoded)
        return (self.fcn_low(smaller), self.fcn_high(larger)), balance

    def error(self, predicted: tuple[Tensor, Tensor], images: Tensor, hidden: Tensor) -> Tensor:
        """Squared error of the low and absolute error of the high frequencies, both on hidden patches (B, L)."""
        low, high = (image.float() for image in predicted)
        wanted_low, _ = frequencies(images, low.shape[-2:], self.patch)
        _, wanted_high = frequencies(images, high.shape[-2:], self.patch)
        return _on_hidden((low - wanted_low).square(), hidden, self._grid(images)) + _on_hidden(
            (high - wanted_high).abs(), hidden, self._grid(images)
        )

    def picture(self, predicted: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
        """Predicted images (B, C, H, W): both frequencies together."""
        size = (images.shape[-2], images.shape[-1])
        low, high = (resized(image.float(), size) for image in predicted)
        return low + high

    def _grid(self, images: Tensor) -> Grid:
        return images.shape[-2] // self.patch, images.shape[-1] // self.patch


class SatMAEDecoder(PretrainedDecoder):
    """Eight blocks, the pixels of every patch, and from the image that these make one of twice the size."""

    in_metres = False

    def add_heads(self, tensors: Mapping[str, Tensor], make_adapter: MakeAdapter | None) -> None:
        """Makes the layer for pixels, and what makes the larger image of them."""
        bands, patch = self.bands, self.patch
        inner, outputs = self.embed.out_features, patch * patch * bands
        self.predict = nn.Linear(inner, outputs)
        self.predict_adapter = make_adapter(inner, outputs) if make_adapter else None
        wide, own = tensors["proj_up_conv.weight"].shape[:2]
        channels = bands * (wide // own)
        self.proj_up_conv = nn.Conv2d(bands, channels, 1)
        self.proj_up_norm = ChannelNorm(channels, eps=EPS)
        self.up_block = Upsampling(channels, bands)

    def forward(
        self, tokens: Tensor, mask: Mask, prefix: int, grid: Grid | None = None
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Images (B, C, H, W) and (B, C, 2H, 2W), and a scalar balance loss."""
        decoded, balance = self.maps(tokens, mask, prefix, grid)
        values, extra = _beside(self.predict, self.predict_adapter, decoded.flatten(2).transpose(1, 2))
        rows, columns = decoded.shape[-2:]
        cells = values.view(len(values), rows, columns, self.patch, self.patch, self.bands)  # channel fastest
        image = cells.permute(0, 5, 1, 3, 2, 4).reshape(len(values), self.bands, rows * self.patch, -1)
        larger = self.up_block(self.proj_up_norm(functional.gelu(self.proj_up_conv(image))))
        return (image, larger), balance + extra

    def error(self, predicted: tuple[Tensor, Tensor], images: Tensor, hidden: Tensor) -> Tensor:
        """Squared error on hidden patches (B, L), and absolute error of the whole image at twice the size."""
        image, larger = (one.float() for one in predicted)
        grid = (images.shape[-2] // self.patch, images.shape[-1] // self.patch)
        squared = _on_hidden((image - images.float()).square(), hidden, grid)
        wanted = resized(images.float(), (larger.shape[-2], larger.shape[-1]))
        return SQUARED * squared + ABSOLUTE * (larger - wanted).abs().mean()

    def picture(self, predicted: tuple[Tensor, Tensor], images: Tensor) -> Tensor:
        """Predicted images (B, C, H, W)."""
        return predicted[0].float().view_as(images)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The maps, normalised at every place."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class FeatureMaps(nn.Module):
    """Scale-MAE's maps of twice and of four times the size of the token grid."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        first = _like(tensors, "fpn.fpn1.0")
        norm = _norm(first.out_channels)
        self.fpn1 = nn.Sequential(first, norm, nn.GELU(), _like(tensors, "fpn.fpn1.3"))
        self.fpn2 = nn.Sequential(_like(tensors, "fpn.fpn2.0"))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, D, 2h, 2w) and (B, D, 4h, 4w) of maps (B, D, h, w)."""
        return self.fpn2(maps), self.fpn1(maps)


class ImageHead(nn.Module):
    """Scale-MAE's way from a feature map to an image: residual convolutions, then upsampling."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, bands: int) -> None:
        super().__init__()
        self.proj = _like(tensors, f"{name}.proj")
        stem = f"{name}.conv_blocks."
        count = len({key.split(".")[2] for key in tensors if key.startswith(stem)})
        self.conv_blocks = nn.ModuleList(ResidualConvolutions(tensors, f"{stem}{index}") for index in range(count))
        self.pred = nn.Sequential(
            _norm(self.proj.out_channels),
            _like(tensors, f"{name}.pred.1"), nn.GELU(),
            _like(tensors, f"{name}.pred.3"), nn.GELU(),
            _like(tensors, f"{name}.pred.5"), nn.GELU(),
            _like(tensors, f"{name}.pred.7", bands),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        """Images (B, C, H, W) of maps (B, D, h, w)."""
        x = self.proj(maps)
        for block in self.conv_blocks:
            x = block(x)
        return self.pred(x)


class ResidualConvolutions(nn.Module):
    """Two convolutions behind activations, beside a third."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.GELU(), _like(tensors, f"{name}.convs.1"), nn.GELU(), _like(tensors, f"{name}.convs.3")
        )
        self.residual = _like(tensors, f"{name}.residual")

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same size."""
        return self.residual(x) + self.convs(x)


class Upsampling(nn.Module):
    """SatMAE++'s block that doubles the size of an image."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up_norm = ChannelNorm(channels, eps=EPS)
        self.res_block = nn.ModuleDict(
            {name: nn.Conv2d(channels, channels, 3, padding=1) for name in ("conv1", "conv2")}
        )
        self.res_norm = ChannelNorm(channels, eps=EPS)
        self.proj_out = nn.Conv2d(channels, bands, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, 2H, 2W) of maps (B, channels, H, W)."""
        x = functional.leaky_relu(self.up_norm(self.up_conv(x)))
        change = self.res_block["conv2"](functional.relu(self.res_block["conv1"](x)))
        return self.proj_out(self.res_norm(x + 0.5 * change))


def frequencies(images: Tensor, size: tuple[int, int] | torch.Size, patch: int) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) at another size, in two: what the means of patches tell, interpolated, and the rest."""
    rows, columns = size
    images = images.float()
    low = resized(functional.avg_pool2d(images, patch), (rows, columns))
    return low, resized(images, (rows, columns)) - low


def _on_hidden(errors: Tensor, hidden: Tensor, grid: Grid) -> Tensor:
    """The mean of errors (B, C, h, w) over hidden patches (B, L)."""
    size = errors.shape[-2:]
    if size[0] % grid[0] or size[1] % grid[1] or size[0] * grid[1] != size[1] * grid[0]:
        raise ValueError(f"a reconstruction of {tuple(size)} pixels does not divide into {grid} patches")
    chosen = hidden_pixels(hidden, size, size[0] // grid[0])
    return (errors.mean(dim=1, keepdim=True) * chosen).sum() / chosen.sum()


def _beside(layer: nn.Linear, adapter: nn.Module | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer with experts beside it, and their balance loss."""
    if adapter is None:
        return layer(x), x.new_zeros((), dtype=torch.float32)
    added, balance = adapter(x)
    return layer(x) + added, balance


def _norm(channels: int) -> nn.Sequential:
    norm = nn.Sequential()
    norm.add_module("ln", ChannelNorm(channels, eps=EPS))
    return norm


def _like(tensors: Mapping[str, Tensor], name: str, outputs: int | None = None) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution that weights are for: sides of 2 double the size of a map, others leave it as it is."""
    weight = tensors[f"{name}.weight"]
    if weight.ndim != 4:
        raise DecoderError(
            f"the decoder has {name}.weight of {tuple(weight.shape)}, expected the weights of a convolution"
        )
    bias, side = f"{name}.bias" in tensors, int(weight.shape[-1])
    if side == 2:
        return nn.ConvTranspose2d(weight.shape[0], outputs or weight.shape[1], 2, stride=2, bias=bias)
    return nn.Conv2d(weight.shape[1], outputs or weight.shape[0], side, padding=side // 2, bias=bias)

"""Vision transformers that read any bands because they are told the wavelengths: DOFA, Panopticon, Copernicus-FM.

Their blocks, prefix tokens and positions are those of a plain timm ``VisionTransformer``; only the layer that reads
the bands is TorchGeo's. It takes the place of the patch convolution, so that methods find what they expect.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.networks import vit
from spectral_tl_bench.models.backbones.spec import BackboneSpec
from spectral_tl_bench.models.patch_embedding import SENTINEL2

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

NANOMETRES = 1000.0
"""Nanometres in a micrometre."""

SENTINEL2_WIDTHS = (20.0, 65.0, 35.0, 30.0, 15.0, 15.0, 20.0, 115.0, 20.0, 20.0, 30.0, 90.0, 180.0)
"""Bandwidths of the bands of ``SENTINEL2`` in nanometres, as Copernicus-FM was pretrained with (arXiv 2503.11849)."""

NEAR = 12.0
"""Nanometres between a band and the one of Sentinel-2 that it counts as; harmonised products are up to 11 away."""

HYPER_WIDTH = 128
"""Width of the wavelength encodings of DOFA and Copernicus-FM."""


class SpectralProjection(nn.Module):
    """Images to a token grid, by a layer that is told the wavelengths.

    Args:
        wavelengths: Centre wavelengths in micrometres.
        patch: Patch side in pixels.
    """

    wavelengths: Tensor

    def __init__(self, embedding: nn.Module, wavelengths: tuple[float, ...], width: int, patch: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.in_channels, self.out_channels = len(wavelengths), width
        self.kernel_size = self.stride = (patch, patch)
        self.register_buffer("wavelengths", torch.tensor(wavelengths, dtype=torch.float32), persistent=False)

    def tokens(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to tokens (B, L, D)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, D, H / patch, W / patch)."""
        rows, columns = (side // patch for side, patch in zip(images.shape[-2:], self.kernel_size, strict=True))
        return self.tokens(images).transpose(1, 2).unflatten(2, (rows, columns))


class DofaProjection(SpectralProjection):
    """DOFA's: a hypernetwork makes the filters from wavelengths (Xiong et al., arXiv 2403.15356)."""

    def tokens(self, images: Tensor) -> Tensor:
        """The hypernetwork takes micrometres."""
        return self.embedding(images, self.wavelengths)[0]


class PanopticonProjection(SpectralProjection):
    """Panopticon's: attention over channels with wavelength encodings (Waldmann et al., arXiv 2503.10845)."""

    def tokens(self, images: Tensor) -> Tensor:
        """Channels are known by their wavelengths in whole nanometres; the layer writes into them, hence the copy."""
        channels = (self.wavelengths * NANOMETRES).round().expand(len(images), -1).clone()
        return self.embedding({"imgs": images, "chn_ids": channels})


class CopernicusProjection(SpectralProjection):
    """Copernicus-FM's: a hypernetwork from wavelengths and bandwidths (Wang et al., arXiv 2503.11849)."""

    def tokens(self, images: Tensor) -> Tensor:
        """The hypernetwork takes nanometres."""
        centres = self.wavelengths * NANOMETRES
        return self.embedding(images, centres, bandwidths(centres))


def bandwidths(centres: Tensor) -> Tensor:
    """Widths of bands whose centres alone are known.

    Where every centre is within ``NEAR`` nm of another band of Sentinel-2, as those of Sentinel-2 itself and of
    harmonised products are, they have the widths of these bands. Otherwise half of the distance to the nearest other
    centre stands for a width, 5 to 100 nm, and 50 nm where there is no other.

    Args:
        centres: (C,), nm; dates of a time series repeat them.

    Returns:
        (C,), nm.
    """
    known = torch.tensor([NANOMETRES * one for one in SENTINEL2], dtype=centres.dtype, device=centres.device)
    away, band = (centres[:, None] - known).abs().min(dim=1)
    if bool((away <= NEAR).all()) and len(band.unique()) == len(centres.unique()):
        return torch.tensor(SENTINEL2_WIDTHS, dtype=centres.dtype, device=centres.device)[band]
    distance = (centres[:, None] - centres[None]).abs()
    nearest = distance.masked_fill(distance < 0.5, float("inf")).amin(dim=1)
    return torch.where(nearest.isinf(), 50.0, nearest / 2).clamp(5.0, 100.0)


def dofa(spec: BackboneSpec, in_chans: int, image_size: int) -> VisionTransformer:
    """DOFA, reading ``spec.wavelengths``."""
    layer = _layer("dofa", "DOFAEmbedding")(HYPER_WIDTH, spec.patch, spec.width)
    return _with_layer(spec, in_chans, image_size, DofaProjection, layer)


def panopticon(spec: BackboneSpec, in_chans: int, image_size: int) -> VisionTransformer:
    """Panopticon, reading ``spec.wavelengths``."""
    attention = 3 * spec.width
    layer = _layer("panopticon", "PanopticonPE")(
        attention, spec.width, spec.patch, {"attn_cfg": {"num_heads": 16}}, image_size
    )
    network = _with_layer(spec, in_chans, image_size, PanopticonProjection, layer, init_values=1e-5)
    network.pos_embed.requires_grad_(True)
    channels = network.get_submodule("patch_embed.proj.embedding.chnfus.chnemb")
    for name in ("embed_transmit", "embed_receive", "embed_orbit"):  # those of radar: no gradient reaches them here
        _as_buffer(channels, name)
    return network


def copernicus(spec: BackboneSpec, in_chans: int, image_size: int) -> VisionTransformer:
    """Copernicus-FM, reading ``spec.wavelengths``; place and time of the images count as unknown."""
    layer = _layer("copernicusfm", "DynamicPatchEmbed")(HYPER_WIDTH, spec.patch, spec.width)
    norm = partial(nn.LayerNorm, eps=1e-5)
    return _with_layer(spec, in_chans, image_size, CopernicusProjection, layer, norm_layer=norm)


def _with_layer(
    spec: BackboneSpec, in_chans: int, image_size: int, kind: type[SpectralProjection], layer: nn.Module, **options: Any
) -> VisionTransformer:
    network = vit(spec, in_chans, image_size, **options)
    network.patch_embed.proj = kind(layer, spec.wavelengths, spec.width, spec.patch)
    network.pos_embed.requires_grad_(False)  # a fixed table in the published models
    return network


def _as_buffer(owner: nn.Module, name: str) -> None:
    """Make a parameter, if there is such, a buffer: checkpoints keep it, and nothing trains or counts it."""
    value = owner._parameters.pop(name, None)
    if value is not None:
        owner.register_buffer(name, value.detach())


def _layer(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"torchgeo.models.{module}"), name)
    except (ImportError, AttributeError):
        raise UserError(f"this TorchGeo has no {name}", fix="install a newer TorchGeo") from None


def dofa_names(_spec: BackboneSpec, _network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DOFA's and Panopticon's checkpoints: the layer that reads the bands is called ``patch_embed`` there."""
    return {_inner(name, "patch_embed."): value for name, value in state.items()}


def copernicus_names(spec: BackboneSpec, _network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copernicus-FM's checkpoint, with the encodings of place, time and scale added to the positions.

    All tokens get them alike, and place and time are unknown here: they are constants of a run. The scale is known
    where the ground sampling distance is and a patch covers the thousandth of a square kilometre that the encoding
    starts at.
    """
    kept = {
        _inner(name, "patch_embed_spectral."): value
        for name, value in state.items()
        if not name.startswith(("patch_embed_variable.", "coord_", "scale_", "time_"))
    }
    parts = [f"{part}_{piece}" for part in ("coord", "scale", "time") for piece in ("token", "fc.weight", "fc.bias")]
    if "pos_embed" not in state or any(part not in state for part in parts):
        return kept
    total = state["pos_embed"].float()
    for part in ("coord", "scale", "time"):
        token = state[f"{part}_token"].float()
        if part == "scale" and spec.gsd and (area := (spec.patch * spec.gsd / NANOMETRES) ** 2) >= 0.001:
            expansion = _layer("copernicusfm", "FourierExpansion")(0.001, 5.1e8)
            token = expansion(torch.tensor([area], device="cpu"), token.shape[-1])[:, None].to(token.device)
        total = total + functional.linear(token, state[f"{part}_fc.weight"].float(), state[f"{part}_fc.bias"].float())
    return {**kept, "pos_embed": total}


def _inner(name: str, prefix: str) -> str:
    return f"patch_embed.proj.embedding.{name.removeprefix(prefix)}" if name.startswith(prefix) else name

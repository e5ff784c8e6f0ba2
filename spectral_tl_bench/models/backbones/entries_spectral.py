"""SpectralGPT and HyperSIGMA, as data; like ``entries``, without an import of anything heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.families import family
from spectral_tl_bench.models.backbones.spec import BackboneSpec, Card
from spectral_tl_bench.models.patch_embedding import SENTINEL2

if TYPE_CHECKING:
    from torch import Tensor, nn

WITHOUT_CIRRUS = SENTINEL2[:10] + SENTINEL2[11:]
"""Centre wavelengths of the 12 bands of Sentinel-2 that SpectralGPT reads: all but B10."""

Names = dict[str, "Tensor"]

_hypersigma_family = family("hypersigma", numerics_version=1)


@family("spectral-gpt", numerics_version=1)
def make_spectral_gpt(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """SpectralGPT."""
    from spectral_tl_bench.models.backbones.spectral_gpt import spectral_gpt

    return spectral_gpt(spec, in_chans, image_size)


@_hypersigma_family
def make_hypersigma(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """HyperSIGMA's spatial encoder as it is fine-tuned."""
    from spectral_tl_bench.models.backbones.hypersigma import hypersigma

    return hypersigma(spec, in_chans, image_size)


@_hypersigma_family
def make_hypersigma_global(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """HyperSIGMA's spatial encoder as it is pretrained."""
    from spectral_tl_bench.models.backbones.hypersigma import hypersigma_global

    return hypersigma_global(spec, in_chans, image_size)


@_hypersigma_family
def make_hypersigma_fused(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """HyperSIGMA's spatial and spectral encoders."""
    from spectral_tl_bench.models.backbones.hypersigma import hypersigma_fused

    return hypersigma_fused(spec, in_chans, image_size)


def spectral_gpt_names(spec: BackboneSpec, network: nn.Module, state: Names) -> Names:
    """Names of SpectralGPT's checkpoints."""
    from spectral_tl_bench.models.backbones.spectral_gpt import spectral_gpt_names as convert

    return convert(spec, network, state)


def hypersigma_names(spec: BackboneSpec, network: nn.Module, state: Names) -> Names:
    """Names of HyperSIGMA's checkpoints."""
    from spectral_tl_bench.models.backbones.hypersigma import hypersigma_names as convert

    return convert(spec, network, state)


def _spectral_gpt(name: str, tag: str, side: int, data: str, file: str) -> Backbone:
    return Backbone(
        name, width=768, depth=12, heads=12, patch=8, make=make_spectral_gpt, convert=spectral_gpt_names,
        named_weights=True, tag=tag, embeddings=("groups", "nearest"), patch_embedding="groups",
        form="a token for every place and every three bands",
        card=Card(
            data=data, bands=WITHOUT_CIRRUS, image_size=side,
            reading=(
                "three by three: these of the sensor, where it has each within 0.02 um and the image is no time "
                "series; else all bands, the last one again until three divide their number, with the table of groups "
                "interpolated. Maps are the mean over the groups"
            ),
            normalisation="0-1 by the least and largest value of each band and image",
            licence="GPL-3.0 (code); that of the weights is not stated",
            source="https://github.com/danfenghong/IEEE_TPAMI_SpectralGPT",
            citation="Hong et al., SpectralGPT, IEEE TPAMI 2024",
            how=f"{file} of zenodo.org/records/8412455 as --weights FILE",
        ),
    )  # fmt: skip


SPECTRALGPT = _spectral_gpt(
    "spectralgpt", "spectralgpt-fmow", 96, "fMoW-Sentinel, 3-D masked autoencoder over places and bands",
    "SpectralGPT.pth",
)  # fmt: skip
SPECTRALGPT_PLUS = _spectral_gpt(
    "spectralgpt-plus", "spectralgpt-plus-fmow-bigearthnet", 128,
    "fMoW-Sentinel and BigEarthNet, 3-D masked autoencoder over places and bands", "SpectralGPT+.pth",
)  # fmt: skip

_LEVELS = {"base": (3, 5, 7, 11), "large": (7, 11, 15, 23), "huge": (10, 15, 20, 31)}
_SIZES = {"base": (768, 12, 12), "large": (1024, 24, 16), "huge": (1280, 32, 16)}
_SPARSE = "attention to sampled places of the grid in most blocks"


def _hypersigma(size: str, form: str = "") -> Backbone:
    """A size of HyperSIGMA.

    Args:
        size: ``base``, ``large`` or ``huge``.
        form: Nothing for the spatial encoder as it is fine-tuned, ``global`` as it is pretrained, or ``fused`` for
            both encoders.
    """
    width, depth, heads = _SIZES[size]
    spatial, spectral = (f"{kind}-vit-{size}-ultra-checkpoint-1599.pth" for kind in ("spat", "spec"))
    data = "HyperGlobal-450K (EO-1 Hyperion, GF-5B), masked autoencoder over places"
    more: dict[str, Any] = {"make": make_hypersigma, "form": _SPARSE, "tag": f"hypersigma-{size}"}
    how = f"{spatial} of WHU-Sigma/HyperSIGMA on the Hugging Face hub as --weights FILE"
    if form == "global":
        more |= {"make": make_hypersigma_global, "form": ""}
    if form == "fused":
        data += "; and over bands, up to the first level, for channel weights of the maps"
        how = f"{spatial} and {spectral} of WHU-Sigma/HyperSIGMA on the Hugging Face hub as --weights FILE+FILE"
        more |= {
            "make": make_hypersigma_fused, "form": f"{_SPARSE}, and a second transformer over bands",
            "files": (spatial, spectral), "tag": f"hypersigma-{size}-fused",
        }  # fmt: skip
    return Backbone(
        f"hypersigma-{size}" + (f"-{form}" if form else ""), width=width, depth=depth, heads=heads, patch=8,
        convert=hypersigma_names, named_weights=True, pretrained_embedding="random", published_levels=_LEVELS[size],
        card=Card(
            data=data, bands=(), image_size=64, normalisation="digital numbers / 4,000",
            reading=(
                "any, by filters that start at random: the weights read 100 bands from a random one on, of unknown "
                "wavelengths, and their authors learn the filters anew, too"
            ),
            licence="Apache-2.0", source="https://github.com/WHU-Sigma/HyperSIGMA",
            citation="Wang et al., HyperSIGMA, IEEE TPAMI 2025", how=how,
        ),
        **more,
    )  # fmt: skip


HYPERSIGMA_BASE = _hypersigma("base")
HYPERSIGMA_LARGE = _hypersigma("large")
HYPERSIGMA_HUGE = _hypersigma("huge")
HYPERSIGMA_BASE_GLOBAL = _hypersigma("base", "global")
HYPERSIGMA_LARGE_GLOBAL = _hypersigma("large", "global")
HYPERSIGMA_HUGE_GLOBAL = _hypersigma("huge", "global")
HYPERSIGMA_BASE_FUSED = _hypersigma("base", "fused")
HYPERSIGMA_LARGE_FUSED = _hypersigma("large", "fused")
HYPERSIGMA_HUGE_FUSED = _hypersigma("huge", "fused")

"""Galileo as a backbone, in three sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.families import family
from spectral_tl_bench.models.backbones.spec import BackboneSpec, Card
from spectral_tl_bench.models.patch_embedding import SENTINEL2

if TYPE_CHECKING:
    from torch import Tensor, nn


@family("galileo", numerics_version=1)
def make_galileo(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """Galileo's Sentinel-2 path."""
    from spectral_tl_bench.models.backbones.galileo import galileo

    return galileo(spec, in_chans, image_size)


def galileo_names(spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of Galileo's checkpoints."""
    from spectral_tl_bench.models.backbones.galileo import galileo_names as convert

    return convert(spec, network, state)


def _galileo(size: str, width: int, depth: int, heads: int) -> Backbone:
    return Backbone(
        f"galileo-{size}", width=width, depth=depth, heads=heads, patch=8, make=make_galileo, convert=galileo_names,
        named_weights=True, tag=f"galileo-{size}", patch_embedding="own-groups", embeddings=("own-groups",),
        form="a token for every place, date and group of bands",
        card=Card(
            data="127,155 places with Sentinel-1 and -2, elevation, weather, maps; global and local masked modelling",
            bands=(*SENTINEL2[1:9], *SENTINEL2[11:]), image_size=96, licence="MIT",
            reading=(
                "in groups (2 to 4, 5 to 7, 8, 8A, 11 and 12), each where the sensor has all of its bands within .03 "
                "um (.06 above 1 um); bands of no group are not read. Maps are the mean over groups and dates"
            ),
            normalisation="(x - mean + 2 std) / (4 std) per band, which it makes of normalised pixels itself",
            source="https://github.com/nasaharvest/galileo",
            citation="Tseng et al., Galileo, ICML 2025, arXiv 2502.09356",
            how=f"the authors' data/models/{size}/encoder.pt, or its tensors as .safetensors, as --weights FILE",
        ),
    )  # fmt: skip


GALILEO_NANO = _galileo("nano", 128, 4, 8)
GALILEO_TINY = _galileo("tiny", 192, 12, 3)
GALILEO_BASE = _galileo("base", 768, 12, 12)

"""The backbones of the suite, as data. Nothing heavy is imported before one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.families import family
from spectral_tl_bench.models.backbones.spec import BackboneSpec, Card, Hub
from spectral_tl_bench.models.patch_embedding import SENTINEL2

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET = "0-1, then mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"


@family("vit", numerics_version=1)
def make_vit(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """A plain vision transformer."""
    from spectral_tl_bench.models.backbones.networks import vit

    return vit(spec, in_chans, image_size)


@family("scale-mae", numerics_version=1)
def make_scale_mae(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """TorchGeo's Scale-MAE."""
    from spectral_tl_bench.models.backbones.networks import scale_mae

    return scale_mae(spec, in_chans, image_size)


@family("timm", numerics_version=1)
def make_by_name(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """What timm makes under ``spec.architecture``."""
    from spectral_tl_bench.models.backbones.networks import by_name

    return by_name(spec, in_chans, image_size)


@family("dofa", numerics_version=1)
def make_dofa(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """DOFA."""
    from spectral_tl_bench.models.backbones.spectral import dofa

    return dofa(spec, in_chans, image_size)


@family("panopticon", numerics_version=1)
def make_panopticon(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """Panopticon."""
    from spectral_tl_bench.models.backbones.spectral import panopticon

    return panopticon(spec, in_chans, image_size)


@family("copernicus-fm", numerics_version=2)
def make_copernicus(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """Copernicus-FM."""
    from spectral_tl_bench.models.backbones.spectral import copernicus

    return copernicus(spec, in_chans, image_size)


def dofa_names(spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of DOFA's and Panopticon's checkpoints."""
    from spectral_tl_bench.models.backbones.spectral import dofa_names as convert

    return convert(spec, network, state)


def copernicus_names(spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of Copernicus-FM's checkpoint."""
    from spectral_tl_bench.models.backbones.spectral import copernicus_names as convert

    return convert(spec, network, state)


def dinov3_names(_spec: BackboneSpec, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of Meta's DINOv3 checkpoints; those of timm's stay."""
    if "storage_tokens" not in state:
        return state
    known = network.state_dict()
    renamed = {}
    for name, value in state.items():
        # Rotary periods and masks are computed, and biases of queries, keys and values are zero.
        if name.endswith((".periods", ".bias_mask", "mask_token")) or name.startswith("local_cls_norm"):
            continue
        if name.endswith("attn.qkv.bias") and name not in known:
            continue
        new = name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        renamed[new.replace("storage_tokens", "reg_token")] = value
    return renamed


_OWN = Card(how="--weights FILE of a ViT of these sizes")

COMPACT = Backbone("compact", width=96, depth=4, heads=4, patch=8, make=make_vit, card=_OWN)
VIT_TINY = Backbone("vit-tiny", width=192, depth=12, heads=3, patch=16, make=make_vit, card=_OWN)
VIT_SMALL = Backbone("vit-small", width=384, depth=12, heads=6, patch=16, make=make_vit, card=_OWN)
VIT_BASE = Backbone("vit-base", width=768, depth=12, heads=12, patch=16, make=make_vit, card=_OWN)
VIT_LARGE = Backbone("vit-large", width=1024, depth=24, heads=16, patch=16, make=make_vit, card=_OWN)

SCALEMAE_LARGE = Backbone(
    "scalemae-large", width=1024, depth=24, heads=16, patch=16, make=make_scale_mae,
    hub=Hub("torchgeo", "ScaleMAELarge16_Weights", "FMOW_RGB"), named_weights=True, tag="scalemae-fmow-rgb",
    card=Card(
        data="Functional Map of the World RGB, masked autoencoder at known scale", normalisation=IMAGENET,
        licence="CC BY-NC 4.0", source="https://github.com/bair-climate-initiative/scale-mae",
        citation="Reed et al., Scale-MAE, ICCV 2023",
        how="--weights hub (TorchGeo), or the authors' checkpoint as --weights FILE",
    ),
)  # fmt: skip

SATMAEPP_LARGE = Backbone(
    "satmaepp-large", width=1024, depth=24, heads=16, patch=16, make=make_vit, named_weights=True,
    tag="satmaepp-fmow-rgb",
    card=Card(
        data="Functional Map of the World RGB, multi-scale masked autoencoder",
        normalisation="0-1, then mean (0.418, 0.421, 0.399), std (0.288, 0.275, 0.276)",
        pixels=((0.418, 0.421, 0.399), (0.288, 0.275, 0.276)),
        licence="Apache-2.0 (of the code)", source="https://github.com/techmn/satmae_pp",
        citation="Noman et al., Rethinking Transformers Pre-training for Multi-Spectral Satellite Imagery, CVPR 2024",
        how="the authors' ViT-L checkpoint for fMoW RGB (repository techmn/satmae_pp) as --weights FILE",
    ),
)  # fmt: skip

DINOV3_LARGE_SAT = Backbone(
    "dinov3-large-sat", width=1024, depth=24, heads=16, patch=16, make=make_by_name,
    architecture="vit_large_patch16_dinov3", hub=Hub("timm", "vit_large_patch16_dinov3", "sat493m"),
    named_weights=True, tag="dinov3-sat493m", convert=dinov3_names, rotary=True,
    published_norm="final",
    card=Card(
        data="493 million Maxar RGB images of 0.6 m, self-distillation",
        normalisation="0-1, then mean (0.430, 0.411, 0.296), std (0.213, 0.156, 0.143)", image_size=256,
        pixels=((0.430, 0.411, 0.296), (0.213, 0.156, 0.143)),
        licence="DINOv3 License", source="https://github.com/facebookresearch/dinov3",
        citation="Simeoni et al., DINOv3, arXiv 2508.10104",
        how="--weights hub (timm), or Meta's or timm's checkpoint as --weights FILE",
    ),
)  # fmt: skip

SSL4EO_SMALL = Backbone(
    "ssl4eo-small", width=384, depth=12, heads=6, patch=16, make=make_vit,
    hub=Hub("torchgeo", "ViTSmall16_Weights", "SENTINEL2_ALL_DINO"), named_weights=True, tag="ssl4eo-s12",
    card=Card(
        data="SSL4EO-S12, Sentinel-2 L1C of 251,079 places in four seasons, DINO", bands=SENTINEL2,
        normalisation="digital numbers / 10,000", licence="CC BY 4.0",
        source="https://github.com/zhu-xlab/SSL4EO-S12",
        citation="Wang et al., SSL4EO-S12, IEEE Geosci. Remote Sens. Mag. 2023",
        how="--weights hub (TorchGeo), or others of ViTSmall16_Weights as --weights hub:SENTINEL2_ALL_MOCO",
    ),
)  # fmt: skip

_DOFA = {
    "data": "SatlasPretrain, Five-Billion-Pixels, HySpecNet-11k, masked autoencoder", "bands": (),
    "normalisation": "mean and standard deviation per sensor", "licence": "CC BY 4.0",
    "source": "https://github.com/zhu-xlab/DOFA",
    "citation": "Xiong et al., Neural Plasticity-Inspired Foundation Model (DOFA), arXiv 2403.15356",
    "how": "--weights hub (TorchGeo), or the authors' checkpoint as --weights FILE",
}  # fmt: skip

DOFA_BASE = Backbone(
    "dofa-base", width=768, depth=12, heads=12, patch=16, make=make_dofa, convert=dofa_names,
    hub=Hub("torchgeo", "DOFABase16_Weights", "DOFA_MAE"), named_weights=True, tag="dofa-mae",
    patch_embedding="hypernetwork", reads_wavelengths=True, card=Card(**_DOFA),  # type: ignore[arg-type]
)  # fmt: skip

DOFA_LARGE = Backbone(
    "dofa-large", width=1024, depth=24, heads=16, patch=16, make=make_dofa, convert=dofa_names,
    hub=Hub("torchgeo", "DOFALarge16_Weights", "DOFA_MAE"), named_weights=True, tag="dofa-mae",
    patch_embedding="hypernetwork", reads_wavelengths=True, card=Card(**_DOFA),  # type: ignore[arg-type]
)  # fmt: skip

PANOPTICON = Backbone(
    "panopticon", width=768, depth=12, heads=12, patch=14, make=make_panopticon, convert=dofa_names,
    hub=Hub("torchgeo", "Panopticon_Weights", "VIT_BASE14"), named_weights=True, tag="panopticon",
    patch_embedding="hypernetwork", reads_wavelengths=True,
    card=Card(
        data="fMoW, fMoW-Sentinel, fMoW-WV, SpectralEarth, MMEarth; DINOv2 over sensors", bands=(),
        normalisation="mean and standard deviation per sensor", licence="CC BY 4.0",
        source="https://github.com/Panopticon-FM/panopticon",
        citation="Waldmann et al., Panopticon, CVPR Workshops 2025, arXiv 2503.10845",
        how="--weights hub (TorchGeo), or the authors' checkpoint as --weights FILE",
    ),
)  # fmt: skip

COPERNICUS_FM = Backbone(
    "copernicus-fm", width=768, depth=12, heads=12, patch=16, make=make_copernicus, convert=copernicus_names,
    hub=Hub("torchgeo", "CopernicusFM_Base_Weights", "CopernicusFM_ViT"), named_weights=True, tag="copernicus-fm",
    patch_embedding="hypernetwork", reads_wavelengths=True,
    card=Card(
        data="Copernicus-Pretrain, 18.7 million images of all Sentinel missions, masked autoencoder and distillation",
        bands=(), normalisation="mean and standard deviation per sensor", licence="CC BY 4.0",
        source="https://github.com/zhu-xlab/Copernicus-FM",
        citation="Wang et al., Towards a Unified Copernicus Foundation Model, arXiv 2503.11849",
        how="--weights hub (TorchGeo), or the authors' checkpoint as --weights FILE",
    ),
)  # fmt: skip


def _pyramid(
    name: str, architecture: str, tag: str, stages: tuple[int, ...], licence: str, citation: str, data: str = "ImageNet"
) -> Backbone:
    return Backbone(
        name, width=stages[-1], depth=4, heads=0, patch=32, make=make_by_name, architecture=architecture,
        kind="pyramid", stages=stages, sizes=(), hub=Hub("timm", architecture, tag), tag=f"timm:{architecture}",
        card=Card(
            data=f"{data}, with labels (with --weights; random otherwise)", normalisation=IMAGENET, licence=licence,
            source=f"https://huggingface.co/timm/{architecture}.{tag}", citation=citation,
            how="--weights hub (timm), or --weights FILE",
        ),
    )  # fmt: skip


LIU = "Liu et al., Swin Transformer, ICCV 2021"

RESNET50 = _pyramid(
    "resnet50", "resnet50", "a1_in1k", (256, 512, 1024, 2048), "Apache-2.0",
    "He et al., CVPR 2016; Wightman et al., 2021",
)  # fmt: skip
SWIN_TINY = _pyramid("swin-tiny", "swin_tiny_patch4_window7_224", "ms_in1k", (96, 192, 384, 768), "MIT", LIU)
SWIN_BASE = _pyramid(
    "swin-base", "swin_base_patch4_window7_224", "ms_in22k_ft_in1k", (128, 256, 512, 1024), "MIT", LIU,
    "ImageNet-22k, then ImageNet",
)  # fmt: skip

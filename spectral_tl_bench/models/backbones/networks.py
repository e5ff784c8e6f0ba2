"""Networks of timm by backbone: plain vision transformers, Scale-MAE, and anything that timm makes by name."""

from __future__ import annotations

from typing import Any, TypeVar

import timm
from timm.models import get_pretrained_cfg
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.pyramid import Pyramid
from spectral_tl_bench.models.backbones.spec import BackboneSpec

Vit = TypeVar("Vit", bound=VisionTransformer)


def vit(spec: BackboneSpec, in_chans: int, image_size: int, kind: type[Vit] = VisionTransformer, **options: Any) -> Vit:
    """A plain vision transformer without a head, with the sizes of ``spec``.

    Args:
        image_size: Side of the images in pixels.
        **options: Further ones of ``VisionTransformer``.
    """
    return kind(**_vit_sizes(spec, in_chans, image_size), **options)


def scale_mae(spec: BackboneSpec, in_chans: int, image_size: int) -> VisionTransformer:
    """TorchGeo's Scale-MAE: positions are encoded in metres, so they depend on the ground sampling distance."""
    from torchgeo.models.scale_mae import ScaleMAE

    return ScaleMAE(res=spec.gsd or 1.0, **_vit_sizes(spec, in_chans, image_size))


def _vit_sizes(spec: BackboneSpec, in_chans: int, image_size: int) -> dict[str, Any]:
    return {
        "img_size": image_size, "patch_size": spec.patch, "in_chans": in_chans, "num_classes": 0, "global_pool": "",
        "embed_dim": spec.width, "depth": spec.depth, "num_heads": spec.heads,
    }  # fmt: skip


def by_name(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """The network that timm has under ``spec.architecture``, without a head.

    Raises:
        UserError: If timm has no such network, or cannot build it for these images.
    """
    options: dict[str, Any] = {"in_chans": in_chans}
    if spec.kind == "vit":
        options |= {
            "img_size": image_size, "patch_size": spec.patch, "embed_dim": spec.width, "depth": spec.depth,
            "num_heads": spec.heads, "global_pool": "",
        }  # fmt: skip
        return _create(spec.architecture, **options)
    if _fixed_size(spec.architecture):
        options["img_size"] = image_size
    return Pyramid(_create(spec.architecture, **options))


def look_up(architecture: str) -> dict[str, Any]:
    """Kind and sizes of a network of timm.

    Args:
        architecture: timm's name, without a tag.

    Returns:
        Fields of ``Backbone``.

    Raises:
        UserError: If timm has no such network, or it is neither a vision transformer nor a pyramid of four maps.
    """
    import torch

    with torch.device("meta"):
        network = _create(architecture)
    if isinstance(network, VisionTransformer | Eva):
        patch = network.patch_embed.patch_size
        if patch[0] != patch[1]:
            raise UserError(f"{architecture} has patches of {patch[0]} x {patch[1]} px", expected="square patches")
        attention = getattr(network.blocks[0], "attn", None)
        if attention is None:
            raise UserError(
                f"{architecture} is made of {type(network.blocks[0]).__name__}, which is not supported",
                expected="blocks with one attention and one MLP, for example those of vit_small_patch16_224",
            )
        heads = int(attention.num_heads)
        return {
            "kind": "vit", "width": int(network.embed_dim), "depth": len(network.blocks), "heads": heads,
            "patch": int(patch[0]), "sizes": ("width", "depth", "heads", "patch"),
            "rotary": getattr(network, "rope", None) is not None,
        }  # fmt: skip
    with torch.device("meta"):
        pyramid = Pyramid(network)
    return {
        "kind": "pyramid", "width": pyramid.widths[-1], "depth": 4, "heads": 0, "patch": 32, "sizes": (),
        "stages": pyramid.widths,
    }  # fmt: skip


def _create(architecture: str, **options: Any) -> nn.Module:
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=0, **options)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"timm {timm.__version__} cannot build {architecture}: {str(error).strip() or type(error).__name__}",
            fix="`timm.list_models()` lists its networks; a newer timm may have more",
        ) from None


def _fixed_size(architecture: str) -> bool:
    """Whether the network must be told the size of its images."""
    config = get_pretrained_cfg(architecture)
    return bool(config is not None and config.fixed_input_size)

"""DINOv2 as a backbone, in three sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones.backbone import Backbone
from spectral_tl_bench.models.backbones.entries import IMAGENET
from spectral_tl_bench.models.backbones.families import family
from spectral_tl_bench.models.backbones.spec import BackboneSpec, Card, Hub

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = {
    "norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
    "attention.output.dense": "attn.proj",
}  # fmt: skip
"""Parts of a block in the names of Hugging Face's transformers, and in timm's."""


@family("dinov2", numerics_version=1)
def make_dinov2(spec: BackboneSpec, in_chans: int, image_size: int) -> nn.Module:
    """A vision transformer with layer scale."""
    from spectral_tl_bench.models.backbones.networks import vit

    return vit(spec, in_chans, image_size, init_values=1e-5)


def dinov2_names(spec: BackboneSpec, _network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of Hugging Face's DINOv2 checkpoints; those of Meta's and timm's stay.

    Raises:
        UserError: If the checkpoint has register tokens.
    """
    if any(name.endswith(("register_tokens", "reg_token")) for name in state):
        raise UserError(
            f"the weights are those of a DINOv2 with register tokens, which {spec.name} has not",
            where=spec.weights and spec.weights.path,
            fix="--backbone timm:vit_small_patch14_reg4_dinov2 (base, large), or the weights without registers",
        )
    if not any("attention.attention.query" in name for name in state):
        return state
    return _from_transformers(state)


def _from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    import torch

    found = {name[name.index(start) :]: value for name, value in state.items()
             for start in ("embeddings.", "encoder.layer.", "layernorm.") if start in name}  # fmt: skip
    renamed = {
        new: found[old]
        for old, new in (
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            *((f"embeddings.patch_embeddings.projection.{k}", f"patch_embed.proj.{k}") for k in ("weight", "bias")),
            *((f"layernorm.{k}", f"norm.{k}") for k in ("weight", "bias")),
        )
        if old in found
    }
    for number in range(sum(name.endswith("layer_scale1.lambda1") for name in found)):
        old, new = f"encoder.layer.{number}.", f"blocks.{number}."
        for kind in ("weight", "bias"):
            renamed |= {f"{new}{one}.{kind}": found[f"{old}{part}.{kind}"] for part, one in PARTS.items()}
            three = [found[f"{old}attention.attention.{one}.{kind}"] for one in ("query", "key", "value")]
            renamed[f"{new}attn.qkv.{kind}"] = torch.cat(three)
        renamed |= {f"{new}ls{one}.gamma": found[f"{old}layer_scale{one}.lambda1"] for one in (1, 2)}
    return renamed


def _dinov2(size: str, width: int, depth: int, heads: int) -> Backbone:
    return Backbone(
        f"dinov2-{size}", width=width, depth=depth, heads=heads, patch=14, make=make_dinov2, convert=dinov2_names,
        hub=Hub("timm", f"vit_{size}_patch14_dinov2", "lvd142m"), named_weights=True, tag="dinov2-lvd142m",
        published_norm="final",
        card=Card(
            data="LVD-142M, 142 million photographs, self-distillation", normalisation=IMAGENET, image_size=518,
            licence="Apache-2.0", source="https://github.com/facebookresearch/dinov2",
            citation="Oquab et al., DINOv2, Trans. Mach. Learn. Res. 2024, arXiv 2304.07193",
            how="--weights hub (timm), or Meta's, timm's or Hugging Face's file without registers as --weights FILE",
        ),
    )  # fmt: skip


DINOV2_SMALL = _dinov2("small", 384, 12, 6)
DINOV2_BASE = _dinov2("base", 768, 12, 12)
DINOV2_LARGE = _dinov2("large", 1024, 24, 16)

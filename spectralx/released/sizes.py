"""What a checkpoint of the release tells of the model that it belongs to: sizes by the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spectralx.config import SpectralXConfig
from spectralx.model import SpectralX
from spectralx.released.checkpoint import Checkpoint

Family = Literal["scalemae", "satmaepp", "dinov3"]
FAMILIES: tuple[Family, ...] = get_args(Family)

Part = Literal["hyper-tokenizer", "aomoa", "are-adapter"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What an ablation of the release may leave out."""


@dataclass(frozen=True)
class Sizes:
    """All that is needed to build the model of a checkpoint.

    Attributes:
        stage: 1 for masked reconstruction, 2 for segmentation.
        family: Which pretrained transformer.
        wavelengths: Centre wavelengths in micrometres; None if the file does not say.
        classes: Classes without the release's class 0; None in stage 1.
        image_size: Side of the images in pixels.
        patch: Side of a patch in pixels.
        attention_biases: Whether DINOv3's biases of queries and values are anything but zero.
        options: Of ``SpectralXConfig``, in the reading ``released``.
    """

    stage: Literal[1, 2]
    family: Family
    bands: int
    wavelengths: tuple[float, ...] | None
    classes: int | None
    image_size: int
    width: int
    depth: int
    heads: int
    patch: int
    registers: int
    attention_biases: bool
    options: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Sizes:
        """The inverse of ``as_json``."""
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in values["options"].items()}
        wavelengths = None if values["wavelengths"] is None else tuple(values["wavelengths"])
        return cls(**{**values, "options": options, "wavelengths": wavelengths})


def read_sizes(
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    stage: Literal[1, 2] | None = None,
    family: Family | None = None,
    heads: int | None = None,
    without: Collection[Part] = (),
) -> Sizes:
    """Sizes of the model, from shapes and from what stands beside them.

    Args:
        tensors: Those of the checkpoint, as ``split_biases`` gives them.
        facts: Plain entries of ``hyper_parameters``.
        stage: Which stage the file is of; by default as its parts say.
        family: Which transformer; by default as keys and facts say.
        heads: Attention heads, which no shape shows; by default one for 64 channels, as in ViT-S, B and L.
        without: Parts that the checkpoint was trained without.

    Raises:
        ValueError: If a part is missing, or the file contradicts itself or what is asked.
    """
    ours = {place.name: tensors[key] for key, place in checkpoint.places.items()}
    found = _stage(checkpoint)
    if stage is not None and found is not None and stage != found:
        raise ValueError(f"the file is of stage {found}, not {stage}: it has {_signs(checkpoint, found)}")
    stage = stage or found
    if stage is None:
        raise ValueError("neither a head nor a decoder of stage 1 is in it: say of which stage it is")
    family = family or _family(checkpoint, ours, facts)
    if stage == 1 and family == "dinov3":
        raise ValueError("the release has no stage 1 for DINOv3")

    def size(name: str, dim: int) -> int:
        if name not in ours:
            raise ValueError(f"{name} is missing: sizes cannot be told without it")
        return int(ours[name].shape[dim])

    width = size("backbone.blocks.0.norm1.weight", 0)
    depth = 1 + max(int(name.split(".")[2]) for name in ours if name.startswith("backbone.blocks."))
    patch = size("patch_path.down.weight", 2) * size("patch_path.up.weight", 2)
    options: dict[str, Any] = {"reconstruction": False, "rank": size("patch_path.down.weight", 0)}
    options |= {part.replace("-", "_"): part not in without for part in PARTS}
    options["are_adapter"] &= stage == 2 and options["hyper_tokenizer"]
    # ScaleMAE's positions are computed; the other families keep those of their pretraining.
    options["positions"] = "mixed" if family == "scalemae" else "backbone"
    if options["hyper_tokenizer"]:
        options |= _tokenizer(size, ours)
        tokens = size("hyper_tokenizer.match.query_spatial", 0)
    else:
        tokens = size("backbone.pos_embed", 1) - 1
    if options["aomoa"]:
        gates = [name for name in ours if name.startswith("adapters.") and name.endswith("gate.gate")]
        options["experts"] = size(gates[0] if gates else "adapters.<i>.fc1.gate.gate", 2)
    if stage == 2:
        options["head_channels"] = size("decoder.head.classify.weight", 1)
    if math.isqrt(tokens) ** 2 != tokens:
        raise ValueError(f"{tokens} tokens are no square")
    if heads is not None and width % heads:
        raise ValueError(f"the transformer is {width} wide, which {heads} heads do not divide")
    if heads is None and width % 64:
        raise ValueError(f"the transformer is {width} wide, no multiple of 64: say how many attention heads it has")
    sizes = Sizes(
        stage=stage,
        family=family,
        bands=size("patch_path.down.weight", 1),
        wavelengths=_wavelengths(facts),
        classes=size("decoder.head.classify.weight", 0) - 1 if stage == 2 else None,
        image_size=math.isqrt(tokens) * patch,
        width=width,
        depth=depth,
        heads=heads or width // 64,
        patch=patch,
        registers=size("backbone.reg_token", 1) if family == "dinov3" else 0,
        attention_biases=any(name.endswith("_bias") and bool(ours[name].any()) for name in ours if ".attn." in name),
        options=options,
    )
    for name, value in {"in_channels": sizes.bands, "patch_size": patch, "input_size": sizes.image_size}.items():
        said = facts.get(name)
        if said is not None and {value} != set(said if isinstance(said, list | tuple) else [said]):
            raise ValueError(f"its hyper_parameters say {name}={said}, its tensors {value}")
    return sizes


def _stage(checkpoint: Checkpoint) -> Literal[1, 2] | None:
    if {"head", "neck", "are_adapter"} & checkpoint.roots.keys():
        return 2
    return 1 if "reconstruction" in checkpoint.roots else None


def _signs(checkpoint: Checkpoint, stage: int) -> str:
    parts = ("head", "neck", "are_adapter") if stage == 2 else ("reconstruction",)
    return ", ".join(f"{part} under {checkpoint.roots[part]!r}" for part in parts if part in checkpoint.roots)


def _family(checkpoint: Checkpoint, ours: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Family:
    if "dino" in checkpoint.roots:
        return "dinov3"
    if any(name.startswith("reconstruction.fpn.") for name in ours):
        return "scalemae"
    if any(name.startswith("reconstruction.proj_up_conv.") for name in ours):
        return "satmaepp"
    told = f"{facts.get('model', '')} {facts.get('model_type', '')}".lower().replace("-", "").replace("_", "")
    named = {family for family, sign in (("scalemae", "scalemae"), ("satmaepp", "satmae")) if sign in told}
    if len(named) != 1:
        raise ValueError("ScaleMAE and SatMAE++ have the same names in stage 2: say of which family it is")
    return cast(Family, named.pop())


def _tokenizer(size: Any, ours: Mapping[str, Tensor]) -> dict[str, Any]:
    tokens, places = (
        size("hyper_tokenizer.match.query_spatial", 0), size("hyper_tokenizer.perception.spectral.norm1.weight", 0),
    )  # fmt: skip
    steps = sum(name.startswith("hyper_tokenizer.stem.reductions.") and name.endswith(".0.weight") for name in ours)
    inner = [size(f"hyper_tokenizer.stem.reductions.{step}.0.weight", 0) for step in range(steps)]
    widths = (size("hyper_tokenizer.stem.mix.weight", 0), *inner, size("hyper_tokenizer.stem.last.weight", 0))
    mlp = size("hyper_tokenizer.perception.spatial.fc1.weight", 0) / widths[-1]
    return {"stem_widths": widths, "attribute_cells": max(1, math.isqrt(places // tokens)), "attribute_mlp": mlp}


def _wavelengths(facts: Mapping[str, Any]) -> tuple[float, ...] | None:
    """In micrometres; from 100 on they can only be nanometres."""
    values = facts.get("wavelength", facts.get("wavelengths"))
    if not isinstance(values, list | tuple) or not values or any(isinstance(value, str) for value in values):
        return None
    scale = 1000.0 if min(values) >= 100 else 1.0
    return tuple(float(value) / scale for value in values)


def build(sizes: Sizes, wavelengths: tuple[float, ...] | None = None, **options: Any) -> SpectralX:
    """The model of a checkpoint, at its random start, on the current device.

    Args:
        wavelengths: In micrometres, where the file does not say them.
        **options: Of ``SpectralXConfig``, beside or instead of those of ``sizes``.

    Raises:
        ValueError: If sizes do not fit together, or there are no wavelengths.
    """
    centres = wavelengths or sizes.wavelengths
    if centres is None:
        raise ValueError("the checkpoint does not say the wavelengths of its bands: give them")
    config = SpectralXConfig(**{"reading": "released", **sizes.options, **options})
    return SpectralX(
        _backbone(sizes), centres, sizes.classes or 2, sizes.image_size, config=config, bands=sizes.bands,
        decoder=nn.Identity() if sizes.stage == 1 else None,
    )  # fmt: skip


def _backbone(sizes: Sizes) -> VisionTransformer | Eva:
    shape: dict[str, Any] = {
        "img_size": sizes.image_size, "patch_size": sizes.patch, "in_chans": sizes.bands, "embed_dim": sizes.width,
        "depth": sizes.depth, "num_heads": sizes.heads, "num_classes": 0,
    }  # fmt: skip
    if sizes.family != "dinov3":
        return VisionTransformer(**shape)
    return Eva(
        **shape, qkv_bias=sizes.attention_biases, init_values=1e-5, rope_type="dinov3", rope_temperature=100,
        use_rot_pos_emb=True, use_abs_pos_emb=False, rope_rotate_half=True, num_reg_tokens=sizes.registers,
        use_fc_norm=False, dynamic_img_size=True, norm_layer=partial(nn.LayerNorm, eps=1e-5), qkv_fused=True,
    )  # fmt: skip


def on_meta(sizes: Sizes) -> SpectralX:
    """The model without numbers: names and shapes alone."""
    with torch.device("meta"):
        return build(sizes, sizes.wavelengths or (0.5,) * sizes.bands)

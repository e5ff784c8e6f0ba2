"""Small files of weights in the formats of Scale-MAE's and SatMAE++'s authors: encoder and decoder in one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectral_tl_bench.models.backbones import Backbone, get_backbone

SIZES: dict[str, Any] = {"width": 48, "depth": 4, "heads": 4, "patch": 8}
NAMES = {"scale-mae": "scalemae-large", "satmae++": "satmaepp-large"}
BLOCKS = {"scale-mae": 3, "satmae++": 8}
INNER, CHANNELS, RATIO = 64, 8, 4


def decoder_shapes(kind: str, width: int, patch: int, bands: int = 3) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a decoder's tensors."""
    shapes: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, INNER), "decoder_pos_embed": (1, 5, INNER),
        "decoder_embed.weight": (INNER, width), "decoder_embed.bias": (INNER,),
    }  # fmt: skip
    for index in range(BLOCKS[kind]):
        stem = f"decoder_blocks.{index}."
        for name, outputs, inputs in (
            ("attn.qkv", 3 * INNER, INNER), ("attn.proj", INNER, INNER),
            ("mlp.fc1", 4 * INNER, INNER), ("mlp.fc2", INNER, 4 * INNER),
        ):  # fmt: skip
            shapes |= {f"{stem}{name}.weight": (outputs, inputs), f"{stem}{name}.bias": (outputs,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"{stem}{name}.weight": (INNER,), f"{stem}{name}.bias": (INNER,)}
    shapes |= {"decoder_norm.weight": (INNER,), "decoder_norm.bias": (INNER,)}
    return shapes | (_scale_mae(bands) if kind == "scale-mae" else _satmaepp(bands, patch))


def _scale_mae(bands: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, 48), "mask_token_decoder": (1, 1, INNER)}
    for name in ("fpn.fpn1.0", "fpn.fpn1.3", "fpn.fpn2.0"):
        shapes |= {f"{name}.weight": (INNER, INNER, 2, 2), f"{name}.bias": (INNER,)}
    shapes |= {"fpn.fpn1.1.ln.weight": (INNER,), "fpn.fpn1.1.ln.bias": (INNER,)}
    for head in ("fcn_high", "fcn_low"):
        layers = {"proj": (CHANNELS, INNER, 1, 1), "pred.7": (bands, CHANNELS, 1, 1)}
        layers |= {f"pred.{number}": (CHANNELS, CHANNELS, 2, 2) for number in (1, 3, 5)}
        for block in (0, 1):
            layers |= {f"conv_blocks.{block}.convs.{number}": (CHANNELS, CHANNELS, 3, 3) for number in (1, 3)}
            layers[f"conv_blocks.{block}.residual"] = (CHANNELS, CHANNELS, 1, 1)
        for name, shape in layers.items():
            bias = shape[1] if shape[-1] == 2 else shape[0]
            shapes |= {f"{head}.{name}.weight": shape, f"{head}.{name}.bias": (bias,)}
        shapes |= {f"{head}.pred.0.ln.weight": (CHANNELS,), f"{head}.pred.0.ln.bias": (CHANNELS,)}
    return shapes


def _satmaepp(bands: int, patch: int) -> dict[str, tuple[int, ...]]:
    wide = RATIO * bands
    layers = {
        "decoder_pred": (patch * patch * bands, INNER), "proj_up_conv": (wide, bands, 1, 1),
        "up_block.up_conv": (wide, wide, 4, 4), "up_block.res_block.conv1": (wide, wide, 3, 3),
        "up_block.res_block.conv2": (wide, wide, 3, 3), "up_block.proj_out": (bands, wide, 3, 3),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}
    for name in ("proj_up_norm", "up_block.up_norm", "up_block.res_norm"):
        shapes |= {f"{name}.weight": (wide,), f"{name}.bias": (wide,)}
    return shapes


def whole_state(kind: str, seed: int = 0, bands: int = 3) -> dict[str, Tensor]:
    """Encoder and decoder as a masked pretraining saves them; the encoder depends on no seed."""
    spec = replace(get_backbone(NAMES[kind], "none", **SIZES), seed=5).for_sensor((0.66, 0.56, 0.49), 10.0)
    state = {name: value.clone() for name, value in spec.build(3, 32).state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    for name, shape in decoder_shapes(kind, SIZES["width"], SIZES["patch"], bands).items():
        noise = torch.randn(shape, generator=generator)
        norm = name.endswith("weight") and len(shape) == 1
        state[name] = 1 + 0.1 * noise if norm else noise * (0.1 if len(shape) == 1 else max(1, *shape[1:]) ** -0.5)
    return state


def with_decoder(kind: str, path: Path, seed: int = 0, bands: int = 3) -> Backbone:
    """A small backbone whose weights bring a decoder; writes them to ``path`` (``.pth``)."""
    torch.save({"model": whole_state(kind, seed, bands), "epoch": 799}, path)
    return get_backbone(NAMES[kind], str(path), **SIZES)

"""Names of the release's parts beside ours: tables of (beginning of the release's key, beginning of ours).

A table holds within one part, relative to where the part stands in the release and in our model. An entry that does
not end in a dot is a whole name. No two entries of a table begin alike, so that tables can be read both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Table = tuple[tuple[str, str], ...]

MANY = 16
"""More of a kind than any model has: steps of a stem, levels of a pyramid."""

BLOCK_KEYS: Table = (
    ("norm1.", "norm1."),
    ("attn.qkv.", "qkv."),
    ("attn.proj.", "proj."),
    ("norm2.", "norm2."),
    ("mlp.fc1.", "fc1."),
    ("mlp.fc2.", "fc2."),
)
"""A perception block."""

HYPER_KEYS: Table = (
    ("downsample_module.conv1.", "stem.mix."),
    *((f"downsample_module.module{2 * i + 1}.", f"stem.residuals.{i}.") for i in range(MANY)),
    *((f"downsample_module.module{2 * i + 2}.", f"stem.reductions.{i}.") for i in range(MANY)),
    ("downsample_module.conv2.", "stem.last."),
    *((f"spa_semantic_module.0.{theirs}", f"perception.spatial.{ours}") for theirs, ours in BLOCK_KEYS),
    *((f"spe_semantic_module.0.{theirs}", f"perception.spectral.{ours}") for theirs, ours in BLOCK_KEYS),
    ("spa_match_attn.", "match.attend_spatial."),
    ("spe_match_attn.", "match.attend_spectral."),
    ("spa_query", "match.query_spatial"),
    ("spe_query", "match.query_spectral"),
    ("match_ff.0.", "match.norm."),
    ("match_ff.1.", "match.fc1."),
    ("match_ff.3.", "match.fc2."),
)
"""The hyper tokenizer."""

ARE_KEYS: Table = (
    ("spa_match_attn.", "spatial.attend."),
    ("spe_match_attn.", "spectral.attend."),
    ("spa_mlp.", "spatial.direct."),
    ("spe_mlp.", "spectral.direct."),
    ("norm.", "norm."),
    ("refine_spa.", "refine_spatial."),
    ("refine_spe.", "refine_spectral."),
    ("scale", "scale"),
)
"""The Are-adapter."""

AOMOA_KEYS: Table = (
    ("blocks_MoA.norm1.", "norm_in."),
    ("blocks_MoA.dimReduction.", "down."),
    ("blocks_MoA.norm2.", "norm_down."),
    ("blocks_MoA.dimIncrease.", "up."),
    ("blocks_MoA.MoA.w_gate", "gate.gate"),
    ("blocks_MoA.MoA.w_noise", "gate.noise"),
    ("scaler", "scale"),
)
"""An AoMoA layer, without its experts (``EXPERT``), its constants (``CONSTANTS``) and the linear layer."""

PATCH_KEYS: Table = (("down.", "down."), ("up.", "up."), ("scaler", "scale"))
"""The low-rank patch path."""

NECK_KEYS: Table = (
    *((f"lateral_convs.{i}.conv.", f"lateral.{i}.") for i in range(MANY)),
    *((f"convs.{i}.conv.", f"smooth.{i}.") for i in range(MANY)),
)
"""The neck, in mmsegmentation's names."""


def _conv_module(theirs: str, ours: str) -> Table:
    return ((f"{theirs}conv.", f"{ours}0."), (f"{theirs}bn.", f"{ours}1."))


HEAD_KEYS: Table = (
    *(pair for i in range(MANY) for pair in _conv_module(f"psp_modules.{i}.1.", f"pools.{i}.")),
    *_conv_module("bottleneck.", "pooled."),
    *(pair for i in range(MANY) for pair in _conv_module(f"lateral_convs.{i}.", f"lateral.{i}.")),
    *(pair for i in range(MANY) for pair in _conv_module(f"fpn_convs.{i}.", f"smooth.{i}.")),
    *_conv_module("fpn_bottleneck.", "fuse."),
    ("conv_seg.", "classify."),
)
"""The UPerNet head, in mmsegmentation's names."""

RECONSTRUCTION_KEYS: Table = (
    ("mask_token", "mask_token"),
    ("decoder_embed.", "embed."),
    ("decoder_norm.", "norm."),
    ("decoder_pred.", "predict."),
    *((f"{part}.", f"{part}.") for part in ("fpn", "fcn_high", "fcn_low", "proj_up_conv", "proj_up_norm", "up_block")),
)
"""The decoder of stage 1 without its blocks, in the names of MAE; the last line is ScaleMAE's and SatMAE++'s own."""

DINO_KEYS: Table = (("storage_tokens", "reg_token"), ("ls1.gamma", "gamma_1"), ("ls2.gamma", "gamma_2"))
"""Meta's names in DINOv3 beside timm's, within the transformer or within a block."""

DINO_BIAS = re.compile(r"attn\.qkv\.bias\[([qv])\]")
"""What ``split_biases`` makes of the bias of queries, keys and values; timm keeps it apart, and has none for keys."""

EXPERT = re.compile(r"blocks_MoA\.MoA\.experts\.(\d+)\.(fc[12])\.(weight|bias)")
"""The release's experts are modules of their own; ours are stacked."""

CONSTANTS = {"blocks_MoA.MoA.mean": 0.0, "blocks_MoA.MoA.std": 1.0}
"""Buffers of the release's gate, of shape (1,)."""


def rename(key: str, table: Table) -> str | None:
    """Our name for a key of the release, or None if the table does not know it."""
    return _replaced(key, table, 0, 1)


def rename_back(key: str, table: Table) -> str | None:
    """The release's key for a name of ours, or None if the table does not know it."""
    return _replaced(key, table, 1, 0)


def _replaced(key: str, table: Table, old: int, new: int) -> str | None:
    for pair in table:
        begin = pair[old]
        if key == begin or (begin.endswith(".") and key.startswith(begin)):
            return pair[new] + key[len(begin) :]
    return None


def convert(state_dict: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """The tensors of one part under our names; keys that the table does not know are left out."""
    names = {key: rename(key, table) for key in state_dict}
    return {name: state_dict[key] for key, name in names.items() if name is not None}


def stack_experts(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An AoMoA layer under our names: experts stacked, constants and the linear layer left out.

    Raises:
        ValueError: If an expert between the first and the last is missing.
    """
    stacks: dict[str, dict[int, Tensor]] = {}
    for key, value in state_dict.items():
        if match := EXPERT.fullmatch(key):
            stacks.setdefault(f"experts.{match[2]}_{match[3]}", {})[int(match[1])] = value
    for name, parts in stacks.items():
        check_complete(parts, name)
    return convert(state_dict, AOMOA_KEYS) | {
        name: torch.stack([parts[index] for index in sorted(parts)]) for name, parts in stacks.items()
    }


def check_complete(numbers: Iterable[int], what: str) -> None:
    """Raises ValueError unless numbers go from 0 on without a gap."""
    indices = sorted(numbers)
    if missing := sorted(set(range(max(indices) + 1)) - set(indices)):
        raise ValueError(f"{what}: numbers {missing} are missing, found {indices}")


def split_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """DINOv3's tensors with each bias of queries, keys and values, masked as the network does, as one for each of q, v.

    The bias of the keys, which the mask makes zero, stays only where it is not zero. Other tensors stay what they are.
    """
    blocks = tuple(f"{key.removesuffix('storage_tokens')}blocks." for key in tensors if key.endswith("storage_tokens"))
    split: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith(blocks) and key.endswith("attn.qkv.bias"):
            mask = tensors.get(f"{key}_mask")
            masked = value if mask is None else torch.where(mask.isnan() | (mask == 0), 0, value)
            parts = dict(zip("qkv", masked.chunk(3), strict=True))
            split |= {f"{key}[{part}]": bias for part, bias in parts.items() if part != "k" or bool(bias.any())}
        elif not (key.startswith(blocks) and key.endswith("attn.qkv.bias_mask")):
            split[key] = value
    return split


def join_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``split_biases``, the mask included."""
    joined = {
        key: value for key, value in tensors.items() if not key.endswith(("attn.qkv.bias[q]", "attn.qkv.bias[v]"))
    }
    for key, queries in tensors.items():
        if key.endswith("attn.qkv.bias[q]"):
            name = key.removesuffix("[q]")
            width = len(tensors[f"{name.removesuffix('bias')}weight"]) // 3
            values = tensors[f"{name}[v]"].expand(width)
            joined[name] = torch.cat([queries.expand(width), torch.zeros_like(values), values])
            joined[f"{name}_mask"] = torch.cat(
                [torch.ones_like(values), torch.zeros_like(values), torch.ones_like(values)]
            )
    return joined

"""Finds the parts of the model in a whole checkpoint of the release, by the structure of its keys.

Only the keys of the parts are known for certain; under which prefixes they stand in a whole checkpoint is found out:

* backbone: whatever stands before ``blocks.<i>.norm1.weight``, the deepest if there are several; timm's names, where
  a linear layer with AoMoA beside it is ``<layer>.linear.*``, ``<layer>.blocks_MoA.*`` and ``<layer>.scaler``;
* hyper tokenizer: before ``spa_query``; low-rank patch path: ``down``, ``up`` and ``scaler`` side by side, with
  neither ``linear`` nor ``in_scaler`` there;
* Are-adapter: before ``refine_spa.0.weight``;
* decoder of stage 1: before ``decoder_embed.weight`` or ``decoder_blocks.<i>``, in the names of MAE; AoMoA may stand
  beside ``decoder_embed`` and ``decoder_pred`` as beside a linear layer of the backbone;
* neck: ``lateral_convs.0.conv`` beside ``convs.0.conv``; head: before ``fpn_bottleneck.conv.weight``, both in the
  names of mmsegmentation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from spectralx.released.files import unwrap
from spectralx.released.keys import (
    AOMOA_KEYS,
    ARE_KEYS,
    CONSTANTS,
    DINO_BIAS,
    DINO_KEYS,
    EXPERT,
    HEAD_KEYS,
    HYPER_KEYS,
    NECK_KEYS,
    PATCH_KEYS,
    RECONSTRUCTION_KEYS,
    Table,
    rename,
    split_biases,
)

BACKBONE_PARTS = ("cls_token", "reg_token", "pos_embed", "patch_embed", "norm_pre", "blocks", "norm")
"""First steps of the backbone's keys; all others are of no use here."""

EXTRA = "spectralx_extra"
"""Prefix of tensors of this package that the release has no name for."""


DINO_UNNEEDED = {
    "mask_token": "stands for hidden patches in DINOv3's own pretraining alone",
    "rope_embed.periods": "fixed periods of the rotary positions, which are computed",
    "local_cls_norm.": "norm of small crops in DINOv3's own pretraining alone",
}
"""Beginnings of keys of DINOv3's transformer that segmentation does not use, and why."""


@dataclass(frozen=True)
class Place:
    """Where a tensor of a checkpoint belongs.

    Attributes:
        name: Key in the ``state_dict`` of our ``SpectralX``.
        index: Position along the first dimension, for experts, which the release keeps apart; None for the whole.
        shape: Shape in the checkpoint, where it is known.
        dtype: Type of numbers in the checkpoint, where it is known.
    """

    name: str
    index: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None

    def __str__(self) -> str:
        """The name, with the index behind it."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"


@dataclass(frozen=True)
class Checkpoint:
    """What the keys of a checkpoint mean.

    Attributes:
        places: Key of the release -> where its tensor belongs.
        constants: Keys that hold the same in every checkpoint, with their value.
        unknown: Keys that belong to no part.
        roots: Part -> the prefix it was found under.
        ignored: Keys of the release that no model needs -> why.
    """

    places: dict[str, Place]
    constants: dict[str, float]
    unknown: tuple[str, ...]
    roots: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def read_checkpoint(source: Mapping[str, Any] | Iterable[str]) -> Checkpoint:
    """Finds out what the keys of a checkpoint mean.

    Args:
        source: Tensors by key, also inside a wrapper such as ``{"state_dict": ...}``; or the keys alone.

    Returns:
        The map from the release's keys to ours, and what it leaves over.

    Raises:
        ValueError: If there are no keys, a part occurs more than once, or two keys mean the same tensor.
    """
    tensors: dict[str, Tensor] = split_biases(unwrap(source)) if isinstance(source, Mapping) else {}
    keys = list(tensors) or [str(key) for key in source]
    if not keys:
        raise ValueError("no keys: expected those of a checkpoint")
    roots = _roots(keys)
    places: dict[str, Place] = {}
    constants: dict[str, float] = {}
    unknown = []
    present = set(keys)
    ignored = {key: reason for key in keys if (reason := _unneeded(key, roots, present))}
    for key in keys:
        if key in ignored:
            continue
        meaning = _meaning(key, roots)
        if meaning is None:
            unknown.append(key)
        elif isinstance(meaning, float):
            constants[key] = meaning
        else:
            if key in tensors:
                meaning = replace(meaning, shape=tuple(tensors[key].shape), dtype=tensors[key].dtype)
            places[key] = meaning
    twice = [place for place, number in Counter(str(place) for place in places.values()).items() if number > 1]
    if twice:
        clash = sorted(key for key, place in places.items() if str(place) == twice[0])
        raise ValueError(f"several keys mean {twice[0]}: {', '.join(clash)}")
    return Checkpoint(places, constants, tuple(unknown), roots, ignored)


def _roots(keys: list[str]) -> dict[str, str]:
    """Part -> prefix, for the parts that occur."""
    present = set(keys)
    prefixes: dict[str, set[str]] = {}
    anchors = {
        "backbone": r"blocks\.\d+\.norm1\.weight",
        "hyper_tokenizer": r"spa_query",
        "are_adapter": r"refine_spa\.0\.weight",
        "reconstruction": r"(?:decoder_embed\.(?:linear\.)?weight|decoder_blocks\.\d+\.norm1\.weight)",
        "neck": r"convs\.0\.conv\.weight",
        "head": r"fpn_bottleneck\.conv\.weight",
        "patch_path": r"down\.weight",
        "extra": rf"{EXTRA}\..+",
        "dino": r"storage_tokens",
    }
    for part, anchor in anchors.items():
        pattern = re.compile(rf"((?:.+?\.)?){anchor}")
        prefixes[part] = {match[1] for key in keys if (match := pattern.fullmatch(key))}
    prefixes["neck"] = {root for root in prefixes["neck"] if f"{root}lateral_convs.0.conv.weight" in present}
    prefixes["patch_path"] = {
        root
        for root in prefixes["patch_path"]
        if f"{root}up.weight" in present and not {f"{root}linear.weight", f"{root}in_scaler"} & present
    }
    # Transformer blocks of our own, spared for tensors that the release does not have, are no second backbone.
    prefixes["backbone"] = _largest({root for root in prefixes["backbone"] if EXTRA not in root.split(".")}, keys)
    for part, roots in prefixes.items():
        if len(roots) > 1:
            raise ValueError(
                f"found {part} under {', '.join(repr(root) for root in sorted(roots))}, expected it once: "
                "pass the part of the checkpoint that is meant"
            )
    return {part: root for part, roots in prefixes.items() for root in roots}


def _largest(roots: set[str], keys: list[str]) -> set[str]:
    """The backbone among several transformers: the one with most blocks; all that are equally deep."""
    depths = {
        root: len(
            {key.removeprefix(root + "blocks.").split(".")[0] for key in keys if key.startswith(root + "blocks.")}
        )
        for root in roots
    }
    return {root for root, depth in depths.items() if depth == max(depths.values())}


def _unneeded(key: str, roots: dict[str, str], present: set[str]) -> str | None:
    """Why a key of the release is left out; None for what has a meaning, or is not known."""
    if key.endswith("mask_token") and f"{key}_decoder" in present:
        return "the decoder has a mask token of its own, mask_token_decoder"
    if key.endswith("decoder_pos_embed") and "reconstruction" in roots:
        return "fixed positions, which are computed"
    beginnings: dict[str, str] = {}
    if (dino := roots.get("dino")) is not None:
        beginnings |= {dino + name: reason for name, reason in DINO_UNNEEDED.items()}
    if (backbone := roots.get("backbone")) is not None:
        above = re.sub(r"[^.]+\.$", "", backbone)
        beginnings[f"{above}aux_head."] = "the auxiliary head, which serves training alone"
        if above != backbone:
            beginnings[f"{above}norm."] = "a LayerNorm beside the transformer, which nothing calls"
        if roots.get("head") != f"{backbone}head.":
            beginnings[f"{backbone}head."] = "timm's classifier, which nothing calls"
    return next((reason for begin, reason in beginnings.items() if key.startswith(begin)), None)


def _meaning(key: str, roots: dict[str, str]) -> Place | float | None:
    """Place, value of a constant, or None for what is not known."""
    tables: tuple[tuple[str, str, Table], ...] = (
        ("hyper_tokenizer", "hyper_tokenizer.", HYPER_KEYS),
        ("patch_path", "patch_path.", PATCH_KEYS),
        ("are_adapter", "are_adapter.", ARE_KEYS),
        ("head", "decoder.head.", HEAD_KEYS),
        ("neck", "decoder.neck.", NECK_KEYS),
        ("reconstruction", "reconstruction.", RECONSTRUCTION_KEYS),
    )
    if "extra" in roots and key.startswith(f"{roots['extra']}{EXTRA}."):
        return Place(key.removeprefix(f"{roots['extra']}{EXTRA}."))
    if "reconstruction" in roots and key.startswith(roots["reconstruction"]):
        decodes = _in_reconstruction(key.removeprefix(roots["reconstruction"]))
        if decodes is not None:
            return decodes
    for part, ours, table in tables:
        if part in roots and key.startswith(roots[part]):
            name = rename(key.removeprefix(roots[part]), table)
            if name is not None:
                return Place(ours + name)
    if "backbone" in roots and key.startswith(roots["backbone"]):
        rest = key.removeprefix(roots["backbone"])
        dino = roots.get("dino") == roots["backbone"]
        if rest.split(".")[0] == "blocks":
            return _in_blocks(rest, "backbone.", "adapters.", dino)
        if dino:
            rest = rename(rest, DINO_KEYS) or rest
        # A patch convolution inside the low-rank module, which stands in its place.
        if roots.get("patch_path", "").removeprefix(roots["backbone"]) == "patch_embed.proj.":
            rest = re.sub(r"^patch_embed\.proj\.proj\.", "patch_embed.proj.", rest)
        if rest.split(".")[0] in BACKBONE_PARTS:
            return Place("backbone." + rest)
    return None


def _in_reconstruction(rest: str) -> Place | float | None:
    """Meaning of a key of the decoder of stage 1 that AoMoA changes, or that stands in a block."""
    if rest == "mask_token_decoder":
        return Place("reconstruction.mask_token")
    if rest.startswith("decoder_blocks."):
        return _in_blocks(rest.removeprefix("decoder_"), "reconstruction.", "reconstruction.adapters.")
    if match := re.fullmatch(r"decoder_(embed|pred)\.(blocks_MoA\..+|scaler|linear\..+)", rest):
        layer = {"embed": "embed", "pred": "predict"}[match[1]]
        if match[2].startswith("linear."):
            return Place(f"reconstruction.{layer}.{match[2].removeprefix('linear.')}")
        return _in_aomoa(match[2], f"reconstruction.{layer}_adapter.")
    return None


def _in_aomoa(name: str, layer: str) -> Place | float | None:
    """Meaning of a key of the experts beside a linear layer; ``layer`` is what they are called in our model."""
    if name in CONSTANTS:
        return CONSTANTS[name]
    if expert := EXPERT.fullmatch(name):
        return Place(f"{layer}experts.{expert[2]}_{expert[3]}", int(expert[1]))
    renamed = rename(name, AOMOA_KEYS)
    return None if renamed is None else Place(layer + renamed)


def _in_blocks(rest: str, blocks: str, adapters: str, dino: bool = False) -> Place | float | None:
    """Meaning of a key ``blocks.<i>...`` of a transformer."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", rest)
    if match is None:
        return None
    number, inner = match.groups()
    if beside := re.fullmatch(r"mlp\.(fc[12])\.(blocks_MoA\..+|scaler)", inner):
        return _in_aomoa(beside[2], f"{adapters}{number}.{beside[1]}.")
    inner = re.sub(r"^(attn|mlp)\.(\w+)\.linear\.", r"\1.\2.", inner)
    if dino:
        inner = DINO_BIAS.sub(r"attn.\1_bias", rename(inner, DINO_KEYS) or inner)
    return Place(f"{blocks}blocks.{number}.{inner}")

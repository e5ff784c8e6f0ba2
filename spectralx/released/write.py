"""Writes a model's tensors under the keys of the release."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from spectralx.model import SpectralX
from spectralx.released.checkpoint import EXTRA, Place, read_checkpoint
from spectralx.released.keys import (
    AOMOA_KEYS,
    ARE_KEYS,
    CONSTANTS,
    DINO_KEYS,
    HEAD_KEYS,
    HYPER_KEYS,
    NECK_KEYS,
    PATCH_KEYS,
    RECONSTRUCTION_KEYS,
    Table,
    join_biases,
    rename_back,
)
from spectralx.released.transfer import CLASSIFIER, Report, has, is_idle, shortened

StageNumber = Literal[1, 2]

ROOTS: dict[StageNumber, str] = {1: "model.", 2: "model.vit_backbone."}
"""What stands before the transformer's keys in the release's files of a stage."""

NOT_IN: dict[StageNumber | None, tuple[str, ...]] = {
    None: (),
    1: ("are_adapter.", "decoder."),
    2: ("reconstruction.",),
}
"""Our parts that a file of a stage does not have."""

NEVER = 100.0
"""How much lower than class 1 the channel of class 0 is written, everywhere: it can win no pixel."""


@torch.no_grad()
def to_released(
    model: SpectralX,
    like: Report | Mapping[str, Any] | Iterable[str] | None = None,
    stage: StageNumber | None = None,
) -> dict[str, Tensor]:
    """A model's tensors under the keys of the release.

    The release's head has a first channel for pixels without a label, and ours has none. It is written as a copy of
    the next channel that is lower by ``NEVER`` for every image, so that it wins no pixel.

    Args:
        like: Which keys to write: those that ``load_released`` read, those of a checkpoint, or any keys. By default
            the names of ``stage``.
        stage: 1 or 2 for what the release keeps of that stage, under its names. By default all of the model: as stage
            2, with the decoder of stage 1 beside it, which the release would not read.

    Returns:
        Copies by key, constants of the release included; in the shapes and types of ``like`` where it knows them.

    Raises:
        ValueError: If the model holds nothing for one of the keys.
    """
    idle = [name for name in model.state_dict() if name.startswith("backbone.patch_embed.") and is_idle(model, name)]
    return state_to_released({k: v for k, v in model.state_dict().items() if k not in idle}, like, stage)


@torch.no_grad()
def state_to_released(
    state: Mapping[str, Tensor],
    like: Report | Mapping[str, Any] | Iterable[str] | None = None,
    stage: StageNumber | None = None,
) -> dict[str, Tensor]:
    """As ``to_released``, from a model's tensors by our names."""
    if isinstance(like, Report):
        places, constants = like.loaded, like.constants
    else:
        checkpoint = read_checkpoint(_default_keys(state, stage) if like is None else like)
        places, constants = checkpoint.places, dict(checkpoint.constants)
        biases = {key: place for key, place in places.items() if place.name.endswith(("attn.q_bias", "attn.v_bias"))}
        for key in [key for key, place in biases.items() if not has(state, place)]:
            constants[key] = 0.0
            del places[key]
        lost = [*checkpoint.unknown, *(key for key, place in places.items() if not has(state, place))]
        if lost:
            raise ValueError(f"the model holds nothing for {len(lost)} keys: {shortened(', '.join(sorted(lost)))}")
    written = {key: torch.full((1,), value) for key, value in constants.items()}
    for key, place in places.items():
        value = state[place.name] if place.index is None else state[place.name][place.index]
        shape = place.shape
        if place.name.startswith(CLASSIFIER) and (shape is None or shape[0] == len(value) + 1):
            value = _with_void(place.name, value)
        if shape is None and place.name == "reconstruction.mask_token":
            shape = (1, 1, value.numel())
        value = value.to(place.dtype or value.dtype, copy=True)
        written[key] = value if shape is None else value.reshape(shape)
    return join_biases(written)


def _with_void(name: str, value: Tensor) -> Tensor:
    """Weight or bias of the last layer with a first row for class 0, which can win nowhere."""
    first = value[:1] - NEVER if name.endswith("bias") else value[:1]
    return torch.cat([first, value])


def _default_keys(state: Mapping[str, Tensor], stage: StageNumber | None) -> list[str]:
    root = ROOTS[stage or 2]
    wanted: dict[str, Place] = {}
    constants: set[str] = set()
    for name, value in state.items():
        if name.startswith(NOT_IN[stage]):
            continue
        for key, place in _default_places(name, value, state, root).items():
            wanted[key] = place
            if ".blocks_MoA." in key:
                constants |= {key.partition("blocks_MoA.")[0] + constant for constant in CONSTANTS}
            elif key.startswith(f"{root}blocks.") and key.endswith("attn.qkv.weight") and _is_dino(state):
                stem = key.removesuffix("weight")
                constants |= {f"{stem}bias[{part}]" for part in "qv"}
    # What the release's names would not lead back to, such as another decoder, goes under a name of its own.
    understood = read_checkpoint(wanted.keys()).places
    keys = {key if understood.get(key) == place else f"{EXTRA}.{place.name}" for key, place in wanted.items()}
    return sorted(keys | constants)


def _is_dino(state: Mapping[str, Tensor]) -> bool:
    """Whether the transformer is timm's Eva in DINOv3's shape, whose names the release does not have."""
    return "backbone.reg_token" in state and "backbone.blocks.0.gamma_1" in state


def _default_places(name: str, value: Tensor, state: Mapping[str, Tensor], root: str) -> dict[str, Place]:
    """Keys of the release for one tensor of ours."""
    whole = Place(name)
    experts = len(value) if value.ndim else 0
    if match := re.fullmatch(r"(reconstruction\.)?adapters\.(\d+)\.(fc[12])\.(.+)", name):
        layer = f"{root}{'decoder_' if match[1] else ''}blocks.{match[2]}.mlp.{match[3]}."
        return _aomoa_keys(name, match[4], layer, experts)
    if match := re.fullmatch(r"reconstruction\.(embed|predict)(_adapter)?\.(.+)", name):
        layer = f"{root}decoder_{match[1].replace('predict', 'pred')}."
        if match[2]:
            return _aomoa_keys(name, match[3], layer, experts)
        inner = "linear." if _has_below(state, f"reconstruction.{match[1]}_adapter.") else ""
        return {f"{layer}{inner}{match[3]}": whole}
    if match := re.fullmatch(r"(backbone|reconstruction)\.(blocks\.(\d+)\..+)", name):
        return {root + _in_block(match[2], match[1] == "reconstruction", match[3], state): whole}
    key = _plain_key(name, state, root)
    return {f"{EXTRA}.{name}" if key is None else key: whole}


def _plain_key(name: str, state: Mapping[str, Tensor], root: str) -> str | None:
    """The key of a tensor that stands in no block and beside no experts."""
    if name == "reconstruction.mask_token" and _has_below(state, "reconstruction.fpn."):
        return f"{root}mask_token_decoder"
    if name.startswith("backbone."):
        inner = re.sub(r"^patch_embed\.proj\.", "patch_embed.proj.proj.", name.removeprefix("backbone."))
        return root + ((rename_back(inner, DINO_KEYS) if _is_dino(state) else None) or inner)
    for ours, theirs, table in _layout(root):
        if name.startswith(ours) and (key := rename_back(name.removeprefix(ours), table)) is not None:
            return theirs + key
    return None


def _in_block(rest: str, decodes: bool, number: str, state: Mapping[str, Tensor]) -> str:
    """The key of ``blocks.<i>...`` below the transformer's or the decoder's prefix."""
    begin = f"blocks.{number}."
    inner = rest.removeprefix(begin)
    if _has_below(state, f"{'reconstruction.' if decodes else ''}adapters.{number}."):
        inner = re.sub(r"^mlp\.(fc[12])\.", r"mlp.\1.linear.", inner)
    if not decodes and _is_dino(state):
        inner = re.sub(r"^attn\.([qv])_bias$", r"attn.qkv.bias[\1]", rename_back(inner, DINO_KEYS) or inner)
    return f"{'decoder_' if decodes else ''}{begin}{inner}"


def _has_below(state: Mapping[str, Tensor], begin: str) -> bool:
    return any(name.startswith(begin) for name in state)


def _layout(root: str) -> tuple[tuple[str, str, Table], ...]:
    """Our part, its prefix in the release, and its names there."""
    return (
        ("hyper_tokenizer.", f"{root}patch_embed.proj.proj.", HYPER_KEYS),
        ("patch_path.", f"{root}patch_embed.proj.", PATCH_KEYS),
        ("are_adapter.", "model.AreApt.", ARE_KEYS),
        ("decoder.neck.", "model.neck.", NECK_KEYS),
        ("decoder.head.", "model.head.", HEAD_KEYS),
        ("reconstruction.", root, RECONSTRUCTION_KEYS),
    )


def _aomoa_keys(name: str, inner: str, layer: str, experts: int) -> dict[str, Place]:
    """Keys of the release for a tensor of the experts beside the linear layer that it calls ``layer``."""
    if expert := re.fullmatch(r"experts\.(fc[12])_(weight|bias)", inner):
        stem = f"{layer}blocks_MoA.MoA.experts."
        return {f"{stem}{i}.{expert[1]}.{expert[2]}": Place(name, i) for i in range(experts)}
    theirs = rename_back(inner, AOMOA_KEYS)
    return {f"{layer}{theirs}": Place(name)} if theirs else {f"{EXTRA}.{name}": Place(name)}

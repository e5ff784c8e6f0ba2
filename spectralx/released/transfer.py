"""Brings whole checkpoints of the release into our model, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spectralx.model import SpectralX
from spectralx.released.checkpoint import EXTRA, Checkpoint, Place, read_checkpoint
from spectralx.released.files import unwrap
from spectralx.released.keys import (
    AOMOA_KEYS,
    ARE_KEYS,
    CONSTANTS,
    HEAD_KEYS,
    HYPER_KEYS,
    NECK_KEYS,
    PATCH_KEYS,
    RECONSTRUCTION_KEYS,
    Table,
    rename_back,
)

ALMOST_NOTHING = 0.1
"""A checkpoint is refused if a smaller share than this of its tensors, and of the model's, find each other."""

DEFAULT_LAYOUT: tuple[tuple[str, str, Table], ...] = (
    ("hyper_tokenizer.", "backbone.patch_embed.proj.proj.", HYPER_KEYS),
    ("patch_path.", "backbone.patch_embed.proj.", PATCH_KEYS),
    ("are_adapter.", "backbone.are_adapter.", ARE_KEYS),
    ("decoder.neck.", "neck.", NECK_KEYS),
    ("decoder.head.", "decode_head.", HEAD_KEYS),
    ("reconstruction.", "backbone.", RECONSTRUCTION_KEYS),
)
"""Our part, its prefix in a checkpoint written without a pattern, and its names. Transformer blocks stand under
``backbone.blocks`` and ``backbone.decoder_blocks``; what the release has no name for under ``EXTRA``."""


@dataclass(frozen=True)
class Mismatch:
    """A tensor that does not fit.

    Attributes:
        path: Key in the checkpoint.
        name: Key in our model.
        expected: Shape in our model.
        shape: Shape in the checkpoint.
    """

    path: str
    name: str
    expected: tuple[int, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.path} -> {self.name}: expected {self.expected}, found {self.shape}"


@dataclass(frozen=True)
class Report:
    """What became of a checkpoint. Every key of it is in exactly one of the first five.

    Attributes:
        loaded: Key of the release -> where its tensor is now.
        constants: Keys that hold the same in every checkpoint, which we do not store -> their value.
        mismatched: Tensors of another shape than the model's; not loaded.
        unplaced: Keys that are understood, but that this model has no part for (or constants with unheard-of values).
        unknown: Keys that are not understood.
        missing: What the model uses and the checkpoint lacks; it keeps its value.
        idle: What the checkpoint lacks and the model does not use.
    """

    loaded: dict[str, Place]
    constants: dict[str, float]
    mismatched: tuple[Mismatch, ...]
    unplaced: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    idle: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every key found its place, and nothing that the model uses is missing."""
        return not (self.mismatched or self.unplaced or self.unknown or self.missing)

    def __str__(self) -> str:
        """Counts, then one line for everything that was left over."""
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.constants)} constants"]
        leftovers: tuple[tuple[str, Iterable[object]], ...] = (
            ("shape differs", self.mismatched),
            ("no part for it in this model", self.unplaced),
            ("not understood", self.unknown),
            ("missing in the checkpoint", self.missing),
        )
        return "\n".join(lines + [f"{label}: {item}" for label, items in leftovers for item in items])


@torch.no_grad()
def load_released(model: SpectralX, state_dict: Mapping[str, Any], strict: bool = False) -> Report:
    """Fills a model with what a checkpoint of the release holds for it.

    The order of the values of a patch in ``decoder_pred`` is not known from its keys: they are taken as they stand,
    and so are positions of a backbone that our model computes.

    Args:
        model: The model, of the sizes that the checkpoint was trained with; changed only if nothing is raised.
        state_dict: Tensors by key under any prefix, also inside a wrapper such as ``{"state_dict": ...}``.
        strict: Whether to refuse a checkpoint that does not fit completely.

    Returns:
        What was loaded, and everything that was not.

    Raises:
        ValueError: If almost nothing fits, a part occurs more than once, or, if ``strict``, anything is left over.
    """
    tensors = unwrap(state_dict)
    targets = model.state_dict()
    checkpoint = read_checkpoint(tensors)
    report = _compare(model, targets, tensors, checkpoint)
    shares = (len(report.loaded) / len(tensors), len(report.loaded) / len(targets))
    if max(shares) < ALMOST_NOTHING or (strict and not report.complete):
        reason = "it does not fit completely" if strict else "almost nothing in it fits"
        raise ValueError(
            f"the checkpoint of {len(tensors)} tensors is not for this model of {len(targets)}: {reason}\n"
            + _shortened(str(report))
        )
    for key, place in report.loaded.items():
        target = targets[place.name] if place.index is None else targets[place.name][place.index]
        target.copy_(tensors[key].reshape(target.shape))
    return report


@torch.no_grad()
def to_released(model: SpectralX, like: Report | Mapping[str, Any] | Iterable[str] | None = None) -> dict[str, Tensor]:
    """A model's tensors under the keys of the release.

    Args:
        model: The model.
        like: Which keys to write: those that ``load_released`` read, those of a checkpoint, or any keys. By default
            the whole model in ``DEFAULT_LAYOUT``.

    Returns:
        Copies by key, constants of the release included; in the shapes and types of ``like`` where it knows them.

    Raises:
        ValueError: If the model holds nothing for one of the keys.
    """
    state = model.state_dict()
    if isinstance(like, Report):
        places, constants = like.loaded, like.constants
    else:
        checkpoint = read_checkpoint(_default_keys(model, state) if like is None else like)
        places, constants = checkpoint.places, checkpoint.constants
        lost = [*checkpoint.unknown, *(key for key, place in places.items() if not _has(state, place))]
        if lost:
            raise ValueError(f"the model holds nothing for {len(lost)} keys: {_shortened(', '.join(sorted(lost)))}")
    written = {key: torch.full((1,), value) for key, value in constants.items()}
    for key, place in places.items():
        value = state[place.name] if place.index is None else state[place.name][place.index]
        shape = place.shape
        if shape is None and place.name == "reconstruction.mask_token":
            shape = (1, 1, value.numel())
        value = value.to(place.dtype or value.dtype, copy=True)
        written[key] = value if shape is None else value.reshape(shape)
    return written


def _compare(
    model: SpectralX, targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], checkpoint: Checkpoint
) -> Report:
    loaded: dict[str, Place] = {}
    mismatched, unplaced = [], []
    for key, place in checkpoint.places.items():
        if not _has(targets, place):
            unplaced.append(key)
            continue
        expected = targets[place.name].shape[0 if place.index is None else 1 :]
        if _fits(tensors[key].shape, expected):
            loaded[key] = place
        else:
            mismatched.append(Mismatch(key, str(place), tuple(expected), tuple(tensors[key].shape)))
    constants = {}
    for key, value in checkpoint.constants.items():
        if bool((tensors[key] == value).all()):
            constants[key] = value
        else:
            unplaced.append(key)
    missing: list[str] = []
    idle: list[str] = []
    filled = {str(place) for place in loaded.values()}
    for name, target in targets.items():
        if name.endswith("num_batches_tracked"):  # acts on nothing
            continue
        wanted = [name] if _EXPERTS not in name else [f"{name}[{index}]" for index in range(len(target))]
        lacking = [entry for entry in wanted if entry not in filled and name not in filled]
        (idle if _is_idle(model, name) else missing).extend(lacking)
    return Report(
        loaded, constants, tuple(mismatched), tuple(unplaced), checkpoint.unknown, tuple(missing), tuple(idle)
    )


_EXPERTS = ".experts."


def _has(state: Mapping[str, Tensor], place: Place) -> bool:
    return place.name in state and (place.index is None or place.index < len(state[place.name]))


def _fits(shape: torch.Size, expected: torch.Size) -> bool:
    """Vectors and single numbers may come with dimensions of size 1, such as the mask token of MAE."""
    return shape == expected or (len(expected) <= 1 and [n for n in shape if n > 1] == [n for n in expected if n > 1])


def _is_idle(model: SpectralX, name: str) -> bool:
    """Whether a tensor of the backbone is there and not used."""
    if name.startswith("backbone.patch_embed."):
        return model.hyper_tokenizer is not None
    return name == "backbone.pos_embed" and model.config.positions != "backbone"


def _default_keys(model: SpectralX, state: Mapping[str, Tensor]) -> list[str]:
    wanted: dict[str, Place] = {}
    constants: set[str] = set()
    for name, value in state.items():
        if _is_idle(model, name):
            continue
        for key, place in _default_places(name, value, state).items():
            wanted[key] = place
            if ".blocks_MoA." in key:
                constants |= {key.partition("blocks_MoA.")[0] + constant for constant in CONSTANTS}
    # What the release's names would not lead back to, such as another decoder, goes under a name of its own.
    understood = read_checkpoint(wanted.keys()).places
    keys = {key if understood.get(key) == place else f"{EXTRA}.{place.name}" for key, place in wanted.items()}
    return sorted(keys | constants)


def _default_places(name: str, value: Tensor, state: Mapping[str, Tensor]) -> dict[str, Place]:
    """Keys of the release for one tensor of ours."""
    whole = Place(name)
    if match := re.fullmatch(r"(reconstruction\.)?adapters\.(\d+)\.(fc[12])\.(.+)", name):
        layer = f"backbone.{'decoder_' if match[1] else ''}blocks.{match[2]}.mlp.{match[3]}."
        if expert := re.fullmatch(r"experts\.(fc[12])_(weight|bias)", match[4]):
            stem = f"{layer}blocks_MoA.MoA.experts."
            return {f"{stem}{i}.{expert[1]}.{expert[2]}": Place(name, i) for i in range(len(value))}
        inner = rename_back(match[4], AOMOA_KEYS)
        return {f"{layer}{inner}": whole} if inner else {f"{EXTRA}.{name}": whole}
    if match := re.fullmatch(r"(backbone|reconstruction)\.blocks\.(\d+)\.(.+)", name):
        decodes = match[1] == "reconstruction"
        inner = match[3]
        beside = ("reconstruction." if decodes else "") + f"adapters.{match[2]}."
        if any(other.startswith(beside) for other in state):
            inner = re.sub(r"^mlp\.(fc[12])\.", r"mlp.\1.linear.", inner)
        return {f"backbone.{'decoder_' if decodes else ''}blocks.{match[2]}.{inner}": whole}
    if name.startswith("backbone."):
        return {re.sub(r"^backbone\.patch_embed\.proj\.", "backbone.patch_embed.proj.proj.", name): whole}
    for ours, theirs, table in DEFAULT_LAYOUT:
        if name.startswith(ours) and (key := rename_back(name.removeprefix(ours), table)) is not None:
            return {theirs + key: whole}
    return {f"{EXTRA}.{name}": whole}


def _shortened(text: str, limit: int = 2000) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."

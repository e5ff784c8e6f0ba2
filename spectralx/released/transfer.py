"""Brings whole checkpoints of the release into our model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spectralx.model import SpectralX
from spectralx.released.checkpoint import Checkpoint, Place, read_checkpoint
from spectralx.released.files import unwrap
from spectralx.released.keys import split_biases

ALMOST_NOTHING = 0.1
"""A checkpoint is refused if a smaller share than this of its tensors, and of the model's, find each other."""

CLASSIFIER = "decoder.head.classify."
"""Our last layer. The release's has a channel more, the first, for pixels without a label."""


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
    """What became of a checkpoint.

    Every key of it is in exactly one of ``loaded``, ``constants``, ``mismatched``, ``unplaced``, ``unknown`` and
    ``ignored``; DINOv3's biases of queries, keys and values as one key for each.

    Attributes:
        loaded: Key of the release -> where its tensor is now.
        constants: Keys that hold the same in every checkpoint, which we do not store -> their value.
        mismatched: Tensors of another shape than the model's; not loaded.
        unplaced: Keys that are understood, but that this model has no part for (or constants with unheard-of values).
        unknown: Keys that are not understood.
        missing: What the model uses and the checkpoint lacks; it keeps its value.
        idle: What the checkpoint lacks and the model does not use.
        ignored: Keys of the release that no model needs -> why.
        without_void: Keys of ``loaded`` whose first row, the release's class 0 (no label), is left out.
    """

    loaded: dict[str, Place]
    constants: dict[str, float]
    mismatched: tuple[Mismatch, ...]
    unplaced: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    idle: tuple[str, ...]
    ignored: dict[str, str] = field(default_factory=dict)
    without_void: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every key found its place, and nothing that the model uses is missing."""
        return not (self.mismatched or self.unplaced or self.unknown or self.missing)

    def __str__(self) -> str:
        """Counts, then one line for everything that was left over."""
        lines = [f"{len(self.loaded)} tensors loaded, {len(self.constants)} constants, {len(self.ignored)} not needed"]
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
    tensors = split_biases(unwrap(state_dict))
    targets = model.state_dict()
    checkpoint = read_checkpoint(tensors)
    report = compare(model, tensors, checkpoint)
    shares = (len(report.loaded) / len(tensors), len(report.loaded) / len(targets))
    if max(shares) < ALMOST_NOTHING or (strict and not report.complete):
        reason = "it does not fit completely" if strict else "almost nothing in it fits"
        raise ValueError(
            f"the checkpoint of {len(tensors)} tensors is not for this model of {len(targets)}: {reason}\n"
            + shortened(str(report))
        )
    for key, place in report.loaded.items():
        target = targets[place.name] if place.index is None else targets[place.name][place.index]
        value = tensors[key][1:] if key in report.without_void else tensors[key]
        target.copy_(value.reshape(target.shape))
    return report


def compare(model: SpectralX, tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> Report:
    """What of a checkpoint fits a model, by names and shapes; nothing is changed.

    Args:
        model: The model; its tensors may be on the device ``meta``.
        tensors: Those of the checkpoint, as ``split_biases`` gives them.
        checkpoint: What their keys mean.
    """
    targets = model.state_dict()
    loaded: dict[str, Place] = {}
    constants: dict[str, float] = {}
    mismatched, unplaced, without_void = [], [], []
    for key, place in checkpoint.places.items():
        if not has(targets, place):
            # A network without biases of its queries is the same as one in which they are zero.
            if place.name.endswith(("attn.q_bias", "attn.v_bias")) and not bool(tensors[key].any()):
                constants[key] = 0.0
            else:
                unplaced.append(key)
            continue
        expected = targets[place.name].shape[0 if place.index is None else 1 :]
        if place.name.startswith(CLASSIFIER) and tensors[key].shape == (expected[0] + 1, *expected[1:]):
            loaded[key] = place
            without_void.append(key)
        elif _fits(tensors[key].shape, expected):
            loaded[key] = place
        else:
            mismatched.append(Mismatch(key, str(place), tuple(expected), tuple(tensors[key].shape)))
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
        (idle if is_idle(model, name) else missing).extend(lacking)
    return Report(
        loaded, constants, tuple(mismatched), tuple(unplaced), checkpoint.unknown, tuple(missing), tuple(idle),
        checkpoint.ignored, tuple(without_void),
    )  # fmt: skip


_EXPERTS = ".experts."


def has(state: Mapping[str, Tensor], place: Place) -> bool:
    """Whether a state has a place."""
    return place.name in state and (place.index is None or place.index < len(state[place.name]))


def _fits(shape: torch.Size, expected: torch.Size) -> bool:
    """Vectors and single numbers may come with dimensions of size 1, such as the mask token of MAE."""
    return shape == expected or (len(expected) <= 1 and [n for n in shape if n > 1] == [n for n in expected if n > 1])


def is_idle(model: SpectralX, name: str) -> bool:
    """Whether a tensor of the backbone is there and not used."""
    if name.startswith("backbone.patch_embed."):
        return model.hyper_tokenizer is not None
    return name == "backbone.pos_embed" and model.config.positions != "backbone"


def shortened(text: str, limit: int = 2000) -> str:
    """A text that is not too long for a message."""
    return text if len(text) <= limit else text[:limit] + " ..."

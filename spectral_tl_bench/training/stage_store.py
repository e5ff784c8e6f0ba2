"""Trained first stages on disk: one folder each, with the tensors and a card that says what they come from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from spectral_tl_bench.errors import StageError
from spectral_tl_bench.files import digest, file_digest, seed_from, write_json
from spectral_tl_bench.models.weights import State, save_tensors
from spectral_tl_bench.storage import STAGES

CARD_FILE = "stage.json"
TENSORS_FILE = "stage.safetensors"
PICTURES_FOLDER = "pictures"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageIdentity(_Strict):
    """All that a trained stage depends on: nothing of the target, the classes, the device or the readers.

    Attributes:
        method: What stands for the method's class, see ``Method.seed_name``.
        options: Its options, those that do not act in the stage at a fixed value.
        backbone: Name, sizes and pretrained weights of the backbone.
        domains: Ids of the source domains.
        chips: Content (the first 16 hex digits of a hash of pixels and labels) by chip, by domain; training only.
        nodata: What is done with pixels that hold no measurement.
        wavelengths: Centre wavelengths in micrometres.
        gsd: Ground sampling distance in metres.
        window: Side of the training windows in pixels.
        normalisation: How images are normalised.
        augment: Which augmentation windows get.
        steps: Optimiser steps.
        batch_size: Windows per step.
        schedule: Of the learning rate.
        precision: Of the computation.
        seed: The run's seed.
        numerics: Numerics version of every component that takes part.
    """

    method: str
    options: dict[str, JsonValue]
    backbone: dict[str, JsonValue]
    dataset: str
    domains: tuple[str, ...]
    chips: dict[str, dict[str, str]]
    nodata: str
    bands: tuple[str, ...]
    wavelengths: tuple[float, ...]
    gsd: float
    window: int
    normalisation: str
    augment: str
    stage: str
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    precision: str
    compile: bool = False
    seed: int
    numerics: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """A hash of everything here."""
        return digest(self.model_dump(mode="json"))

    @property
    def weight_seed(self) -> int:
        """Seed of the weights: from the content, so that it does not matter which run comes first."""
        # Without versions: a seed that moved with every change of code would hide what the change did.
        return seed_from("stage weights", digest(self.model_dump(mode="json", exclude={"numerics"})))

    @property
    def order_seed(self) -> int:
        """Seed of the data order, from source and seed: methods that share these see the same windows."""
        return seed_from("stage order", digest(self.dataset, self.domains, self.chips), self.seed)


class StageCard(_Strict):
    """What is written beside the tensors.

    Attributes:
        format: Version of this file.
        fingerprint: Of ``identity``.
        identity: What the stage depends on.
        relies_on: Hash of the weights that it uses and does not hold, see ``weights_digest``.
        tensors: SHA-256 of the file of tensors.
        seconds: How long the training took.
        trainable: How many parameters it trained.
        loss: (step, training loss) at some steps.
    """

    format: Literal[1] = 1
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    identity: StageIdentity
    relies_on: str
    tensors: str = Field(pattern=r"^[0-9a-f]{64}$")
    seconds: float = Field(ge=0)
    trainable: int = Field(ge=0)
    loss: tuple[tuple[int, float], ...]
    environment: dict[str, str]


def save_stage(
    folder: Path, identity: StageIdentity, state: State, *, relies_on: str, seconds: float, trainable: int,
    loss: list[tuple[int, float]], environment: Mapping[str, str],
) -> StageCard:  # fmt: skip
    """Write a trained stage: tensors first, so that a card never speaks of tensors that are missing.

    Args:
        folder: Where it goes; it is there.
        state: What the stage carries.
        relies_on: Hash of the weights that it uses and does not hold.
        seconds: How long the training took.
        trainable: How many parameters it trained.
        loss: (step, training loss).

    Raises:
        StageError: If a tensor is not finite: the training has diverged.
        OSError: If it cannot be written.
    """
    broken = [name for name, value in state.items() if not bool(value.isfinite().all())]
    if broken:
        raise StageError(
            f"stage {identity.stage!r} has diverged: {broken[0]} is not finite after {identity.steps} steps",
            fix="lower --learning-rate, or use --precision 32-true",
        )
    path = folder / TENSORS_FILE
    save_tensors(state, path)
    card = StageCard(
        fingerprint=identity.fingerprint, identity=identity, relies_on=relies_on, tensors=file_digest(path),
        seconds=seconds, trainable=trainable, loss=tuple(loss), environment=dict(environment),
    )  # fmt: skip
    write_json(folder / CARD_FILE, card.model_dump(mode="json"))
    return card


def read_card(folder: Path) -> StageCard:
    """Read and check the card of a trained stage.

    Raises:
        StageError: If there is none, or it is damaged or was changed.
    """
    path = folder / CARD_FILE
    fix = f"name the folder of a trained stage; those of earlier runs are in {STAGES.folder}"
    if not path.is_file():
        raise StageError(f"there is no trained stage: {CARD_FILE} is missing", where=folder, fix=fix)
    try:
        card = StageCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"]) or "the file as a whole"
        raise StageError(
            f"this is not the card of a trained stage: key {key!r}: {item['msg'].lower()}", where=path, fix=fix
        ) from None
    except (OSError, ValueError) as error:
        raise StageError(f"the card of the stage cannot be read: {error}", where=path, fix=fix) from None
    if card.fingerprint != card.identity.fingerprint:
        raise StageError("the card of the stage was changed: its fingerprint is not that of its content", where=path,
                         fix="restore the file, or train the stage again")  # fmt: skip
    return card


def read_tensors(folder: Path, card: StageCard) -> State:
    """Read the tensors that a card speaks of.

    Raises:
        StageError: If the file is missing, damaged, or not the one that the card was written for.
    """
    path = folder / TENSORS_FILE
    fix = "restore the file, or train the stage again"
    if not path.is_file():
        raise StageError(f"the trained stage has no tensors: {TENSORS_FILE} is missing", where=folder, fix=fix)
    try:
        same = file_digest(path) == card.tensors
        state = load_file(path) if same else {}
    except (OSError, SafetensorError, ValueError) as error:
        raise StageError(f"the tensors of the stage cannot be read: {error}", where=path, fix=fix) from None
    if not same:
        raise StageError(
            f"the tensors are not those that {CARD_FILE} was written for: the file is damaged or foreign",
            where=path, fix=fix,
        )  # fmt: skip
    return state


def misfits(module: nn.Module, state: State, carries: Callable[[str], bool]) -> list[str]:
    """Why a stage's tensors cannot go into a module, one sentence each; empty where they can."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items() if carries(name)}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    return [
        f"tensor {name}: the checkpoint has {shapes.get(name, 'none')}, this run needs {wanted.get(name, 'none')}"
        for name in sorted(wanted.keys() | shapes.keys())
        if wanted.get(name) != shapes.get(name)
    ]

"""Trained weights as a file: what training can change, and a header that says what they belong to.

A file is in the safetensors format; nothing in it is ever executed. Its header holds an ``AdapterCard`` as JSON.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import AdapterError
from spectral_tl_bench.files import atomic_path
from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.models.weights import State, save_tensors, weights_digest, with_frozen_statistics

HEADER = "stbench_adapter"
"""Key of the card in the metadata of the file."""

COMPARED = (
    "method", "options", "backbone", "bands", "wavelengths", "gsd", "classes", "window",
)  # fmt: skip
"""Facts in which a file and the module that it is loaded into must agree."""


class Use(BaseModel):
    """What it takes to apply trained weights to images of one's own, beside the card.

    Attributes:
        benchmark: Definition of the benchmark: bands, unit, classes with their colours.
        track: What they were trained on: ``sample`` for synthetic scenes.
        settings: Settings of the run.
        mean: Of the training chips, per band, in the benchmark's unit; what is unmeasured is filled with it.
        std: Their standard deviation.
        low: Their darkest values, in the middle over chips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    benchmark: Benchmark
    track: str
    protocol: str
    settings: dict[str, JsonValue]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    fingerprint: str


class AdapterCard(BaseModel):
    """What a file of trained weights belongs to.

    Attributes:
        format: Version of the header; 1 has no ``use``.
        method: Entry-point name, by itself or with a preset.
        backbone: Name, sizes and pretrained weights of the backbone.
        backbone_seed: Seed of what is random in the backbone.
        benchmark: Benchmark that it was trained for.
        bands: Band names, in the order of the image channels.
        wavelengths: Centre wavelengths in micrometres.
        gsd: Ground sampling distance in metres.
        classes: Class names, in the order of the logits.
        window: Side of the training windows in pixels.
        frozen: Hash of the weights that the module has beside those in the file.
        environment: Versions that it was trained with.
        use: What it takes to apply the weights; None where a method was saved outside a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1, 2] = 1
    method: str
    options: dict[str, JsonValue]
    backbone: dict[str, JsonValue]
    backbone_seed: int | None
    benchmark: str
    bands: tuple[str, ...]
    wavelengths: tuple[float, ...]
    gsd: float
    classes: tuple[str, ...]
    window: int
    frozen: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    environment: dict[str, str]
    use: Use | None = None

    def usable(self, use: Use) -> AdapterCard:
        """The card with what it takes to apply the weights."""
        return self.model_copy(update={"format": 2, "use": use})


def card_of(name: str, method: Method, task: Task) -> AdapterCard:
    """The card of what ``method`` builds for ``task``.

    Args:
        name: Entry-point name of the method, by itself or with a preset.
    """
    return AdapterCard(
        method=name, options=method.resolved(task).model_dump(mode="json"),
        backbone=json.loads(json.dumps(task.backbone.facts())), backbone_seed=task.backbone.seed,
        benchmark=task.benchmark, bands=task.bands, wavelengths=task.wavelengths, gsd=task.gsd, classes=task.classes,
        window=task.window, environment=_environment(),
    )  # fmt: skip


def changeable(module: nn.Module) -> set[str]:
    """Names of what training can change in a module as it was built.

    These are the trainable parameters, and the buffers of its ``state_dict`` but for the statistics of frozen
    normalisation layers.
    """
    still = {
        f"{name}.{buffer}" for name, child in with_frozen_statistics(module) for buffer, _ in child.named_buffers()
    }
    kept = module.state_dict().keys()
    buffers = {name for name, _ in module.named_buffers() if name in kept and name not in still}
    return buffers | {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def drawn(module: nn.Module) -> set[str]:
    """Names of frozen parameters beside the backbone, drawn at random and never trained: only a file keeps them.

    The weights of a submodule called ``backbone`` come from their own seed, or from a file.
    """
    return {
        name
        for name, parameter in module.named_parameters()
        if not parameter.requires_grad and not name.startswith("backbone.")
    }


def save_adapter(module: nn.Module, path: Path, card: AdapterCard, state: Mapping[str, Tensor] | None = None) -> None:
    """Store what training has changed, and what was drawn at random beside the backbone.

    Args:
        module: What the method built, trained or not.
        path: File to write, as a whole or not at all.
        state: What training has changed, instead of what ``module`` has now, by the names of its ``state_dict``.

    Raises:
        ValueError: If ``state`` names weights that the module does not have.
        OSError: If the file cannot be written.
    """
    own = module.state_dict()
    chosen = {name: own[name] for name in changeable(module)} if state is None else dict(state)
    chosen |= {name: own[name] for name in drawn(module) - chosen.keys()}
    unknown = sorted(set(chosen) - own.keys())
    if unknown:
        raise ValueError(f"the module has no weights called {', '.join(unknown[:3])}")
    known = card.model_copy(update={"frozen": _frozen_digest(module, chosen)})
    with atomic_path(path) as temporary:
        save_tensors(dict(sorted(chosen.items())), temporary, {HEADER: known.model_dump_json()})


def read_adapter(path: Path) -> tuple[AdapterCard, State]:
    """Card and weights of a file.

    Raises:
        AdapterError: If the file is missing or damaged, or holds something else.
    """
    with _opened(path) as stream:
        return _card(stream, path), {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def read_card(path: Path) -> AdapterCard:
    """The card of a file, without its weights; raises as ``read_adapter``."""
    with _opened(path) as stream:
        return _card(stream, path)


def _card(stream: Any, path: Path) -> AdapterCard:
    header = (stream.metadata() or {}).get(HEADER)
    fix = "name a selected.safetensors of a run of this version, or a file that save_adapter wrote"
    if header is None:
        raise AdapterError("the file does not say what its weights belong to", where=path, fix=fix)
    try:
        return AdapterCard.model_validate_json(header)
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(str(part) for part in item["loc"]) or "as a whole"
        raise AdapterError(
            f"the header of the weights cannot be used: {key}: {item['msg'].lower()}", where=path, fix=fix
        ) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"the weights cannot be read: {error}", where=path) from None


def load_adapter(module: nn.Module, path: Path | str, card: AdapterCard | None = None) -> AdapterCard:
    """Put stored weights into a module that was built afresh; nothing is changed where they do not fit.

    Args:
        module: What the same method built for the same task.
        card: What the module is, by ``card_of``; without, tensors and frozen weights alone are compared.

    Raises:
        AdapterError: If the file cannot be read or does not fit; it names what differs.
    """
    path = Path(path)
    file_card, state = read_adapter(path)
    if card is not None:
        _refuse(list(_differences(file_card, card)), path, "build the module with the settings of the file")
    _refuse(list(_misfits(module, state)), path, "build the module with the method and the sizes of the file")
    if _frozen_digest(module, state) != file_card.frozen:
        versions = ", ".join(f"{name} {number}" for name, number in file_card.environment.items())
        raise AdapterError(
            f"frozen weights: the file belongs to another {file_card.backbone.get('name')} than the module has",
            where=path,
            expected=f"pretrained weights {file_card.backbone.get('pretrained')}, "
            f"seed {file_card.backbone_seed}, {versions}",
            fix="build the module on the same backbone",
        )
    module.load_state_dict(state, strict=False)
    return file_card


def _differences(file_card: AdapterCard, card: AdapterCard) -> Iterable[str]:
    for name in COMPARED:
        old, new = getattr(file_card, name), getattr(card, name)
        if isinstance(old, dict):
            keys = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
            yield from (f"{name} {key}: the file has {old.get(key)}, the module {new.get(key)}" for key in keys)
        elif old != new:
            yield f"{name}: the file has {shown(old)}, the module {shown(new)}"


def _misfits(module: nn.Module, state: State) -> Iterable[str]:
    own = {name: _kind(value) for name, value in module.state_dict().items()}
    needed = changeable(module)
    for name in sorted(state.keys() | needed):
        if name not in own:
            yield f"tensor {name}: the module has none"
        elif name not in state:
            yield f"tensor {name}: the file has none"
        elif _kind(state[name]) != own[name]:
            yield f"tensor {name}: the file has {_kind(state[name])}, the module {own[name]}"


def _kind(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _refuse(problems: list[str], path: Path, fix: str) -> None:
    if problems:
        more = f"\n    and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise AdapterError(
            "the weights do not fit the module:\n    " + "\n    ".join(problems[:5]) + more, where=path, fix=fix
        )


def _frozen_digest(module: nn.Module, stored: Iterable[str]) -> str:
    """Hash of what is not stored. Weights that several layers share count once, by their first name."""
    names = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    return weights_digest(module, (names - set(stored)).__contains__)


def shown(value: object) -> str:
    """A value of a card for a message, cut where it is long."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _environment() -> dict[str, str]:
    versions = {}
    for name in ("spectral-tl-bench", "torch", "timm", "peft"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions

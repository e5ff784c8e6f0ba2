"""Weights on disk: read without running anything that is in them, and freed of the wrappers around them."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.weights import State

WRAPPERS = ("model", "state_dict", "model_state_dict", "teacher", "model_ema", "module", "backbone", "encoder")
"""Keys under which training programs store the weights, beside optimisers and settings; the first one wins."""

CHANCE = 0.1
"""Share of a file's tensors below which a prefix is none: names that happen to end like the network's."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def read_state(path: Path, device: str = "cpu") -> State:
    """The tensors of a file by name, without wrappers.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``.
        device: ``cpu``, or ``meta`` for shapes alone.

    Raises:
        UserError: If the file is missing, damaged, holds anything but numbers, or no weights.
    """
    if not path.is_file():
        raise UserError("there is no such file of weights", where=path, expected=f"a file {', '.join(SUFFIXES)}")
    content = _safetensors(path, device) if path.suffix == ".safetensors" else _pickle(path, device)
    state = unwrapped(content)
    if not state:
        raise UserError("the file holds no weights", where=path, expected="tensors by name, or a wrapper around them")
    return state


def _safetensors(path: Path, device: str) -> State:
    try:
        if device != "meta":
            return load_file(path)
        with safe_open(path, framework="pt") as file:
            return {
                # A bare shape costs no reading; the type of the numbers does not matter here.
                name: torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118 (no mapping)
            }
    except (OSError, SafetensorError) as error:
        raise UserError(f"the weights cannot be read: {error}", where=path, fix="download the file again") from None


def _pickle(path: Path, device: str) -> object:
    with path.open("rb") as stream:
        if not stream.read(2).startswith((b"PK", b"\x80")):
            raise UserError(
                "the file is neither .safetensors nor of torch.save",
                where=path,
                expected=f"a file {', '.join(SUFFIXES)}",
                fix="look at it: a failed download leaves a web page",
            )
    # Settings that training programs store beside the weights; a Namespace holds values and does nothing.
    safe = getattr(torch.serialization, "safe_globals", None)
    try:
        with safe([argparse.Namespace]) if safe else contextlib.nullcontext():
            # Mapped, what is never looked at is never read: an optimiser is twice as large as the weights beside it.
            mapped = device != "meta" and zipfile.is_zipfile(path)
            return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise UserError(
            "the file holds Python objects besides numbers, which could run any program when they are read",
            where=path,
            expected="tensors alone: a state_dict of torch.save, or .safetensors",
            fix="if you trust the file, load it yourself and save model.state_dict() as .safetensors",
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"the weights cannot be read: {_first(error)}", where=path, fix="get the file again") from None


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def unwrapped(content: object) -> State:
    """The innermost tensors by name under ``WRAPPERS``."""
    while isinstance(content, Mapping):
        inner: Any = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        return {}
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def without_module(state: State) -> State:
    """The same tensors without the ``module.`` that training on several devices puts in front of all names."""
    prefix = "module."
    return (
        {name.removeprefix(prefix): value for name, value in state.items()}
        if all(name.startswith(prefix) for name in state)
        else state
    )


def without_prefix(state: State, network: nn.Module) -> State:
    """The same tensors without what stands before the names of the network (``module.``, ``backbone.``, ...).

    The prefix with the most matches is taken. Of several copies of a network, such as teacher and student, the one
    that has ``teacher`` in its prefix is taken first, then the one with the shortest prefix.
    """
    names = network.state_dict().keys()
    counts: dict[str, int] = {"": 0}
    for key in state:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in names:
                prefix = "".join(f"{part}." for part in parts[:cut])
                counts[prefix] = counts.get(prefix, 0) + 1
                break
    best = max(counts, key=lambda prefix: (counts[prefix], "teacher" in prefix, -len(prefix)))
    if not best or counts[best] < CHANCE * len(state):
        return state
    return {name.removeprefix(best): value for name, value in state.items() if name.startswith(best)}

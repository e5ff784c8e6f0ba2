"""Reads checkpoints without running code from them."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WRAPPERS = ("state_dict", "model", "model_state_dict", "module", "teacher", "student", "params", "weights", "net")
"""Keys under which checkpoints hold their tensors beside other things, in the order in which they are tried."""


def read_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.

    Returns:
        Tensors by key, taken out of wrappers such as ``{"state_dict": ...}``.

    Raises:
        ValueError: If there is no such file, it cannot be read, holds objects that only code could restore, or no
            tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a checkpoint")
    if path.suffix == ".safetensors":
        return unwrap(_read_safetensors(path))
    try:
        with _command_line_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: not a file of torch.save, or it holds more than tensors, which is not loaded because that could "
            f"run code from the file. Expected tensors only: where you trust it, read it with weights_only=False and "
            f"save its state_dict alone. ({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be read as a checkpoint: {error}") from None
    try:
        return unwrap(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors by key, without the wrappers around them; entries that are no tensors are left out.

    Raises:
        ValueError: If there are no tensors by key.
    """
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        inner = [name for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors and not inner:
            return tensors
        others = [name for name, value in content.items() if isinstance(value, Mapping) and value]
        if not inner and len(others) != 1:
            raise ValueError(
                f"no tensors by key: found {sorted(map(str, content)) or 'nothing'}, expected a state_dict"
            )
        content = content[(inner or others)[0]]
    raise ValueError(f"no tensors by key: found {type(content).__name__}, expected a state_dict")


def _command_line_allowed() -> AbstractContextManager[None]:
    """MAE and its relatives keep their command line, harmless to restore; PyTorch 2.4 cannot make exceptions."""
    allow = getattr(torch.serialization, "safe_globals", None)
    return nullcontext() if allow is None else allow([argparse.Namespace])


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(f"{path}: reading it needs the package safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from None

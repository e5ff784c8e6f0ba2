"""Reads checkpoints without running code from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from spectralx.released.unpickle import Stored, Stub, TorchFile, open_torch_file

WRAPPERS = ("state_dict", "model", "model_state_dict", "module", "teacher", "student", "params", "weights", "net")
"""Keys under which checkpoints hold their tensors beside other things, in the order in which they are tried."""


@dataclass(frozen=True)
class ReleaseFile:
    """A checkpoint whose tensors are still on disk, with the plain facts that stand beside them.

    Attributes:
        tensors: Tensors by key, without wrappers: a ``Tensor``, or where to find it.
        facts: Entries of ``hyper_parameters`` that are numbers, texts, or lists of them.
        beside: What the file holds beside the tensors, by top-level key.
        source: The open file, if ``torch.save`` wrote it.
    """

    path: Path
    tensors: dict[str, Tensor | Stored]
    facts: dict[str, Any]
    beside: tuple[str, ...] = ()
    source: TorchFile | None = None

    def tensor(self, key: str) -> Tensor:
        """One tensor, on the CPU; its numbers are read when they are used.

        Raises:
            ValueError: If the file ends before it.
        """
        value = self.tensors[key]
        return self.source.tensor(value) if isinstance(value, Stored) and self.source else cast(Tensor, value)


def open_file(path: str | Path) -> ReleaseFile:
    """Reads what a checkpoint holds, but not yet the numbers of its tensors; no code of it is run.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote, with whatever objects beside the tensors.

    Raises:
        ValueError: If there is no such file, it cannot be read, or holds no tensors by key.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a checkpoint")
    try:
        if path.suffix == ".safetensors":
            return ReleaseFile(path, dict(unwrap(_read_safetensors(path))), {})
        file = open_torch_file(path)
        tensors = _unwrap(file.content)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None
    top = file.content
    beside = (
        tuple(str(key) for key in top if key not in ("state_dict", "hyper_parameters")) if "state_dict" in top else ()
    )
    return ReleaseFile(path, tensors, _facts(top.get("hyper_parameters")), beside, file)


def read_file(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU; see ``open_file``.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.

    Returns:
        Tensors by key, taken out of wrappers such as ``{"state_dict": ...}``.

    Raises:
        ValueError: If there is no such file, it cannot be read, or holds no tensors by key.
    """
    file = open_file(path)
    try:
        return {key: file.tensor(key) for key in file.tensors}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def unwrap(content: Any) -> dict[str, Tensor]:
    """The tensors by key, without the wrappers around them; entries that are no tensors are left out.

    Raises:
        ValueError: If there are no tensors by key.
    """
    return cast("dict[str, Tensor]", _unwrap(content))


def _unwrap(content: Any) -> dict[str, Tensor | Stored]:
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        inner = [name for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor | Stored)}
        if tensors and not inner:
            return tensors
        others = [name for name, value in content.items() if isinstance(value, Mapping) and value]
        if not inner and len(others) != 1:
            raise ValueError(
                f"no tensors by key: found {sorted(map(str, content)) or 'nothing'}, expected a state_dict"
            )
        content = content[(inner or others)[0]]
    found = f"an object of {content.kind}" if isinstance(content, Stub) else type(content).__name__
    raise ValueError(f"no tensors by key: found {found}, expected a state_dict")


def _facts(content: Any) -> dict[str, Any]:
    """The plain entries of ``hyper_parameters``, which may be a kind of dictionary that Lightning has."""
    content = content.state if isinstance(content, Stub) else content
    if not isinstance(content, Mapping):
        return {}
    return {str(key): value for key, value in content.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 1000 and all(isinstance(item, int | float | str) for item in value)
    return value is None or isinstance(value, int | float | str)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError("reading it needs the package safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"not a safetensors file: {error}") from None

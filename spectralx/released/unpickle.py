"""Reads files of ``torch.save`` without running anything of them, whatever objects they hold.

A pickle is a program that may call any function it names. Here a name stays a name: nothing is imported, no object is
made but plain containers, texts and numbers, and every call, state or method of another class ends in a ``Stub`` that
does nothing. Tensors are told by where their numbers lie in the file, and read only when they are asked for, so that
an optimiser beside the weights costs nothing.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First number in a file of PyTorch before 1.6."""

LEGACY_PROTOCOL = 1001

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "UntypedStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
"""Storage class -> type of its numbers."""


class NotReadError(ValueError):
    """What is wrong with a file that is not read."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names: never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        """The dotted name."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Stub:
    """Stands for an object of a class that is not restored.

    Attributes:
        kind: Its class, or the function that would have made it.
        state: Its attributes, or entries of a kind of dictionary.
    """

    kind: object
    state: dict[str, Any] = field(default_factory=dict)


class Storage(NamedTuple):
    """Numbers in a file: their key there, how many, and of which type."""

    key: str
    length: int
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor whose numbers are still in the file.

    Attributes:
        storage: Where the numbers are.
        offset: The first of them that belongs to the tensor.
        shape: Its shape.
        stride: How many numbers further the next entry of each dimension is.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self.storage.dtype


def tensor_of(
    storage: object, offset: object = 0, shape: object = (), stride: object = (), *_: object, dtype: object = None
) -> Stored:
    """A tensor in the file, by the arguments of PyTorch's own function.

    Raises:
        NotReadError: If it would reach beyond its numbers.
    """
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise NotReadError("a tensor without numbers in the file")
    if isinstance(dtype, Name):
        kind = getattr(torch, dtype.name, None) if dtype.module == "torch" else None
        if not isinstance(kind, torch.dtype):
            raise NotReadError(f"a tensor of unknown type {dtype}")
        size = kind.itemsize
        storage = Storage(storage.key, storage.length * storage.dtype.itemsize // size, kind)
    numbers = [offset, *shape, *stride]
    if len(shape) != len(stride) or not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
        raise NotReadError(f"a tensor of impossible shape {str(shape)[:60]}")
    count = math.prod(shape)
    last = numbers[0] + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if count and (last >= storage.length or count > storage.length):
        raise NotReadError(
            f"a tensor of shape {str(shape)[:60]} that reaches beyond its {storage.length} numbers in the file"
        )
    return Stored(storage, numbers[0], shape, stride)


def _first(value: object, *_: object) -> object:
    return value


def _typed(storage: object, offset: object, shape: object, stride: object, _grad: object, _hooks: object,
           dtype: object, *_: object) -> Stored:  # fmt: skip
    return tensor_of(storage, offset, shape, stride, dtype=dtype)


def _mapping(items: object = (), *_: object) -> dict[Any, Any]:
    return dict(items) if isinstance(items, list | dict) else {}


def _list(items: object = ()) -> list[Any]:
    return list(items) if isinstance(items, list | tuple | set) else []


MAKERS: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "dict"): _mapping,
    ("builtins", "list"): _list,
    ("builtins", "set"): lambda items=(): set(_list(items)),
    ("builtins", "frozenset"): lambda items=(): frozenset(_list(items)),
    ("torch", "Size"): lambda items=(): tuple(_list(items)),
    ("torch._utils", "_rebuild_tensor"): tensor_of,
    ("torch._utils", "_rebuild_tensor_v2"): tensor_of,
    ("torch._utils", "_rebuild_tensor_v3"): _typed,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}
"""All that is made when a pickle calls a name; every other call makes a ``Stub``."""


class _Reader(pickle._Unpickler):
    """The pickle machine of the standard library, whose calls of what a pickle names are taken away.

    Every step that would call, import, or set attributes is replaced below; the others handle plain values. It is the
    version in Python, since that in C does not let its steps be replaced.
    """

    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Name:
        return Name("builtins" if module == "__builtin__" else str(module), str(name))

    def persistent_load(self, pid: object) -> object:
        """The numbers of a tensor, or the class of a module in files before PyTorch 1.6."""
        match pid:
            case ("storage", Name() as kind, str() | int() as key, _, int() as length, *_) if kind.name in STORAGES:
                if 0 <= length < 2**48:
                    return Storage(str(key), length, STORAGES[kind.name])
            case ("module", Name() as kind, *_):
                return kind
        raise NotReadError(f"tensors of a kind that is not known: {str(pid)[:100]}")

    def get_extension(self, code: int) -> None:
        raise NotReadError(f"the pickle uses the extension {code}")

    def _instantiate(self, kind: object, arguments: list[object]) -> None:
        self.append(_made(kind, tuple(arguments)))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Stub) and isinstance(state, dict):
            target.state.update(state)

    def load_append(self) -> None:
        value = self.stack.pop()
        _extend(self.stack[-1], [value])

    def load_appends(self) -> None:
        values = self.pop_mark()
        _extend(self.stack[-1], values)

    def load_additems(self) -> None:
        values = self.pop_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], [(key, value)])

    def load_setitems(self) -> None:
        entries = self.pop_mark()
        _set(self.stack[-1], list(zip(entries[::2], entries[1::2], strict=True)))

    for code, step in (
        (pickle.REDUCE, load_reduce),
        (pickle.NEWOBJ, load_reduce),
        (pickle.NEWOBJ_EX, load_newobj_ex),
        (pickle.BUILD, load_build),
        (pickle.APPEND, load_append),
        (pickle.APPENDS, load_appends),
        (pickle.ADDITEMS, load_additems),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
    ):
        dispatch[code[0]] = step
    del code, step
    del dispatch[pickle.BYTEARRAY8[0]]  # takes memory before it looks whether the file is that long


def _made(kind: object, arguments: object) -> object:
    """What a call leaves: a plain value or a tensor by ``MAKERS``, a stub for all else."""
    if not isinstance(arguments, tuple):
        raise NotReadError("a call without arguments")
    if not isinstance(kind, Name):
        return Stub(kind)
    if (kind.module, kind.name) == ("torch._tensor", "_rebuild_from_type_v2") and len(arguments) == 4:
        return _made(arguments[0], arguments[2])
    make = MAKERS.get((kind.module, kind.name))
    return Stub(kind) if make is None else make(*arguments)


def _extend(target: object, values: list[object]) -> None:
    if isinstance(target, list):
        target.extend(values)


def _set(target: object, entries: list[tuple[Any, object]]) -> None:
    if isinstance(target, Stub):  # such as Lightning's dictionary of its own
        target = target.state
    if isinstance(target, dict):
        target.update(entries)


@dataclass(frozen=True)
class TorchFile:
    """A file of ``torch.save``, its tensors still on disk.

    Attributes:
        content: What was saved: containers, texts, numbers, ``Stored`` tensors, ``Name`` and ``Stub``.
        places: First byte of every storage, by its key.
        data: The file, mapped into memory; what is changed there never reaches the file.
    """

    content: Any
    places: Mapping[str, int]
    data: mmap.mmap

    def tensor(self, stored: Stored) -> Tensor:
        """A tensor; its numbers are read from the file when they are used.

        Raises:
            NotReadError: If the file ends before them.
        """
        dtype, length = stored.dtype, stored.storage.length
        start = self.places.get(stored.storage.key)
        size = length * dtype.itemsize
        if start is None or start + size > len(self.data):
            raise NotReadError("the file ends before its tensors do: it is damaged, or only half of it is here")
        if not size:
            return torch.empty(stored.shape, dtype=dtype)
        if start % dtype.itemsize:  # PyTorch wants numbers at addresses that their size divides
            flat = torch.frombuffer(bytearray(self.data[start : start + size]), dtype=dtype)
        else:
            flat = torch.frombuffer(self.data, dtype=dtype, count=length, offset=start)
        return flat.as_strided(stored.shape, stored.stride, stored.offset)


def open_torch_file(path: Path) -> TorchFile:
    """Reads all of a file of ``torch.save`` but the numbers of its tensors; no code of it is run.

    Args:
        path: The file, of any version of PyTorch since 0.4.

    Raises:
        NotReadError: If it is no such file, damaged, or of a kind that is not read.
        OSError: If it cannot be opened.
    """
    with path.open("rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError:
            raise NotReadError("the file is empty") from None
        try:
            return _open_zip(stream, data) if data[:2] == b"PK" else _open_legacy(data)
        except NotReadError:
            raise
        # whatever a pickle that is no pickle can make the machine stumble over
        except (pickle.UnpicklingError, zipfile.BadZipFile, struct.error, LookupError, TypeError, ValueError,
                AttributeError, EOFError, OverflowError, MemoryError, RecursionError) as error:  # fmt: skip
            raise NotReadError(f"not a file of torch.save, or damaged: {str(error)[:200]}") from None


def _open_zip(stream: Any, data: mmap.mmap) -> TorchFile:
    with zipfile.ZipFile(stream) as archive:
        members = {member.filename: member for member in archive.infolist()}
        roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise NotReadError("a zip archive that torch.save did not write")
        root = roots[0]
        if f"{root}constants.pkl" in members:
            raise NotReadError("a program of TorchScript: expected a file of torch.save")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise NotReadError("a compressed archive, which torch.save never writes")
        order = f"{root}byteorder"
        if order in members and archive.read(order).decode() != sys.byteorder:
            raise NotReadError("written on a machine of another byte order")
        places = {}
        for name, member in members.items():
            if name.startswith(f"{root}data/"):
                lengths = struct.unpack("<HH", data[member.header_offset + 26 : member.header_offset + 30])
                places[name.removeprefix(f"{root}data/")] = member.header_offset + 30 + sum(lengths)
        content = _Reader(io.BytesIO(archive.read(f"{root}data.pkl")), encoding="utf-8").load()
    return TorchFile(content, places, data)


def _open_legacy(data: mmap.mmap) -> TorchFile:
    """Files before PyTorch 1.6: five pickles, then each storage behind its length."""
    lengths: dict[str, int] = {}

    class Reader(_Reader):
        def persistent_load(self, pid: object) -> object:
            found = super().persistent_load(pid)
            if isinstance(found, Storage):
                if isinstance(pid, tuple) and len(pid) > 5 and pid[5] is not None:
                    raise NotReadError("a file of PyTorch before 0.4: save it anew with a later one")
                lengths[found.key] = found.dtype.itemsize
            return found

    def load() -> Any:
        return Reader(data, encoding="utf-8").load()

    if data[:1] != b"\x80" or load() != LEGACY_MAGIC or load() != LEGACY_PROTOCOL:
        raise NotReadError("not a file of torch.save")
    system = load()
    if not isinstance(system, dict) or system.get("little_endian") is not (sys.byteorder == "little"):
        raise NotReadError("written on a machine of another byte order")
    content, keys = load(), load()
    places = {}
    for key in keys:
        (count,) = struct.unpack("=q", data.read(8))
        places[key] = data.tell()
        data.seek(places[key] + count * lengths[key])
    return TorchFile(content, places, data)

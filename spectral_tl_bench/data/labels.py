"""Label files and the map from raw label values to classes."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from spectral_tl_bench.benchmarks import VOID, Labels
from spectral_tl_bench.data.opening import MOST_VALUES, check_plain_file
from spectral_tl_bench.errors import DataError

MATLAB_VARIABLE = "label"
MATLAB_COMPRESSED = 15
MOST_MATLAB_BYTES = 8 * MOST_VALUES
DEFLATE_AT_BEST = 1032
"""To one: no deflated byte unpacks to more."""

PIECE = 2**20
"""Pixels that are mapped at a time, so that memory is that of the labels."""


def whole_numbers(raw: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """Raw label values (H, W) as integers.

    Args:
        raw: As stored.
        path: The file, for messages.

    Raises:
        DataError: If they are not one layer of whole numbers.
    """
    if raw.ndim != 2:
        raise DataError(f"the label has shape {raw.shape}", where=path, expected="one layer (height, width)")
    if raw.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # NaN becomes some number, and then differs
            whole = raw.astype(np.int64)
        if not np.array_equal(whole, raw):
            raise DataError("the label holds fractions or NaN", where=path, expected="whole class numbers")
        return whole
    if raw.dtype.kind not in "iub":
        raise DataError(f"the label holds {raw.dtype}", where=path, expected="whole class numbers")
    if raw.dtype == np.uint64 and raw.size and raw.max() > np.iinfo(np.int64).max:
        raise DataError(f"the label holds {raw.max()}", where=path, expected="numbers of at most 63 bits")
    return raw


def read_matlab(path: Path) -> np.ndarray[Any, Any]:
    """The variable ``label`` of a MATLAB file.

    Raises:
        DataError: If the file is missing, unreadable, too large or has no such variable.
    """
    from scipy.io import loadmat, whosmat

    check_plain_file(path)
    try:
        check_matlab_expands(path)
        facts = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        _check_matlab_variable(path, facts)
        content = loadmat(path, variable_names=[MATLAB_VARIABLE])
    except DataError:
        raise
    except NotImplementedError:
        raise DataError(
            "this MATLAB file is of version 7.3", where=path, expected="version 5 to 7.2", fix="save it with -v7"
        ) from None
    except Exception as error:  # damaged bytes raise nearly anything, zlib.error among them
        raise DataError(f"the MATLAB label cannot be read: {error}", where=path) from None
    return np.asarray(content[MATLAB_VARIABLE])


def _check_matlab_variable(path: Path, facts: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Before anything is allocated: is there such a variable, of a kind and size that labels have?"""
    if MATLAB_VARIABLE not in facts:
        raise DataError(f"the MATLAB file has no variable {MATLAB_VARIABLE!r}", where=path)
    shape, kind = facts[MATLAB_VARIABLE]
    if not kind.startswith(("int", "uint", "double", "single", "logical")):
        raise DataError(
            f"the MATLAB variable {MATLAB_VARIABLE!r} is a {kind}", where=path, expected="whole class numbers"
        )
    if math.prod(shape) > MOST_VALUES:
        raise DataError(
            f"the label has shape {tuple(map(int, shape))}", where=path,
            expected=f"at most {MOST_VALUES // 10**6} million values",
        )  # fmt: skip


def check_matlab_expands(path: Path) -> None:
    """Refuse a compressed variable that holds far more than any label; SciPy would unpack it whole."""
    if path.stat().st_size * DEFLATE_AT_BEST < MOST_MATLAB_BYTES:
        return
    with path.open("rb") as stream:
        order = "<" if stream.read(128)[126:128] == b"IM" else ">"
        while len(tag := stream.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            end, unpacked, unzip = stream.tell() + size, 0, zlib.decompressobj()
            while kind == MATLAB_COMPRESSED and stream.tell() < end and (piece := stream.read(min(2**14, size))):
                unpacked += len(unzip.decompress(piece))
                if unpacked > MOST_MATLAB_BYTES:
                    raise DataError("the MATLAB file unpacks to more than any label holds", where=path)
            stream.seek(end)


class LabelMap:
    """Turns raw label values into classes 0..K-1 and ``VOID``."""

    def __init__(self, labels: Labels) -> None:
        self.num_classes = len(labels.classes)
        self._class_of = {value: number for number, cover in enumerate(labels.classes) for value in cover.raw}
        self._class_of |= dict.fromkeys(labels.void, VOID)
        self._other_is_void = labels.other == "void"

    @property
    def known(self) -> list[int]:
        """The raw values that the map names, void ones too, sorted."""
        return sorted(self._class_of)

    def unknown(self, values: np.ndarray[Any, Any]) -> list[int]:
        """The raw values that the map does not name, unless the benchmark says that those are void."""
        return [] if self._other_is_void else sorted(int(v) for v in values if int(v) not in self._class_of)

    def __call__(self, raw: np.ndarray[Any, Any], hidden: np.ndarray[Any, Any] | None = None) -> np.ndarray[Any, Any]:
        """Map raw whole values (H, W) to classes (H, W), uint8 with ``VOID``: of unknown and ``hidden`` values, too."""
        raw = raw.astype(np.uint8 if raw.dtype.kind == "b" else raw.dtype.newbyteorder("="), copy=False)
        limits = np.iinfo(raw.dtype)
        # In the labels' own type: a step through another one would mix up the ends of 64 bits.
        known = [value for value in self.known if limits.min <= value <= limits.max]
        values = np.array(known, dtype=raw.dtype)
        numbers = np.array([self._class_of[value] for value in known], dtype=np.uint8)
        result = np.full(raw.shape, VOID, dtype=np.uint8)
        if not known:
            return result
        flat, mapped = raw.reshape(-1), result.reshape(-1)
        unsigned = f"u{raw.dtype.itemsize}"
        table = np.full(2 ** (8 * raw.dtype.itemsize) if raw.dtype.itemsize <= 2 else 0, VOID, dtype=np.uint8)
        if table.size:
            table[values.view(unsigned)] = numbers
        for start in range(0, flat.size, PIECE):
            piece = flat[start : start + PIECE]
            if table.size:
                mapped[start : start + PIECE] = table[piece.view(unsigned)]
            else:
                place = np.searchsorted(values[:-1], piece)
                mapped[start : start + PIECE] = np.where(values[place] == piece, numbers[place], np.uint8(VOID))
        if hidden is not None:
            result[hidden] = VOID
        return result

    def counts(self, values: np.ndarray[Any, Any], counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Pixels per class (K,), int64, from a histogram of raw values."""
        result = np.zeros(self.num_classes, dtype=np.int64)
        for value, count in zip(values, counts, strict=True):
            number = self._class_of.get(int(value), VOID)
            if number != VOID:
                result[number] += int(count)
        return result

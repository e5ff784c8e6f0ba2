"""Variables of MATLAB files, versions 5 to 7.3, for what is cut into chips."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from spectral_tl_bench.data.labels import check_matlab_expands
from spectral_tl_bench.data.opening import MOST_VALUES, check_plain_file
from spectral_tl_bench.errors import DataError

HDF5 = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512
"""Bytes before the HDF5 content of a file of version 7.3, where MATLAB writes its own line."""


def read_variable(path: Path, name: str, dimensions: int) -> np.ndarray[Any, Any]:
    """A numeric variable with the axes that MATLAB shows.

    Args:
        path: A MATLAB file of version 5 to 7.2, or of 7.3, which is HDF5.
        dimensions: How many it has to have.

    Returns:
        The values, for example (rows, columns, bands).

    Raises:
        DataError: If the file is missing, unreadable or too large, or has no such variable.
    """
    check_plain_file(path)
    with path.open("rb") as stream:
        head = stream.read(USER_BLOCK + len(HDF5))
    if head.startswith(HDF5) or head[USER_BLOCK:] == HDF5:
        values = _read_hdf5(path, name, dimensions)
    else:
        values = _read_version_5(path, name, dimensions)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _read_version_5(path: Path, name: str, dimensions: int) -> np.ndarray[Any, Any]:
    from scipy.io import loadmat, whosmat

    try:
        check_matlab_expands(path)
        facts = {found: (tuple(map(int, shape)), kind) for found, shape, kind in whosmat(path)}
        _check(path, name, dimensions, facts, ("int", "uint", "double", "single", "logical"))
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except DataError:
        raise
    except Exception as error:  # damaged bytes raise nearly anything, zlib.error among them
        raise DataError(f"the MATLAB file cannot be read: {error}", where=path) from None


def _read_hdf5(path: Path, name: str, dimensions: int) -> np.ndarray[Any, Any]:
    if importlib.util.find_spec("h5py") is None:
        raise DataError(
            "this MATLAB file is of version 7.3, which h5py reads", where=path,
            fix="pip install 'spectral-tl-bench[matlab]', or save the file with -v7 in MATLAB",
        )  # fmt: skip
    import h5py

    try:
        with h5py.File(path, "r") as file:
            # A link or a virtual data set could lead to any other file
            own = {found: file[found] for found in file if isinstance(file.get(found, getlink=True), h5py.HardLink)}
            plain = {found: part for found, part in own.items()
                     if isinstance(part, h5py.Dataset) and part.external is None and not part.is_virtual}  # fmt: skip
            facts = {found: (tuple(part.shape or ())[::-1], str(part.dtype)) for found, part in plain.items()}
            _check(path, name, dimensions, facts, ("int", "uint", "float", ">", "bool"))
            return np.asarray(plain[name][()]).T  # MATLAB counts along the first axis first, HDF5 along the last
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"the MATLAB file cannot be read: {error}", where=path) from None


def _check(
    path: Path, name: str, dimensions: int, facts: dict[str, tuple[tuple[int, ...], str]], kinds: tuple[str, ...]
) -> None:
    """Before anything is allocated: is there such a variable, of a kind and size that scenes have?"""
    shown = ", ".join(f"{found} {'x'.join(map(str, shape))}" for found, (shape, _) in list(facts.items())[:12])
    if name not in facts:
        raise DataError(
            f"the MATLAB file has no variable {name!r}", where=path, expected=f"it has {shown or 'none'}",
            fix="name the right one with --image-variable or --label-variable",
        )  # fmt: skip
    shape, kind = facts[name]
    if not kind.startswith(kinds):
        raise DataError(f"the MATLAB variable {name!r} is a {kind}", where=path, expected="numbers")
    if len(shape) != dimensions or 0 in shape:
        wanted = "(rows, columns, bands)" if dimensions == 3 else "(rows, columns)"
        raise DataError(f"the MATLAB variable {name!r} has shape {shape}", where=path, expected=wanted)
    if math.prod(shape) > MOST_VALUES:
        raise DataError(
            f"the MATLAB variable {name!r} has shape {shape}", where=path,
            expected=f"at most {MOST_VALUES // 10**6} million values",
        )  # fmt: skip

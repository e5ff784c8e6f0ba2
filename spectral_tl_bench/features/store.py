"""Features on disk: one folder per set of windows, with an array per level and a card that says what they come from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import Tensor

from spectral_tl_bench.errors import StorageError, UserError
from spectral_tl_bench.features.modules import FeatureMaps
from spectral_tl_bench.files import digest, write_json
from spectral_tl_bench.pulse import beat
from spectral_tl_bench.storage import FEATURES, Limit, hold, in_words, make_room, obtain
from spectral_tl_bench.training.progress import clock

CARD_FILE = "features.json"
GIBIBYTE = 2**30
SPOTS = 16
SPOT_BYTES = 64 * 1024

FeatureType = Literal["float32", "float16", "bfloat16"]
STORED: dict[str, tuple[torch.dtype, str]] = {
    "float32": (torch.float32, "<f4"),
    "float16": (torch.float16, "<f2"),
    "bfloat16": (torch.bfloat16, "<u2"),  # numpy has none: the bits are kept as whole numbers
}


class FeatureError(UserError):
    """Stored features that cannot be read, or cannot be stored."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FeatureIdentity(_Strict):
    """All that features depend on: nothing of decoders, labels, learning rates or steps.

    Attributes:
        backbone: Name, sizes, pretrained weights and whatever else the backbone declares, such as how it takes bands.
        seed: Seed of the backbone's random weights.
        weights: Hash of every tensor outside the decoder; random weights and patch embedding are in it.
        extractor: What computes the features, as ``module:function``.
        levels: The blocks whose outputs are taken; -1 for the image itself, which a pixel path looks at.
        kept: Places among these of what is stored: all, or those that the decoder looks at.
        wavelengths: Centre wavelengths in micrometres.
        gsd: Ground sampling distance in metres.
        nodata: What is done with pixels that hold no measurement.
        mean: Of the source training chips, per band.
        std: Of the source training chips, per band.
        chips: Name, content (the first 16 hex digits of a hash of the pixels and labels), height and width, in the
            order of the rows.
        window: Side of the windows in pixels.
        stride: Step between them in pixels.
        copies: Symmetries of each window.
        dtype: What is stored; features are computed in float32.
        device: Kind of device they were computed on, since devices differ in the last digits.
        numerics: Numerics version of every component that takes part.
        code: Hashes of the code of packages that are not the suite's, and versions of the libraries.
    """

    backbone: dict[str, JsonValue]
    seed: int | None
    weights: str
    extractor: str
    levels: tuple[int, ...]
    kept: tuple[int, ...]
    dataset: str
    bands: tuple[str, ...]
    wavelengths: tuple[float, ...]
    gsd: float
    nodata: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    chips: tuple[tuple[str, str, int, int], ...]
    window: int
    stride: int
    copies: int
    dtype: FeatureType
    device: str
    numerics: dict[str, str]
    code: dict[str, str]

    @property
    def key(self) -> str:
        """A hash of everything here."""
        return digest(self.model_dump(mode="json"))


class FeatureCard(_Strict):
    """What is written beside the arrays, after them.

    Attributes:
        format: Version of this file.
        key: Of ``identity``.
        identity: What the features depend on.
        shapes: (rows, channels, height, width) of each level that is kept.
        spots: A hash of pieces of each level's file, see ``spot_digest``.
        seconds: How long the computation took.
    """

    format: Literal[1] = 1
    key: str = Field(pattern=r"^[0-9a-f]{64}$")
    identity: FeatureIdentity
    shapes: tuple[tuple[int, int, int, int], ...]
    spots: tuple[str, ...]
    seconds: float = Field(ge=0)


def feature_folder(identity: FeatureIdentity) -> Path:
    """Where the features of an identity are kept, if they are."""
    return FEATURES.path(identity.key[:16])


def level_file(folder: Path, level: int) -> Path:
    """The array of one level, by its place among them (from 0)."""
    return folder / f"level-{level}.npy"


def spot_digest(path: Path) -> str:
    """A hash of a file's size and of 16 pieces of 64 KiB, its beginning and its end among them.

    A file that was cut short or only partly written is noticed at once; reading all of it would take as long as
    computing it, on a slow disk.
    """
    size = path.stat().st_size
    total = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        for spot in range(SPOTS):
            stream.seek(max(0, size - SPOT_BYTES) * spot // (SPOTS - 1))
            total.update(stream.read(SPOT_BYTES))
    return total.hexdigest()


class StoredMaps:
    """Features of a fixed list of windows, mapped from disk.

    Args:
        folder: Where they are.
        wanted: Places of the levels to be read; by default all that are kept.
    """

    def __init__(self, folder: Path, card: FeatureCard, wanted: Sequence[int] | None = None) -> None:
        self.folder, self.card = folder, card
        self.wanted = tuple(card.identity.kept if wanted is None else wanted)
        self._arrays: dict[int, Any] | None = None

    def __len__(self) -> int:
        return self.card.shapes[0][0]

    def rows(self, rows: list[int]) -> FeatureMaps:
        """The maps (B, D, h, w) of some rows, one tensor per level, as they are stored."""
        identity = self.card.identity
        maps = [torch.empty(len(rows), 0)] * len(identity.levels)
        for place, array in self._opened().items():
            maps[place] = _tensor(array[rows], identity.dtype)
        return FeatureMaps(maps, identity.window)

    def _opened(self) -> dict[int, Any]:
        if self._arrays is None:
            self._arrays = {place: np.load(level_file(self.folder, place), mmap_mode="r") for place in self.wanted}
        return self._arrays

    def __getstate__(self) -> dict[str, Any]:
        """A reader process maps the files itself; a pickled map would be a copy of them."""
        return {**self.__dict__, "_arrays": None}


def _tensor(values: np.ndarray[Any, Any], dtype: str) -> Tensor:
    plain = torch.from_numpy(np.array(values))
    return plain.view(torch.bfloat16) if dtype == "bfloat16" else plain


def read_features(folder: Path, identity: FeatureIdentity) -> StoredMaps:
    """Open kept features, after a check that is quick and finds what is missing, foreign or cut short.

    Raises:
        FeatureError: If they cannot be used.
    """
    path = folder / CARD_FILE
    try:
        card = FeatureCard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise FeatureError(f"the card is not one of features: {error.errors()[0]['msg'].lower()}", where=path) from None
    except (OSError, ValueError) as error:
        raise FeatureError(f"the card cannot be read: {error}", where=path) from None
    if card.key != card.identity.key or card.identity != identity:
        raise FeatureError("the card speaks of other features", where=path)
    if not len(card.shapes) == len(card.spots) == len(identity.kept):
        raise FeatureError("the card does not speak of every level", where=path)
    for level, shape, spots in zip(identity.kept, card.shapes, card.spots, strict=True):
        file = level_file(folder, level)
        try:
            array = np.load(file, mmap_mode="r")
            whole = array.shape == shape and array.dtype.str == STORED[identity.dtype][1] and spot_digest(file) == spots
        except (OSError, ValueError, EOFError) as error:
            raise FeatureError(f"level {level} cannot be read: {error}", where=file) from None
        if not whole:
            raise FeatureError(f"level {level} is not what the card was written for", where=file)
    return StoredMaps(folder, card)


def write_features(
    folder: Path,
    identity: FeatureIdentity,
    shapes: Sequence[tuple[int, int, int, int]],
    batches: Iterable[FeatureMaps],
) -> None:
    """Compute features and write them: arrays first, so that a card never speaks of arrays that are missing.

    Args:
        folder: Where they go; it is there and empty.
        shapes: (rows, channels, height, width) of each level that is kept.
        batches: The features of all levels, row by row.

    Raises:
        FeatureError: If a value is not finite in the type that is stored.
        OSError: If there is no room; this comes before anything is computed.
        ValueError: If ``batches`` has more or fewer rows than ``shapes``.
    """
    started = time.monotonic()
    dtype, plain = STORED[identity.dtype]
    paths = [level_file(folder, level) for level in identity.kept]
    arrays = [
        np.lib.format.open_memmap(path, mode="w+", dtype=plain, shape=shape)
        for path, shape in zip(paths, shapes, strict=True)
    ]
    for path in paths:
        _reserve(path)
    done = 0
    for batch in batches:
        beat()
        for array, place in zip(arrays, identity.kept, strict=True):
            values = batch.maps[place]
            rounded = values.to(dtype).cpu()
            if not bool(rounded.isfinite().all()):
                raise FeatureError(
                    f"features of {identity.backbone.get('name')} are not finite in {identity.dtype}",
                    fix="use -o cache_dtype=float32" if identity.dtype == "float16" else "check the chips' values",
                )
            bits = rounded.view(torch.int16) if identity.dtype == "bfloat16" else rounded
            array[done : done + len(batch)] = bits.numpy().view(plain)
        done += len(batch)
    if done != shapes[0][0]:
        raise ValueError(f"features of {done} windows came, {shapes[0][0]} were announced")
    for array in arrays:
        array.flush()
    spots = tuple(spot_digest(path) for path in paths)
    card = FeatureCard(
        key=identity.key, identity=identity, shapes=tuple(shapes), spots=spots, seconds=time.monotonic() - started
    )
    write_json(folder / CARD_FILE, card.model_dump(mode="json"))


def _reserve(path: Path) -> None:
    """Have the disk give a file all of its room: a mapped file that runs out of it later kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of file systems that cannot
                    raise


def find_or_write(
    identity: FeatureIdentity,
    shapes: Sequence[tuple[int, int, int, int]],
    batches: Callable[[], Iterable[FeatureMaps]],
    limit: float,
    say: Callable[[str], None],
) -> tuple[StoredMaps, bool]:
    """The features of an identity, from disk or computed now.

    Args:
        shapes: (rows, channels, height, width) of each level that is kept.
        batches: Starts the computation.
        limit: For all kept features, in GiB.

    Returns:
        The features, and whether they were there before.
    """
    key = identity.key[:16]

    def write(folder: Path) -> None:
        size = bytes_of(shapes, identity.dtype)
        check_room({"now": size}, limit, say)
        say(f"computing features of {shapes[0][0]} windows, {in_words(size)}")
        write_features(folder, identity, shapes, batches())

    try:
        maps, reused = obtain(
            FEATURES, key, lambda folder: read_features(folder, identity), write, damaged=(FeatureError,), say=say
        )
    except StorageError as error:
        if not isinstance(error.__cause__, OSError):  # what would not fit was said before anything was computed
            raise
        say(f"the features serve this run alone: {error.what} ({error.where})")
        return _passing(identity, shapes, batches), False
    hold(maps.folder, maps)
    if reused:
        say(f"reusing features {key}, computed before in {clock(maps.card.seconds)}")
    return maps, reused


def _passing(
    identity: FeatureIdentity, shapes: Sequence[tuple[int, int, int, int]], batches: Callable[[], Iterable[FeatureMaps]]
) -> StoredMaps:
    """Features in the system's temporary folder, for as long as they are used."""
    folder = Path(tempfile.mkdtemp(prefix="stbench-"))
    try:
        write_features(folder, identity, shapes, batches())
        maps = read_features(folder, identity)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(maps, shutil.rmtree, folder, ignore_errors=True)
    return maps


def bytes_of(shapes: Iterable[tuple[int, ...]], dtype: FeatureType) -> int:
    """How much room arrays of these shapes take."""
    return sum(int(np.prod(shape)) for shape in shapes) * STORED[dtype][0].itemsize


def check_room(missing: Mapping[str, int], limit: float, say: Callable[[str], None]) -> None:
    """Refuse to compute what would not fit, before anything is computed; features of long ago give way.

    Args:
        missing: Bytes that are needed, by what they are for.
        limit: For all kept features, in GiB.

    Raises:
        StorageError: If the limit or the disk is too small.
    """
    needed = sum(missing.values())
    parts = ", ".join(f"{name} {in_words(size)}" for name, size in missing.items() if size)
    make_room(
        FEATURES, needed, limit=Limit((FEATURES,), int(limit * GIBIBYTE), "--feature-cache-limit"), say=say,
        what=f"the features would take {in_words(needed)} ({parts})",
        fix="use -o cache_dtype=float16 (half the room), -o cache_copies=1, or a larger --stride; or "
        "--feature-cache-limit 0, which stores nothing and computes the features of the same windows at every step",
    )  # fmt: skip

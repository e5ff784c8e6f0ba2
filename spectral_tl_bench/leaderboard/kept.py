"""What a report worked out of each record, kept for the next report: a record that did not change is not opened again.

One file in the cache folder for each set of folders of records, and a small one beside it for what came since, so that
one new record does not have all of it written again. An entry counts while the files of its record are the
very same, by size, times and number on the disk, and the code and libraries that made it, too. A report with what is
kept gives the same bytes as one without. A file that is damaged, or cannot be written, costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.files import digest, write_bytes
from spectral_tl_bench.leaderboard.measured import MeasuredRecord
from spectral_tl_bench.results.places import PlaceCounts
from spectral_tl_bench.results.schema import Record, ScoreBlock
from spectral_tl_bench.storage import BOARDS

T = TypeVar("T")
_MAGIC = b"stbench boards 2\n"
_SETTLED = 2.0
"""Seconds: a file that is younger may change once more without its times showing it, so nothing of it is kept."""
_HEAD = len(_MAGIC) + 16
_SINCE = "-since"
_FEW = 0.1
"""Share of the large file that may be new, or no longer asked for, before it is written again."""
_MADE_BY = (
    "files.py",
    "evaluation",
    "results",
    "leaderboard/analysis.py",
    "leaderboard/kept.py",
    "leaderboard/measured.py",
    "leaderboard/statistics",
)


class Kept:
    """What is kept for one set of folders of records.

    Args:
        roots: The folders. None of what is kept is looked at before it is asked for.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = sorted(str(Path(root).resolve()) for root in roots)
        self._files: set[str] = set()
        self._stats: dict[str, tuple[str, float] | None] = {}
        self._changed = False
        self._asked: tuple[set[str], set[str], set[str]] = (set(), set(), set())
        self._records: dict[str, dict[str, Any]] = {}
        self._draws: dict[str, NDArray[np.float64]] = {}
        self._numbers: dict[str, Any] = {}
        self._counts: dict[str, NDArray[Any]] = {}
        self._large: list[set[str]] = []
        for ending in ("", _SINCE):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError, StorageError):
                self._read(self._path(ending))
            self._large = self._large or [set(store) for store in self._stores]

    def read_before(self, path: Path) -> bool:
        """Whether the record in a file was read and measured before, and the file is still the very same."""
        stat = self._stat(path)
        return stat is not None and f"{path} {stat[0]}" in self._files

    def measured(self, record: Record, measure: Callable[[Record], MeasuredRecord]) -> MeasuredRecord:
        """A record with its scores: as it was measured before, where nothing has changed, else by ``measure``."""
        key = self._key(record)
        if key is None:
            return measure(record)
        self._asked[0].add(key)
        if key in self._records:
            return self._again(record, key)
        result = measure(record)
        self._add(key, result)
        return result

    def draws(self, key: str, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Numbers (B,) by what they depend on, which ``key`` says in full."""
        self._asked[1].add(key)
        if key not in self._draws:
            self._draws[key] = make()
            self._changed = True
        return self._draws[key]

    def numbers(self, key: str, make: Callable[[], T]) -> T:
        """Numbers, and lists of them, by what they depend on, which ``key`` says in full; tuples come back as lists."""
        self._asked[2].add(key)
        if key not in self._numbers:
            self._numbers[key] = make()
            self._changed = True
        found: T = self._numbers[key]
        return found

    def save(self) -> None:
        """Keep what was asked for, and little else; where it cannot be written, nothing is kept."""
        wanted = [asked & set(store) for asked, store in zip(self._asked, self._stores, strict=True)]
        since = [keys - large for keys, large in zip(wanted, self._large, strict=True)]
        moved = sum(len(keys ^ large) for keys, large in zip(wanted, self._large, strict=True))
        with contextlib.suppress(OSError, StorageError):
            self._path().parent.mkdir(parents=True, exist_ok=True)
            if moved > _FEW * sum(map(len, self._large)):
                write_bytes(self._path(), self._content(wanted))
                self._path(_SINCE).unlink(missing_ok=True)
            elif self._changed:
                write_bytes(self._path(_SINCE), self._content(since))

    @property
    def _stores(self) -> tuple[Mapping[str, Any], ...]:
        return self._records, self._draws, self._numbers

    def _path(self, ending: str = "") -> Path:
        return BOARDS.path(digest(self._roots)[:16] + ending)

    def _key(self, record: Record) -> str | None:
        if record.location is None or record.evidence is None:
            return None
        stats = [self._stat(record.location.path), self._stat(record.location.evidence_path(record))]
        known = [stat for stat in stats if stat is not None]
        if len(known) < len(stats):
            return None
        return " ".join([record.fingerprint, record.evidence.sha256, str(record.location.path), *(s for s, _ in known)])

    def _file(self, record: Record) -> str:
        path = record.location.path if record.location is not None else Path()
        stat = self._stat(path)
        return f"{path} {stat[0]}" if stat is not None else ""

    def _stat(self, path: Path) -> tuple[str, float] | None:
        """What tells this file from any other, and when it was changed; None where it may change unseen."""
        name = str(path)  # which is hashed faster
        if name not in self._stats:
            try:
                found = path.stat()
            except OSError:
                self._stats[name] = None
            else:
                changed = max(found.st_mtime, found.st_ctime)
                sign = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
                self._stats[name] = (sign, changed) if changed < time.time() - _SETTLED else None
        return self._stats[name]

    def _add(self, key: str, measured: MeasuredRecord) -> None:
        places = measured.places
        if places is None:
            return
        arrays = [*measured.matrices.values(), places.right, places.union, places.truth]
        self._counts[key] = np.concatenate([array.reshape(-1) for array in arrays])
        self._records[key] = {
            "blocks": None if _are_stored(measured) else {k: one.model_dump() for k, one in measured.blocks.items()},
            "domains": list(measured.matrices),
            "places": places.places,
            "target": measured.target,
            "file": self._file(measured.record),
        }
        self._changed = True

    def _again(self, record: Record, key: str) -> MeasuredRecord:
        entry, classes = self._records[key], len(record.classes)
        numbers = self._counts[key].astype(np.int64)
        square, domains, places = classes * classes, entry["domains"], entry["places"]
        matrices = numbers[: square * len(domains)].reshape(-1, classes, classes)
        right, union, truth = numbers[square * len(domains) :].reshape(3, len(places), classes)
        stored = record.scores.blocks() if record.scores is not None else {}
        blocks = stored if entry["blocks"] is None else {
            name: ScoreBlock.model_construct(**{**scores, "iou": tuple(scores["iou"])})
            for name, scores in entry["blocks"].items()
        }  # fmt: skip
        return MeasuredRecord(
            record, blocks, dict(zip(domains, matrices, strict=True)), entry["target"],
            PlaceCounts(places, right, union, truth),
        )  # fmt: skip

    def _content(self, keys: Sequence[set[str]]) -> bytes:
        """A file: a mark, a checksum, the length of a head in JSON, the head, draws, pixel counts."""
        ordered, drawn, numbers = map(sorted, keys)
        places = list(dict.fromkeys(self._records[key]["places"] for key in ordered))
        numbered = {one: number for number, one in enumerate(places)}
        entries = [self._records[key] for key in ordered]
        records = {
            key: {**entry, "places": numbered[entry["places"]], "size": self._counts[key].size}
            for key, entry in zip(ordered, entries, strict=True)
        }
        counts = np.concatenate([np.empty(0, dtype=np.int64), *(self._counts[key] for key in ordered)])
        kind = "<i4" if counts.max(initial=0) < 2**31 else "<i8"
        draws = np.concatenate([np.empty(0), *(self._draws[key] for key in drawn)])
        head = {"made_by": _made_by(), "kind": kind, "places": places, "records": records,
                "draws": {key: self._draws[key].size for key in drawn},
                "numbers": {key: self._numbers[key] for key in numbers}}  # fmt: skip
        text = json.dumps(head, separators=(",", ":")).encode()
        text += b" " * (-(_HEAD + len(text)) % 8)
        body = b"".join([text, draws.astype("<f8").tobytes(), counts.astype(kind).tobytes()])
        return _MAGIC + zlib.crc32(body).to_bytes(8, "little") + len(text).to_bytes(8, "little") + body

    def _read(self, path: Path) -> None:
        """Take what a file has; nothing of one that is damaged, or that other code has made."""
        view = memoryview(path.read_bytes())
        checksum, length = (int.from_bytes(view[end - 8 : end], "little") for end in (_HEAD - 8, _HEAD))
        if view[: len(_MAGIC)] != _MAGIC or zlib.crc32(view[_HEAD:]) != checksum:
            return
        head = json.loads(bytes(view[_HEAD : _HEAD + length]))
        if head["made_by"] != _made_by():
            return
        places = [tuple(map(tuple, one)) for one in head["places"]]
        draws = np.frombuffer(view, dtype="<f8", count=sum(head["draws"].values()), offset=_HEAD + length)
        counts = np.frombuffer(view, dtype=head["kind"], offset=_HEAD + length + draws.nbytes)
        self._draws |= _cut(draws, head["draws"])
        self._counts |= _cut(counts, {key: entry["size"] for key, entry in head["records"].items()})
        self._records |= {key: {**entry, "places": places[entry["places"]]} for key, entry in head["records"].items()}
        self._files |= {entry["file"] for entry in head["records"].values()}
        self._numbers |= head["numbers"]


def _are_stored(measured: MeasuredRecord) -> bool:
    """Whether the scores are the record's own to the last digit, as they are unless another processor computed them."""
    stored = measured.record.scores.blocks() if measured.record.scores is not None else {}
    return list(map(repr, stored.items())) == list(map(repr, measured.blocks.items()))


def _cut(values: NDArray[Any], sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Pieces of an array, one after the other."""
    ends = np.cumsum([0, *sizes.values()]).tolist()
    return {key: values[start:end] for key, start, end in zip(sizes, ends, ends[1:], strict=False)}


@functools.cache
def _made_by() -> str:
    """The code that what is kept depends on, and the libraries that it computes with."""
    package = Path(__file__).resolve().parents[1]
    total = hashlib.sha256(f"{np.__version__} {scipy.__version__}".encode())
    for place in (package / name for name in _MADE_BY):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            total.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()

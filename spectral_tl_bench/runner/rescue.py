"""A finished result for which there is no room: waited for, kept elsewhere, and brought home by the next run.

What is kept elsewhere is a record store of one cell, in a private folder that is called after the cell's fingerprint.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.files import atomic_path
from spectral_tl_bench.pulse import beat
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE, record_folder
from spectral_tl_bench.runner.build import BuiltRun
from spectral_tl_bench.runner.room import bytes_of_result, bytes_of_weights
from spectral_tl_bench.runner.test import TestedModel
from spectral_tl_bench.runner.write import Clock, clear_unfinished, write
from spectral_tl_bench.storage import cache_folder, in_words
from spectral_tl_bench.storage.place import remove_whole
from spectral_tl_bench.training.progress import Say
from spectral_tl_bench.training.trained import TrainedModel

PREFIX = "stbench-rescued-"
_DIGITS = 16  # of the fingerprint, in the name of a folder
PAUSE = 5.0
"""Seconds between two tries."""


def write_or_rescue(
    built: BuiltRun, trained: TrainedModel, tested: TestedModel, fields: Mapping[str, Any], clock: Clock
) -> Record:
    """Store a finished cell, as ``write`` does; where that fails, wait, and then keep the result elsewhere.

    An interruption while it waits keeps the result elsewhere as well.

    Raises:
        StorageError: If it is not stored where it should be; it says where it is kept, or that it is lost.
    """

    def store(out: Path) -> Record:
        return write(replace(built, workplace=replace(built.workplace, out=out)), trained, tested, fields, clock)

    out, say = built.workplace.out, built.workplace.say
    try:
        record = _patiently(lambda: store(out), built)
    except (OSError, KeyboardInterrupt, SystemExit) as error:
        reason = _reason(error)
        clear_unfinished(_home(out, fields))
        try:
            kept = _keep_elsewhere(store, fields)
        except OSError as last:
            what = f"its result cannot be stored: {reason}; nor anywhere else: {_reason(last)}. It is lost"
            raise StorageError(what, where=out, fix="make room, and run the same command again") from error
        what = f"its result cannot be stored: {reason}. It is kept in {kept}"
        fix = "make room, and run the same command again: the result is brought over, and nothing is trained"
        if not isinstance(error, OSError):
            say(f"{built.cell.title} | {what}; to do: {fix}")
            raise
        raise StorageError(what, where=out, fix=fix) from error
    for place in _places(fields):  # of an earlier run, which this result replaces
        remove_whole(place)
    return record


def bring_home(out: Path, fields: Mapping[str, Any], say: Say) -> bool:
    """Put a result that an earlier run has kept elsewhere where it belongs.

    Args:
        out: Root of the record store.
        fields: What is known about the cell before anything is measured.

    Returns:
        Whether there was one.

    Raises:
        StorageError: If it cannot be stored there now, either; it stays where it is.
    """
    for place in _places(fields):
        if not (_home(place, fields) / RECORD_FILE).is_file():
            continue
        files = sorted(path for path in place.rglob("*") if path.is_file())
        try:
            for path in sorted(files, key=lambda path: path.name == RECORD_FILE):  # the record comes last
                with atomic_path(out / path.relative_to(place)) as temporary:
                    shutil.copyfile(path, temporary)
        except OSError as error:
            clear_unfinished(_home(out, fields))
            raise StorageError(
                f"its result, which is kept in {place}, cannot be stored: {_reason(error)}",
                where=out,
                fix="make room, and run the same command again",
            ) from error
        remove_whole(place)
        say(f"{fields['benchmark']} | {fields['method']} | seed {fields['seed']} | its result was kept in {place}")
        return True
    return False


def _patiently(store: Callable[[], Record], built: BuiltRun) -> Record:
    """Store a result, again and again for as long as the user is ready to wait."""
    minutes, said = built.hardware.wait_for_room, False
    end = time.monotonic() + 60 * minutes
    while True:
        try:
            return store()
        except OSError as error:
            left = end - time.monotonic()
            if left <= 0:
                raise
            if not said:
                size = bytes_of_result(built.cell, built.split) + bytes_of_weights(built.module, built.changeable)
                built.workplace.say(
                    f"{built.cell.title} | no room for its result in {built.workplace.out}: {_reason(error)}; about "
                    f"{in_words(size)} are needed. Waiting {minutes:g} minutes: make room, and it goes on"
                )
                said = True
            beat()
            time.sleep(min(PAUSE, left))


def _keep_elsewhere(store: Callable[[Path], Record], fields: Mapping[str, Any]) -> Path:
    """Store a result in a folder of its own in the first place that has room for it."""
    last: OSError = FileNotFoundError("there is no other place")
    for root in _roots():
        place = root / (PREFIX + fields["fingerprint"][:_DIGITS])
        try:
            root.mkdir(parents=True, exist_ok=True)
            if place.exists() and _is_ours(place):
                remove_whole(place)
            place.mkdir(mode=0o700)
        except OSError as error:
            last = error
            continue
        try:
            store(place)
        except OSError as error:
            remove_whole(place)
            last = error
        except BaseException:
            remove_whole(place)
            raise
        else:
            return place
    raise last


def _roots() -> Iterator[Path]:
    with contextlib.suppress(StorageError):
        yield cache_folder()
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir())


def _places(fields: Mapping[str, Any]) -> list[Path]:
    """The folders of this user's in which a cell's result may be kept."""
    places = [root / (PREFIX + fields["fingerprint"][:_DIGITS]) for root in _roots()]
    return [place for place in places if _is_ours(place)]


def _is_ours(place: Path) -> bool:
    """Whether a folder is this user's: anybody may write into the system's temporary folder."""
    try:
        status = place.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and (not hasattr(os, "getuid") or status.st_uid == os.getuid())


def _home(out: Path, fields: Mapping[str, Any]) -> Path:
    return record_folder(out, fields["benchmark"], fields["method"], fields["fingerprint"])


def _reason(error: BaseException) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "interrupted"

"""Pictures beside records: read without trust, and the colours of classes in them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.schema import Record

_MOST_BYTES = 4_000_000
_MOST_SIDE = 2_048
Size = tuple[int, int]
NO_PNG: tuple[bytes, Size] = (b"", (0, 0))


def class_colours(record: Record) -> tuple[str, ...]:
    """``#rrggbb`` of each class in the picture of a record's predictions; empty where there is none."""
    content, _ = prediction(record) if record.pictures is not None else NO_PNG
    if not content:
        return ()
    from PIL import Image  # which takes a while to import, and not all records have pictures

    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        palette = picture.getpalette() or []
    count = len(record.classes)
    if len(palette) < 3 * count:
        return ()
    return tuple("#{:02x}{:02x}{:02x}".format(*palette[3 * index : 3 * index + 3]) for index in range(count))


def prediction(record: Record) -> tuple[bytes, Size]:
    """The picture of a record's predictions, and its size; no bytes where it is missing or was changed."""
    pictures, location = record.pictures, record.location
    try:
        content = location.picture(record) if location is not None else None
    except (RecordError, OSError):
        content = None
    if content is None or pictures is None or hashlib.sha256(content).hexdigest() != pictures.sha256:
        return NO_PNG
    return _png(content)


def png_file(path: Path) -> tuple[bytes, Size]:
    """The PNG in a file and its size; no bytes where it is none of reasonable size."""
    try:
        return _png(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else NO_PNG
    except OSError:
        return NO_PNG


def _png(content: bytes) -> tuple[bytes, Size]:
    """The bytes of a PNG of reasonable size and its width and height; no bytes for anything else."""
    if len(content) > _MOST_BYTES:
        return NO_PNG
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            if max(picture.size) > _MOST_SIDE:
                return NO_PNG
            picture.load()
            return content, picture.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError):
        return NO_PNG

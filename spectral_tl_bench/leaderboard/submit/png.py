"""Pictures of predictions: indexed PNGs of known sizes, with nothing in them but pixels and the classes' colours."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spectral_tl_bench.benchmarks import VOID, Benchmark
from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.results.schema import PictureFile

SIDE = 256
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def check_picture(content: bytes, picture: PictureFile, benchmark: Benchmark, where: object) -> None:
    """Refuse what is not a picture as the runner makes it.

    Args:
        picture: What the record says about it.
        benchmark: Gives the classes and their colours.
        where: Named in errors.

    Raises:
        RecordError: If the file was changed, is no indexed PNG, is too large, holds more than pixels and palette, or
            shows other values than the benchmark's classes.
    """
    if hashlib.sha256(content).hexdigest() != picture.sha256:
        raise RecordError("the picture is not the file that the record was written with", where=where)
    if picture.file != f"pictures-{picture.sha256[:16]}.png":
        raise RecordError(f"the picture is called {picture.file}, which does not follow from its content", where=where)
    pixels, palette = read_png(content, len(picture.chips) * SIDE, 3, where)
    classes = benchmark.labels.classes
    strange = set(np.unique(pixels).tolist()) - set(range(len(classes))) - {VOID}
    if strange:
        raise RecordError("the picture holds values that are not classes", where=where)
    colours = [value for cover in classes for value in cover.rgb]
    if palette[: len(colours)] != colours:
        raise RecordError("the colours of the picture are not those of the classes", where=where)


def read_png(content: bytes, width: int, colour: int, where: object) -> tuple[NDArray[np.uint8], list[int]]:
    """The pixels (H, W) or (H, W, 3) of a PNG, and its palette.

    Args:
        width: Most pixels in width; in height ``SIDE`` are allowed.
        colour: PNG's colour type: 3 with a palette, 2 RGB.
        where: Named in errors.

    Raises:
        RecordError: If it is something else, or holds more than pixels and palette.
    """
    _check_chunks(content, width, colour, where)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            return np.array(opened), list(opened.getpalette() or [])
    except (OSError, ValueError, SyntaxError, zlib.error) as error:
        raise RecordError(f"the picture cannot be read: {error}", where=where) from None


def _check_chunks(content: bytes, most: int, wanted: int, where: object) -> None:
    if not content.startswith(_SIGNATURE):
        raise RecordError("the picture is not a PNG", where=where)
    position, kinds = len(_SIGNATURE), []
    while position + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        kinds.append(kind)
        if kind not in _CHUNKS:
            raise RecordError(f"the picture holds a part {kind!r}", where=where, expected="pixels and a palette alone")
        if kind == b"IHDR":
            width, height, bits, colour = struct.unpack(">IIBB", content[position + 8 : position + 18])
            if not (0 < width <= most and 0 < height <= SIDE and bits <= 8 and colour == wanted):
                raise RecordError(
                    f"the picture has {width:,} x {height:,} px of colour type {colour}",
                    where=where,
                    expected=f"colour type {wanted}, at most {most} x {SIDE} px",
                )
        position += 12 + length
        if kind == b"IEND":
            break
    if position != len(content) or kinds[:1] != [b"IHDR"] or kinds[-1:] != [b"IEND"]:
        raise RecordError("the picture has something behind its end, or is cut off", where=where)

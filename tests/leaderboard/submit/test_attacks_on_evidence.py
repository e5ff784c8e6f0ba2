"""Evidence and pictures that were made up, with hashes and scores that go with them."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin
from submitting import edit, forge, reasons

from spectral_tl_bench.results.store import read_record


def first(change):
    """A change of the matrices (K, K) of one chip, at all its checkpoints."""

    def whole(frame):
        chip = frame["chip"].iloc[0]
        for number in frame.index[frame["chip"] == chip]:
            matrix = frame.at[number, "matrix"].reshape(8, 8).copy()
            change(matrix)
            frame.at[number, "matrix"] = matrix.reshape(-1)
        return frame

    return whole


def move_row(matrix):
    """Pixels of the commonest class become right ones of another."""
    common = int(matrix.sum(axis=1).argmax())
    other = (common + 1) % 8
    matrix[other, other] += matrix[common].sum()
    matrix[common] = 0


def wrap(matrix):
    """Four giant entries whose sum wraps around to nothing in 64 bits."""
    row = int(matrix.sum(axis=1).argmax())
    total = int(matrix[row].sum())
    matrix[row] = 0
    matrix[row, :5] = (*[2**62] * 4, total)


def all_right(matrix):
    total = int(matrix.sum())
    matrix[:] = 0
    matrix[0, 0] = total


def one_less(matrix):
    matrix[np.unravel_index(matrix.argmax(), matrix.shape)] -= 1


def turned(matrix):
    """The same ground truth, all of it predicted as the next class."""
    square = matrix.reshape(8, 8)
    wrong = np.zeros_like(square)
    wrong[range(8), (np.arange(8) + 1) % 8] = square.sum(axis=1)
    return wrong.reshape(-1)


def swap_chips(frame):
    names = sorted(set(frame["chip"]))
    return frame.assign(chip=frame["chip"].map(dict(zip(names, names[::-1], strict=True))))


FORGERIES = {
    "pixels moved between classes": (first(move_row), {}, "do not have the ground truth's pixels per class"),
    "sums that wrap around": (first(wrap), {}, "do not have the ground truth's pixels per class"),
    "an easier chip": (first(all_right), {}, "do not have the ground truth's pixels per class"),
    "one pixel more": (first(lambda m: m.__setitem__((0, 0), m[0, 0] + 1)), {}, "rows add up to"),
    "one pixel less": (first(one_less), {}, "rows add up"),
    "chips swapped": (swap_chips, {}, "ground truth's pixels per class"),
    "another place": (lambda f: f.assign(site="one place"), {}, "is said to lie in"),
    "another chip": (lambda f: f.assign(chip=f["chip"].replace(f["chip"].iloc[0], "easy")), {}, "is missing"),
    "script in a place": (lambda f: f.assign(site="<script>"), {}, "markup or script"),
    "script in a chip": (lambda f: f.assign(chip=f["chip"] + "<b>"), {}, "markup or script"),
}  # fmt: skip


def refused(world, message):
    done = world.submit()
    assert not done.ok and message in reasons(done), reasons(done)
    assert world.files() == [] and list(world.results.iterdir()) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_consistent_forgeries_are_refused(world, record, name):
    change, fields, message = FORGERIES[name]
    forge(record, change, **{"pictures": None, **fields})
    refused(world, message)


def test_a_hard_chip_left_out_is_refused(world, record):
    data = record.data.model_dump(mode="json")
    data["chips"]["target"] -= 1
    forge(record, lambda f: f[f["chip"] != f["chip"].iloc[0]], data=data, pictures=None)
    refused(world, "is missing")


def test_an_oracle_that_is_not_the_best_is_refused(world, record):
    """As where the best checkpoint on the target was put in the place of the selected one."""

    def add(frame):
        selected = frame[frame["checkpoint"] == "selected"]
        return pd.concat([frame, selected.assign(checkpoint="oracle", matrix=[turned(m) for m in selected["matrix"]])])

    forge(record, add, pictures=None)
    refused(world, "its oracle is worse on the target")


def with_evidence(record, content: bytes):
    """The record, pointing at other bytes under a name and hash that go with them."""
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"evidence-{sha256[:16]}.parquet"
    (record.path.parent / record.evidence.file).unlink()
    (record.path.parent / name).write_bytes(content)
    edit(record.path, lambda value: value.update(evidence={"file": name, "sha256": sha256}))


def parquet(columns) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


def table(rows: int = 2, text: str = "x", values: int = 64, **more):
    ints = pa.array([[0] * values] * rows, type=pa.list_(pa.int64()))
    return {**{name: [text] * rows for name in ("chip", "domain", "site", "checkpoint")}, "matrix": ints, **more}


BYTES = {
    "swapped for noise": (b"no parquet at all", "not Parquet"),
    "cut off": (parquet(table())[:-9], "not Parquet"),
    "a million rows in a few bytes": (parquet(table(1_000_000, values=1)), "1,000,000 rows"),
    "a million values in a row": (parquet(table(2, values=1_000_000)), "values in 2 rows"),
    "a long text, many times": (parquet(table(8, text="x" * 5_000_000)), "bytes"),
    "a text too long": (parquet(table(8, text="x" * 300)), "a text of 300 bytes"),
    "one more column": (parquet(table(note=["hello", "world"])), "the evidence has the columns"),
    "no matrix": (parquet({"chip": ["x"]}), "the evidence has the columns"),
    "numbers as text": (parquet(table() | {"matrix": ["1", "2"]}), "values in 2 rows"),
    "matrices as fractions": (
        parquet(table() | {"matrix": pa.array([[0.5] * 64] * 2)}),
        "the evidence has the columns",
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_evidence_are_refused(world, record, name):
    content, message = BYTES[name]
    assert len(content) < 2**20
    with_evidence(record, content)
    refused(world, message)


def test_evidence_that_is_not_what_the_record_names_is_refused(world, record):
    path = record.path.parent / record.evidence.file
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(bytes(content))
    refused(world, "evidence")


def png(pixels, palette=None, info=None, mode="P") -> bytes:
    picture = Image.fromarray(pixels, mode=mode)
    if palette is not None:
        picture.putpalette(palette)
    stream = io.BytesIO()
    picture.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def note() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>")
    return info


def giant() -> bytes:
    """A picture of 100,000 x 100,000 px in its header, and a few bytes of pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 3, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"PLTE", b"\0" * 9)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


ONES, COLOURS = np.ones((8, 8), np.uint8), [1, 2, 3] * 256
PICTURES = {
    "not a picture": (b"<svg onload=alert(1)>", "not a PNG"),
    "a page behind the picture": (png(ONES, COLOURS) + b"<script>alert(1)</script>", "behind its end"),
    "script in a comment": (png(ONES, COLOURS, note()), "holds a part"),
    "a giant": (giant(), "100,000 x 100,000 px"),
    "too wide": (png(np.ones((8, 600), np.uint8), COLOURS), "600 x 8 px"),
    "a photograph": (png(np.ones((8, 8, 3), np.uint8), mode="RGB"), "colour type 2"),
    "values that are no classes": (png(77 * ONES, COLOURS), "not classes"),
    "other colours": (png(ONES, COLOURS), "colours"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_hold_something_else_are_refused(world, record, name):
    content, message = PICTURES[name]
    sha256 = hashlib.sha256(content).hexdigest()
    picture = {"file": f"pictures-{sha256[:16]}.png", "sha256": sha256, "chips": list(record.pictures.chips)}
    (record.path.parent / picture["file"]).write_bytes(content)
    edit(record.path, lambda value: value.update(pictures=picture))
    refused(world, message)


def test_a_picture_of_another_chip_or_another_run_is_refused(world, record):
    edit(record.path, lambda value: value["pictures"].update(chips=["elsewhere"]))
    refused(world, "not a chip of the target")
    edit(record.path, lambda value: value["pictures"].update(sha256="0" * 64))
    refused(world, "not the file that the record was written with")
    assert read_record(record.path).pictures is not None

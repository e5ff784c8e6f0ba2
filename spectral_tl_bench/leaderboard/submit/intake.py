"""Reading files from strangers: bounded before they are read, never through a link, and only the expected kinds."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.leaderboard.submit.text import quoted
from spectral_tl_bench.results.evidence import COLUMNS, TEXT_COLUMNS
from spectral_tl_bench.results.store import RECORD_FILE

MEBIBYTE = 2**20
RECORD_BYTES = MEBIBYTE
EVIDENCE_BYTES = 64 * MEBIBYTE
PICTURE_BYTES = 2 * MEBIBYTE

JSON_DEPTH = 12
JSON_VALUES = 10_000
EVIDENCE_ROWS = 300_000
EVIDENCE_TEXT = 256
"""Characters of a chip's, domain's or site's name."""
MOST_RECORDS = 10_000
_DEEPEST_FOLDER = 8


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a plain file of at most ``limit`` bytes; its size is looked at before anything is read.

    Raises:
        RecordError: If it is missing, a link, no plain file, or larger.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():
        raise RecordError(f"{path.name} is a symbolic link", where=path, fix="put the file itself there")
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise RecordError(f"{path.name} cannot be read: {error.strerror}", where=path) from None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RecordError(f"{path.name} is not a plain file", where=path)
        size = status.st_size
        content = stream.read(limit + 1) if size <= limit else b""
    if max(size, len(content)) > limit:
        raise RecordError(
            f"{path.name} has {max(size, len(content)):,} bytes, at most {limit:,} are allowed", where=path
        )
    return content


def check_json(content: bytes, where: object) -> dict[str, Any]:
    """Parse the JSON of a record after its depth and its number of values were bounded.

    Raises:
        RecordError: If it is no JSON object, too deep, or too large.
    """
    deepest, values = _shape(content)
    if deepest > JSON_DEPTH:
        raise RecordError(f"the record is nested {deepest} levels deep, at most {JSON_DEPTH} are allowed", where=where)
    if values > JSON_VALUES:
        raise RecordError(f"the record holds {values:,} values, at most {JSON_VALUES:,} are allowed", where=where)
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the record is not JSON in UTF-8: {error}", where=where) from None
    if not isinstance(value, dict):
        raise RecordError("a record is a JSON object", where=where)
    return value


def _shape(content: bytes) -> tuple[int, int]:
    """Depth and number of commas of a JSON text, outside its strings; in one pass, whatever the text is."""
    depth = deepest = commas = 0
    inside = False
    for token in re.findall(rb'\\.|["\[\]{},]', content, flags=re.DOTALL):
        if token == b'"':
            inside = not inside
        elif inside or token.startswith(b"\\"):
            continue
        elif token == b",":
            commas += 1
        else:
            depth += 1 if token in b"[{" else -1
            deepest = max(deepest, depth)
    return deepest, commas


def check_parquet(content: bytes, chips: int, num_classes: int, where: object) -> None:
    """Refuse evidence that would grow beyond what it can honestly hold, before it is unpacked.

    Args:
        content: The file.
        chips: Target chips that the record speaks of.
        num_classes: K.
        where: Named in errors.

    Raises:
        RecordError: If columns, rows, values, or the length of texts are not those of evidence for so many chips.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(content))
        facts = file.metadata
        rows = facts.num_rows
        leaves = [facts.schema.column(number).path for number in range(facts.num_columns)]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"the evidence is not Parquet: {error}", where=where) from None
    if [leaf.partition(".")[0] for leaf in leaves] != list(COLUMNS):
        raise RecordError(
            f"the evidence has the columns {quoted(', '.join(leaves))}", where=where, expected=", ".join(COLUMNS)
        )
    if not 0 < rows <= min(3 * chips, EVIDENCE_ROWS):
        raise RecordError(
            f"the evidence has {rows:,} rows for {chips:,} target chips",
            where=where,
            expected=f"one for each chip and checkpoint, {EVIDENCE_ROWS:,} at most",
        )
    values, size = [0] * len(leaves), [0] * len(leaves)
    for group in range(facts.num_row_groups):
        for number in range(len(leaves)):
            part = facts.row_group(group).column(number)
            values[number] += part.num_values
            size[number] += part.total_uncompressed_size
    wanted = [*[rows] * len(TEXT_COLUMNS), rows * num_classes**2]
    if values != wanted:
        raise RecordError(
            f"the evidence holds {sum(values):,} values in {rows:,} rows, not {sum(wanted):,}", where=where
        )
    allowed = [
        count * (8 if leaf.startswith("matrix") else EVIDENCE_TEXT) for count, leaf in zip(wanted, leaves, strict=True)
    ]
    if any(found > 2 * most + 65_536 for found, most in zip(size, allowed, strict=True)):
        raise RecordError(f"the evidence unpacks to {sum(size):,} bytes, more than it can need", where=where)
    _check_texts(content, where)


def _check_texts(content: bytes, where: object) -> None:
    """Look at each different text once: a long one that is repeated takes little room in the file."""
    try:
        table = pq.read_table(io.BytesIO(content), columns=list(TEXT_COLUMNS), read_dictionary=list(TEXT_COLUMNS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"the evidence is not Parquet: {error}", where=where) from None
    for name in TEXT_COLUMNS:
        for chunk in table.column(name).chunks:
            different = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
            for text in different:
                if len(text.as_buffer() or b"") > EVIDENCE_TEXT:
                    raise RecordError(
                        f"column {name!r} of the evidence holds a text of {len(text.as_buffer()):,} bytes",
                        where=where,
                        expected=f"at most {EVIDENCE_TEXT}",
                    )


def find_records(given: Path) -> Iterator[Path]:
    """The records that the user named: a ``record.json``, the folder of one, or a whole store.

    Raises:
        RecordError: If there is nothing, a link lies in the way, or there are far too many.
    """
    if given.name == RECORD_FILE and (given.is_file() or given.is_symlink()):
        yield given
        return
    if not given.is_dir():
        raise RecordError(
            "there is no such run", where=given, expected=f"a {RECORD_FILE}, its folder, or a folder of runs"
        )
    count = 0
    for folder, folders, files in os.walk(given):
        here = Path(folder)
        folders.sort()
        links = [name for name in folders if (here / name).is_symlink()]
        if links:
            raise RecordError("a folder of the runs is a symbolic link", where=here / links[0], fix="give its target")
        if len(here.relative_to(given).parts) >= _DEEPEST_FOLDER:
            folders.clear()
        if RECORD_FILE in files:
            count += 1
            if count > MOST_RECORDS:
                raise RecordError(
                    f"there are more than {MOST_RECORDS:,} records", where=given, fix="submit fewer at once"
                )
            yield here / RECORD_FILE
    if not count:
        raise RecordError("there is no record in this folder", where=given, fix="run something first: stbench run")

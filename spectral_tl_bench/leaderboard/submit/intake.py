"""Reading files from strangers: bounded before they are read, never through a link, and only the expected kinds."""

from __future__ import annotations

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
from spectral_tl_bench.results.published import PAIR_SCHEMA, Pair, is_pair
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import RECORD_FILE

MEBIBYTE = 2**20
RECORD_BYTES = MEBIBYTE
EVIDENCE_BYTES = 64 * MEBIBYTE
PICTURE_BYTES = 2 * MEBIBYTE
LINES_BYTES = ROWS_BYTES = 100 * MEBIBYTE
"""Of the two published files of a method: more than this the usual hosts of repositories do not take in one file."""

JSON_DEPTH = 12
JSON_VALUES = 10_000
EVIDENCE_ROWS = 300_000
EVIDENCE_TEXT = 256
"""Characters of a chip's, domain's or site's name."""
MOST_RECORDS = 10_000
_DEEPEST_FOLDER = 8


def read_bounded(path: Path, limit: int, only_look: bool = False) -> bytes:
    """The bytes of a plain file of at most ``limit`` bytes; its size is looked at before anything is read.

    Args:
        limit: Most bytes.
        only_look: Whether to read nothing after that.

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
        content = stream.read(limit + 1) if size <= limit and not only_look else b""
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


def bound_evidence(record: Record) -> None:
    """Refuse evidence that would grow beyond what it can honestly hold, before it is unpacked.

    Args:
        record: A completed, stored record.

    Raises:
        RecordError: If columns, rows, values, or the length of texts are not those of evidence for so many chips.
    """
    location = record.location
    if location is None or record.evidence is None or record.data is None:
        raise RecordError("this record has no evidence")
    pair = location if isinstance(location, Pair) else None
    where = pair.rows if pair else location.path.parent / record.evidence.file
    names, texts = PAIR_SCHEMA.names if pair else list(COLUMNS), list(TEXT_COLUMNS)
    if pair and record.fingerprint not in pair.groups():
        raise RecordError("its evidence is missing", where=where)
    source = where if pair else pa.BufferReader(read_bounded(where, EVIDENCE_BYTES))
    try:
        facts = pair.metadata() if pair else pq.read_metadata(source)
        groups = [pair.groups()[record.fingerprint]] if pair else list(range(facts.num_row_groups))
        _bound_sizes(facts, groups, names, record.data.chips.target, len(record.classes), where)
        with pq.ParquetFile(source, metadata=facts, read_dictionary=texts) as file:
            _bound_texts(file.read_row_groups(groups, columns=texts), where)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"the evidence is not Parquet: {error}", where=where) from None


def _bound_sizes(
    facts: pq.FileMetaData, groups: list[int], names: list[str], chips: int, num_classes: int, where: object
) -> None:
    leaves = [facts.schema.column(number).path for number in range(facts.num_columns)]
    if [leaf.partition(".")[0] for leaf in leaves] != names:
        raise RecordError(
            f"the evidence has the columns {quoted(', '.join(leaves))}", where=where, expected=", ".join(names)
        )
    rows = sum(facts.row_group(group).num_rows for group in groups)
    if not 0 < rows <= min(3 * chips, EVIDENCE_ROWS):
        raise RecordError(
            f"the evidence has {rows:,} rows for {chips:,} target chips",
            where=where,
            expected=f"one for each chip and checkpoint, {EVIDENCE_ROWS:,} at most",
        )
    parts = [[facts.row_group(group).column(number) for group in groups] for number in range(len(names))]
    values = [sum(part.num_values for part in column) for column in parts]
    size = [sum(part.total_uncompressed_size for part in column) for column in parts]
    wanted = [rows * num_classes**2 if name == "matrix" else rows for name in names]
    if values != wanted:
        raise RecordError(
            f"the evidence holds {sum(values):,} values in {rows:,} rows, not {sum(wanted):,}", where=where
        )
    text = rows * EVIDENCE_TEXT
    most = [{"matrix": 8 * wanted[names.index("matrix")], "picture": PICTURE_BYTES}.get(name, text) for name in names]
    if any(unpacked > 2 * allowed + 65_536 for unpacked, allowed in zip(size, most, strict=True)):
        raise RecordError(f"the evidence unpacks to {sum(size):,} bytes, more than it can need", where=where)


def _bound_texts(table: pa.Table, where: object) -> None:
    """Look at each different text once: a long one that is repeated takes little room in the file."""
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


def bound_picture(record: Record) -> bytes | None:
    """The picture of a record whose evidence was bounded; None where it shows none.

    Raises:
        RecordError: If it is missing or too large, or there is one that the record does not name.
    """
    location, named = record.location, record.pictures if record.track == "sample" else None
    if isinstance(location, Pair):
        first, *others = location.read(record, ["picture"]).column("picture").to_pylist()
        if any(others) or (first is not None and named is None):
            raise RecordError("its rows hold a picture that the record does not show", where=location.rows)
        if first is None and named is not None:
            raise RecordError("its picture cannot be read: it is missing", where=location.rows)
        return first
    return read_bounded(location.path.parent / named.file, PICTURE_BYTES) if location and named else None


def bound_pair(path: Path) -> list[bytes]:
    """The lines of a pair of published files, after the sizes of both were looked at.

    Args:
        path: The file of lines.

    Raises:
        RecordError: If a file is missing, a link, too large, or carries something besides.
    """
    lines = read_bounded(path, LINES_BYTES).splitlines()
    if len(lines) > MOST_RECORDS:
        raise RecordError(f"there are more than {MOST_RECORDS:,} records", where=path)
    pair = Pair(path)
    read_bounded(pair.rows, ROWS_BYTES, only_look=True)
    extra = set(pair.metadata().metadata or {}) - {b"ARROW:schema"}
    if extra:
        raise RecordError(f"{pair.rows.name} carries {quoted(sorted(extra)[0])} besides its rows", where=pair.rows)
    return lines


def find_records(given: Path) -> Iterator[Path]:
    """The records that the user named: a ``record.json``, the folder of one, published files, or a whole store.

    Returns:
        Files ``record.json``, and the files of lines of published pairs.

    Raises:
        RecordError: If there is nothing, a link lies in the way, or there are far too many.
    """
    if (given.name == RECORD_FILE or is_pair(given)) and (given.is_file() or given.is_symlink()):
        yield given
        return
    if not given.is_dir():
        raise RecordError(
            "there is no such run", where=given, expected=f"a {RECORD_FILE}, its folder, or a folder of runs"
        )
    count = 0
    for folder, folders, files in os.walk(given):
        parent = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # hidden is what runs need to go on
        links = [name for name in folders if (parent / name).is_symlink()]
        if links:
            raise RecordError("a folder of the runs is a symbolic link", where=parent / links[0], fix="give its target")
        if len(parent.relative_to(given).parts) >= _DEEPEST_FOLDER:
            folders.clear()
        for name in sorted(files):
            if name != RECORD_FILE and not is_pair(parent / name):
                continue
            count += 1
            if count > MOST_RECORDS:
                raise RecordError(
                    f"there are more than {MOST_RECORDS:,} records", where=given, fix="submit fewer at once"
                )
            yield parent / name
    if not count:
        raise RecordError("there is no record in this folder", where=given, fix="run something first: stbench run")

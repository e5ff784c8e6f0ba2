"""Published results: two files for each track and method, so that a submission touches its own files alone.

``<track>/<method>.jsonl`` holds one record per line, in a fixed order. ``<track>/<method>.parquet`` beside it holds
what the records rest on: one row group per record, with the record's fingerprint in every row and, in the first row of
a record that shows predictions, their PNG. Images and labels of the chips that are shown lie in ``<track>/chips/``,
once for all methods. The same records give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.files import atomic_path
from spectral_tl_bench.results.evidence import COLUMNS, SCHEMA, Evidence, from_table, to_table
from spectral_tl_bench.results.reading import parse_record
from spectral_tl_bench.results.schema import TRACKS, Record

LINES, ROWS = ".jsonl", ".parquet"
"""Suffixes of a pair."""
CHIPS = "chips"
"""Folder of drawn chips below a track."""
PAIR_SCHEMA = pa.schema([pa.field("fingerprint", pa.string()), *SCHEMA, pa.field("picture", pa.binary())])


@dataclass(frozen=True, eq=False)
class Pair:
    """Where published records are stored: a location for all records of one pair.

    Attributes:
        path: The file of lines.
    """

    path: Path
    _opened: list[tuple[pq.FileMetaData, dict[str, int]]] = field(default_factory=list, init=False, repr=False)

    @property
    def rows(self) -> Path:
        """The Parquet file."""
        return self.path.with_name(self.path.name.removesuffix(LINES) + ROWS)

    def metadata(self) -> pq.FileMetaData:
        """What the Parquet file says about itself; read once.

        Raises:
            RecordError: If it is missing, or no Parquet of published results.
        """
        return self._open()[0]

    def groups(self) -> Mapping[str, int]:
        """Number of the row group by fingerprint, as the file's own statistics tell; they are not believed later.

        Raises:
            RecordError: As ``metadata``, or if two groups are of one record, or one of several.
        """
        return self._open()[1]

    def read(self, record: Record, columns: Sequence[str]) -> pa.Table:
        """Columns of the rows of one record; ``fingerprint`` is read too, checked, and left out.

        Raises:
            RecordError: If they are missing or cannot be read.
        """
        number = self.groups().get(record.fingerprint)
        if number is None:
            raise RecordError(f"the evidence of {record.fingerprint[:16]} is missing", where=self.rows)
        try:
            with pq.ParquetFile(self.rows, metadata=self.metadata()) as file:
                table = file.read_row_group(number, columns=["fingerprint", *columns], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise RecordError(f"the evidence cannot be read: {error}", where=self.rows) from None
        owners = table.column("fingerprint").unique().to_pylist()
        if owners != [record.fingerprint]:
            raise RecordError(f"rows of {record.fingerprint[:16]} belong to another record", where=self.rows)
        return table.select(columns)

    def evidence(self, record: Record) -> Evidence:
        """See ``Location``."""
        if record.evidence is None or record.evidence.earlier_file is not None:
            raise RecordError("this record has no published evidence", where=self.path)
        return from_table(self.read(record, COLUMNS), len(record.classes), self.rows)

    def evidence_path(self, _record: Record) -> Path:
        """See ``Location``."""
        return self.rows

    def picture(self, record: Record) -> bytes | None:
        """See ``Location``."""
        if record.pictures is None or record.evidence is None:
            return None
        column = self.read(record, ["picture"]).column("picture")
        return column[0].as_py() if len(column) else None

    def chips(self, record: Record, target: str) -> Path:
        """See ``Location``."""
        return published_chips(self.path.parent, record.benchmark, target)

    def _open(self) -> tuple[pq.FileMetaData, dict[str, int]]:
        if not self._opened:
            try:
                metadata = pq.read_metadata(self.rows)
                schema = metadata.schema.to_arrow_schema()
            except (pa.ArrowException, OSError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise RecordError(f"the evidence cannot be read: {reason}", where=self.rows) from None
            if not schema.equals(PAIR_SCHEMA):
                columns, wanted = (
                    ", ".join(f"{column.name}: {column.type}" for column in each) for each in (schema, PAIR_SCHEMA)
                )
                raise RecordError(f"the evidence has the columns {columns}", where=self.rows, expected=wanted)
            self._opened.append((metadata, _groups(metadata, self.rows)))
        return self._opened[0]


def _groups(metadata: pq.FileMetaData, where: Path) -> dict[str, int]:
    groups: dict[str, int] = {}
    for number in range(metadata.num_row_groups):
        bounds = metadata.row_group(number).column(0).statistics
        if bounds is None or not bounds.has_min_max or bounds.min != bounds.max or bounds.min in groups:
            raise RecordError("the evidence does not have one row group for each record", where=where,
                              fix="let `stbench submit` write it")  # fmt: skip
        groups[bounds.min] = number
    return groups


def pair_path(root: Path, track: str, method: str) -> Path:
    """The file of lines of a track and method."""
    return root / track / f"{method}{LINES}"


def is_pair(path: Path) -> bool:
    """Whether a path is that of a file of lines: it lies in a folder that is called like a track."""
    return path.suffix == LINES and path.parent.name in TRACKS


def published_chips(track: Path, benchmark: str, target: str) -> Path:
    """The folder of drawn chips of a benchmark, below the folder of a track."""
    return track / CHIPS / f"{benchmark}-{target}"


def place_in_pair(record: Record) -> tuple[str, int, str]:
    """By this the records of a pair are sorted."""
    return record.benchmark, record.seed, record.fingerprint


def record_line(record: Record) -> str:
    """A record as one line, without the line's end; spaces after commas let a diff by words show what changed."""
    return json.dumps(record.model_dump(mode="json"), sort_keys=True, allow_nan=False)


def read_pair(path: Path) -> list[Record]:
    """Read and check the records of a pair; their evidence is not opened yet.

    Args:
        path: The file of lines.

    Raises:
        RecordError: If it cannot be read, or a line is no record or comes twice; it names the line.
    """
    try:
        lines = [line.decode("utf-8") for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecordError(f"the records cannot be read: {reason}", where=path) from None
    pair = Pair(path)
    records = [parse_record(line, f"{path}, line {number}").at(pair) for number, line in enumerate(lines, start=1)]
    seen: set[str] = set()
    for number, record in enumerate(records, start=1):
        if record.fingerprint in seen:
            raise RecordError(f"record {record.fingerprint[:16]} comes twice", where=f"{path}, line {number}")
        seen.add(record.fingerprint)
    return records


def write_lines(records: Iterable[Record], path: Path) -> None:
    """Write the file of lines of a pair, atomically."""
    lines = [record_line(record) + "\n" for record in sorted(records, key=place_in_pair)]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def write_rows(records: Iterable[Record], path: Path) -> None:
    """Write the Parquet file of a pair from where each record is stored now, one record at a time, atomically.

    Pictures are taken along on the track ``sample`` alone: those of other data are not ours to publish.

    Raises:
        RecordError: If evidence is missing, or is not what its record was written with.
    """
    completed = sorted((record for record in records if record.evidence is not None), key=place_in_pair)
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, PAIR_SCHEMA, compression="zstd", write_statistics=["fingerprint"]) as writer,
    ):
        for record in completed:
            writer.write_table(_rows(record))


def _rows(record: Record) -> pa.Table:
    if record.location is None or record.evidence is None:
        raise RecordError("this record is not stored", where=record.fingerprint[:16])
    evidence = record.location.evidence(record)
    if evidence.sha256 != record.evidence.sha256:
        raise RecordError("the evidence is not what the record was written with", where=record.path)
    table = to_table(evidence)
    picture = record.location.picture(record) if record.track == "sample" else None
    pictures = pa.array([picture, *[None] * (len(table) - 1)], type=pa.binary())
    fingerprints = pa.array([record.fingerprint] * len(table), type=pa.string())
    return pa.Table.from_arrays([fingerprints, *table.columns, pictures], schema=PAIR_SCHEMA)

"""Stored results as data frames, boards, comparisons and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from spectral_tl_bench.console import user_path
from spectral_tl_bench.defaults import results_folder
from spectral_tl_bench.files import write_bytes
from spectral_tl_bench.leaderboard.analysis import Analysis, analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.choosing import board_of_rows, chosen_board
from spectral_tl_bench.leaderboard.definitions import read_definitions
from spectral_tl_bench.leaderboard.figures import PAGE, check_suffix, draw, render
from spectral_tl_bench.leaderboard.statistics.comparison import compare as compare_rows
from spectral_tl_bench.leaderboard.statistics.comparison import find_row, verdict
from spectral_tl_bench.leaderboard.tidy import results_frame
from spectral_tl_bench.results.finding import find_records
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.storage.output import check_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = str | Path | Iterable[str | Path | None] | None


def load_results(records: Paths = None, per: str = "record") -> pd.DataFrame:
    """Stored results as a tidy frame, their scores computed from the evidence.

    Args:
        records: Folder of records, a record, or several; by default ``STBENCH_RESULTS``, else ``runs``.
        per: What a row is of: ``record``, ``class``, ``domain`` or ``place`` (the unit of the bootstrap). The last
            three are of the selected checkpoint, and of completed records alone.

    Returns:
        One row for each, with the columns that ``leaderboard.tidy`` lists. Scores are fractions of 1; ``row`` is the
        row of the board that the record counts for: group by it to merge seeds.

    Raises:
        RecordError: If a record cannot be read, or its evidence is missing or was changed.
        UserError: If there are no records, or a row cannot be of that.
    """
    return results_frame(_records(records), per)


def board(records: Paths = None, track: str | None = None) -> Analysis:
    """A board with its uncertainty, as ``stbench report`` writes it.

    Args:
        records: As of ``load_results``.
        track: Name of the board; by default the only one, or ``reproduced`` where there are several.

    Returns:
        An object with the frames ``rows`` (best first), ``entries`` (a line per row and benchmark), ``domains`` and
        ``classes``, and with ``board.notes``, which a reader has to know.

    Raises:
        UserError: If there is no such board.
        RecordError: As of ``load_results``.
    """
    return analyse(chosen_board(_records(records), track, _where(records)))


def compare(first: str, second: str, records: Paths = None, track: str | None = None) -> pd.DataFrame:
    """Two rows of a board over the same places and seeds, benchmark by benchmark.

    Args:
        first: A row's name (8 hex digits), or a method that has one row.
        second: Another.
        records: As of ``load_results``.
        track: Name of the board, where the rows stand on more than one.

    Returns:
        A line per benchmark with a gap and a last one, ``all``: the difference first - second with its 95 % interval
        over places, and p by itself and after Holm's correction; ``by_seed``, and the same over places and seeds
        (``runs_low``, ``runs_high``, ``runs_p``). Where ``estimable`` is false, ``reason`` says why; what it comes to,
        and whether seeds and places are enough for that, is said in ``attrs["verdict"]``.

    Raises:
        RecordError: If there is no such row, or the two cannot be compared.
        UserError: If the rows stand on more than one board.
    """
    analysis = analyse(board_of_rows(make_boards(_records(records)), first, second, track))
    lines = compare_rows(analysis, first, second)
    lines.attrs["verdict"] = verdict(analysis, find_row(analysis, first), find_row(analysis, second), lines)
    return lines


def plot(
    kind: str, out: str | Path | None = None, records: Paths = None, track: str | None = None, *,
    method: str | Sequence[str] = (), benchmark: str | None = None, width: float = PAGE,
) -> Figure:  # fmt: skip
    """One figure of a board, as ``stbench plot`` draws it.

    Args:
        kind: Which one, such as ``forest``; ``stbench plot --help`` lists all.
        out: File to write it to: .pdf, .svg or .png.
        records: As of ``load_results``.
        track: As of ``board``.
        method: Only these methods.
        benchmark: For kinds that show one benchmark.
        width: In millimetres: 88 fills a column, 180 a page.

    Raises:
        UserError: If the kind, the board, the benchmark or a method is unknown, or the file cannot be written.
    """
    if out is not None:
        out = user_path(out)
        suffix = check_suffix(out)
        check_file(out, "--out")
    methods = (method,) if isinstance(method, str) else tuple(method)
    folders = _folders(records) or [results_folder()]
    figure = draw(kind, board(records, track), benchmark, methods, width, read_definitions(folders))
    if out is not None:
        write_bytes(out, render(figure, suffix))
    return figure


def _records(records: Paths) -> list[Record]:
    return find_records(_folders(records))


def _folders(records: Paths) -> list[Path] | None:
    if records is None:
        return None
    return [user_path(one) for one in ([records] if isinstance(records, str | Path) else records) if one is not None]


def _where(records: Paths) -> str | None:
    folders = _folders(records)
    return None if folders is None else ", ".join(map(str, folders[:5]))

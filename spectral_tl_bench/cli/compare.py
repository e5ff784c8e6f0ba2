"""The verb ``stbench compare``: two rows of a board over the same places."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_tl_bench.cli.leaderboard import Records
from spectral_tl_bench.console import in_percent, print_rows, say
from spectral_tl_bench.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from spectral_tl_bench.leaderboard.analysis import Analysis
    from spectral_tl_bench.leaderboard.board import Board

Row = Annotated[
    str | None, typer.Argument(metavar="ROW", help="A row's name (8 hex digits), or a method that has one row.")
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command("compare")(compare_rows)


def compare_rows(
    first: Row = None,
    second: Row = None,
    records: Records = None,
    track: Annotated[str | None, typer.Option(help="Board, where the rows stand on more than one.")] = None,
) -> None:
    """Compare two rows over the same places, benchmark by benchmark; without ROW, list the rows."""
    from spectral_tl_bench.leaderboard.analysis import analyse
    from spectral_tl_bench.leaderboard.board import make_boards
    from spectral_tl_bench.leaderboard.choosing import board_of_rows
    from spectral_tl_bench.leaderboard.statistics.comparison import compare, find_row
    from spectral_tl_bench.results.finding import find_records

    boards = make_boards(find_records(records))
    if first is None or second is None:
        if first is not None:
            raise UserError(f"one row alone: {first}", expected="two", fix="`stbench compare` lists them")
        _print_rows(boards, track)
        return
    board = board_of_rows(boards, first, second, track)
    analysis = analyse(board)
    _print(analysis, find_row(analysis, first), find_row(analysis, second), compare(analysis, first, second))


def _print_rows(boards: Mapping[str, Board], track: str | None) -> None:
    """The rows that can be compared, of each board."""
    from spectral_tl_bench.leaderboard.frames import lines_of
    from spectral_tl_bench.leaderboard.text import backbone_text, title

    if track is not None and track not in boards:
        raise UserError(f"there is no board {track!r}", fix=nearest(track, boards))
    for name, board in boards.items():
        if track not in (None, name):
            continue
        say(f"{title(name)} (--track {name})" if len(boards) > 1 else title(name))
        rows = [("row", "method", "backbone", "seeds", f"mean of {len(board.benchmarks)}", "lacking")]
        rows += [
            (line["row"], line["method"], backbone_text(line), line["seeds"], in_percent(line["mean"]),
             line["incomplete_reason"])
            for line in lines_of(board.rows)
        ]  # fmt: skip
        print_rows(rows, right=(4,))
        say("")
    say("two of a board are compared by `stbench compare ROW ROW`; a method's name will do where it has one row")


def _print(analysis: Analysis, first: str, second: str, comparison: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.text import Text

    from spectral_tl_bench.leaderboard.frames import lines_of
    from spectral_tl_bench.leaderboard.statistics.comparison import improvement, verdict
    from spectral_tl_bench.leaderboard.text import interval, plain, signed, title

    console = Console(highlight=False)
    a, b = (f"{plain(analysis.names[row])} ({row})" for row in (first, second))
    lines = lines_of(comparison)
    over_places = [
        (signed(line["difference"]), interval(line["low"], line["high"]),
         str(line["places"]) if line is not lines[-1] else "", _p(line["p"]), _p(line["p_holm"]))
        for line in lines
    ]  # fmt: skip
    console.print(_table(
        f"{title(analysis.board.track)}: mIoU of {a} minus {b}, in per cent",
        ("Difference", "95 % over places", "Places", "p", "p (Holm)"), lines, over_places,
    ))  # fmt: skip
    if not all(math.isnan(line["runs_p"]) for line in lines):
        over_seeds = [
            (", ".join(map(signed, line["by_seed"])), interval(line["runs_low"], line["runs_high"]),
             _p(line["runs_p"]), _p(line["runs_p_holm"]))
            for line in lines
        ]  # fmt: skip
        head = ("Seed by seed", "95 % over places and seeds", "p", "p (Holm)")
        console.print(_table("the same for other seeds, too", head, lines, over_seeds))
    for line in lines:
        if line["reason"]:
            console.print(Text(f"{plain(line['benchmark'])}: not estimable, {plain(line['reason'])}"))
    for sentence in _unlike(analysis, first, second):
        console.print(Text(plain(sentence)))
    value, low, high, reason = improvement(analysis, first, second)
    if math.isnan(value):
        console.print(Text(f"probability of improvement: none, {reason}"))
    else:
        over = f"not estimable, {reason}" if reason else f"{100 * low:.0f} to {100 * high:.0f} %, over seeds"
        console.print(Text(f"probability that a run of {a} beats one of {b}: {100 * value:.0f} % ({over})"))
    console.print(Text("p (Holm) is corrected for the number of benchmarks."))
    for sentence in verdict(analysis, first, second, comparison):
        console.print(Text(plain(sentence)))


def _table(
    head: str, columns: Sequence[str], lines: Sequence[Mapping[str, Any]], cells: Sequence[Sequence[str]]
) -> Table:
    """A line of cells for each benchmark, and one for their mean."""
    from rich.table import Table
    from rich.text import Text

    from spectral_tl_bench.leaderboard.statistics.comparison import ALL
    from spectral_tl_bench.leaderboard.text import plain

    table = Table(title=Text(head))
    # A name is never cut: "hls-worldcover-…" could be either of two benchmarks.
    table.add_column("Benchmark", overflow="fold", min_width=8)
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for line, texts in zip(lines, cells, strict=True):
        last = line["benchmark"] == ALL
        if last:
            table.add_section()
        table.add_row(*map(Text, (f"mean of {len(lines) - 1}" if last else plain(line["benchmark"]), *texts)))
    return table


def _unlike(analysis: Analysis, first: str, second: str) -> list[str]:
    """What a reader of the comparison must know: which seeds are in it, and in what the rows differ besides."""
    from spectral_tl_bench.leaderboard.board_notes import flat_settings

    remarks: list[str] = []
    a, b = analysis.scores[first], analysis.scores[second]
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for name in analysis.board.benchmarks:
        if name in a and name in b:
            by_seeds.setdefault(tuple(sorted(a[name].seeds.keys() & b[name].seeds.keys())), []).append(name)
    for seeds, names in by_seeds.items():
        where = f" on {', '.join(names)}" if len(by_seeds) > 1 else ""
        if len(seeds) == 1:
            remarks.append(f"Seed {seeds[0]} alone{where}: whether another seed would say the same is not known.")
        elif seeds and any(len(seeds) < max(len(a[name].seeds), len(b[name].seeds)) for name in names):
            remarks.append(f"Only seeds {', '.join(map(str, seeds))}{where}, which both have.")
    rows = {row["row"]: row for row in analysis.rows.to_dict("records")}
    first_row, second_row = rows[first], rows[second]
    if not first_row["is_floor"] and not second_row["is_floor"]:
        mine, its = (
            {"backbone": row["backbone"] or "none", "protocol": row["protocol"]}
            | flat_settings(json.loads(row["settings"]))
            for row in (first_row, second_row)
        )
        different = [name for name in sorted({*mine, *its}) if mine.get(name) != its.get(name)]
        if different:
            listed = (f"{name} {mine.get(name, 'none')} and {its.get(name, 'none')}" for name in different)
            remarks.append(f"The rows differ in more than the method: {'; '.join(listed)}.")
    return remarks


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

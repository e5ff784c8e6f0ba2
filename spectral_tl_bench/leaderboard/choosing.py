"""Which board a user means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spectral_tl_bench.errors import RecordError, UserError, nearest
from spectral_tl_bench.leaderboard.board import Board, make_boards
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.results.schema import Record


def chosen_board(records: Sequence[Record], track: str | None, where: object, kept: Kept | None = None) -> Board:
    """The board of a name; without one, the only board, or ``reproduced`` where there are several.

    Args:
        where: Named in errors.
        kept: As of ``make_boards``.

    Raises:
        UserError: If there is no such board, or nothing says which one.
        RecordError: If the evidence of one of its records is missing or changed.
    """
    boards = sorted({record.board for record in records})
    chosen = track or (boards[0] if len(boards) == 1 else "reproduced")
    if chosen not in boards:
        what = f"there is no board {chosen!r}" if track else f"there are several boards: {', '.join(boards)}"
        raise UserError(what, where=where, expected=f"--track, one of {', '.join(boards)}")
    return make_boards((record for record in records if record.board == chosen), kept)[chosen]


def board_of_rows(boards: Mapping[str, Board], first: str, second: str, track: str | None = None) -> Board:
    """The board that two rows stand on.

    Args:
        first: A row's name, or a method.
        second: Another.
        track: Name of the board, where they stand on more than one.

    Raises:
        RecordError: If there is no such row, or none that has both.
        UserError: If there is no such board, or more than one has both.
    """
    if track is not None and track not in boards:
        raise UserError(f"there is no board {track!r}", fix=nearest(track, boards))
    names = {name: board.methods for name, board in boards.items() if track in (None, name)}
    known = {name: {*rows, *rows.values()} for name, rows in names.items()}
    for row in (first, second):
        if not any(row in rows for rows in known.values()):
            raise RecordError(
                f"there is no row {row!r} on the board{'s' if len(known) > 1 else ''} {', '.join(known)}",
                fix=nearest(row, set().union(*(rows.values() for rows in names.values()))),
            )
    matches = [name for name, rows in known.items() if {first, second} <= rows]
    if not matches:
        raise RecordError(f"{first!r} and {second!r} stand on different boards, which cannot be compared")
    if len(matches) > 1:
        raise UserError(
            f"{first!r} and {second!r} stand on more than one board", expected=f"--track, one of {', '.join(matches)}"
        )
    return boards[matches[0]]

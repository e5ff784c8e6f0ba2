"""What all figures share: size and letters, colours, the heading with seeds and places, and room for labels."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.text import plain, track_of
from spectral_tl_bench.leaderboard.text import title as board_title

COLUMN, PAGE = 88.0, 180.0
"""Widths in millimetres: of a column of a paper, and of its page."""
MAX_ROWS = 60
"""Rows of a board that a figure can hold; the best are taken, and its title says so."""
POINTS = 7.0
"""Size of the letters, and of the smallest of them."""
LETTER = 1.32
"""Millimetres that a letter of this size is wide, on average."""
LINE = 3.7
"""Millimetres from one row to the next."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Those of Okabe and Ito, which people see apart who see fewer colours."""
_INCH = 25.4
_STYLE: Any = {
    "text.parse_math": False,  # names come from records: a dollar sign is a dollar sign
    "svg.hashsalt": "stbench",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": POINTS,
    "figure.titlesize": POINTS,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "figure.dpi": 100,
    "savefig.dpi": 300,
}  # fmt: skip


class NothingToDrawError(UserError):
    """No row has the numbers that the figure shows."""


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever a user's ``matplotlibrc`` says."""
    with matplotlib.style.context("default"), mpl.rc_context(_STYLE):
        yield


@dataclass(frozen=True, eq=False)
class Sheet:
    """What a figure is drawn from.

    Attributes:
        rows: The rows that may be shown, in the board's order, with a ``label`` each.
        benchmark: The only benchmark that is shown; empty for figures of several.
        width: In millimetres.
        definitions: Those of users' benchmarks.
    """

    analysis: Analysis
    rows: pd.DataFrame
    benchmark: str
    width: float
    definitions: tuple[Benchmark, ...] = ()

    def figure(self, height: float) -> Figure:
        """An empty figure of so many millimetres, in which everything finds room."""
        return Figure(figsize=(self.width / _INCH, height / _INCH), layout="constrained")

    @cached_property
    def entries(self) -> pd.DataFrame:
        """Entries of the benchmark by row, the floor's included."""
        entries = self.analysis.entries
        return entries[entries["benchmark"] == self.benchmark].set_index("row")

    def scored(self) -> pd.DataFrame:
        """Rows with a number on the benchmark, the best on it first; without the majority class.

        Raises:
            NothingToDrawError: If there is none.
        """
        numbers = self.entries[["miou", "low", "high", "state", "in_domain", "places", "seeds"]]
        rows = self.rows[~self.rows["is_floor"]][["row", "label", "method"]].join(numbers, on="row")
        rows = rows[rows["miou"].notna()].sort_values("miou", ascending=False, kind="stable")
        if rows.empty:
            raise NothingToDrawError(f"no row of this board has a number on {self.benchmark}")
        return rows

    def floors(self) -> pd.DataFrame:
        """The majority class on the benchmark, where it may be shown and has a number."""
        rows = self.rows[self.rows["is_floor"]][["row", "label"]].join(self.entries["miou"], on="row")
        return rows[rows["miou"].notna()]

    def heading(self, figure: Figure, about: str = "", under: Iterable[str] = ()) -> None:
        """Write board and figure's own words above it, and below them what it rests on, broken to its width."""
        text = board_title(self.analysis.board.track)
        if track_of(self.analysis.board.track) == "sample":
            text += " (not a result on real data)"
        text += f": {about}" if about else ""
        lines = [*self.broken(text), *self.broken("; ".join(part for part in under if part))]
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=POINTS)

    def broken(self, text: str, share: float = 0.97) -> list[str]:
        """Text in lines of at most a share of the figure's width."""
        return textwrap.wrap(text, max(16, int(share * self.width / LETTER)), break_long_words=False)

    def short(self, label: str, share: float = 0.36) -> str:
        """A label that leaves room for what it labels; its middle is left out where it is too long."""
        most = max(10, int(share * self.width / LETTER))
        if len(label) <= most:
            return label
        end = (most - 1) // 3
        return f"{label[: most - 1 - end]}…{label[-end:]}"

    def unique(self, labels: Iterable[str], share: float = 0.36) -> list[str]:
        """The same of several labels; two that would become the same stay as they are."""
        full = list(labels)
        cut = [self.short(label, share) for label in full]
        return [one if cut.count(one) == full.count(whole) else whole for one, whole in zip(cut, full, strict=True)]

    def rests_on(self, rows: Sequence[str], benchmarks: Sequence[str]) -> list[str]:
        """Numbers of seeds and of places, in words, of some rows on some benchmarks."""
        entries = self.analysis.entries
        chosen = entries[entries["row"].isin(rows) & entries["benchmark"].isin(benchmarks) & entries["miou"].notna()]
        runs = {seeds.count(",") + 1 - seeds.count("failed") for seeds in chosen["seeds"]}
        words = [f"seeds: {_span(runs)}"]
        places = {str(name): set(group["places"].dropna()) for name, group in chosen.groupby("benchmark", sort=False)}
        if len(places) == 1:
            words.append(f"places: {_span(next(iter(places.values())))}")
        elif len(places) <= 4:
            words.append("places: " + ", ".join(f"{_span(numbers)} ({name})" for name, numbers in places.items()))
        else:
            words.append(f"places on each target: {_span({one for numbers in places.values() for one in numbers})}")
        return words


def first_of(shown: int, there: int) -> str:
    """Says that not all rows are drawn."""
    return "" if shown == there else f"first {shown} of {there} rows"


def names_of(labels: Iterable[str]) -> list[str]:
    """Names as they can be drawn."""
    return list(map(plain, labels))


def _span(numbers: Iterable[float]) -> str:
    known = sorted({int(number) for number in numbers})
    if not known:
        return "none"
    return f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"

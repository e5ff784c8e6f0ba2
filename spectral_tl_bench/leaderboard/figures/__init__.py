"""Figures of a board, in PDF, SVG or PNG, as wide as a column or a page: the same analysis, the same bytes."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.figures.matrices import classes, confusion, domains
from spectral_tl_bench.leaderboard.figures.rows import forest, gap
from spectral_tl_bench.leaderboard.figures.scatter import scatter
from spectral_tl_bench.leaderboard.figures.sheet import COLUMN, MAX_ROWS, PAGE, NothingToDrawError, Sheet, style
from spectral_tl_bench.leaderboard.text import plain

__all__ = [
    "COLUMN", "KINDS", "MAX_ROWS", "PAGE", "PER_BENCHMARK", "SUFFIXES", "all_figures", "check_suffix", "draw", "render",
]  # fmt: skip

SUFFIXES = ("pdf", "svg", "png")
_LEAST_WIDTH, _MOST_WIDTH = 60.0, 400.0
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_DRAWN: dict[str, Callable[[Sheet], Figure]] = {
    "parameters": partial(scatter, column="trainable_max", label="trainable parameters"),
    "time": partial(scatter, column="seconds", label="seconds per run"),
    "gap": gap,
    "domains": domains,
    "forest": forest,
    "classes": classes,
    "confusion": confusion,
}
PER_BENCHMARK = ("forest", "classes", "confusion")
KINDS = tuple(_DRAWN)


def draw(
    kind: str,
    analysis: Analysis,
    benchmark: str | None = None,
    methods: Collection[str] = (),
    width: float = PAGE,
    definitions: Sequence[Benchmark] = (),
) -> Figure:
    """Draw one figure.

    Args:
        kind: One of ``KINDS``.
        benchmark: For kinds of one benchmark (``PER_BENCHMARK``); may be left out where the board has just one.
        methods: Names of methods; empty for all.
        width: In millimetres. All text has 7 points or more, whatever the width.
        definitions: Those of users' benchmarks, for the colours of their classes.

    Returns:
        A figure that belongs to no window.

    Raises:
        UserError: If the kind, the benchmark, a method or the width is not possible, or there is nothing to draw.
    """
    if kind not in KINDS:
        raise UserError(f"there is no figure called {kind!r}", fix=nearest(kind, KINDS))
    if not _LEAST_WIDTH <= width <= _MOST_WIDTH:
        expected = f"{_LEAST_WIDTH:g} to {_MOST_WIDTH:g} mm; {COLUMN:g} fills a column, {PAGE:g} a page"
        raise UserError(f"a figure cannot be {width:g} mm wide", expected=expected)
    chosen = _chosen(analysis, benchmark) if kind in PER_BENCHMARK else ""
    with style():
        return _DRAWN[kind](Sheet(analysis, _rows(analysis, methods), chosen, width, tuple(definitions)))


def check_suffix(path: Path) -> str:
    """The kind of file that a figure is written as, such as ``svg``.

    Raises:
        UserError: If there is none of that name.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        raise UserError(f"figures cannot be written as {path.suffix!r}", where=path, expected=", ".join(SUFFIXES))
    return suffix


def render(figure: Figure, suffix: str) -> bytes:
    """The bytes of a figure as ``pdf``, ``svg`` or ``png``; no dates and no random names in them.

    Raises:
        UserError: If the suffix is another one.
    """
    if suffix not in SUFFIXES:
        raise UserError(f"figures cannot be written as {suffix!r}", expected=", ".join(SUFFIXES))
    stream = io.BytesIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # scripts that the font lacks become boxes
        figure.savefig(stream, format=suffix, metadata=_METADATA[suffix])
    return stream.getvalue()


def all_figures(analysis: Analysis, definitions: Sequence[Benchmark] = ()) -> Iterator[tuple[str, Figure]]:
    """Name and figure of everything that can be drawn of a board, as wide as a column and (``-wide``) as a page."""
    for kind in KINDS:
        for benchmark in analysis.board.columns if kind in PER_BENCHMARK else (None,):
            name = kind if benchmark is None else f"{kind}-{benchmark}"
            for width, suffix in ((COLUMN, ""), (PAGE, "-wide")):
                with contextlib.suppress(NothingToDrawError):
                    yield f"{name}{suffix}", draw(kind, analysis, benchmark, (), width, definitions)


def _rows(analysis: Analysis, methods: Collection[str]) -> pd.DataFrame:
    """The rows of some methods, with a ``label`` that tells each from the others."""
    rows = analysis.rows.astype({"trainable_max": float, "is_floor": bool})
    known = set(rows["method"])
    for method in methods:
        if method not in known:
            raise UserError(f"no row of this board is called {method!r}", fix=nearest(method, known))
    rows = rows[rows["method"].isin(methods)] if methods else rows[~rows["row"].isin(analysis.floor_again)]
    names = (rows["method"] + rows["backbone"].map(lambda name: f" ({name})" if name else "")).map(plain)
    return rows.assign(label=names.where(~names.duplicated(keep=False), names + " " + rows["row"]))


def _chosen(analysis: Analysis, benchmark: str | None) -> str:
    known = analysis.board.columns
    if benchmark is None:
        if len(known) == 1:
            return known[0]
        raise UserError("this figure shows one benchmark", expected=f"--benchmark, one of {', '.join(known)}")
    if benchmark not in known:
        raise UserError(f"the board has no benchmark {benchmark!r}", fix=nearest(benchmark, known))
    return benchmark

"""Boards as files: Markdown, CSV, Parquet, LaTeX, figures and a site, a pure function of the records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.audit.facts import Audit
from spectral_tl_bench.errors import UserError, nearest
from spectral_tl_bench.leaderboard.analysis import Analysis, analyse
from spectral_tl_bench.leaderboard.beside import beside
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.generated import Generated, check_free, replace_generated
from spectral_tl_bench.leaderboard.kept import Kept
from spectral_tl_bench.leaderboard.latex import latex, reported_latex
from spectral_tl_bench.leaderboard.markdown import beside_markdown, markdown, reported_markdown
from spectral_tl_bench.leaderboard.reported import read_reported, reported_folder
from spectral_tl_bench.leaderboard.table import analysis_tables, csv_bytes, long_table, parquet_bytes
from spectral_tl_bench.leaderboard.text import file_stem
from spectral_tl_bench.results.schema import Record

FORMATS = ("md", "csv", "parquet", "latex", "figures", "site")
DEFAULT_FORMATS = ("md", "csv", "site")
TABLES, FIGURES, SITE = "tables", "figures", "site"
"""Folders that a report fills."""


def write_report(
    records: Iterable[Record],
    out: Path,
    formats: Collection[str] = DEFAULT_FORMATS,
    reported: pd.DataFrame | None = None,
    audits: Iterable[Audit] = (),
    definitions: Iterable[Benchmark] = (),
    kept: Kept | None = None,
) -> list[Path]:
    """Write the boards of all tracks that have records.

    Args:
        records: Stored records, in any order; the same records give the same bytes.
        out: Folder; gets ``tables/``, ``figures/`` and ``site/``. The reproduced track's tables are called
            ``board.*``, those of any other board ``board-<name>.*``; printed numbers with a run by their protocol stand
            in ``published-beside-<track>.*``.
        formats: Some of ``FORMATS``. Files that an earlier report made for them and that are not made again are
            removed; those of other formats stay.
        reported: Numbers of papers, as ``read_reported`` gives them; None for those that come along.
        audits: What was measured of the benchmarks' data, for the pages of benchmarks.
        definitions: Those of users' benchmarks, as ``read_definitions`` gives them, for colours and titles.
        kept: What earlier reports worked out of the records: faster, and the same bytes.

    Returns:
        The files of the report, also those that were there already. Everything but the site is computed before the
        first file is written, and each file is whole or not there.

    Raises:
        RecordError: If evidence is missing or changed, or a score contradicts it; nothing is written then.
        UserError: If a format is unknown, or a file would be overwritten that no report made.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"there is no format {name!r}", fix=nearest(name, FORMATS))
    papers = read_reported(reported_folder()) if reported is None else reported
    analyses = {name: analyse(board, kept) for name, board in make_boards(records, kept).items()}
    tables = dict(sorted(_tables(analyses, papers, formats)))
    definitions = list(definitions)
    figures = dict(_figures(analyses, definitions)) if "figures" in formats else {}
    out = Path(out)
    check_free(out / TABLES, tables)
    check_free(out / FIGURES, figures)
    paths = replace_generated(out / TABLES, tables, formats)
    if "figures" in formats:
        paths += replace_generated(out / FIGURES, figures, formats)
    if "site" in formats:
        from spectral_tl_bench.leaderboard.site import write_site

        paths += write_site(analyses, papers, out / SITE, audits, definitions)
    if kept is not None:
        kept.save()
    return paths


def _tables(
    analyses: dict[str, Analysis], papers: pd.DataFrame, formats: Collection[str]
) -> Iterator[tuple[str, Generated]]:
    for name, analysis in analyses.items():
        stem = file_stem(name)
        yield from _texts(stem, formats, md=partial(markdown, analysis), latex=partial(latex, analysis))
        if {"csv", "parquet"} & set(formats):
            yield from _long(stem, long_table(analysis.board), formats)
            for table, frame in analysis_tables(analysis).items():
                yield from _long(f"{stem}-{table}", frame, formats)
    if len(papers):
        stem = file_stem("reported")
        yield from _texts(stem, formats, md=partial(reported_markdown, papers), latex=partial(reported_latex, papers))
        yield from _long(stem, papers, formats)
    for track, lines in beside(analyses, papers).items():
        stem = f"published-beside-{track}"
        yield from _texts(stem, formats, md=partial(beside_markdown, track, lines))
        yield from _long(stem, lines, formats)


def _texts(stem: str, formats: Collection[str], **writers: Callable[[], str]) -> Iterator[tuple[str, Generated]]:
    for name, write in writers.items():
        if name in formats:
            yield f"{stem}.{'tex' if name == 'latex' else name}", Generated(name, write().encode())


def _long(stem: str, frame: pd.DataFrame, formats: Collection[str]) -> Iterator[tuple[str, Generated]]:
    if "csv" in formats:
        yield f"{stem}.csv", Generated("csv", csv_bytes(frame))
    if "parquet" in formats:
        yield f"{stem}.parquet", Generated("parquet", parquet_bytes(frame))


def _figures(analyses: dict[str, Analysis], definitions: Sequence[Benchmark]) -> Iterator[tuple[str, Generated]]:
    from spectral_tl_bench.leaderboard.figures import all_figures, render  # matplotlib takes a second

    for name, analysis in analyses.items():
        for kind, figure in all_figures(analysis, definitions):
            for suffix in ("pdf", "svg"):
                yield f"{name}/{kind}.{suffix}", Generated("figures", render(figure, suffix))

"""The verbs ``stbench report``, ``plot`` and ``show``: from stored records to boards, figures and single results."""

from __future__ import annotations

import atexit
import gc
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.console import in_percent, print_rows, say
from spectral_tl_bench.defaults import RESULTS_HELP
from spectral_tl_bench.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

    from spectral_tl_bench.results.schema import Record

_FORMATS = "md, csv, parquet, latex, figures, site, or all"

Records = Annotated[
    list[Path] | None,
    typer.Option(
        "--records", "-r",
        help=f"Folder of results; may be given more than once. {RESULTS_HELP}",
    ),
]  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command("report")(report)
    app.command("plot")(plot)
    app.command("show")(show)


def report(
    records: Records = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Gets tables/, figures/, site/. Default: the (first) folder of results."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", help=f"{_FORMATS}; may be given more than once. Default: md, csv, site."),
    ] = None,
) -> None:
    """Make the boards from stored records alone: the same records, the same bytes."""
    gc.disable()  # nothing that a report makes is a circle, and looking for them takes a fifth of its time
    from spectral_tl_bench.leaderboard.audit.beside import read_audits
    from spectral_tl_bench.leaderboard.definitions import read_definitions
    from spectral_tl_bench.leaderboard.kept import Kept
    from spectral_tl_bench.leaderboard.report import DEFAULT_FORMATS, FORMATS, TABLES, write_report
    from spectral_tl_bench.results.finding import existing_roots, nothing_found
    from spectral_tl_bench.results.store import read_records
    from spectral_tl_bench.storage.output import check_folder

    wanted = tuple(dict.fromkeys(formats or DEFAULT_FORMATS))
    wanted = FORMATS if "all" in wanted else wanted
    for name in wanted:  # before the records, which take longer
        if name not in FORMATS:
            raise UserError(f"there is no format {name!r}", expected=_FORMATS, fix=nearest(name, (*FORMATS, "all")))
    roots = existing_roots(records)
    folder = out or _default_out(roots)
    check_folder(folder, "--out")
    kept = Kept(roots)
    results, papers, audits = read_records(roots, kept.read_before), _reported(roots), read_audits(roots)
    if not results and papers is None:
        raise nothing_found(roots)
    paths = write_report(results, folder, wanted, papers, audits, read_definitions(roots), kept)
    others: Counter[str] = Counter()
    for path in paths:
        name = path.relative_to(folder).parts[0]
        if name == TABLES:
            say(str(path))
        else:
            others[name] += 1
    for name, number in sorted(others.items()):
        say(f"{folder / name} ({number} files)")
    atexit.register(gc.freeze)  # Python would look for circles once more before it ends


def plot(
    kind: Annotated[str, typer.Argument(help="parameters, time, gap, domains, forest, classes or confusion.")],
    out: Annotated[Path, typer.Option(help="The file: .pdf, .svg or .png.")],
    records: Records = None,
    track: Annotated[
        str | None, typer.Option(help="Board to draw. Default: the only one, or reproduced if it is there.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Only this method; may be given more than once.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", "-b", help="For forest, classes and confusion, which show one benchmark."),
    ] = None,
    width: Annotated[
        float, typer.Option(help="Millimetres: 88 fills a column of a paper, 180 its page. Letters have 7 points.")
    ] = 180.0,
) -> None:
    """Draw one figure of a board."""
    from spectral_tl_bench.files import write_bytes
    from spectral_tl_bench.leaderboard.analysis import analyse
    from spectral_tl_bench.leaderboard.choosing import chosen_board
    from spectral_tl_bench.leaderboard.definitions import read_definitions
    from spectral_tl_bench.leaderboard.figures import check_suffix, draw, render
    from spectral_tl_bench.leaderboard.kept import Kept
    from spectral_tl_bench.results.finding import existing_roots, find_records
    from spectral_tl_bench.storage.output import check_file

    suffix = check_suffix(out)
    check_file(out, "--out")
    roots = existing_roots(records)
    kept = Kept(roots)
    results = find_records(records, kept.read_before)
    board = chosen_board(results, track, ", ".join(map(str, roots)), kept)
    figure = draw(kind, analyse(board, kept), benchmark, tuple(method or ()), width, read_definitions(roots))
    content = render(figure, suffix)
    write_bytes(out, content)
    say(str(out))


def show(
    record: Annotated[
        str | None, typer.Argument(help="A record.json, its folder, or how a fingerprint begins; none lists them.")
    ] = None,
    other: Annotated[
        str | None, typer.Argument(help="A second one: print what differs in what both depend on.")
    ] = None,
    records: Records = None,
) -> None:
    """Show one stored result, its scores computed again from the evidence; or why two are not the same."""
    from spectral_tl_bench.results.finding import find_record, find_records, roots_of

    if record is None:
        _list_records(find_records(records))
        return
    from spectral_tl_bench.leaderboard.show import compare_identities
    from spectral_tl_bench.leaderboard.show import show as print_record

    roots = roots_of(records)
    if other is None:
        print_record(find_record(record, roots))
    else:
        compare_identities(find_record(record, roots), find_record(other, roots))


def _list_records(records: list[Record]) -> None:
    rows = [("record", "benchmark", "method", "backbone", "seed", "target mIoU", "board")]
    for one in sorted(records, key=lambda one: (one.board, one.benchmark, one.method, one.seed)):
        miou = in_percent(one.scores.selected.miou) if one.scores is not None else one.status
        backbone = one.backbone.name if one.backbone is not None else "-"
        rows.append((one.fingerprint[:8], one.benchmark, one.method, backbone, str(one.seed), miou, one.board))
    print_rows(rows, right=(4, 5))
    say("one of them in full: stbench show RECORD; what two differ in: stbench show RECORD RECORD")


def _default_out(roots: list[Path]) -> Path:
    from spectral_tl_bench.results.finding import PUBLISHED

    if roots == [PUBLISHED]:  # nothing but published records may lie there
        return PUBLISHED.parent
    return roots[0] if roots[0].is_dir() else roots[0].parent


def _reported(roots: list[Path]) -> pd.DataFrame | None:
    """Numbers of papers that lie beside the records; None where there are none."""
    import pandas as pd

    from spectral_tl_bench.leaderboard.reported import read_reported

    frames = [read_reported(root / "reported") for root in roots if (root / "reported").is_dir()]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else None

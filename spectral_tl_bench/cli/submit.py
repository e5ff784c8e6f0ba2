"""The verb ``stbench submit``: records onto the leaderboard, and the check of a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_tl_bench.cli.run_options import TrustData
from spectral_tl_bench.console import print_rows, say
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.leaderboard.submit.check import Checked
    from spectral_tl_bench.leaderboard.submit.findings import Finding
    from spectral_tl_bench.results.schema import Record

RESULTS = Path("leaderboard/results")
_SHOWN = 200
"""Different reasons that are printed; whoever gets more has enough to read."""


def submit(
    run: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="A record.json, its folder, a folder of runs, or published files."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Copy nothing: check what is on the leaderboard (or the folder given).")
    ] = False,
    changed_from: Annotated[
        str | None, typer.Option(metavar="REF", help="With --check: look closely only at what differs from a commit.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Allow records that take the place of others, or change them.")
    ] = False,
    results: Annotated[Path, typer.Option(help="The leaderboard's records.")] = RESULTS,
    truth: Annotated[
        Path | None, typer.Option(help="Kept ground truth; default: the folder 'truth' beside the results.")
    ] = None,
    definitions: Annotated[
        Path | None, typer.Option(help="Users' benchmarks; default: docs/examples of the results' repository.")
    ] = None,
    without_sample: Annotated[
        bool, typer.Option("--without-sample", help="Do not make the bundled sample to compare with.")
    ] = False,
    write_truth: Annotated[
        list[str] | None,
        typer.Option(metavar="BENCHMARK", help="Count the ground truth of a benchmark (id or YAML file) and keep it."),
    ] = None,
    recompute: Annotated[
        int, typer.Option(metavar="N", min=0, help="With --check: train N of the records again and compare.")
    ] = 0,
    recompute_seed: Annotated[int, typer.Option(help="Chooses which records are trained again.")] = 0,
    data_root: Annotated[
        Path | None, typer.Option(help="With --write-truth and --recompute: where the data are.")
    ] = None,
    weights_root: Annotated[
        Path | None,
        typer.Option(help="With --recompute: folder of files of pretrained weights, which are known by their digests."),
    ] = None,
    trust_data: TrustData = False,
) -> None:
    """Check records and publish them on the leaderboard, all or none."""
    runs = run or []
    if check and len(runs) > 1:
        raise UserError("--check takes one folder of results", expected="stbench submit --check leaderboard/results")
    if check and runs:
        results = runs[0]
    elif not check and not write_truth and not runs:
        raise UserError("no run is named", fix="stbench submit runs, or stbench submit --check")
    for path in () if check else runs:  # before the heavy imports, so that a typing mistake is answered at once
        if not path.exists():
            raise UserError(
                "there is no such run", where=path, expected="a record.json, its folder, or a folder of runs"
            )
    _contradictions(check, bool(runs), changed_from, recompute, write_truth, weights_root)
    truth = truth or results.parent / "truth"
    if write_truth:
        _write(write_truth, data_root, trust_data, truth)
        return
    if not check:
        _check_results(results)
    from spectral_tl_bench.leaderboard.submit.changes import changes_since
    from spectral_tl_bench.leaderboard.submit.check import Checker
    from spectral_tl_bench.leaderboard.submit.definitions import Definitions
    from spectral_tl_bench.leaderboard.submit.measured import SampleTruths
    from spectral_tl_bench.leaderboard.submit.submit import submit as submit_runs
    from spectral_tl_bench.leaderboard.submit.tree import check_tree
    from spectral_tl_bench.leaderboard.submit.truth import read_truths

    folder = definitions or results.resolve().parent.parent / "docs" / "examples"
    checker = Checker(Definitions(folder), read_truths(truth), SampleTruths(not without_sample))
    if check:
        changes = changes_since(changed_from, results) if changed_from is not None else None
        tree = check_tree(results, checker, changes, replace)
        _print(tree.checked, tree.findings)
        say(f"{len(tree.checked)} records: " + ("nothing has to be refused" if tree.ok else "refused"))
        records = [entry.record for entry in tree.checked if entry.record is not None]
        same = not recompute or (
            tree.ok and _recompute(records, recompute, recompute_seed, data_root, folder, trust_data, weights_root)
        )
        raise typer.Exit(0 if tree.ok and same else 1)
    done = submit_runs(runs, results, checker, replace)
    _print(done.checked, done.findings)
    if not done.ok:
        say("nothing was published")
        raise typer.Exit(1)
    for place in done.placed:
        say(f"{results / place}")
    say(
        f"{len(done.checked)} records are in {results}; next: stbench report --records {results} "
        f"--out {results.parent}, then a pull request (docs/submit.md)"
    )


def _check_results(results: Path) -> None:
    from spectral_tl_bench.storage.output import check_folder

    if results == RESULTS and not results.parent.is_dir():
        raise UserError(
            f"there is no {results.parent} here",
            fix="run this at the top of a checkout of the suite, or say where: --results FOLDER",
        )
    check_folder(results, "--results")


def _write(names: Sequence[str], data_root: Path | None, trusted: bool, truth: Path) -> None:
    from spectral_tl_bench.leaderboard.submit.measured import measure_named
    from spectral_tl_bench.leaderboard.submit.truth import write_truth
    from spectral_tl_bench.storage.output import check_folder

    check_folder(truth, "--truth")
    for name in names:
        measured = measure_named(name, data_root, trusted)
        say(f"{write_truth(measured, truth)}: {len(measured.rows)} target chips")


def _contradictions(
    check: bool, runs: bool, changed_from: str | None, recompute: int, write_truth: list[str] | None,
    weights_root: Path | None,
) -> None:  # fmt: skip
    if (changed_from is not None or recompute) and not check:
        raise UserError(f"{'--recompute' if recompute else '--changed-from'} belongs to --check")
    if weights_root is not None and not weights_root.is_dir():
        raise UserError("--weights-root is no folder", where=weights_root, expected="a folder with files of weights")
    if write_truth and (check or runs):
        raise UserError("--write-truth stands by itself", fix="write the ground truth first, submit runs after it")


def _recompute(
    records: list[Record], number: int, seed: int, data_root: Path | None, definitions: Path, trusted: bool,
    weights: Path | None,
) -> bool:  # fmt: skip
    """Train some of the records again and say how far they lie from what is stored."""
    import tempfile

    from spectral_tl_bench.authoring.recompute import choose, recompute

    results = []
    for record in choose(records, number, seed):
        name = f"{record.track}/{record.method} on {record.benchmark}, seed {record.seed}, {record.fingerprint[:16]}"
        with tempfile.TemporaryDirectory() as work:
            result = recompute(record, Path(work), data_root, definitions, lambda _: None, trusted, weights)
        results.append(result)
        if result.reason:
            say(f"{'failed' if result.failed else 'not recomputed'}: {name}: {result.reason}")
            continue
        share = max(result.moved.values())
        verdict = (
            "the same to the pixel" if share == 0 else f"{share:.3%} of the pixels moved, allowed {result.allowed:.0%}"
        )
        made = "".join(f"; {name} {old}, here {new}" for name, (old, new) in result.elsewhere.items())
        say(f"{'recomputed' if result.ok else 'refused'}: {name}: {verdict}{made}")
    trained = sum(bool(result.moved) for result in results)
    say(f"{trained} of {len(results)} records trained again")
    return all(result.ok for result in results)


def _print(checked: Sequence[Checked], findings: Sequence[Finding]) -> None:
    counts: dict[tuple[str, str, str], list[int]] = {}
    for item in checked:
        record = item.record
        key = (record.track, record.benchmark, record.method) if record is not None else ("?", "?", "?")
        own = {finding.level for finding in findings if finding.where == item.where}
        numbers = counts.setdefault(key, [0, 0, 0])
        numbers[0] += 1
        numbers[1] += "refused" in own or record is None
        numbers[2] += "warning" in own
    if counts:
        rows = [("track", "benchmark", "method", "records", "refused", "warnings")]
        print_rows([*rows, *((*key, *map(str, counts[key])) for key in sorted(counts))], right=(3, 4, 5))
    grouped: dict[tuple[str, str], list[str]] = {}
    for finding in sorted(findings, key=lambda finding: finding.level != "refused"):
        grouped.setdefault((finding.level, finding.reason), []).append(finding.where)
    for (level, reason), places in list(grouped.items())[:_SHOWN]:
        more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
        say(f"{level}: {places[0]}{more}: {reason}")
    if len(grouped) > _SHOWN:
        say(f"and {len(grouped) - _SHOWN} more kinds of findings")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("submit")(submit)

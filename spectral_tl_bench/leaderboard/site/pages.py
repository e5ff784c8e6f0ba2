"""The pages of a track: its rows, benchmarks, methods, costs and gaps, and two rows side by side."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.leaderboard.audit.beside import for_page
from spectral_tl_bench.leaderboard.frames import Fields
from spectral_tl_bench.leaderboard.site import names
from spectral_tl_bench.leaderboard.site.charts import MEGABYTES, TIMES, families, scatter
from spectral_tl_bench.leaderboard.site.maps import draw_map
from spectral_tl_bench.leaderboard.site.method import details, summary
from spectral_tl_bench.leaderboard.site.predictions import shown_chips
from spectral_tl_bench.leaderboard.site.scales import scale_of, top_of
from spectral_tl_bench.leaderboard.site.view import ROWS_PER_PAGE, BenchmarkView, View
from spectral_tl_bench.leaderboard.site.writer import Writer
from spectral_tl_bench.leaderboard.statistics.intervals import MIN_EFFECTIVE
from spectral_tl_bench.objectives.registry import split_objectives
from spectral_tl_bench.results.places import mean_iou

RESULTS_PER_PART = 100
"""Rows of one part of the table of results on a benchmark's page."""
MOST_HEAT = 60
"""Rows of a heat map, the best ones: more cannot be read, and make a page heavy."""
_ROUNDED = 1e-12
_SEASONS = ("spring", "summer", "autumn", "winter")


def write_track(writer: Writer, view: View) -> None:
    """Write all pages of a track and the data that they load."""
    folder, about = view.track.slug, {"view": view, "track": view.track}
    best = best_entries(view)
    has, same = telling(view.rows)
    means = [row[name] for row in view.listed if not row["is_floor"]
             for name in ("mean", "mean_places_low", "mean_places_high")]  # fmt: skip
    writer.pages(
        f"{folder}/index.html", "overview", view.listed, view.rows_per_part, **about, best=best, reasons=reasons(view),
        scale=scale_of(means), has=has, same=same, floor_mean=view.rows[-1]["mean"],
        families=sorted({row["family"] for row in view.listed}),
        backbones=sorted({row["backbone"] for row in view.listed if row["backbone"]}),
        datasets=list(dict.fromkeys(benchmark.dataset for benchmark in view.benchmarks)),
        gaps=sorted({benchmark.gap for benchmark in view.benchmarks}),
    )  # fmt: skip
    for benchmark in view.benchmarks:
        path = f"{folder}/benchmarks/{benchmark.slug}.html"
        values = benchmark_values(writer, view, benchmark)
        writer.pages(path, "benchmark", values.pop("rows"), RESULTS_PER_PART, **about, best=best, **values)
    first = {benchmark.id: next(iter(view.best_first(benchmark.id)), None) for benchmark in view.benchmarks}
    writer.page(f"{folder}/benchmarks/index.html", "benchmarks", **about, first=first)
    _write_methods(writer, view)
    plots = [
        ("parameters", "Mean mIoU against trainable parameters",
         scatter(view, "trainable_max", "trainable parameters (logarithmic)", names.count)),
        ("time", "Mean mIoU against training time",
         scatter(view, "train_seconds", "training time of a run (logarithmic)", names.seconds, TIMES)),
        ("memory", "Mean mIoU against memory",
         scatter(view, "peak_memory_mb", "highest peak of a run (logarithmic)", names.megabytes, MEGABYTES)),
    ]  # fmt: skip
    writer.page(
        f"{folder}/cost.html", "cost", **about, plots=plots, families=families(view),
        devices=sorted({run.record.device for run in view.analysis.board.records if run.record.device}),
        left_out=sum(row["mean"] is None for row in view.listed if not row["is_floor"]),
    )  # fmt: skip
    if "gaps" not in view.left_out:
        writer.page(f"{folder}/gaps.html", "gaps", **about, matrices=gap_matrices(view), rows=view.scored,
                    numbers=gap_numbers(view, view.scored[0]["row"]))  # fmt: skip
    if "compare" not in view.left_out:
        writer.page(f"{folder}/compare.html", "compare", **about, rows=view.scored)
    _write_rows(writer, view)


def best_entries(view: View) -> set[tuple[str, str]]:
    """(row, benchmark) of the highest number of each benchmark, and (row, "") of the highest mean; floors aside."""
    rows = [row for row in view.listed if not row["is_floor"]]
    columns = [[(row["row"], "", row["mean"]) for row in rows if row["mean"] is not None]]
    for benchmark in view.benchmarks:
        entries = [view.entries[row["row"], benchmark.id] for row in rows]
        columns.append(
            [(entry["row"], benchmark.id, entry["miou"]) for entry in entries if entry["state"] == "completed"]
        )
    highest = [max((value for *_, value in column), default=0.0) for column in columns]
    return {
        (row, benchmark)
        for column, most in zip(columns, highest, strict=True)
        for row, benchmark, value in column
        if value >= most - _ROUNDED
    }


def reasons(view: View, benchmark: str | None = None) -> list[str]:
    """Why intervals are missing: one sentence per benchmark and reason."""
    entries = [entry for entry in view.entries.values() if entry["miou"] is not None and entry["reason"]]
    return sorted(
        {f"{entry['benchmark']}: {entry['reason']}" for entry in entries if benchmark in (None, entry["benchmark"])}
    )


def benchmark_values(writer: Writer, view: View, benchmark: BenchmarkView) -> dict[str, Any]:
    """What the page of a benchmark shows."""
    order = view.best_first(benchmark.id)
    floor = view.rows[-1]
    entries = {row["row"]: view.entries[row["row"], benchmark.id] for row in view.rows}
    first = {row["row"] for row in [*order, floor]}
    classes = {row["row"]: view.classes.get((row["row"], benchmark.id), []) for row in [*order, floor]}
    domains = {row["row"]: view.domains.get((row["row"], benchmark.id), []) for row in [*order, floor]}
    matrix = view.matrix(order[0]["row"], benchmark.id) if order else None
    has, same = telling(entries[row["row"]] for row in order)
    places = place_table(view, benchmark, order)
    return {
        "has": has,
        "same": same,
        "scale": scale_of(_reach(entries[row["row"]] for row in order)),
        "places": places,
        "place_scale": scale_of(line[name] for line in places for name in ("low", "high")),
        "benchmark": benchmark,
        "rows": [*order, *(row for row in view.listed if row["row"] not in first), floor],
        "scored": [*order[:MOST_HEAT], floor],
        "entries": entries,
        "map": draw_map(benchmark),
        "audit": for_page(
            view.audits, view.track.name, benchmark.id, [run.record for run in view.analysis.board.records]
        ),
        "shown": shown_chips(writer, view, benchmark),
        "class_table": class_table(benchmark, [(classes[row["row"]], row) for row in order], classes[floor["row"]]),
        "classes": classes,
        "domains": {row: {fields["domain"]: fields for fields in group} for row, group in domains.items()},
        "class_top": top_of(fields["iou"] for group in classes.values() for fields in group),
        "domain_top": top_of(fields["miou"] for group in domains.values() for fields in group),
        "floor": view.floor(benchmark.id),
        "reasons": reasons(view, benchmark.id),
        "confused": order,
        "shares": shares(matrix) if matrix is not None else None,
    }


def class_table(
    benchmark: BenchmarkView, groups: list[tuple[list[Fields], Fields]], floors: list[Fields]
) -> list[Fields]:
    """Per class: its share of the labelled pixels, and the best, the median and the majority class's IoU.

    Args:
        benchmark: It names the classes.
        groups: The classes of each row, and the row, the best first.
        floors: The classes of the majority class.
    """
    pixels = [fields["truth_pixels"] or 0 for fields in groups[0][0]] if groups else []
    table = []
    for index, name in enumerate(benchmark.classes):
        column = [(group[index]["iou"], row) for group, row in groups if group[index]["iou"] is not None]
        best, best_row = max(column, key=lambda item: item[0], default=(None, None))
        table.append({
            "name": name,
            "colour": benchmark.colours[index],
            "pixels": pixels[index] if pixels else None,
            "share": pixels[index] / sum(pixels) if sum(pixels) else None,
            "best": best,
            "best_row": best_row,
            "median": statistics.median(value for value, _ in column) if column else None,
            "floor": floors[index]["iou"] if floors else None,
        })  # fmt: skip
    return table


def place_table(view: View, benchmark: BenchmarkView, order: list[Fields]) -> list[Fields]:
    """Per place: its labelled pixels, and the mIoU there of the best row, the median and the extremes of all rows.

    Rows that were evaluated on other places than the best row are left out.
    """
    entries = [view.analysis.scores[row["row"]][benchmark.id] for row in order]
    alike = [entry for entry in entries if entry.target is not None and entry.target == entries[0].target]
    if not alike:
        return []
    counts = alike[0].counts[0]
    by_row = np.stack([np.mean([mean_iou(part.right, part.union) for part in entry.counts], axis=0) for entry in alike])
    pixels = counts.truth.sum(axis=1)
    return [
        {"domain": domain, "place": site, "pixels": int(pixels[number]), "share": pixels[number] / pixels.sum(),
         "best": float(by_row[0, number]), "median": float(np.median(by_row[:, number])),
         "low": float(by_row[:, number].min()), "high": float(by_row[:, number].max())}
        for number, (domain, site) in enumerate(counts.places) if pixels[number]
    ]  # fmt: skip


def shares(matrix: NDArray[np.int64]) -> list[list[float | None]]:
    """Of the pixels of each true class, the share that was predicted as each; None where the truth lacks the class."""
    return [[float(value) / int(line.sum()) for value in line] if line.sum() else [None] * len(line) for line in matrix]


def gap_matrices(view: View) -> list[Fields]:
    """One matrix per dataset: lines are what was trained on, columns the target domains, by season if they have one.

    ``domains`` are (id, name, season); ``top`` is the end of the colour scale, the same for all rows of the track.
    """
    matrices = []
    for dataset in dict.fromkeys(benchmark.dataset for benchmark in view.benchmarks):
        lines = [benchmark for benchmark in view.benchmarks if benchmark.dataset == dataset]
        domains = {
            name: (name, benchmark.domain_name(name), benchmark.season(name))
            for benchmark in lines
            for name in benchmark.target
        }
        ids = {benchmark.id for benchmark in lines}
        groups = [group for (_, benchmark), group in view.domains.items() if benchmark in ids]
        matrices.append({
            "dataset": dataset,
            "benchmarks": lines,
            "domains": sorted(domains.values(), key=lambda item: ((*_SEASONS, item[2]).index(item[2]), item[0])),
            "top": top_of(fields["miou"] for group in groups for fields in group),
        })  # fmt: skip
    return matrices


def gap_numbers(view: View, row: str) -> dict[str, Fields]:
    """By benchmark: ``all`` (pooled mIoU), ``reference``, ``drop``, ``low``, ``high``, and ``domains`` by id."""

    def short(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    fields = {"all": "miou", "reference": "in_domain", "drop": "drop", "low": "drop_low", "high": "drop_high"}
    return {
        benchmark.id: {
            **{name: short(view.entries[row, benchmark.id][field]) for name, field in fields.items()},
            "domains": {part["domain"]: short(part["miou"]) for part in view.domains.get((row, benchmark.id), [])},
        }
        for benchmark in view.benchmarks
    }


def packed(values: NDArray[Any]) -> str:
    """Numbers as little-endian float32 in base64: their rounding, 6e-8, is far below any digit that is shown."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _write_methods(writer: Writer, view: View) -> None:
    """Write the list of methods and the page, or pages, of each."""
    about, listed = {"view": view, "track": view.track}, []
    for name, rows in view.methods.items():
        parts = [rows[start : start + ROWS_PER_PAGE] for start in range(0, len(rows), ROWS_PER_PAGE)]
        paths = [f"{view.track.slug}/methods/{names.page_name(name, number)}" for number in range(len(parts))]
        for number, (part, path) in enumerate(zip(parts, paths, strict=True)):
            entries = [view.entries[row["row"], benchmark.id] for row in part for benchmark in view.benchmarks]
            has, same = telling(entries)
            writer.page(
                path, "method", **about, name=name, summary=summary(name), objectives=split_objectives(name)[1],
                rows=part, details={row["row"]: details(view, row["row"]) for row in part},
                scale=scale_of(_reach(entries)), number=number, paths=paths, has=has, same=same,
            )  # fmt: skip
        listed.append((name, rows, paths[0], summary(name)))
    writer.page(f"{view.track.slug}/methods/index.html", "methods", **about, methods=listed)


def _write_rows(writer: Writer, view: View) -> None:
    """Write a file for each row with a number somewhere, which pages load only when somebody asks for it.

    Each holds its ``gaps``, as ``gap_numbers`` has them, and by benchmark the ``matrix`` (lines are ground truth; null
    for the majority class) and, where it has a gap, what the comparison needs: ``seeds``; by seed ``miou``, number of
    the ``target`` and of its ``places``; the ``effective`` number of places; and ``draws`` as ``packed`` writes them:
    one array for the mean over the seeds or, where not all rows have the same seeds, one for each.
    """
    scores = view.analysis.scores
    targets: dict[tuple[str, Any], int] = {}
    apart = {
        benchmark.id
        for benchmark in view.benchmarks
        if len({tuple(sorted(by_name[benchmark.id].seeds)) for by_name in scores.values() if benchmark.id in by_name})
        > 1
    }
    for row in view.rows:
        benchmarks: dict[str, Fields] = {}
        for benchmark in view.benchmarks:
            entry = scores[row["row"]].get(benchmark.id)
            if entry is None:
                continue
            matrix = view.matrix(row["row"], benchmark.id)
            benchmarks[benchmark.id] = {"matrix": None if matrix is None else matrix.tolist()}
            if not benchmark.reference:
                seeds = sorted(entry.seeds)
                alone = [entry.only([seed]) for seed in seeds]
                benchmarks[benchmark.id] |= {
                    "seeds": seeds,
                    "miou": entry.values,
                    "target": [targets.setdefault((benchmark.id, part.target), len(targets)) for part in alone],
                    "places": [part.places for part in alone],
                    "effective": [part.effective for part in alone],
                    "draws": [packed(part.draws) for part in (alone if benchmark.id in apart else [entry])],
                }
        if benchmarks:
            path = f"{view.track.slug}/rows/{row['slug']}.js"
            data = {"least": MIN_EFFECTIVE, "benchmarks": benchmarks, "gaps": gap_numbers(view, row["row"])}
            writer.script(path, f"row:{row['slug']}", data)


def _reach(entries: Any) -> list[float | None]:
    """What a scale must hold."""
    return [entry[name] for entry in entries for name in ("miou", "low", "high")]


_PRINTED = 5e-5
"""Half a digit of what is printed."""


def telling(lines: Iterable[Fields]) -> tuple[frozenset[str], list[str]]:
    """Look at the columns that a table may leave out.

    Args:
        lines: Rows of a board, or entries.

    Returns:
        Names of those among ``release``, ``last``, ``oracle``, ``worst``, ``variants``, ``seeds`` and ``in_domain``
        that are not the same throughout, and what the others would have said, in sentences.
    """
    known = [line for line in lines if not line.get("is_floor") and line.get("miou", line.get("mean")) is not None]
    has, same = set(), []
    if _differ(known, "inflation", None):
        has.add("release")
    elif any(line.get("inflation") is not None for line in known):
        same.append("The metric of the SpectralX release gives the same numbers here.")
    has |= {name for name, column in (("last", "last"), ("worst", "worst_miou")) if _differ(known, column, "miou")}
    has |= {name for name in ("oracle", "in_domain") if any(line.get(name) is not None for line in known)}
    if any((line.get("variants") or 0) > 1 for line in known):
        has.add("variants")
    seeds = {line["seeds"] for line in known if line["seeds"]}
    if len(seeds) > 1:
        has.add("seeds")
    elif seeds:
        one = seeds.pop()
        same.append(f"All rows: seed{'s' if ',' in one else ''} {one}.")
    return frozenset(has), same


def _differ(lines: Iterable[Fields], column: str, other: str | None) -> bool:
    """Whether a column is ever printed unlike another one, or unlike 0."""
    pairs = [(line[column], line[other] if other else 0.0) for line in lines if column in line]
    return any(value is not None and abs(value - base) >= _PRINTED for value, base in pairs)

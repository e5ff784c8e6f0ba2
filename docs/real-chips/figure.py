"""Draw the figure of docs/results.md, and print its tables of rows, differences and rates, from the committed results.

python docs/real-chips/figure.py
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from spectral_tl_bench.api.results import board
from spectral_tl_bench.console import say
from spectral_tl_bench.leaderboard.analysis import Analysis
from spectral_tl_bench.leaderboard.statistics.comparison import compare
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import read_records

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "leaderboard" / "tables"
SIDES = {"hls-worldcover-m2w": ("M to W", "#0072b2", "o"), "hls-worldcover-w2m": ("W to M", "#d55e00", "s")}
NAMES = {"dinov2-small": "DINOv2 ViT-S", "galileo-nano": "Galileo nano"}
PATCHES = {"dinov2-small": 14, "galileo-nano": 8}


TRIED = (0.00015, 0.0015)
"""Learning rates beside the usual one, which have a table of their own."""


def rows() -> dict[str, dict[str, str]]:
    """The complete rows by their names, best first; the floor that the board adds by itself stands there as a run."""
    with (TABLES / "board-demonstration-rows.csv").open(newline="") as file:
        complete = [row for row in csv.DictReader(file) if row["complete"] == "True" and row["settings"] != "{}"]
    complete = [row for row in complete if json.loads(row["settings"])["budget"]["learning_rate"] not in TRIED]
    return {row["row"]: row for row in sorted(complete, key=lambda row: -float(row["mean"]))}


def title(row: dict[str, str]) -> str:
    """A row in words."""
    if not row["backbone"]:
        return row["method"]
    scale = re.search(r"input scale ([0-9.]+)", row["patch_embedding"])
    size = PATCHES[row["backbone"]] / (float(scale[1]) if scale else 1)
    weights = ", random weights" if row["pretrained"] == "none" else ""
    pixels = " + MLP" if has_pixel_path(row["options"]) else ""
    ended = "" if row["unconverged"] else ", until its plateau"
    return f"{row['method']}, {NAMES[row['backbone']]}{weights}, {size:g} px{pixels}{changed(row)}{ended}"


def changed(row: dict[str, str]) -> str:
    """What a row has other than the defaults here."""
    options = json.loads(row["options"])
    if row["patch_embedding"].startswith("composites"):
        return ", composites"
    if options.get("hyper_tokenizer") is False:
        return ", experts alone" if row["patch_embedding"].startswith("rgb") else ", without HyperT and Are"
    if options.get("train_hyper_tokenizer"):
        return ", HyperT trained"
    return f", HyperT x {options['token_scale']:g}" if options.get("token_scale") else ""


def has_pixel_path(options: str) -> bool:
    """Whether a row adds the logits of a per-pixel MLP."""
    values = json.loads(options)
    return values.get("pixels") is True or "+pixels" in values.get("decoder", "")


def differences(analysis: Analysis, chosen: dict[str, dict[str, str]]) -> list[str]:
    """Rows beside which the frozen network in the same setting stands, against it: over the seeds that both have."""
    beside = {
        name: row
        for name, row in chosen.items()
        if json.loads(row["settings"]).get("window") == 64 and (has_pixel_path(row["options"]) or not row["backbone"])
    }
    reference = next(name for name, row in beside.items() if title(row) == "frozen, DINOv2 ViT-S, 8 px + MLP")
    lines = []
    for name, row in beside.items():
        if name == reference:
            continue
        found = compare(analysis, name, reference)
        seeds = [by_seed for by_seed in found["by_seed"] if by_seed]
        sides = [between(line.difference, line.low, line.high) for line in found.itertuples()]
        mean = found.iloc[-1]
        other_seeds = "" if math.isnan(mean.runs_low) else between(None, mean.runs_low, mean.runs_high)
        by_seed = ", ".join(f"{100 * sum(each) / len(each):+.1f}" for each in zip(*seeds, strict=True))
        trained = f"{int(row['trainable_max']) - int(row['decoder_max']):,}" if row["backbone"] else ""
        words = title(row).removeprefix(row["method"])
        cells = (f"`{row['method']}`{words}", trained, *sides, by_seed, other_seeds)
        lines.append((mean.difference, f"| {' | '.join(cells)} |"))
    head = "| Row | trained beside the decoder | M to W | W to M | Mean | seed by seed | Mean, over places and seeds |"
    return [head, "|---|---|---|---|---|---|---|", *(line for _, line in sorted(lines, reverse=True))]


def rates(records: list[Record]) -> list[str]:
    """What differs by its learning rate alone, seed by seed, where one was tried beside the usual one."""
    found: dict[str, dict[float, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        if record.backbone and record.selection and record.settings:
            budget = dict(record.settings["budget"])
            rate, settings = budget.pop("learning_rate"), record.settings | {"budget": budget}
            same = (
                record.method,
                record.backbone.patch_embedding,
                record.backbone.pretrained,
                record.options,
                settings,
            )
            found[json.dumps([record.seed, *same], sort_keys=True)][rate][record.benchmark] = record
    lines = [
        "| Method | seed | learning rate | source validation M, W | M to W | W to M |",
        "|---|---|---|---|---|---|",
    ]
    for by_rate in found.values():
        if by_rate.keys() & set(TRIED):
            for rate, both in sorted(by_rate.items()):
                pair = [both[benchmark] for benchmark in SIDES]
                before = ", ".join(f"{100 * record.selection.value:.1f}" for record in pair)
                after = (f"{100 * record.scores.selected.miou:.1f}" for record in pair)
                cells = (f"`{pair[0].method}`", str(pair[0].seed), f"{rate:g}", before, *after)
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def between(value: float | None, low: float, high: float) -> str:
    """In points, with its interval."""
    ends = f"{100 * low:.1f} to {100 * high:.1f}"
    return ends if value is None else f"{100 * value:+.1f} ({ends})"


def main() -> None:
    """Write ``docs/results-real.svg``."""
    chosen = rows()
    cells: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with (TABLES / "board-demonstration-cells.csv").open(newline="") as file:
        for cell in csv.DictReader(file):
            cells[cell["row"]][cell["benchmark"]] = cell
    mpl.rcParams |= {"svg.hashsalt": "real", "svg.fonttype": "none", "font.size": 7}
    figure = Figure(figsize=(7.1, 0.6 + 0.24 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    head = "| Row (mIoU in per cent) | M to W | W to M | source validation M, W | trained | seeds |"
    lines = [head, "|---|---|---|---|---|---|"]
    for place, (name, row) in enumerate(chosen.items()):
        said = []
        for offset, (benchmark, (_, colour, mark)) in zip((-0.15, 0.15), SIDES.items(), strict=True):
            cell = cells[name][benchmark]
            low, high, miou = (100 * float(cell[key]) for key in ("low", "high", "miou"))
            axes.plot((low, high), (place + offset,) * 2, color=colour, linewidth=1)
            axes.plot(miou, place + offset, marker=mark, color=colour, markersize=3.5)
            spread = f" ± {100 * float(cell['std']):.1f}" if cell["std"] else ""
            said.append(f"{miou:.1f}" + spread)
        values = [cells[name][benchmark]["validation"] for benchmark in SIDES]
        shown = ", ".join(f"{100 * float(value):.1f}" for value in values)
        trained = f"{int(row['trainable_max']):,}"
        seeds = len(cells[name][next(iter(SIDES))]["seeds"].split())
        words = title(row).removeprefix(row["method"])
        lines.append(f"| `{row['method']}`{words} | {' | '.join(said)} | {shown} | {trained} | {seeds} |")
    axes.set_yticks(range(len(chosen)), [title(row) for row in chosen.values()])
    axes.invert_yaxis()
    axes.set_xlabel("target mIoU in per cent; bars: 95 % interval over places")
    for label, colour, mark in SIDES.values():
        axes.plot([], [], marker=mark, color=colour, label=label, markersize=3.5, linewidth=1)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs" / "results-real.svg", metadata={"Date": None})
    say("\n".join(lines))


if __name__ == "__main__":
    main()
    results = ROOT / "leaderboard" / "results"
    say("\n".join(["", *differences(board(results, "demonstration"), rows())]))
    say("\n".join(["", *rates(read_records([results / "demonstration"]))]))

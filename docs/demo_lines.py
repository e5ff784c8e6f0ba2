"""What `make demo` showed, in two lines: ``python docs/demo_lines.py runs/demo/tables/board-sample.csv``."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from spectral_tl_bench.console import in_percent, say
from spectral_tl_bench.leaderboard.board import FLOOR


def lines(table: Path) -> tuple[str, str]:
    """The order of the methods on the targets, and what leaving the source costs the first of them.

    Args:
        table: ``board-sample.csv`` of a report, one line per cell.
    """
    target, source = defaultdict(list), defaultdict(list)
    benchmarks = set()
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == "completed" and row["method"] != FLOOR:  # the board's own row, not a run
                benchmarks.add(row["benchmark"])
                target[row["method"]].append(float(row["selected_miou"]))
                source[row["method"]].append(float(row["selected_value"] or "nan"))
    if not target:
        return "Synthetic sample: no finished run, so nothing was seen.", "See the messages above."
    scores = {name: mean(values) for name, values in target.items()}
    order = sorted(scores, key=lambda name: scores[name], reverse=True)
    best = order[0]
    told = ", ".join(f"{name} {in_percent(scores[name])}" for name in order)
    return (
        f"Synthetic sample, mean mIoU over {len(benchmarks)} benchmarks, on places not trained on: {told}.",
        f"At home (source validation) {best} has {in_percent(mean(source[best]))}. Invented scenes and a short "
        "training: this shows how the suite works, not how good a method is.",
    )


if __name__ == "__main__":
    for line in lines(Path(sys.argv[1])):
        say(line)

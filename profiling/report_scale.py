"""How long the leaderboard takes over many records: reading, boards, statistics, comparison.

    python profiling/report_scale.py --records 10000

Writes synthetic records into a temporary folder (or ``--folder``, where they are kept and used again) and times every
step in this process, one core. The records are made by ``write_record``; only waiting for the disk is left out.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spectral_tl_bench.files import digest, seed_from
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.statistics.comparison import compare
from spectral_tl_bench.results.store import RECORD_FILE, read_records, write_record

GRID = [
    *[(f"whuohs-{name}", "WHU-OHS", "region", 22) for name in ("s2t", "t2s")],
    *[(f"dfc2020-{name}", "DFC2020", "season", 8) for name in ("autumn", "spring", "summer", "winter")],
    *[(f"mts12-{name}", "MTS12", "region", 8) for name in ("n2s", "s2n")],
    *[(f"{name.lower().replace('-', '')}-id", name, "none", k) for name, k in (("WHU-OHS", 24), ("DFC2020", 8))],
    ("mts12-id", "MTS12", "none", 8),
]
SEEDS = (0, 1, 2)
CHIPS = 20
DOMAINS = ("one", "two")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--records", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3, help="times that the steps are run; the median counts")
    arguments.add_argument("--folder", type=Path, help="where the records are kept")
    arguments.add_argument("--profile", action="store_true", help="print where the time of one round goes")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if sum(1 for _ in folder.rglob(RECORD_FILE)) != given.records:
            started = time.perf_counter()
            write_all(folder, given.records)
            seconds = time.perf_counter() - started
            print(f"writing {seconds:.1f} s, {1000 * seconds / given.records:.2f} ms a record")
        rounds = [steps(folder) for _ in range(given.rounds)]
        wall, cpu = (
            {name: statistics.median(one[name][kind] for one in rounds) for name in rounds[0]} for kind in (0, 1)
        )
        total = sum(wall.values()), sum(cpu.values())
        print(f"{'step':8s} {'wall s':>8s} {'CPU s':>8s}  share of CPU")
        for name in wall:
            print(f"{name:8s} {wall[name]:8.2f} {cpu[name]:8.2f}  {100 * cpu[name] / total[1]:5.1f} %")
        print(f"{'all':8s} {total[0]:8.2f} {total[1]:8.2f}  {1000 * total[1] / given.records:.2f} ms a record")
        print(json.dumps({"records": given.records, "rounds": given.rounds, "wall": wall, "cpu": cpu}))
        if given.profile:
            with cProfile.Profile() as profile:
                steps(folder)
            pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(30)


def steps(folder: Path) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each step of a report, one after the other."""
    seconds: dict[str, tuple[float, float]] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        started = time.perf_counter(), time.process_time()
        result = step()
        seconds[name] = time.perf_counter() - started[0], time.process_time() - started[1]
        return result

    records = timed("read", lambda: read_records([folder]))
    board = timed("boards", lambda: make_boards(records)["reproduced"])
    analysis = timed("analyse", lambda: analyse(board))
    first, second = analysis.rows["row"].iloc[:2]
    timed("compare", lambda: compare(analysis, first, second))
    return seconds


def write_all(folder: Path, count: int) -> None:
    """Write ``count`` records: method by method, each on all benchmarks and with all seeds."""
    wait, os.fsync = os.fsync, lambda _: None
    try:
        for place in itertools.islice(_plan(), count):
            write_record(folder, *_record(*place))
    finally:
        os.fsync = wait


def _plan() -> Iterator[tuple[int, int, tuple[str, str, str, int]]]:
    for number in itertools.count():
        yield from ((number, seed, benchmark) for seed in SEEDS for benchmark in GRID)


def _record(number: int, seed: int, about: tuple[str, str, str, int]) -> tuple[dict[str, Any], pd.DataFrame]:
    benchmark, dataset, gap, classes = about
    fields = {
        "status": "completed", "benchmark": benchmark, "benchmark_version": "1.0", "dataset": dataset, "gap": gap,
        "method": f"method-{number:04d}", "family": "peft", "options": {"rank": 16}, "seed": seed,
        "backbone": {"name": "compact", "width": 96, "depth": 4, "heads": 3, "patch": 8},
        "settings": {"window": 64, "stride": 32, "steps": 10}, "track": "reproduced",
        "fingerprint": digest(benchmark, number, seed), "classes": [f"class {k}" for k in range(classes)],
        "majority_class": 1, "source_domains": ["source"], "target_domains": list(DOMAINS),
        "environment": {"torch": "2.4"}, "created": "2026-01-02T03:04:05+00:00", "device": "cpu",
        "data": {"kind": "files", "chips": {"train": 6, "validation": 2, "target": CHIPS},
                 "split_hash": "ab", "manifest_hash": "cd"},
        "parameters": {"total": 1000, "trainable": 100}, "seconds": {"train": 1.5, "evaluate": 0.5, "total": 2.0},
        "selection": {"step": 5, "value": 0.5, "trace": [[5, 0.5], [10, 0.4]]},
    }  # fmt: skip
    return fields, _evidence(benchmark, classes, number, seed)


def _evidence(benchmark: str, classes: int, number: int, seed: int) -> pd.DataFrame:
    truth = np.random.default_rng(seed_from(benchmark)).integers(0, 3000, (CHIPS, classes))
    rng = np.random.default_rng([number, seed, seed_from(benchmark)])
    rows = []
    for checkpoint in ("selected", "last", "oracle"):
        for chip, matrix in enumerate(_matrices(truth, 0.2 + 0.6 * rng.random(), rng)):
            rows.append((f"chip{chip:02d}", DOMAINS[chip % 2], f"site{chip:02d}", checkpoint, matrix))
    return pd.DataFrame(rows, columns=["chip", "domain", "site", "checkpoint", "matrix"])


def _matrices(truth: NDArray[np.int64], quality: float, rng: np.random.Generator) -> NDArray[np.int64]:
    classes = truth.shape[1]
    right = rng.binomial(truth, np.clip(quality + rng.normal(0, 0.1, truth.shape), 0, 1))
    matrices = rng.multinomial(truth - right, np.full(classes, 1 / classes))
    matrices[:, range(classes), range(classes)] += right
    return matrices


if __name__ == "__main__":
    main()

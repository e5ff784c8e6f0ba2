"""How long it takes to plan many cells of which most are done: identities, a look at the records, an estimate.

    python profiling/planning.py --cells 10000 --done 9000

The cells are of the bundled sample: all benchmarks, ten methods, a grid of five learning rates and as many seeds as it
takes. Their records are invented, and written by ``write_record`` into a temporary folder (or ``--folder``, where they
are kept and used again). Imports and the first time, which cuts splits that are not kept yet, are timed apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

IMPORTING = time.perf_counter(), time.process_time()

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from spectral_tl_bench.files import digest  # noqa: E402
from spectral_tl_bench.results.store import RECORD_FILE, record_folder, write_record  # noqa: E402
from spectral_tl_bench.runner.blocks import Block, requests  # noqa: E402
from spectral_tl_bench.runner.cell import common_fields  # noqa: E402
from spectral_tl_bench.runner.definitions import Cell  # noqa: E402
from spectral_tl_bench.runner.estimate import estimate  # noqa: E402
from spectral_tl_bench.runner.run import plan  # noqa: E402
from spectral_tl_bench.runner.survey import confirmed, survey  # noqa: E402

METHODS = ("lora", "full", "frozen", "spectralx", "vpt-deep", "rein", "ssf", "pixel-mlp", "unet", "dora")
T = TypeVar("T")
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--cells", type=int, default=10_000)
    arguments.add_argument("--done", type=int, default=9_000)
    arguments.add_argument("--rounds", type=int, default=3, help="times that it is planned; the fastest counts")
    arguments.add_argument("--folder", type=Path, help="where the records are kept")
    arguments.add_argument("--verify", type=int, default=500, help="finished cells to verify, as a run does")
    given = arguments.parse_args()
    imports = time.perf_counter() - IMPORTING[0], time.process_time() - IMPORTING[1]
    with tempfile.TemporaryDirectory() as temporary:
        out = given.folder or Path(temporary)
        first, cells = _timed(lambda: _planned(given.cells))
        _write(out, cells[: given.done])
        rounds = [_round(given.cells, out) for _ in range(given.rounds)]
        best = {name: min((one[name] for one in rounds), key=lambda pair: pair[1]) for name in rounds[0]}
        found = survey(cells[: given.verify], out)
        verified, outcomes = _timed(lambda: confirmed(found, _quiet))
    print(f"{'step':28s} {'wall s':>8s} {'CPU s':>8s}")
    total = tuple(sum(pair[kind] for pair in best.values()) for kind in (0, 1))
    for name, pair in {"imports": imports, "first time": first, **best, "planned": total}.items():
        print(f"{name:28s} {pair[0]:8.2f} {pair[1]:8.2f}")
    each = 1000 * verified[1] / max(1, len(outcomes))
    print(f"verifying {len(outcomes)} finished cells, as a run does: {each:.2f} ms CPU each")
    print(json.dumps({"cells": len(cells), "done": given.done, "wall": total[0], "cpu": total[1], "verify_ms": each}))


def _round(count: int, out: Path) -> dict[str, tuple[float, float]]:
    seconds, cells = _timed(lambda: _planned(count))
    looked, found = _timed(lambda: survey(cells, out))
    judged, _ = _timed(lambda: estimate(found))
    return {"cells and identities": seconds, "a look at the records": looked, "an estimate": judged}


def _planned(count: int) -> list[Cell]:
    seeds = -(-count // (8 * len(METHODS) * len(RATES)))
    block = Block(
        benchmarks="all", methods=METHODS, backbones=("compact",), seeds=f"0-{seeds - 1}",
        grid={"learning_rate": RATES},
    )  # fmt: skip
    cells, broken = plan(list(requests(block, {})), _quiet)
    assert not broken and len(cells) >= count, (len(cells), broken)
    return cells[:count]


def _write(out: Path, cells: Sequence[Cell]) -> None:
    with _no_waiting():
        for cell in cells:
            folder = record_folder(out, cell.opened.benchmark.id, cell.method_name, cell.fingerprint())
            if (folder / RECORD_FILE).is_file():
                continue
            split = cell.split()
            fields = common_fields(cell, split, cell.identity(split), 1)
            write_record(out, {**fields, **_measured(), "status": "completed"}, _evidence(cell))


def _measured() -> dict[str, object]:
    return {
        "majority_class": 1, "parameters": {"total": 1000, "trainable": 100}, "device": "x86_64 CPU",
        "seconds": {"train": 10.0, "evaluate": 2.0, "total": 12.0}, "peak_memory_mb": 500.0,
        "stages": [{"name": "segment", "steps": 10, "seconds": 10.0, "trainable": 100}],
        "selection": {"step": 10, "value": 0.5, "trace": [[step, 0.5] for step in range(1, 11)]},
    }  # fmt: skip


def _evidence(cell: Cell) -> pd.DataFrame:
    frame = cell.opened.index.frame
    chips = cell.split().chips("target")
    classes = len(cell.opened.benchmark.labels.names)
    rng = np.random.default_rng(int(digest(cell.fingerprint())[:8], 16))
    truth = np.random.default_rng(0).integers(1, 50, (len(chips), classes))
    rows = []
    for checkpoint in ("selected", "last"):
        for number, chip in enumerate(chips):
            right = rng.binomial(truth[number], 0.6)
            matrix = np.diag(right)
            matrix[range(classes), np.roll(range(classes), 1)] += truth[number] - right
            rows.append((chip, str(frame.loc[chip, "domain"]), f"site{number}", checkpoint, matrix))
    return pd.DataFrame(rows, columns=["chip", "domain", "site", "checkpoint", "matrix"])


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """Leave out waiting for the disk."""
    wait, os.fsync = os.fsync, lambda _: None
    try:
        yield
    finally:
        os.fsync = wait


def _timed(step: Callable[[], T]) -> tuple[tuple[float, float], T]:
    """Wall and CPU seconds of a step, and its result."""
    started = time.perf_counter(), time.process_time()
    result = step()
    return (time.perf_counter() - started[0], time.process_time() - started[1]), result


def _quiet(_: str) -> None:
    pass


if __name__ == "__main__":
    main()

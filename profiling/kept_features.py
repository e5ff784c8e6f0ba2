"""What a second head costs on features that a first run has left: pairs of runs, first with an empty store.

python profiling/kept_features.py
python profiling/kept_features.py --backbone vit-small --chip 256 --chips 24 --window 224 --rounds 3 --only-stored
python profiling/kept_features.py --method frozen --rounds 3

A run is everything from opened chips to a stored record. ``second head`` has another learning rate on the same
features; ``at every step`` trains on the same windows and stores nothing; ``random windows`` is the method without
``cache``. All runs of a round follow each other in one process. Seconds are those of the processor, which other work
on the machine disturbs least; with a GPU, those of the clock on the wall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import paired_ratio

from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.runner.cell import run_cell
from spectral_tl_bench.runner.definitions import Cell
from spectral_tl_bench.runner.run import Request, plan
from spectral_tl_bench.sample import write_mts12
from spectral_tl_bench.storage import CACHE_VARIABLE
from spectral_tl_bench.training.hardware import Hardware, checked_hardware

SECONDS = ("first run", "second head", "at every step", "random windows")


def quiet(_: str) -> None:
    pass


def cell_of(
    wanted: argparse.Namespace, data: Path | None, cache: bool, learning_rate: float | None, backbone: str
) -> Cell:
    """One run."""
    options: dict[str, Any] = {"cache": True, "cache_copies": wanted.copies} if cache else {}
    if wanted.method == "frozen":
        options["train_patch_embed"] = False
    overrides = Overrides(window=wanted.window, steps=wanted.steps, learning_rate=learning_rate, budget="small")
    request = Request(
        [wanted.benchmark], [wanted.method], options, backbone=backbone, data_root=data, allow_partial=True,
        overrides=overrides,
    )  # fmt: skip
    (cell,), broken = plan(request, quiet)
    assert not broken, broken
    return cell


def seconds_of(cell: Cell, out: Path, hardware: Hardware) -> float:
    """How long a run takes."""
    clock = time.process_time if hardware.device.type == "cpu" else time.perf_counter
    started = clock()
    outcome = run_cell(cell, out, hardware, 0, quiet, fresh=True)
    assert outcome.state == "done", outcome.message
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="linear-probe")
    parser.add_argument("--backbone", default="vit-tiny")
    parser.add_argument("--benchmark", default="mts12-n2s")
    parser.add_argument("--chip", type=int, help="synthetic chips of this side instead of the bundled sample")
    parser.add_argument("--chips", type=int, default=12, help="how many of them, a third in the target")
    parser.add_argument("--window", type=int)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--copies", type=int, choices=(1, 8), default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-stored", action="store_true", help="leave out the runs that store nothing")
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's default")
    parser.add_argument("--accelerator", default="auto")
    wanted = parser.parse_args()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    hardware = checked_hardware(wanted.accelerator)
    names = SECONDS[:2] if wanted.only_stored else SECONDS
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        data = None
        if wanted.chip:
            data = Path(folder) / "data"
            write_mts12(data / "MTS12", chip=wanted.chip, north=wanted.chips * 2 // 3, south=wanted.chips // 3)
        kept, again, plain = (
            cell_of(wanted, data, cache, rate, wanted.backbone)
            for cache, rate in ((True, None), (True, 1e-3), (False, None))
        )
        first = cell_of(wanted, data, True, None, "compact")
        os.environ[CACHE_VARIABLE] = str(Path(folder) / "warm-up" / "cache")  # the sample has been found by now
        seconds_of(first, Path(folder) / "warm-up", hardware)
        for number in range(wanted.rounds):
            out = Path(folder) / f"round-{number}"
            os.environ[CACHE_VARIABLE] = str(out / "cache")
            runs = (kept, hardware), (again, hardware), (again, replace(hardware, feature_limit=0.0)), (plain, hardware)
            for name, (cell, how) in zip(names, runs, strict=False):
                seconds[name].append(seconds_of(cell, out, how))
    settings = kept.settings
    print(
        f"{wanted.method}, {wanted.backbone}, {wanted.benchmark}, {settings.window} px, {wanted.copies} copies, "
        f"{settings.budget.steps} steps of {settings.budget.batch_size}, {torch.get_num_threads()} threads"
    )
    second = seconds["second head"]
    for name, values in seconds.items():
        print(
            f"{name:16s} median {statistics.median(values):8.2f} s   {paired_ratio(values, second):6.2f} x second head"
            f"   ({min(values):.2f} to {max(values):.2f} s)"
        )


if __name__ == "__main__":
    main()

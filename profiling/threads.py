"""How far a result moves with the number of computing threads, against how far it moves with the seed.

python profiling/threads.py
python profiling/threads.py --methods lora spectralx --benchmarks mts12-n2s --threads 1 4 --seeds 0 1 2

On the bundled synthetic sample: cells are run with each number of threads, one seed after the other. ``moved`` is the
share of the labelled target pixels that are predicted as another class.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path

from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.results.evidence import Evidence
from spectral_tl_bench.results.store import load_evidence, read_record
from spectral_tl_bench.runner.cell import run_cell
from spectral_tl_bench.runner.run import Request, plan
from spectral_tl_bench.training.hardware import Hardware


def quiet(_: str) -> None:
    pass


def moved(one: Evidence, other: Evidence) -> float:
    """The least share of labelled pixels that two results of the same chips predict as different classes."""
    first, second = one.matrices["selected"], other.matrices["selected"]
    assert one.chips == other.chips, "the target is the same for every seed"
    return float(abs(first - second).sum() / 2 / first.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["nearest-mean", "pixel-mlp", "lora", "full"])
    parser.add_argument("--benchmarks", nargs="+", default=["mts12-n2s", "whuohs-s2t"])
    parser.add_argument("--threads", nargs=2, type=int, default=[1, 2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=None, help="default: those of the small budget")
    wanted = parser.parse_args()
    overrides = Overrides(steps=wanted.steps, pretrain_steps=None)
    request = Request(wanted.benchmarks, wanted.methods, seeds=wanted.seeds, overrides=overrides)
    cells, broken = plan(request, quiet)
    assert not broken, broken
    found: dict[tuple[str, str, int, int], tuple[float, Evidence]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for cell, threads in itertools.product(cells, wanted.threads):
            out = Path(folder) / str(threads)
            outcome = run_cell(cell, out, Hardware("cpu", threads=threads), 0, quiet)
            assert outcome.record is not None and outcome.miou is not None, outcome.message
            evidence = load_evidence(read_record(outcome.record))
            found[cell.opened.benchmark.id, cell.method_name, cell.seed, threads] = outcome.miou, evidence
    few, many = wanted.threads
    print(f"synthetic sample; {few} against {many} threads, and seed against seed; points of mIoU, % of pixels moved")
    print(f"{'benchmark':16s}{'method':16s}{'threads: mIoU':>15s}{'moved':>8s}{'seeds: mIoU':>15s}{'moved':>8s}")
    for benchmark, method in dict.fromkeys(key[:2] for key in found):
        by_threads = [
            (found[benchmark, method, seed, few], found[benchmark, method, seed, many]) for seed in wanted.seeds
        ]
        by_seed = [
            (found[benchmark, method, one, few], found[benchmark, method, other, few])
            for one, other in itertools.combinations(wanted.seeds, 2)
        ]
        line = f"{benchmark:16s}{method:16s}"
        for pairs in (by_threads, by_seed):
            points = statistics.mean(abs(one[0] - other[0]) * 100 for one, other in pairs)
            pixels = statistics.mean(moved(one[1], other[1]) * 100 for one, other in pairs)
            line += f"{points:15.3f}{pixels:8.3f}"
        print(line)


if __name__ == "__main__":
    main()

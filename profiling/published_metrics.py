"""What the release's metric adds: the tables of docs/published.md, printed as they stand there.

python profiling/published_metrics.py --data-root FOLDER_OF_CHIPS
python profiling/published_metrics.py --data-root FOLDER_OF_CHIPS --protocol published --as-published
python profiling/published_metrics.py --example-only

FOLDER_OF_CHIPS is what docs/examples/hls-worldcover-*.yaml describe. Finished cells in --out are not run again. Both
metrics of a line come from the same confusion matrices; ``oracle`` is the checkpoint that is best on the target.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.evaluation.metrics import released_from_strict, released_score, score
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import load_evidence, read_records

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
METHODS = ("nearest-mean", "pixel-mlp", "unet@small", "full")
THIRD_WRONG = np.array([[0, 0, 0], [50, 100, 0], [50, 0, 100]])
"""Rows truth, columns prediction; class 0 is void. A third of each class is predicted as void."""


def example_lines() -> list[str]:
    """The example with a third of the pixels wrong, as a Markdown table."""
    release = released_score(THIRD_WRONG)
    strict = score(_split_evenly(THIRD_WRONG))
    lines = []
    for name, title, scale, digits in (("oa", "OA, %", 100, 1), ("kappa", "kappa", 1, 3), ("miou", "mIoU, %", 100, 1)):
        ours, theirs = (scale * getattr(scores, name) for scores in (strict, release))
        lines.append(f"| {title} | {ours:.{digits}f} | {theirs:.{digits}f} | {theirs - ours:+.{digits}f} |")
    return [
        "| | by the rule of this suite | by the release's rule | difference |",
        "| --- | --- | --- | --- |",
        *lines,
    ]


def _split_evenly(matrix: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same pixels for a predictor without a void class: what went to void goes to the other class."""
    ours = matrix[1:, 1:].copy()
    ours[0, 1] += matrix[1, 0]
    ours[1, 0] += matrix[2, 0]
    return ours


def measured_lines(records: Iterable[Record]) -> list[str]:
    """Both metrics of the selected checkpoint on the whole target."""
    lines = [
        "| benchmark | method | protocol | mIoU, strict | mIoU, release | difference | OA, strict | OA, release "
        "| kappa, strict | kappa, release |",
        "|" + " --- |" * 10,
    ]
    for record, matrices in _in_order(records):
        lines.append(f"| {_name(record)} {_both(matrices.sum(axis=0))}")
    return lines


def absent_lines(records: Iterable[Record]) -> list[str]:
    """The same predictions on targets that lack a class: its pixels left out of the ground truth, one class each time.

    mIoU, strict -> release, in per cent.
    """
    done = _in_order(records)
    classes = list(dict.fromkeys(name for record, _ in done for name in record.classes))
    lines = [
        f"| benchmark | method | protocol | {' | '.join(f'without {name}' for name in classes)} |",
        "|" + " --- |" * (3 + len(classes)),
    ]
    for record, matrices in done:
        cells = []
        for name in classes:
            total = matrices.sum(axis=0)
            total[record.classes.index(name)] = 0
            ours, theirs = score(total).miou, released_from_strict(total).miou
            cells.append(f"{100 * ours:.2f} -> {100 * theirs:.2f} ({100 * (theirs - ours):+.2f})")
        lines.append(f"| {_name(record)} | {' | '.join(cells)} |")
    return lines


def chip_lines(records: Iterable[Record]) -> list[str]:
    """Both metrics on the chips of the target that lack a class by themselves."""
    lines = [
        "| benchmark | method | protocol | chips | mIoU, strict | mIoU, release | difference | OA, strict "
        "| OA, release | kappa, strict | kappa, release |",
        "|" + " --- |" * 11,
    ]
    for record, matrices in _in_order(records):
        for index, name in enumerate(record.classes):
            without = matrices.sum(axis=2)[:, index] == 0
            if without.any():
                chips = f"{without.sum()} of {len(matrices)}, without {name}"
                lines.append(f"| {_name(record)} | {chips} {_both(matrices[without].sum(axis=0))}")
    return lines


def selection_lines(records: Iterable[Record]) -> list[str]:
    """What it gives to select on the target: the best checkpoint there beside the selected one; mIoU, strict."""
    lines = [
        "| benchmark | method | protocol | selected | last | best on the target | best minus selected |",
        "|" + " --- |" * 7,
    ]
    for record, _ in _in_order(records):
        if record.scores is not None and record.scores.oracle is not None:
            chosen, last, best = (block.miou for block in record.scores.blocks().values())
            lines.append(
                f"| {_name(record)} | {100 * chosen:.2f} | {100 * last:.2f} | {100 * best:.2f} "
                f"| {100 * (best - chosen):+.2f} |"
            )
    return lines


def trace_lines(records: Iterable[Record]) -> list[str]:
    """What the release would have printed at each validation, beside its metric and ours on the last checkpoint."""
    lines = ["| benchmark | method | printed at the validations | release, last | strict, last |", "|" + " --- |" * 5]
    for record, matrices in _in_order(records):
        if record.protocol == "as-published" and record.selection is not None:
            total = matrices.sum(axis=0)
            seen = ", ".join(f"{100 * (value or 0):.2f}" for _, value in record.selection.trace)
            lines.append(
                f"| {record.benchmark} | {record.method} | {seen} | {100 * released_from_strict(total).miou:.2f} "
                f"| {100 * score(total).miou:.2f} |"
            )
    return lines if len(lines) > 2 else []


def _name(record: Record) -> str:
    return f"{record.benchmark} | {record.method} | {record.protocol}"


def _in_order(records: Iterable[Record]) -> list[tuple[Record, NDArray[np.int64]]]:
    """Completed records, each with the matrices (chips, K, K) of its selected checkpoint."""
    order = {name: place for place, name in enumerate(METHODS)}
    done = [record for record in records if record.status == "completed"]
    done.sort(key=lambda one: (one.benchmark, order.get(one.method, 99), one.protocol, one.seed))
    return [(record, load_evidence(record).matrices["selected"]) for record in done]


def _both(matrix: NDArray[np.int64]) -> str:
    strict, release = score(matrix), released_from_strict(matrix)
    return (
        f"| {100 * strict.miou:.2f} | {100 * release.miou:.2f} | {100 * (release.miou - strict.miou):+.2f} "
        f"| {100 * strict.oa:.2f} | {100 * release.oa:.2f} | {strict.kappa:.3f} | {release.kappa:.3f} |"
    )


def run(
    data_root: Path, out: Path, protocols: Sequence[str], as_published: bool, steps: int, methods: Sequence[str]
) -> None:
    """Train the methods in both directions, one cell after the other, on one thread."""
    import torch

    from spectral_tl_bench.protocol.settings import Overrides
    from spectral_tl_bench.runner.run import Request, execute, plan
    from spectral_tl_bench.training.hardware import Hardware

    torch.set_num_threads(1)
    files = [str(EXAMPLES / f"hls-worldcover-{name}.yaml") for name in ("m2w", "w2m")]
    wanted = [(name, {}) for name in protocols]
    wanted += [("as-published", {"as_published": True})] if as_published else []
    for protocol, more in wanted:
        settings = Overrides(steps=steps, batch_size=8, validations=5, window=64, stride=64)
        request = Request(files, methods, backbone="compact", data_root=data_root, overrides=settings, oracle=True,
                          protocol=protocol, **more)  # fmt: skip
        cells, broken = plan([request], lambda _: None)
        if broken:
            sys.exit("\n".join(f"{name}: {reason}" for name, reason in broken))
        execute(cells, out, Hardware("cpu"), 0, lambda line: print(line, file=sys.stderr))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs") / "published-metrics")
    parser.add_argument("--protocol", action="append", help="Default: strict.")
    parser.add_argument("--as-published", action="store_true")
    parser.add_argument("--method", action="append", help=f"Default: {', '.join(METHODS)}.")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--example-only", action="store_true")
    options = parser.parse_args()
    print("\n".join(example_lines()))
    if options.example_only:
        return
    if options.data_root is None:
        parser.error("--data-root is needed, or --example-only")
    protocols = options.protocol or ([] if options.as_published else ["strict"])
    run(options.data_root, options.out, protocols, options.as_published, options.steps, options.method or METHODS)
    records = read_records([options.out])
    for lines in (measured_lines, absent_lines, chip_lines, selection_lines, trace_lines):
        if table := lines(records):
            print("\n" + "\n".join(table))


if __name__ == "__main__":
    main()

"""How much of a method's drop the class shares explain.

Records hold confusion matrices of the target alone; of source validation they hold the mIoU. So what can be asked is:
what would the same behaviour on the target give with the class shares of source validation? The other way around, from
the confusion of source validation to the shares of the target, needs matrices that no record has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.data.audit.facts import Method
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.splits import SplitTable, make_split
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.files import canonical
from spectral_tl_bench.results.places import mean_iou
from spectral_tl_bench.results.schema import Record, Selection
from spectral_tl_bench.results.store import load_evidence

BY_VALIDATION = Selection.model_fields["metric"].default
NO_CONFUSION = (
    "Records hold no confusion matrix of source validation, so its behaviour cannot be given the class shares of the "
    "target; the behaviour on the target is given those of source validation instead."
)


def reweighted(matrix: ArrayLike, shares: ArrayLike) -> float:
    """The mIoU that a behaviour would give with other class shares.

    With R[k, j] the share of class k's pixels that were predicted as j, and q the shares, the expected confusion is
    q[k] R[k, j], and mIoU is that of it: the mean of q[k] R[k, k] / (q[k] + sum_i q[i] R[i, k] - q[k] R[k, k]) over the
    classes with a pixel in truth or prediction.

    Args:
        matrix: Confusion matrix (K, K), rows ground truth.
        shares: Pixels or shares (K,) of the classes; those of classes without ground truth in ``matrix`` do not count.

    Returns:
        mIoU; NaN where no class is known in both.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    truth = counts.sum(axis=1)
    wanted = np.where(truth > 0, np.asarray(shares, dtype=np.float64), 0.0)
    expected = counts * np.divide(wanted, truth, out=np.zeros_like(wanted), where=truth > 0)[:, None]
    right = np.diagonal(expected)
    return float(mean_iou(right, expected.sum(axis=0) + expected.sum(axis=1) - right))


def explain(benchmark: Benchmark, index: ChipIndex, records: Iterable[Record]) -> tuple[list[Method], list[str]]:
    """What the class shares explain, for the methods of some records.

    Args:
        index: Of its chips, which the records must be of.
        records: Of any benchmark.

    Returns:
        The methods, and notes on what was left out and why.

    Raises:
        RecordError: If evidence is missing or changed.
    """
    mine = [one for one in records if one.benchmark == benchmark.id and one.status == "completed" and one.data]
    usable = [one for one in mine if one.data is not None and one.data.manifest_hash == index.manifest]
    notes = [NO_CONFUSION] if usable else []
    if len(usable) < len(mine):
        notes.append(f"{len(mine) - len(usable)} of {len(mine)} records are of other data, and left out")
    if not mine:
        notes.append(f"no record of {benchmark.id} was given")
    groups: dict[str, list[Record]] = {}
    for record in sorted(usable, key=lambda one: (one.method, one.fingerprint)):
        key = record.model_dump(
            mode="json", include={"method", "protocol", "backbone", "options", "objectives", "settings"}
        )
        groups.setdefault(canonical(key), []).append(record)
    cuts = {seed: _cut(benchmark, index, seed) for seed in {one.seed for one in usable}}
    lacking = {
        benchmark.labels.names[number]
        for cut in cuts.values()
        if cut is not None
        for number in np.flatnonzero(
            (_pixels(index, cut.chips("validation")) == 0) & (_pixels(index, cut.chips("target")) > 0)
        )
    }
    if usable and lacking:
        notes.append(
            f"Source validation lacks classes of the target: {', '.join(sorted(lacking))}. Where one is predicted all "
            "the same, it counts as 0 in the re-weighted mIoU, as it does in that of source validation: that part of "
            "the difference is the metric's."
        )
    methods = [_method(benchmark, index, group, cuts) for group in groups.values()]
    labels = Counter((one.label, one.protocol) for one in methods)
    for number, group in enumerate(groups.values()):
        if labels[methods[number].label, methods[number].protocol] > 1:  # with other options or settings
            label = f"{methods[number].label} ({group[0].fingerprint[:8]})"
            methods[number] = methods[number].model_copy(update={"label": label})
    return sorted(methods, key=lambda one: (-one.target, one.label, one.protocol)), notes


def _pixels(index: ChipIndex, chips: Sequence[str]) -> NDArray[np.int64]:
    return np.sum(index.frame.loc[list(chips), "class_counts"].tolist(), axis=0)


def _cut(benchmark: Benchmark, index: ChipIndex, seed: int) -> SplitTable | None:
    try:
        return make_split(benchmark, index, seed)
    except DataError:
        return None


def _method(
    benchmark: Benchmark, index: ChipIndex, records: Sequence[Record], cuts: dict[int, SplitTable | None]
) -> Method:
    target, given, validation = [], [], []
    absent: set[int] = set()
    for record in records:
        matrix = load_evidence(record).matrices["selected"].sum(axis=0)
        right = np.diagonal(matrix)
        target.append(float(mean_iou(right, matrix.sum(axis=0) + matrix.sum(axis=1) - right)))
        if record.selection and record.selection.metric == BY_VALIDATION and record.selection.value is not None:
            validation.append(record.selection.value)
        cut = cuts[record.seed]
        if cut is not None and record.data is not None and cut.hash == record.data.split_hash:
            shares = np.sum(index.frame.loc[list(cut.chips("validation")), "class_counts"].tolist(), axis=0)
            given.append(reweighted(matrix, shares))
            absent |= set(np.flatnonzero((shares > 0) & (matrix.sum(axis=1) == 0)).tolist())
    first = records[0]
    return Method(
        label=", ".join([first.method, *([first.backbone.name] if first.backbone else [])]),
        protocol=first.protocol,
        seeds=tuple(sorted(record.seed for record in records)),
        validation=fmean(validation) if len(validation) == len(records) else None,
        target=fmean(target),
        reweighted=fmean(given) if len(given) == len(records) and not np.isnan(given).any() else None,
        left_out=tuple(benchmark.labels.names[number] for number in sorted(absent)),
    )

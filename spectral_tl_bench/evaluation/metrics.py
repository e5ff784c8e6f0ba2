"""Confusion matrices and the scores that follow from them; numpy only.

Nothing in here keeps state between calls: a matrix belongs to the pixels it was made from, so that no pass over
the data can leak into the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectral_tl_bench.benchmarks import VOID

Matrix = NDArray[np.int64]
"""Confusion matrix (K, K): rows are the ground truth, columns the predictions, entries are pixels."""

MIOU_RULE = (
    "mIoU is the mean of TP / (TP + FP + FN) over those of the benchmark's classes that occur in the ground truth or "
    "in the predictions, from one confusion matrix over all labelled pixels of the target. Pixels without ground "
    "truth are left out; every other pixel counts, and its prediction is always one of the benchmark's classes."
)


class MeanIoU:
    """Mean IoU over one confusion matrix, by ``MIOU_RULE``."""

    name: ClassVar[str] = "mIoU"
    rule: ClassVar[str] = MIOU_RULE
    numerics_version: ClassVar[int] = 1

    def value(self, matrix: ArrayLike) -> float:
        """The mean IoU of a confusion matrix (K, K); NaN where there is nothing to measure."""
        return score(matrix).miou


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says; see ``MIOU_RULE`` for the classes that the means go over.

    Attributes:
        miou: Mean IoU; NaN where the matrix is empty.
        iou: IoU of each class, NaN for a class that occurs neither in the ground truth nor in the predictions.
        oa: Overall accuracy, the share of pixels that are right.
        mean_f1: Mean F1 over the same classes.
        kappa: Cohen's kappa; NaN where truth and prediction are one and the same class everywhere.
        support: Ground truth pixels of each class.
    """

    miou: float
    iou: tuple[float, ...]
    oa: float
    mean_f1: float
    kappa: float
    support: tuple[int, ...]


@dataclass(frozen=True)
class ReleasedScores:
    """What the release's rule says about a confusion matrix; ``iou`` is by class, NaN where the rule drops it."""

    miou: float
    iou: tuple[float, ...]
    oa: float
    kappa: float


def confusion(truth: ArrayLike, prediction: ArrayLike, num_classes: int, void: int = VOID) -> Matrix:
    """Count pixels by ground truth and prediction.

    Args:
        truth: Integer array of any shape, classes 0..K-1 and ``void``.
        prediction: Integer array of the same shape, classes 0..K-1; whatever it holds at void pixels is ignored.
        num_classes: K.
        void: Value of pixels without ground truth, which are left out.

    Returns:
        int64 (K, K), rows ground truth, columns prediction.

    Raises:
        ValueError: If the shapes differ, an array is not of integers, or a value is not a class.
    """
    t, p = np.asarray(truth), np.asarray(prediction)
    if t.shape != p.shape:
        raise ValueError(f"ground truth and prediction differ in shape: {t.shape} and {p.shape}")
    for name, values in (("ground truth", t), ("prediction", p)):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} must hold integers, got {values.dtype}")
    labelled = t != void
    t, p = t[labelled].astype(np.int64), p[labelled].astype(np.int64)
    for name, values in (("ground truth", t), ("prediction", p)):
        outside = values[(values < 0) | (values >= num_classes)]
        if outside.size:
            raise ValueError(f"{name} holds {outside[0]} at a labelled pixel; classes are 0..{num_classes - 1}")
    counts = np.bincount(t * num_classes + p, minlength=num_classes * num_classes)
    return counts.astype(np.int64, copy=False).reshape(num_classes, num_classes)


def score(matrix: ArrayLike) -> Scores:
    """All scores of a confusion matrix.

    Args:
        matrix: (K, K) of non-negative integers, rows ground truth.

    Returns:
        The scores; NaN (never 0) where there is nothing to measure.

    Raises:
        ValueError: If ``matrix`` is not square, not of integers, or negative somewhere.
    """
    m = _checked(matrix)
    iou, f1 = _iou_f1(m)
    oa, kappa = _agreement(m)
    return Scores(_mean(iou), _floats(iou), oa, _mean(f1), kappa, tuple(int(n) for n in m.sum(axis=1)))


def released_score(matrix: ArrayLike) -> ReleasedScores:
    """What the authors' release reports for a matrix that has the void class in row and column 0.

    Its rule removes the row *and the column* of class 0 and of every class without ground truth. The columns
    are where it goes wrong: a labelled pixel that was predicted as void, or as a class that the target does not
    have, is a mistake, and with its column it disappears from the union, from the total and from the expected
    agreement. So mIoU and OA rise with mistakes of that kind, and kappa mostly does; a third of the pixels wrong in
    that way still gives 1.0. Kept for comparison with published numbers only, never for ranking.

    Classes that the rule leaves without any pixel have no IoU, and are passed over in the mean.

    Args:
        matrix: (K+1, K+1) of non-negative integers, rows ground truth, class 0 void.

    Returns:
        mIoU, IoU, OA and kappa as the release computes them; ``iou`` has K entries, for classes 1..K.

    Raises:
        ValueError: If ``matrix`` is not square, not of integers, or negative somewhere.
    """
    m = _checked(matrix)
    kept = [index for index in range(1, len(m)) if m[index].sum() > 0]
    reduced = m[np.ix_(kept, kept)]
    iou = np.full(len(m) - 1, np.nan)
    iou[[index - 1 for index in kept]] = _iou_f1(reduced)[0]
    oa, kappa = _agreement(reduced)
    return ReleasedScores(_mean(iou), _floats(iou), oa, kappa)


def released_from_strict(matrix: ArrayLike) -> ReleasedScores:
    """What the release's rule gives on a matrix of ours, (K, K) without void.

    There are no void predictions here, so only the columns of classes without ground truth are lost. See
    ``released_score`` for why that inflates.
    """
    m = _checked(matrix)
    with_void = np.zeros((len(m) + 1, len(m) + 1), dtype=np.int64)
    with_void[1:, 1:] = m
    return released_score(with_void)


def released_history(passes: Iterable[ArrayLike]) -> list[ReleasedScores]:
    """What the release reports after each validation pass, the sanity pass before training being the first.

    It never resets its matrix, so that every number is over all passes until then, untrained model included.
    """
    reports, running = [], None
    for matrix in passes:
        running = _checked(matrix) if running is None else running + _checked(matrix)
        reports.append(released_score(running))
    return reports


def majority_matrix(matrix: ArrayLike, majority_class: int) -> Matrix:
    """The confusion matrix of a predictor that says ``majority_class`` everywhere, on the same pixels.

    Args:
        matrix: (K, K) of any predictor; only its row sums, the ground truth, are used.
        majority_class: Column that gets them.

    Returns:
        int64 (K, K).

    Raises:
        ValueError: If ``majority_class`` is no class, or ``matrix`` is no confusion matrix.
    """
    m = _checked(matrix)
    if not 0 <= majority_class < len(m):
        raise ValueError(f"majority class {majority_class} is not one of 0..{len(m) - 1}")
    result = np.zeros_like(m)
    result[:, majority_class] = m.sum(axis=1)
    return result


def _checked(matrix: ArrayLike) -> Matrix:
    m = np.asarray(matrix)
    if m.ndim != 2 or m.shape[0] != m.shape[1]:
        raise ValueError(f"a confusion matrix is square, got shape {m.shape}")
    if m.dtype.kind not in "iu":
        raise ValueError(f"a confusion matrix holds integers, got {m.dtype}")
    if (m < 0).any():
        raise ValueError("a confusion matrix has no negative counts")
    return m.astype(np.int64)


def _iou_f1(m: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    right = np.diag(m).astype(np.float64)
    marked = (m.sum(axis=0) + m.sum(axis=1)).astype(np.float64)
    return _ratio(right, marked - right), _ratio(2 * right, marked)


def _agreement(m: Matrix) -> tuple[float, float]:
    total = int(m.sum())
    if not total:
        return float("nan"), float("nan")
    right = int(np.trace(m))
    # In whole numbers: a dot product of floats rounds otherwise on another processor, and boards must not.
    chance = sum(truth * said for truth, said in zip(m.sum(axis=1).tolist(), m.sum(axis=0).tolist(), strict=True))
    square = total * total
    return right / total, float("nan") if chance >= square else (right * total - chance) / (square - chance)


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _mean(values: NDArray[Any]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)

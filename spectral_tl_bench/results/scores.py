"""Scores of a record, which are never taken on trust: computed from its evidence, again and again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation.metrics import released_from_strict, score
from spectral_tl_bench.results.evidence import Evidence
from spectral_tl_bench.results.places import mean_iou
from spectral_tl_bench.results.schema import Record, ScoreBlock

_TOLERANCE = 1e-9  # sums of float64 may round otherwise in another numpy; an edited score differs by more


def block(matrices: Mapping[str, NDArray[np.int64]]) -> ScoreBlock:
    """The scores of one checkpoint.

    Args:
        matrices: Confusion matrix (K, K) of each target domain.

    Returns:
        Scores over the pooled domains, and the mIoU of each.

    Raises:
        RecordError: If there is no labelled pixel at all.
    """
    total = np.sum(list(matrices.values()), axis=0)
    if not total.sum():
        raise RecordError("the target has no labelled pixel, so there is nothing to score")
    scores = score(total)
    # The release's rule only differs where a class without ground truth was predicted.
    strange = total.sum(axis=0)[total.sum(axis=1) == 0].any()
    released = released_from_strict(total).miou if strange else scores.miou
    names = sorted(matrices)
    stack = np.stack([matrices[name] for name in names])
    right = np.diagonal(stack, axis1=1, axis2=2)
    by_domain = mean_iou(right, stack.sum(axis=1) + stack.sum(axis=2) - right)
    per_domain = {name: _known(float(value)) for name, value in zip(names, by_domain, strict=True)}
    measured = {name: value for name, value in per_domain.items() if value is not None}
    return ScoreBlock(
        miou=scores.miou,
        iou=tuple(_known(value) for value in scores.iou),
        oa=scores.oa,
        mean_f1=scores.mean_f1,
        kappa=_known(scores.kappa),
        per_domain=per_domain,
        worst_domain=min(measured, key=lambda name: (measured[name], name)),
        release_miou=_known(released),
    )


def check_scores(record: Record, evidence: Evidence) -> dict[str, ScoreBlock]:
    """As ``store.verify``, for evidence that was loaded already.

    Returns:
        The recomputed blocks, by checkpoint, with kappa as the record has it: that of older records was a product of
        floats, whose last digit was the processor's.
    """
    if record.scores is None:
        raise RecordError("this record has no scores", where=record.path)
    stored = record.scores.blocks()
    checkpoints = set(evidence.matrices)
    if checkpoints != set(stored):
        raise RecordError(
            f"key 'scores' has {', '.join(sorted(stored))}, its evidence {', '.join(sorted(checkpoints))}",
            where=record.path,
        )
    computed = {name: block(evidence.by_domain[name]) for name in stored}
    for name, wanted in computed.items():
        for key in ScoreBlock.model_fields:
            value, stored_value = getattr(wanted, key), getattr(stored[name], key)
            if not _same(value, stored_value):
                raise RecordError(
                    f"key 'scores.{name}.{key}' is {stored_value!r:.120}, but the evidence says {value!r:.120}",
                    where=record.path,
                    fix="the score was edited, or written by other code; run the cell again",
                )
    return {name: value.model_copy(update={"kappa": stored[name].kappa}) for name, value in computed.items()}


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= _TOLERANCE
    return bool(left == right)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

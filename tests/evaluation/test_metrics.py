"""Scores against scikit-learn, against hand counts, and against the release's own code."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import SHARED, needs_shared
from sklearn import metrics as sk

from spectral_tl_bench.evaluation.metrics import (
    confusion,
    majority_matrix,
    released_from_strict,
    released_history,
    released_score,
    score,
)


@st.composite
def maps(draw):
    """(truth, prediction, K) where classes may be absent, and some truth is void."""
    seed, num_classes = draw(st.integers(0, 10_000)), draw(st.integers(2, 9))
    rng = np.random.default_rng(seed)
    shape = (draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    truth_classes = rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False)
    predicted_classes = rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False)
    truth = rng.choice([*truth_classes, 255], shape)
    truth.flat[0] = truth_classes[0]
    prediction = np.where(rng.random(shape) < 0.5, truth, rng.choice(predicted_classes, shape))
    prediction[prediction == 255] = predicted_classes[0]
    return truth.astype(np.uint8), prediction.astype(np.int64), num_classes


@settings(max_examples=150, deadline=None)
@given(maps())
def test_scores_agree_with_scikit_learn(case):
    truth, prediction, num_classes = case
    matrix = confusion(truth, prediction, num_classes)
    t, p = truth[truth != 255].astype(int), prediction[truth != 255]
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(t, p, labels=range(num_classes)))
    assert matrix.dtype == np.int64
    scores = score(matrix)
    present = sorted(set(t) | set(p))
    jaccard = sk.jaccard_score(t, p, labels=present, average=None, zero_division=0)
    np.testing.assert_allclose([scores.iou[c] for c in present], jaccard, atol=1e-12)
    assert all(math.isnan(scores.iou[c]) for c in range(num_classes) if c not in present)
    assert scores.miou == pytest.approx(jaccard.mean(), abs=1e-12)
    assert scores.oa == pytest.approx(sk.accuracy_score(t, p), abs=1e-12)
    f1 = sk.f1_score(t, p, labels=present, average="macro", zero_division=0)
    assert scores.mean_f1 == pytest.approx(f1, abs=1e-12)
    if len(present) == 1:
        assert math.isnan(scores.kappa)
    else:
        assert scores.kappa == pytest.approx(sk.cohen_kappa_score(t, p), abs=1e-12)
    assert list(scores.support) == [int((t == c).sum()) for c in range(num_classes)]


@settings(max_examples=60, deadline=None)
@given(maps(), st.integers(0, 8))
def test_majority_matrix_is_that_of_a_constant_prediction(case, majority):
    truth, prediction, num_classes = case
    majority %= num_classes
    constant = confusion(truth, np.full_like(prediction, majority), num_classes)
    np.testing.assert_array_equal(majority_matrix(confusion(truth, prediction, num_classes), majority), constant)


@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_a_prediction_outside_the_classes_is_refused_where_there_is_truth(wrong):
    truth = np.array([0, 1, 2, 255])
    with pytest.raises(ValueError, match=f"prediction holds {wrong}"):
        confusion(truth, np.array([0, 1, wrong, 0]), 3)
    assert confusion(truth, np.array([0, 1, 2, wrong]), 3).sum() == 3


def test_bad_arrays_are_refused():
    with pytest.raises(ValueError, match="ground truth holds 7"):
        confusion(np.array([7]), np.array([0]), 3)
    with pytest.raises(ValueError, match="shape"):
        confusion(np.zeros((2, 2), int), np.zeros(4, int), 3)
    with pytest.raises(ValueError, match="integers"):
        confusion(np.zeros(2, int), np.zeros(2), 3)
    for matrix, message in (
        (np.zeros((2, 3), int), "square"),
        (np.zeros((2, 2)), "integers"),
        (np.array([[1, -1], [0, 1]]), "negative"),
    ):
        with pytest.raises(ValueError, match=message):
            score(matrix)
    with pytest.raises(ValueError, match="majority class 2"):
        majority_matrix(np.eye(2, dtype=int), 2)


def test_nothing_labelled_is_nan_and_not_zero():
    scores = score(confusion(np.full((3, 3), 255), np.zeros((3, 3), int), 4))
    assert all(math.isnan(v) for v in (scores.miou, scores.oa, scores.mean_f1, scores.kappa, *scores.iou))
    assert scores.support == (0, 0, 0, 0)


def test_release_says_perfect_where_a_third_is_wrong():
    # 900 pixels of three classes; a third of each is predicted as class 4, which the target does not have.
    with_void = np.zeros((5, 5), dtype=np.int64)
    for label in (1, 2, 3):
        with_void[label, label], with_void[label, 4] = 200, 100
    released = released_score(with_void)
    assert (released.oa, released.miou, released.kappa) == (1.0, 1.0, 1.0)
    strict = score(with_void[1:, 1:])
    assert strict.oa == pytest.approx(2 / 3)
    assert np.mean(strict.iou[:3]) == pytest.approx(2 / 3)
    assert strict.miou == pytest.approx(0.5)  # the class that was invented counts, with an IoU of 0
    assert released_from_strict(with_void[1:, 1:]).miou == 1.0


def test_release_forgives_labelled_pixels_predicted_as_void():
    with_void = np.zeros((4, 4), dtype=np.int64)
    for label in (1, 2, 3):
        with_void[label, label], with_void[label, 0] = 200, 100
    assert released_score(with_void).miou == released_score(with_void).oa == 1.0
    with pytest.raises(ValueError, match="prediction holds"):  # in ours it cannot even be expressed
        confusion(np.array([0, 1, 2]), np.array([0, 1, 255]), 3)


@settings(max_examples=60, deadline=None)
@given(maps())
def test_release_never_says_less_accuracy_and_agrees_where_all_classes_occur(case):
    truth, prediction, num_classes = case
    matrix = confusion(truth, prediction, num_classes)
    strict, released = score(matrix), released_from_strict(matrix)
    if math.isnan(released.oa):
        assert np.trace(matrix) == 0
        return
    assert released.oa >= strict.oa - 1e-12
    assert released.miou >= strict.miou - 1e-12
    if min(strict.support) > 0:
        assert (released.miou, released.oa) == pytest.approx((strict.miou, strict.oa), abs=1e-12)


def test_release_never_resets_and_counts_the_sanity_pass():
    wrong = np.array([[0, 0, 0], [0, 0, 100], [0, 100, 0]])
    right = np.array([[0, 0, 0], [0, 100, 0], [0, 0, 100]])
    sanity, first, second = released_history([wrong, right, right])
    assert sanity.oa == 0
    assert first.oa == pytest.approx(1 / 2)  # an epoch without a mistake, reported as half wrong
    assert second.oa == pytest.approx(2 / 3)  # and a second one, which the first and the sanity pass still weigh down
    assert score(right[1:, 1:]).oa == 1.0
    truth, prediction = np.array([0, 1, 1]), np.array([0, 1, 0])
    before = confusion(truth, prediction, 2)
    confusion(truth, 1 - prediction, 2)
    np.testing.assert_array_equal(confusion(truth, prediction, 2), before)


def test_history_leaves_its_input_alone():
    first = np.eye(3, dtype=np.int64)
    released_history([first, first, first])
    np.testing.assert_array_equal(first, np.eye(3))


@needs_shared(SHARED / "parity" / "confusion_metric.npz")
@pytest.mark.parametrize("name", ["cm", "cm_absent4"])
def test_parity_with_the_released_metric(name):
    spec = importlib.util.spec_from_file_location("parity_cases", SHARED / "parity" / "cases.py")
    cases = importlib.util.module_from_spec(spec)
    sys.modules["parity_cases"] = cases  # dataclasses look their module up by name
    spec.loader.exec_module(cases)
    case = cases.load("confusion_metric", SHARED / "parity")
    ours = released_score(case.inputs[name].numpy().astype(np.int64))
    for key, value in (("mIoU", ours.miou), ("OA", ours.oa), ("Kappa", ours.kappa)):
        assert value == pytest.approx(case.expected[f"{name}_{key}"].sum, rel=1e-5), key
    iou = np.array([value for value in ours.iou if not math.isnan(value)])
    expected = case.expected[f"{name}_IoU"]
    assert iou.shape == expected.shape
    np.testing.assert_allclose(iou, expected.values, atol=1e-7)


def test_metrics_do_not_need_torch():
    code = "import sys, spectral_tl_bench.evaluation.metrics; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0

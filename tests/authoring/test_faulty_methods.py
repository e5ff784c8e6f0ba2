"""Whoever is wrong in one way fails the checks that it should, and no others."""

from __future__ import annotations

import pytest
from installing import SOURCE, entry
from shared import slow_but

from spectral_tl_bench.authoring.check import check_method, failures

IN_MEMORY = {
    "Right": (set(), ""),
    "Adapts": (set(), ""),
    "AdaptsInSecret": ({"void"}, "KeyError: 'target_image'"),
    "OneClassTooMany": ({"logits"}, "expected (2, 5, 32, 32)"),
    "FirstBands": ({"bands"}, "1 bands: RuntimeError"),
    "FixedPositions": ({"windows"}, "96 px: RuntimeError"),
    "PooledBatchNorm": ({"batches"}, "batch of one fails"),
    "BatchMean": ({"batches"}, "alone than among others"),
    "TimeOfDay": ({"seed"}, "built twice under one seed, these differ: inner.weight"),
    "Remembers": ({"seed"}, "trained twice under one seed"),
    "RemembersTheTarget": ({"seed"}, "trained twice under one seed"),
    "SecretBackbone": ({"trains"}, "frozen, but changed: backbone.weight"),
    "Decoration": ({"trains"}, "no gradient reaches it: unused.bias, unused.weight"),
    "WrongExcuse": ({"trains"}, "said to be out of reach of gradients, but reached: outer.bias"),
    "PlainTensor": ({"files"}, "predicts otherwise after its weights were stored"),
    "MadeOnTheCpu": ({"device"}, "stays on the CPU"),
    "HardCodedCuda": ({"cpu"}, "a GPU is asked for"),
    "CudaIfThere": ({"cpu"}, "a GPU is asked for"),
    "SetsSeed": ({"surroundings"}, "torch.manual_seed"),
    "SetsNumpySeed": ({"surroundings"}, "numpy.random.seed"),
    "SetsCudnn": ({"surroundings"}, "torch.backends.cudnn.benchmark"),
    "SetsEnvironment": ({"surroundings"}, "MY_METHOD_WAS_HERE"),
    "NotANumber": ({"numbers"}, "not all finite"),
    "Overflows": ({"numbers"}, "saturated pixels"),
    "Dropout": ({"evaluation"}, "other logits the second time"),
    "AdaptsToTheTarget": ({"evaluation"}, "norm.running_mean"),
    "MeanOverNothing": ({"void"}, "all labels are void"),
    "ForgotVoid": ({"void"}, "half of the labels are void"),
    "NoLabelsAtTheEnd": ({"build"}, "the last stage is not labelled"),
    "StrangeOption": ({"options"}, "cannot be stored"),
}
"""Failed checks, and a part of the reason; found without a run."""

ON_CHIPS = {
    "ReadsLabels": "label.mat",
    "ReadsLabelsAtTheTest": "label.mat",
    "ReadsImages": ".tif",
    "FindsTheIndex": "other labels and images of the target give other weights",
}
"""Parts of the reason why the wall is not passed."""


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("name", IN_MEMORY)
def test_the_right_check_fails_alone(name):
    expected, reason = IN_MEMORY[name]
    verdicts = check_method(entry(name), runs=False)
    failed = failures(verdicts)
    assert {one.check for one in failed} == expected, "\n".join(map(str, failed))
    assert all(reason in one.reason and one.fix for one in failed)
    skipped = {one.check for one in verdicts if one.state == "not applicable"}
    assert skipped == set() or expected, "only what needs a failed check is left out"


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("name", slow_but({"ReadsLabels", "FindsTheIndex"}.__contains__, ON_CHIPS))
def test_whoever_looks_at_the_target_is_found_out(name):
    (failed,) = failures(check_method(entry(name), only=["wall"]))
    assert failed.check == "wall" and ON_CHIPS[name] in failed.reason, str(failed)


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("name", [*IN_MEMORY, *ON_CHIPS])
def test_with_runs_no_other_check_fails(name):
    expected = IN_MEMORY[name][0] if name in IN_MEMORY else {"wall"}
    if name == "Remembers":
        expected = expected | {"run"}  # its weights of another number of classes
    assert {one.check for one in failures(check_method(entry(name)))} == expected


@pytest.mark.usefixtures("faulty")
def test_the_line_of_the_method_is_named():
    (failed,) = failures(check_method(entry("HardCodedCuda"), only=["cpu"]))
    line = next(n for n, text in enumerate(SOURCE.read_text().splitlines(), 1) if "images.cuda()" in text)
    assert f"faulty_methods.py, line {line}" in failed.reason

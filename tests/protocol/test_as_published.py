"""Runs by the settings of the release: honest ones, and those that read the target's labels because a flag says so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat
from tiny import CPU, SIZES, install, make_request, make_tree, quiet, run_main

from spectral_tl_bench import pause
from spectral_tl_bench.authoring.checks_run import Reading, watched
from spectral_tl_bench.authoring.recompute import request_of
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.metrics import released_history
from spectral_tl_bench.leaderboard.submit.rules import breaches
from spectral_tl_bench.leaderboard.submit.truth import Truth, check_against
from spectral_tl_bench.methods.adapters_io import read_adapter
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.protocol.published import AS_PUBLISHED, PUBLISHED
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.results.schema import Record
from spectral_tl_bench.results.store import evidence, load_evidence, read_record, verify
from spectral_tl_bench.runner.build import Workplace
from spectral_tl_bench.runner.on_source import source_value
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import gradient
from spectral_tl_bench.training.selection import BestOnSource, LastOnTarget
from spectral_tl_bench.training.task import StageTask

slow = pytest.mark.slow
LEAK = {"protocol": "as-published", "as_published": True}
HONEST = {"protocol": "published"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return make_tree(tmp_path_factory.mktemp("published"), chip=40)


@pytest.fixture(scope="module")
def other_labels(tree, tmp_path_factory) -> Path:
    """The same tree, with the labels of the target turned upside down and exchanged."""
    root = tmp_path_factory.mktemp("labels") / "tree"
    shutil.copytree(tree, root)
    (cell,), _ = plan(make_request(tree, "full"), quiet)
    for name in cell.opened.index.frame.loc[cell.split().chips("target"), "label"]:
        path = root / Path(cell.opened.index.root).relative_to(tree) / name
        content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
        savemat(path, {key: np.where(value > 0, value % 7 + 1, value)[::-1] for key, value in content.items()})
    return root


def run(tree: Path, out: Path, method: str = "pixel-mlp", hardware=CPU, **more) -> tuple[Record, list[str]]:
    said: list[str] = []
    cells, broken = plan(make_request(tree, method, **{"steps": 5, **more}), said.append)
    assert not broken, broken
    (outcome,) = execute(cells, out, hardware, 0, said.append)
    assert outcome.state == "done", outcome.message
    record = read_record(outcome.record)
    verify(record)
    return record, said


@pytest.fixture(scope="module")
def honest(tree, tmp_path_factory):
    return run(tree, tmp_path_factory.mktemp("honest"), **HONEST)


@pytest.fixture(scope="module")
def leaking(tree, tmp_path_factory):
    passes: list[np.ndarray] = []
    true_value, true_look = LastOnTarget.value, gradient.look_before

    def value(self, matrix, before=()):
        passes[:] = [*before, matrix]
        return true_value(self, matrix, before)

    def look(*given):
        passes.append(true_look(*given))
        return passes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LastOnTarget, "value", value)
        patch.setattr(gradient, "look_before", look)
        return (*run(tree, tmp_path_factory.mktemp("leak"), **LEAK), passes)


@pytest.mark.parametrize(
    ("method", "leak"),
    [
        ("full", True), ("spectralx", False), ("nearest-mean", True),
        pytest.param("full", False, marks=slow), pytest.param("spectralx", True, marks=slow),
        pytest.param("nearest-mean", False, marks=slow),
    ],
)  # fmt: skip
def test_a_run_by_the_release_s_settings(tree, tmp_path, method, leak):
    record, said = run(tree, tmp_path, method, **(LEAK if leak else HONEST))
    name = "as-published" if leak else "published"
    assert (record.protocol, record.settings["protocol"], record.board) == (name, name, f"partial-{name}")
    assert record.settings["augment"] == "flips-and-rotations" and record.settings["window"] == 64
    assert record.selection.metric == get_protocol(name).selection.name
    assert any(line.startswith("warning: --as-published") for line in said) == leak
    assert any(f"| {record.selection.metric} " in line for line in said)
    for matrix in evidence(record)["matrix"]:
        assert 0.9 * 64**2 < matrix.sum() <= 64**2, "chips of 40 px are measured as they were resized"
    if method == "spectralx":
        assert record.options["reading"] == "released"


def test_what_the_two_differ_in(tree):
    (one,), _ = plan(make_request(tree, "full", **HONEST), quiet)
    (other,), _ = plan(make_request(tree, "full", **LEAK), quiet)
    differences = one.identity(one.split()).differences(other.identity(other.split()))
    assert set(differences) == {"settings.protocol"}, "pixels, budget and split are one"


def test_selection_is_honest_without_the_flag(honest):
    record, _ = honest
    best = max(record.selection.trace, key=lambda point: point[1])
    assert (record.selection.step, record.selection.value) == best
    assert record.selection.metric == "source-validation mIoU" and record.board == "partial-published"


def test_the_last_validated_weights_count_and_the_trace_is_what_the_release_prints(leaking):
    record, _, passes = leaking
    steps = [step for step, _ in record.selection.trace]
    assert steps == [2, 4] and record.selection.step == 4, "of five steps; the fifth was never validated"
    assert record.selection.value == record.selection.trace[-1][1]
    assert len(passes) == 3, "a look at the untrained module, and two validations"
    padded = [np.pad(one, ((1, 0), (1, 0))) for one in passes]
    printed = [one.miou for one in released_history(padded)[1:]]
    assert [value for _, value in record.selection.trace] == pytest.approx(printed, abs=1e-6)
    tested = evidence(record).query("checkpoint == 'selected'")["matrix"]
    assert np.array_equal(np.sum(tested.tolist(), axis=0).reshape(passes[-1].shape), passes[-1]), "it is the target"
    assert passes[0].sum() == sum(matrix.sum() for matrix in tested), "four chips are fewer than two batches"


def test_without_the_flag_nothing_follows_from_the_target_s_labels(other_labels, tmp_path, honest):
    record, _ = run(other_labels, tmp_path, **HONEST)
    before = honest[0]
    assert record.selection == before.selection
    files = [read_adapter(Path(one.path).with_name("selected.safetensors")) for one in (record, before)]
    (card, weights), (earlier, other) = files
    assert weights.keys() == other.keys() and all(torch.equal(weights[name], other[name]) for name in weights)
    told = [one.use.model_dump(exclude={"fingerprint"}) for one in (card, earlier)]  # which names the labels' hash
    assert told[0] == told[1]
    assert record.scores != before.scores, "testing reads them"


def test_with_the_flag_the_trace_follows_from_them(other_labels, tmp_path, leaking):
    record, _ = run(other_labels, tmp_path, **LEAK)
    before = leaking[0]
    assert [step for step, _ in record.selection.trace] == [step for step, _ in before.selection.trace]
    assert record.selection.trace != before.selection.trace


@pytest.mark.parametrize(
    ("how", "leak"), [({}, False), (HONEST, False), (LEAK, True)], ids=["strict", "honest", "leak"]
)
def test_files_of_the_target_are_opened_in_training_by_that_protocol_alone(tree, tmp_path, how, leak):
    cells, _ = plan(make_request(tree, "pixel-mlp", **how), quiet)
    reading = Reading("nobody")
    rows = cells[0].opened.index.frame.loc[cells[0].split().chips("target"), ["label", "image"]].to_numpy().ravel()
    reading.guard([cells[0].opened.index.root / name for name in rows])
    with watched(reading):
        (outcome,) = execute(cells, tmp_path, CPU, 0, quiet)
    assert outcome.state == "done" and bool(reading.opened) is leak


def test_a_trial_of_tuning_never_sees_it(tree, tmp_path):
    (cell,), _ = plan(make_request(tree, "pixel-mlp", **LEAK), quiet)
    with pytest.raises(ValueError, match="must not see the target"):
        source_value(cell, Workplace(tmp_path, CPU, 0, quiet))


@pytest.mark.parametrize("how", [pytest.param(HONEST, marks=slow), LEAK], ids=["honest", "leak"])
def test_it_goes_on_where_it_was_cut_off(tree, tmp_path, leaking, honest, monkeypatch, how):
    """Passes that were counted before are counted afterwards, and the untrained module is not looked at twice."""
    true_step = StageTask.training_step
    often = replace(CPU, checkpoint_steps=1)

    def cut(self, batch, batch_idx):
        if batch_idx == 3:
            raise pause.Paused
        return true_step(self, batch, batch_idx)

    straight = (leaking if how is LEAK else honest)[0]
    cells, _ = plan(make_request(tree, "pixel-mlp", steps=5, **how), quiet)
    with monkeypatch.context() as patch:
        patch.setattr(StageTask, "training_step", cut)
        assert execute(cells, tmp_path, often, 0, quiet)[0].state == "paused"
    record, _ = run(tree, tmp_path, hardware=often, **how)
    assert record.environment["resumed"] == "1" and record.selection == straight.selection
    paths = [Path(one.path).with_name("selected.safetensors") for one in (record, straight)]
    assert paths[0].read_bytes() == paths[1].read_bytes() and record.evidence == straight.evidence


# ---------------------------------------------------------------------------------------------- what is refused

OBJECTIVES = {
    ("pixel-mlp+spectralaug", "published"): "scales each chip first",
    ("pixel-mlp+spectralaug", "as-published"): "scales each chip first",
    ("pixel-mlp+swad", "as-published"): "under as-published the last weights count",
}


@pytest.mark.parametrize(("method", "protocol"), OBJECTIVES)
def test_objectives_that_make_no_sense_are_refused(tree, method, protocol):
    cells, broken = plan(make_request(tree, method, **(LEAK if protocol == "as-published" else HONEST)), quiet)
    assert cells == [] and OBJECTIVES[method, protocol] in str(broken[0][1])


def test_kept_features_and_strides_are_refused(tree):
    cells, broken = plan(make_request(tree, "linear-probe", options={"cache": True}, **HONEST), quiet)
    assert cells == [] and "sliding windows" in str(broken[0][1])
    with pytest.raises(UserError, match="a window is a whole chip"):
        plan(make_request(tree, "full", stride=32, window=64, **HONEST), quiet)
    with pytest.raises(UserError, match="does not suit"):
        plan(make_request(tree, "full", window=2048, **HONEST), quiet)


@slow
def test_averages_of_weights_are_selected_on_the_source(tree, tmp_path):
    record, _ = run(tree, tmp_path, "pixel-mlp+swad", **HONEST)
    assert record.selection.metric == "source-validation mIoU"


@pytest.fixture
def stbench(tree, monkeypatch, capsys, tmp_path):
    """Runs the command on the small tree and gives code, output and errors."""
    monkeypatch.chdir(tmp_path)
    small = ["--backbone", "compact", "--steps", 1, "--batch-size", 2, "--data-root", tree, "--allow-partial",
             *(part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}"))]  # fmt: skip

    def call(verb: str, *more: object, settings: list[object] = small) -> tuple[int, str, str]:
        code = run_main(monkeypatch, [verb, *settings, *more])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


WHAT = ["-m", "pixel-mlp", "-b", "mts12-n2s"]


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_the_protocol_is_not_to_be_had_by_its_name(stbench, verb):
    code, _, errors = stbench(verb, *WHAT, "--protocol", "as-published")
    assert code == 2 and "validates on the labels of the target" in errors and "--as-published instead" in errors
    for other in ("published", "strict"):
        code, _, errors = stbench(verb, *WHAT, "--as-published", "--protocol", other)
        assert code == 2 and f"so is --protocol {other}" in errors


def test_tuning_is_not_to_be_had_under_it(stbench, tree):
    settings = ["pixel-mlp", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial", "--budget", 2]
    code, _, errors = stbench("tune", "--protocol", "as-published", settings=settings)
    assert code == 2 and "validates on the labels of the target" in errors


def test_a_plan_says_it_too(stbench, tree, tmp_path):
    where = ["--data-root", tree, "--allow-partial"]
    code, _, errors = stbench("plan", *WHAT, "--as-published", "--write", tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    assert code == 0 and "as_published: true" in text, errors
    assert "warning: --as-published" in stbench("run", "--plan", tmp_path / "plan.yaml", "--dry-run", settings=where)[1]
    for wrong, words in (("protocol: as-published", "--as-published instead"),
                         ("as_published: true\n  protocol: published", "one of the two")):  # fmt: skip
        (tmp_path / "wrong.yaml").write_text(f"blocks:\n- benchmarks: mts12-n2s\n  methods: pixel-mlp\n  {wrong}\n")
        code, _, errors = stbench("run", "--plan", tmp_path / "wrong.yaml", settings=[])
        assert code == 2 and words in errors


SPY = """
from dataclasses import replace
from spectral_tl_bench.protocol.published import AS_PUBLISHED

SPY = replace(AS_PUBLISHED, name="spy")
"""


def test_nobody_else_s_protocol_may_leak(tree, tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny_spy", SPY, {"spy": "tiny_spy:SPY"}, monkeypatch, "protocols")
    for flag in (False, True):
        with pytest.raises(UserError, match=r"spy validates|does not validate") as caught:
            plan(make_request(tree, "pixel-mlp", protocol="spy" if not flag else "published", as_published=flag), quiet)
        assert "--as-published" in str(caught.value.fix)


# ---------------------------------------------------------------------------------------------- options and records


def test_options_that_a_protocol_has():
    usual = {"reading": "released", "no option of it": 3}
    assert PUBLISHED.options == AS_PUBLISHED.options == {"reading": "released", "decoder": "upernet"}
    assert STRICT.options == {}
    assert make_method("spectralx", {}, {"reading": "paper"}).reading == "paper"
    assert make_method("spectralx@released", {}, {"reading": "paper"}).reading == "released", "a preset wins"
    assert make_method("spectralx@paper", {"reading": "released"}, {}).reading == "released", "the user wins"
    assert make_method("spectralx", {"reading": "paper"}, usual).reading == "paper"
    assert make_method("full", {}, usual) == make_method("full"), "a method without such an option"


@pytest.mark.parametrize("which", ["honest", "leaking"])
def test_a_record_is_asked_for_again_and_may_be_submitted(which, request, tree):
    record = request.getfixturevalue(which)[0]
    asked = request_of(record, tree, None)
    assert asked.as_published == (which == "leaking")
    (cell,), _ = plan(replace(asked, allow_partial=True), quiet)
    assert cell.fingerprint() == record.fingerprint
    assert breaches(record, 40) == []
    fields = json.loads(record.model_dump_json())
    other = "the best of all" if which == "honest" else BestOnSource.name
    changed = Record.model_validate({**fields, "selection": {**fields["selection"], "metric": other}})
    assert any("'selection.metric'" in problem for problem in breaches(changed, 40))


def test_evidence_of_resized_chips_against_the_ground_truth(honest):
    record = honest[0]
    found = load_evidence(record)
    rows = {chip: (domain, site, tuple(int(n) for n in matrix.sum(axis=1)))
            for chip, domain, site, matrix in zip(found.chips, found.domains, found.sites, found.matrices["selected"],
                                                  strict=True)}  # fmt: skip

    def truth(change):
        kept = {chip: (domain, site, change(counts)) for chip, (domain, site, counts) in rows.items()}
        return Truth.model_construct(rows=kept)

    assert check_against(record, found, truth(lambda counts: tuple(n // 2 + (n > 0) for n in counts))) == []
    (problem,) = check_against(record, found, truth(lambda counts: (0,) * len(counts)))
    assert "cannot be of the ground truth resized to 64 x 64 px" in problem
    large = {name: matrices + 64**2 for name, matrices in found.matrices.items()}
    assert (
        "counts more pixels" in check_against(record, replace(found, matrices=large), truth(lambda counts: counts))[0]
    )


def test_records_of_before_keep_their_words(honest):
    """The name of the selection stands where it always stood."""
    strict = json.loads(honest[0].model_dump_json())["selection"]
    assert list(strict) == ["metric", "step", "value", "trace"] and strict["metric"] == "source-validation mIoU"
    assert BestOnSource().value(np.zeros((2, 2), np.int64)) == LastOnTarget().value(np.zeros((2, 2), np.int64)) == 0

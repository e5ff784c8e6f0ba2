"""Committed results made again: the same to the pixel on the same machine, and a made-up one is noticed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.torch import save_file
from tiny import SIZES, make_request, make_tree

from spectral_tl_bench.authoring.recompute import TOLERANCE, _made, choose, moved_pixels, recompute, request_of
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.results.store import load_evidence, read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def records(root, tmp_path_factory):
    """Finished records of two seeds, with a backbone and an objective."""
    request = make_request(root, "lora+spectralaug", seeds=(0, 1), oracle=True, steps=4)
    cells, broken = plan(request, lambda _: None)
    assert not broken
    done = execute(cells, tmp_path_factory.mktemp("runs"), Hardware("cpu"), 0, lambda _: None)
    return [read_record(outcome.record) for outcome in done]


def test_a_record_is_enough_to_make_it_again(records, root, tmp_path):
    partial = records[0]
    result = recompute(partial, tmp_path, root, None, lambda _: None)
    assert result.reason == "" and result.ok and not result.elsewhere
    assert result.moved == {"selected": 0.0, "last": 0.0, "oracle": 0.0}


def test_an_earlier_version_of_the_suite_is_no_excuse(records):
    earlier = {"spectral-tl-bench": "0.1.0", "method package spectral-tl-bench": "0.1.0", "torch": "2.4.0"}
    record = records[0].model_copy(update={"environment": records[0].environment | earlier})
    assert set(_made(record, records[0])) == {"torch"}, "with other libraries more pixels may move"


def test_another_run_lies_farther_away_than_the_tolerance(records):
    first, second = map(load_evidence, records)
    assert min(moved_pixels(first, second).values()) > TOLERANCE
    assert set(moved_pixels(first, first).values()) == {0.0}


def test_moved_pixels_are_counted_once_each(records):
    found = load_evidence(records[0])
    changed = found.matrices["last"].copy()
    row, column = np.argwhere(changed[0] > 0)[0]
    changed[0, row, column] -= 1
    changed[0, row, (column + 1) % changed.shape[1]] += 1
    other = dataclasses.replace(found, matrices={**found.matrices, "last": changed})
    assert moved_pixels(found, other)["last"] == pytest.approx(1 / changed.sum())
    assert moved_pixels(found, other)["selected"] == 0
    fewer = dataclasses.replace(found, matrices={"last": found.matrices["last"]})
    assert moved_pixels(found, fewer) == {"last": 0.0, "selected": 1.0, "oracle": 1.0}


def test_what_cannot_be_made_again_says_why(records, root, tmp_path):
    record = records[0]
    changed = record.model_copy(update={"numerics": {**record.numerics, "training": "0"}})
    assert "numerics.training differ" in recompute(changed, tmp_path, root, None, lambda _: None).reason
    assert "not known" in recompute(record.model_copy(update={"numerics": None}), tmp_path, root, None, print).reason
    other = recompute(record, tmp_path, make_tree(tmp_path / "other", north=9), None, lambda _: None)
    assert "manifest" in other.reason and other.ok and not other.moved
    own = record.model_copy(update={"track": "demonstration", "benchmark": "mine"})
    assert "definition of mine is not here" in recompute(own, tmp_path, root, None, lambda _: None).reason


def test_the_choice_is_stable_and_depends_on_the_seed(records):
    many = [records[0].model_copy(update={"fingerprint": f"{number:064x}"}) for number in range(40)]
    chosen = choose(many, 5, 0)
    assert chosen == choose(many[::-1], 5, 0) and len({one.fingerprint for one in chosen}) == 5
    assert chosen != choose(many, 5, 1)


def test_a_request_names_all_that_was_chosen(records, root):
    request = request_of(records[0], root, None)
    assert request.methods == ["lora+spectralaug"] and request.backbone_sizes["width"] == 32 and request.oracle
    assert request.overrides.steps == 4 and request.objective_options == records[0].objectives


@pytest.mark.parametrize(
    "settings",
    [
        {"until_plateau": True, "validate_every": 2, "patience": 1, "validations": None, "steps": 8},
        {"learning_rate": 3e-3, "weight_decay": 0.01, "pretrained_rate": 0.5, "warmup_share": 0.2},
        {},
    ],
)
def test_a_request_gives_the_rates_and_the_plateau_of_the_record(root, tmp_path, settings):
    (cell,), _ = plan(make_request(root, "pixel-mlp", **settings), lambda _: None)
    (outcome,) = execute([cell], tmp_path, Hardware("cpu"), 0, lambda _: None)
    record = read_record(outcome.record)
    (again,), broken = plan(request_of(record, root, None), lambda _: None)
    assert not broken and again.fingerprint() == record.fingerprint
    assert (record.selection.convergence is not None) == bool(settings.get("until_plateau"))


def test_weights_of_a_file_are_found_by_their_digest(root, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(get_backbone("compact", "none", **SIZES).build(10, 16).state_dict(), folder / "mine.safetensors")
    (folder / "other.txt").write_text("no weights")
    chosen = {"weights": str(folder / "mine.safetensors"), "patch_embedding": "mean", "steps": 2}
    (cell,), broken = plan(make_request(root, "lora", **chosen), lambda _: None)
    (outcome,) = execute([cell], tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    record = read_record(outcome.record)
    (folder / "mine.safetensors").rename(folder / "renamed.safetensors")
    (again,), broken = plan(request_of(record, root, None, folder), lambda _: None)
    assert not broken and again.fingerprint() == record.fingerprint
    for place in (None, tmp_path):
        with pytest.raises(UserError, match=f"SHA-256 {record.backbone.weights.digest[:12]}"):
            request_of(record, root, None, place)

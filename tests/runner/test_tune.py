"""A search sees the source alone, gives the same draws every time, and loses none when it is interrupted."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from test_imports import MODULES, imports
from tiny import install, make_request, make_tree

from spectral_tl_bench.errors import DataError, MethodError, StorageError, UserError
from spectral_tl_bench.results.store import mark_tuned, read_record, read_records
from spectral_tl_bench.runner import on_source
from spectral_tl_bench.runner import tune as tune_module
from spectral_tl_bench.runner.build import Workplace
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.runner.search_space import Dimension, draws, read_dimension, space_of
from spectral_tl_bench.runner.tune import Tuner, keep_choice, run_draws
from spectral_tl_bench.training.hardware import Hardware

CPU = Hardware("cpu")
INTERRUPTED = object()
SPACE = {"hidden": "4,8", "learning_rate": "1e-4..1e-2"}


def tuner_of(tree, method="pixel-mlp", budget=3, search="random", space=SPACE, fixed=None, **more):
    cells, broken = plan(make_request(tree, method, **more), lambda _: None)
    assert not broken, broken
    base, options = cells[0], more.get("options", {})
    return Tuner(base, options, search, budget, space_of(base.method, base.task(), space, fixed or {}))


def place(out: Path, said: list[str] | None = None) -> Workplace:
    return Workplace(out, CPU, 0, (said if said is not None else []).append)


def faked(monkeypatch, values):
    """Trials that give values, or raise them, in turn; the cells that were tried."""
    tried, left = [], iter(values)

    def value(cell, _place):
        tried.append(cell)
        found = next(left)
        if found is INTERRUPTED:
            signal.raise_signal(signal.SIGINT)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(tune_module, "source_value", value)
    return tried


# ---------------------------------------------------------------------------------------------- draws


def test_draws_come_out_again_and_a_larger_budget_goes_on():
    space = {"learning_rate": read_dimension("learning_rate", "1e-5..1e-2"), "rank": read_dimension("rank", "4,8,16")}
    few, many = (draws(space, "random", budget, "b", "m", 0) for budget in (5, 20))
    assert many[:5] == few == draws(space, "random", 5, "b", "m", 0)
    for other in (("c", "m", 0), ("b", "n", 0), ("b", "m", 1)):
        assert draws(space, "random", 5, *other) != few
    rates = [point["learning_rate"] for point in many]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates) and len({str(rate) for rate in rates}) == 20
    assert 3 < sum(rate < 3.2e-4 for rate in rates) < 17, "log-uniform: half of them lie below the geometric mean"
    assert {point["rank"] for point in many} == {"4", "8", "16"}


def test_a_space_with_fewer_points_is_tried_as_a_whole():
    space = {"a": read_dimension("a", "1,2"), "b": read_dimension("b", "x,y,z")}
    for search in ("random", "grid"):
        points = draws(space, search, 20, "b", "m", 0)
        assert len(points) == 6 == len({tuple(point.values()) for point in points})
    assert len(draws(space, "random", 4, "b", "m", 0)) == 4
    assert len(draws({"n": read_dimension("n", "1..3")}, "random", 20, "b", "m", 0)) == 3


def test_a_grid_divides_ranges_as_finely_as_the_budget_allows():
    space = {"rank": read_dimension("rank", "4,8"), "rate": read_dimension("rate", "0.001..0.1")}
    points = draws(space, "grid", 7, "b", "m", 0)
    assert [point["rate"] for point in points[:3]] == [0.001, 0.01, 0.1] and len(points) == 6
    with pytest.raises(UserError, match="at least 4 points, and --budget is 3"):
        draws(space, "grid", 3, "b", "m", 0)


@pytest.mark.parametrize(
    "text", ["4", "4,4", "4,,8", "", "a..b", "2..1", "1..1", "-1..1", "1..inf", "1..nan", "..", "1..2..3"]
)
def test_a_space_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="--space rank="):
        read_dimension("rank", text)


def test_ranges_are_read_as_they_are_meant():
    assert read_dimension("x", "4, 8 ,16") == Dimension(("4", "8", "16"))
    whole, share = read_dimension("rank", "4..64"), read_dimension("dropout", "0..0.5")
    assert [whole.at(part) for part in (0, 0.5, 1)] == [4, 16, 64] and isinstance(whole.at(0.3), int)
    assert [share.at(part) for part in (0, 0.5, 1)] == [0.0, 0.25, 0.5]
    assert read_dimension("x", whole.text) == whole and read_dimension("x", share.text) == share


def test_the_default_space_is_what_the_method_declares_and_the_learning_rate(tree):
    assert {name: one.text for name, one in tuner_of(tree, "lora", space={}).space.items()} == {
        "rank": "4,8,16,32,64",
        "learning_rate": "0.0002..0.02",
    }
    around = tuner_of(tree, "pixel-mlp", space={}, until_plateau=True, steps=20, validations=None).space
    assert around["learning_rate"].text == "0.0001..0.01", "of a training that is as long as it needs to be"
    assert list(tuner_of(tree, "rein", space={}).space) == ["learning_rate", "tokens"], "one option of its own"
    fixed = tuner_of(tree, "rein", space={}, fixed={"tokens": "-o tokens=8"}).space
    assert list(fixed) == ["learning_rate", "rank"] and fixed["rank"].values == (8, 16, 32)
    assert list(tuner_of(tree, "lora", space={}, fixed={"rank": "-o rank=8"}).space) == ["learning_rate"]
    with pytest.raises(UserError, match="nothing to search"):
        tuner_of(tree, "majority", space={})
    with pytest.raises(UserError, match="searched by --space and set by -o rank=8"):
        tuner_of(tree, "lora", space={"rank": "4,8"}, fixed={"rank": "-o rank=8"})
    for name in ("ranks", "steps", "window", "batch_size"):  # how much is trained is the same for all
        with pytest.raises(UserError, match=f"--space {name}: there is no such option"):
            tuner_of(tree, "lora", space={name: "4,8"})


@pytest.mark.parametrize(
    ("method", "space"), [("lora", {"rank": "4,0"}), ("lora", {"rank": "0..8"}), ("full", {"learning_rate": "0..1"}),
                          ("full", {"schedule": "cosine,linear"}), ("lora", {"where": "all,nowhere"})]
)  # fmt: skip
def test_an_impossible_value_is_refused_before_anything_is_trained(tree, method, space):
    with pytest.raises(UserError):
        tuner_of(tree, method, space=space).check()


# ---------------------------------------------------------------------------------------------- the wall


def test_from_a_trial_no_import_leads_to_the_step_that_opens_the_target():
    seen, left = set(), ["spectral_tl_bench.runner.on_source"]
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left += [other for other, _ in imports(MODULES[module]) if other in MODULES]
    assert "spectral_tl_bench.runner.train" in seen, "the walk goes somewhere"
    assert "spectral_tl_bench.runner.test" not in seen


@pytest.mark.parametrize(("method", "options"), [("pixel-mlp", {}), ("linear-probe", {"cache": "true"})])
def test_a_search_runs_where_no_chip_of_the_target_can_be_read(tmp_path, method, options):
    """The target's files are destroyed once they are listed, so that whatever opens one fails, GDAL included."""
    root = make_tree(tmp_path / "data")
    tuner = tuner_of(root, method, budget=2, space={"learning_rate": "1e-4..1e-2"}, options=options)
    target = tuner.base.split().chips("target")
    for column in ("image", "label"):
        for name in set(tuner.base.opened.index.frame.loc[target, column]):
            path = next(path for path in root.rglob(Path(name).name))
            path.write_bytes(b"nobody may read this")
    tried = run_draws(tuner, place(tmp_path / "runs"))
    assert [draw.error for draw in tried] == [None, None], "no draw has touched the target"
    cell = tuner.tuned(tuner.base, tuner.choose(tried))
    (outcome,) = execute([cell], tmp_path / "runs", CPU, 0, lambda _: None)
    assert outcome.state in ("refused", "failed"), "the files are broken: testing finds out"


def test_shuffled_labels_of_the_target_change_no_choice(own, tmp_path):
    for row in own.rows:  # something that can be learned, so that rates differ in what they reach
        name = row["name"]
        own.write_raster(own.label(name), 1 + (own.pixels(name)[:1] > 1_500).astype("uint8"), name)
    results = []
    for out in ("as they are", "shuffled"):
        tuner = tuner_of(None, benchmarks=(str(own.yaml),), budget=2, space={"learning_rate": "1e-6,0.1"}, steps=20)
        results.append((tuner.base.opened.index.manifest, run_draws(tuner, place(tmp_path / out))))
        rng = np.random.default_rng(3)
        for path in (own.root / "label").glob("w*.tif"):
            with rasterio.open(path, "r+") as file:
                values = file.read()
                file.write(rng.permuted(values.ravel()).reshape(values.shape))
    assert results[0][0] != results[1][0], "the labels did change"
    assert results[0][1] == results[1][1] and len({draw.value for draw in results[0][1]}) > 1


def test_methods_that_train_on_images_of_the_target_are_not_searched(tree, tmp_path, monkeypatch):
    code = "from torch import nn\nfrom spectral_tl_bench.methods.base import Method\n\nclass Sees(Method):\n" \
        "    target_images = True\n    def build(self, task):\n" \
        "        return nn.Conv2d(task.num_bands, task.num_classes, 1)\n"  # fmt: skip
    install(tmp_path / "site", "sees_target", code, {"sees": "sees_target:Sees"}, monkeypatch)
    with pytest.raises(UserError, match="a search must not see them"):
        tuner_of(tree, "sees", space={"learning_rate": "1e-4,1e-3"}).check()
    cell = tuner_of(tree).base
    with pytest.raises(ValueError, match="must not see the target"):
        on_source.source_value(replace(cell, oracle=True), place(tmp_path))


# ---------------------------------------------------------------------------------------------- trials


def test_a_trial_gives_what_the_record_of_the_same_configuration_says(tree, tmp_path):
    tuner = tuner_of(tree)
    tuning = tuner.choose(run_draws(tuner, place(tmp_path)))
    assert tuning.choice.value == max(draw.value for draw in tuning.draws)
    (outcome,) = execute([tuner.tuned(tuner.base, tuning)], tmp_path, CPU, 0, lambda _: None)
    record = read_record(outcome.record)
    assert record.tuning == tuning and record.selection.value == tuning.choice.value
    assert record.options["hidden"] == tuning.choice.options["hidden"]
    assert record.settings["budget"]["learning_rate"] == tuning.choice.settings["learning_rate"]
    assert [found.fingerprint for found in read_records([tmp_path])] == [record.fingerprint], "draws are no results"


def test_an_interrupted_search_goes_on_where_it_stood(tree, tmp_path, monkeypatch):
    tuner, said = tuner_of(tree), []
    faked(monkeypatch, [0.25, INTERRUPTED])
    with pytest.raises(KeyboardInterrupt):
        run_draws(tuner, place(tmp_path))
    assert len(list(tuner.folder(tmp_path).iterdir())) == 1
    tried = faked(monkeypatch, [0.5, 0.5])
    found = run_draws(tuner, place(tmp_path, said))
    assert [draw.value for draw in found] == [0.25, 0.5, 0.5] and len(tried) == 2
    assert "1 of 3 draws were tried before" in said[0]
    assert tuner.choose(found).chosen == 1, "of equal ones the first"
    more = tuner_of(tree, budget=4)
    tried = faked(monkeypatch, [0.75])
    assert [draw.value for draw in run_draws(more, place(tmp_path))] == [0.25, 0.5, 0.5, 0.75] and len(tried) == 1
    tried = faked(monkeypatch, [0.1, 0.2, 0.3])
    assert [draw.value for draw in run_draws(tuner, place(tmp_path), fresh=True)] == [0.1, 0.2, 0.3]
    path = keep_choice(tuner, tmp_path, tuner.choose(found))
    assert json.loads(path.read_text())["tuning"]["chosen"] == 1


def test_a_torn_draw_and_one_of_another_configuration_are_tried_again(tree, tmp_path, monkeypatch):
    tuner = tuner_of(tree)
    faked(monkeypatch, [0.1, 0.2, 0.3])
    run_draws(tuner, place(tmp_path))
    first, second, _ = sorted(tuner.folder(tmp_path).iterdir())
    second.write_bytes(first.read_bytes())
    first.write_bytes(first.read_bytes()[:20])
    tried = faked(monkeypatch, [0.7, 0.8])
    assert [draw.value for draw in run_draws(tuner, place(tmp_path))] == [0.7, 0.8, 0.3] and len(tried) == 2


def test_what_fails_counts_as_a_draw_and_is_not_chosen(tree, tmp_path, monkeypatch):
    tuner = tuner_of(tree)
    faked(monkeypatch, [torch.cuda.OutOfMemoryError("CUDA out of memory\nmore"), MethodError("does not fit"), 0.0])
    found = run_draws(tuner, place(tmp_path))
    assert [draw.error for draw in found] == ["OutOfMemoryError: CUDA out of memory", "does not fit", None]
    tried = faked(monkeypatch, [])
    assert run_draws(tuner, place(tmp_path)) == found and not tried
    assert tuner.choose(found).chosen == 2
    with pytest.raises(UserError, match="none of the 2 draws has a value; the first: OutOfMemoryError"):
        tuner.choose(found[:2])


@pytest.mark.parametrize("error", [DataError("a chip is torn"), StorageError("no room")])
def test_what_no_configuration_would_change_ends_the_search(tree, tmp_path, monkeypatch, error):
    tuner = tuner_of(tree)
    faked(monkeypatch, [0.5, error])
    with pytest.raises(type(error), match=str(error)):
        run_draws(tuner, place(tmp_path))
    assert len(list(tuner.folder(tmp_path).iterdir())) == 1


def test_values_that_do_not_go_together_are_a_failed_draw(tree, tmp_path, monkeypatch):
    tuner = tuner_of(tree, "adalora", budget=20, space={"rank": "4,24", "initial_rank": "8,30"})
    tuner.check()
    tried = faked(monkeypatch, [0.5] * 3)
    found = run_draws(tuner, place(tmp_path))
    assert len(found) == 4 and len(tried) == 3
    (failed,) = [draw for draw in found if draw.error]
    assert {name: int(value) for name, value in failed.options.items()} == {"rank": 24, "initial_rank": 8}


def test_weights_that_are_no_numbers_are_a_failure_with_its_reason(tree, tmp_path, monkeypatch):
    real = on_source.train

    def diverged(built, folder):
        trained = real(built, folder)
        trained.selected = (1, {"weight": torch.tensor([1.0, float("nan")])})
        return trained

    monkeypatch.setattr(on_source, "train", diverged)
    (draw,) = run_draws(tuner_of(tree, budget=1), place(tmp_path))
    assert draw.error == "DivergedError: the selected weights are not finite" and draw.value is None


@pytest.mark.slow
def test_draws_in_processes_are_those_of_one_and_a_crash_is_a_draw(tree, tmp_path, monkeypatch):
    tuner = tuner_of(tree)
    assert run_draws(tuner, place(tmp_path / "one")) == run_draws(tuner, place(tmp_path / "two"), jobs=2)
    code = "import os\nfrom torch import nn\nfrom spectral_tl_bench.methods.base import Method\n\n" \
        "class Crashes(Method):\n    side: int = 1\n    def build(self, task):\n        if self.side == 3:\n" \
        "            os._exit(9)\n        return nn.Conv2d(task.num_bands, task.num_classes, 1)\n"  # fmt: skip
    install(tmp_path / "site", "crashes_now", code, {"crashes": "crashes_now:Crashes"}, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    found = run_draws(tuner_of(tree, "crashes", space={"side": "1,3"}), place(tmp_path / "three"))
    assert {draw.options["side"]: draw.error for draw in found} == {1: None, 3: "exited with code 9"}


# ---------------------------------------------------------------------------------------------- records


def test_a_result_from_before_says_from_now_on_what_it_stems_from(tree, tmp_path, monkeypatch):
    tuner = tuner_of(tree, space={"hidden": "4,8"})
    faked(monkeypatch, [0.25, 0.5])
    tuning = tuner.choose(run_draws(tuner, place(tmp_path)))
    cell = tuner.tuned(tuner.base, tuning)
    by_hand = replace(cell, tuning=None)
    assert cell.identity(cell.split()) == by_hand.identity(by_hand.split()), "a search changes no number"
    (outcome,) = execute([by_hand], tmp_path, CPU, 0, lambda _: None)
    text = outcome.record.read_text()
    assert '"tuning"' not in text
    (found,) = execute([cell], tmp_path, CPU, 0, lambda _: None)
    marked = read_record(found.record)
    assert found.state == "found" and marked.tuning == tuning
    value = json.loads(marked.path.read_text())
    assert value.pop("tuning") and value == json.loads(text), "nothing else has changed"
    for fresh in (False, True):
        (again,) = execute([by_hand], tmp_path, CPU, 0, lambda _: None, fresh=fresh)
        assert again.state == ("done" if fresh else "found")
        assert read_record(again.record).tuning == tuning, "it stays so"
    swapped = [draw.model_copy(update={"value": 0.75 - draw.value}) for draw in tuning.draws]
    with pytest.raises(UserError, match="tuning chose another hidden"):
        mark_tuned(marked, tuner.choose(swapped))

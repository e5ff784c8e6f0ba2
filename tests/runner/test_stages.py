"""A first stage is trained once: what finds it again, what does not, and that it makes no difference to the result."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
import torch
from safetensors.torch import load_file
from tiny import SIZES, make_request, make_task

import spectralx.method
from spectral_tl_bench.methods.base import Method, Stage
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.processes import execute_in_processes
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.runner.stages import identity_of
from spectral_tl_bench.training import pretrain
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.pretrain import shared_stage
from spectralx.method import SpectralXMethod

CPU = Hardware("cpu")
WHOLE, PART = "spectralx", "spectralx@hypert-aomoa"


def quiet(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Stages of other tests are not found."""
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stages_in(cache: Path) -> list[Path]:
    return [path for path in (cache / "stages").iterdir() if not path.name.startswith(".")]


def cells_of(tree, *methods, **more):
    cells, broken = plan(make_request(tree, *(methods or (WHOLE,)), **{"pretrain_steps": 2, **more}), quiet)
    assert broken == []
    return cells


def run(cells, out, say=quiet, **more):
    outcomes = execute(cells, out, CPU, 0, say, **more)
    assert {outcome.state for outcome in outcomes} <= {"done", "found"}, [outcome.message for outcome in outcomes]
    return outcomes


def first_stage(outcome):
    return read_record(outcome.record).stages[0]


def weights(outcome):
    return load_file(outcome.record.parent / "selected.safetensors")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def print_of(cell) -> str:
    task, stage, shared = shared_stage(cell.method, cell.task())
    return identity_of(cell, cell.split(), task, stage, shared).fingerprint


# ---------------------------------------------------------------------------------------------- reuse


@pytest.fixture(scope="module")
def both_ways(tree, tmp_path_factory):
    """Two methods that share their first stage, run in either order with cache folders of their own."""
    found = {}
    for name, methods in (("whole first", (WHOLE, PART)), ("part first", (PART, WHOLE))):
        cache, said = tmp_path_factory.mktemp("cache"), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STBENCH_CACHE", str(cache))
            found[name] = cache, run(cells_of(tree, *methods), tmp_path_factory.mktemp("runs"), said.append), said
    return found


def test_the_second_run_takes_what_the_first_has_trained(both_ways):
    for cache, outcomes, said in both_ways.values():
        (folder,) = (cache / "stages").iterdir()
        assert {path.name for path in folder.iterdir()} == {"stage.json", "stage.safetensors", "pictures"}
        assert sum(f"kept in {folder}" in line for line in said) == 1
        trained, reused = map(first_stage, outcomes)
        assert (trained.options["reused"], reused.options["reused"]) == (False, True)
        assert trained.options["stage"] == reused.options["stage"] and trained.options["stage"][:16] == folder.name
        assert (reused.seconds, reused.steps, reused.trainable) == (trained.seconds, 2, trained.trainable)
        assert reused.options["seconds_here"] > 0, "what it cost here is kept, too"
        whole = read_record(outcomes[1].record).seconds
        assert whole.train >= trained.seconds and whole.total == pytest.approx(whole.train + whole.evaluate)
        assert sum("reusing stage" in line for line in said) == 1
        assert sum("2 steps without labels" in line for line in said) == 1


def test_reuse_and_order_make_no_difference(both_ways):
    (one, first, _), (other, second, _) = both_ways.values()
    tensors = [next((cache / "stages").glob("*/stage.safetensors")).read_bytes() for cache in (one, other)]
    assert tensors[0] == tensors[1], "the stage must not depend on which run came first"
    by_method = [{outcome.cell.method_name: outcome for outcome in outcomes} for outcomes in (first, second)]
    for method in (WHOLE, PART):
        trained, reused = (table[method] for table in by_method)
        assert first_stage(trained).options["reused"] != first_stage(reused).options["reused"]
        assert same(weights(trained), weights(reused)) and trained.miou == reused.miou
    assert not same(weights(by_method[0][WHOLE]), weights(by_method[0][PART]))


def test_the_stage_reaches_the_second(both_ways, tree):
    """Without it, the second stage ends elsewhere; and a checkpoint holds all that came with it."""
    _, outcomes, _ = both_ways["whole first"]
    bare = cells_of(tree, WHOLE, pretrain_steps=0)[0]
    assert shared_stage(bare.method, bare.task()) is None
    stored = load_file(next(both_ways["whole first"][0].glob("stages/*/stage.safetensors")))
    final = weights(outcomes[0])
    assert stored.keys() <= final.keys()
    unchanged = {name for name in stored if torch.equal(stored[name], final[name])}
    assert any(name.startswith("reconstruction.") for name in unchanged)
    assert any(name.startswith("patch_path.") for name in stored.keys() - unchanged)
    frozen = {name for name in stored if name.startswith("backbone.") and "norm" not in name}
    assert not frozen and not any(name.startswith(("decoder.", "are_adapter.")) for name in stored)


@pytest.mark.slow
def test_in_two_processes_the_stage_is_trained_once(both_ways, tree, tmp_path):
    outcomes = execute_in_processes(cells_of(tree, WHOLE, PART), tmp_path, CPU, 0, quiet, False, 2)
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert sorted(first_stage(outcome).options["reused"] for outcome in outcomes) == [False, True]
    for outcome, alone in zip(outcomes, both_ways["whole first"][1], strict=True):
        assert same(weights(outcome), weights(alone))


HITS = {
    "are adapter": {"options": {"are_adapter": False}},
    "matching": {"options": {"matching": "hard"}},
    "decoder": {"options": {"decoder": "own", "decoder_channels": 16}},
    "positions of stage 2": {"options": {"positions": "mixed"}},
    "default written out": {"options": {"combine": "stable", "balance": 0.0}},
    "steps": {"steps": 7},
    "stride": {"stride": 8},
    "validations": {"validations": 1},
    "oracle": {"oracle": True},
}
MISSES = {
    "mask": {"options": {"mask_ratio": 0.5}},
    "rank": {"options": {"rank": 3}},
    "experts": {"options": {"experts": 3}},
    "no experts": {"options": {"aomoa": False}},
    "no hyper tokenizer": {"options": {"hyper_tokenizer": False, "are_adapter": False}},
    "balance": {"options": {"balance": 0.5}},
    "combine": {"options": {"combine": "exponential"}},
    "reading": {"options": {"reading": "paper"}},
    "depth of the decoder": {"options": {"reconstruction_depth": 1}},
    "seed": {"seeds": (1,)},
    "pretrain steps": {"pretrain_steps": 3},
    "batch": {"batch_size": 3},
    "learning rate": {"learning_rate": 0.5},
    "schedule": {"schedule": "constant"},
    "precision": {"precision": "bf16-mixed"},
    "window": {"window": 24},
    "width": {"backbone_sizes": SIZES | {"width": 64}},
    "heads": {"backbone_sizes": SIZES | {"heads": 4}},
    "backbone": {"backbone": "vit-tiny", "backbone_sizes": SIZES},
    "source": {"benchmarks": ("mts12-s2n",)},
}


def test_what_the_stage_depends_on_and_what_not(tree):
    base = print_of(cells_of(tree)[0])
    for name, change in HITS.items():
        assert print_of(cells_of(tree, **change)[0]) == base, name
    prints = {name: print_of(cells_of(tree, **change)[0]) for name, change in MISSES.items()}
    assert len({base, *prints.values()}) == len(MISSES) + 1


def test_target_classes_and_notes_do_not_count_and_bands_do(tree):
    cell = cells_of(tree)[0]
    benchmark = cell.opened.benchmark

    def with_benchmark(**update):
        return print_of(replace(cell, opened=replace(cell.opened, benchmark=benchmark.model_copy(update=update))))

    base, sensor = print_of(cell), benchmark.sensor
    fewer = benchmark.labels.model_copy(update={"classes": benchmark.labels.classes[1:]})
    assert with_benchmark(target=(), labels=fewer, title="other", version="9.9") == base
    renamed = sensor.bands[0].model_copy(update={"name": "other"})
    moved = sensor.bands[0].model_copy(update={"wavelength": 0.5})
    changed = [
        with_benchmark(sensor=sensor.model_copy(update=update))
        for update in ({"bands": (renamed, *sensor.bands[1:])}, {"bands": (moved, *sensor.bands[1:])}, {"gsd": 30.0})
    ]
    changed.append(with_benchmark(nodata="error" if benchmark.nodata == "fill" else "fill"))
    assert len({base, *changed, with_benchmark(dataset="other")}) == 6


def test_a_benchmark_of_another_name_with_the_same_source_gets_the_same_stage(both_ways, tree, cache, tmp_path):
    (cell,) = cells_of(tree)
    renamed = cell.opened.benchmark.model_copy(update={"id": "another", "version": "9.9"})
    opened = replace(cell.opened, benchmark=renamed)
    opened._splits[0] = cell.split()  # which chips train depends on the name; that is not the question here
    (outcome,) = run([replace(cell, opened=opened)], tmp_path)
    (mine,), (other,) = map(stages_in, (cache, both_ways["whole first"][0]))
    assert first_stage(outcome).options["reused"] is False and mine.name == other.name
    assert (mine / "stage.safetensors").read_bytes() == (other / "stage.safetensors").read_bytes()


@pytest.mark.parametrize(("side", "counts"), [("train", True), ("validation", False), ("target", False)])
def test_pixels_of_training_chips_count(tree, tmp_path, side, counts):
    cell = cells_of(tree)[0]
    shutil.copytree(tree / "MTS12", tmp_path / "MTS12")
    with rasterio.open(
        tmp_path / "MTS12" / cell.opened.index.frame.loc[cell.split().chips(side)[0], "image"], "r+"
    ) as file:
        image = file.read()
        image[3, 5, 7] += 1
        file.write(image)
    assert (print_of(cells_of(tmp_path)[0]) != print_of(cell)) == counts


def test_what_is_built_for_the_stage_knows_nothing_of_the_run():
    """Another number of classes or steps would draw other random numbers."""
    states = []
    for classes, steps, options in ((3, 5, {}), (7, 9, {"are_adapter": False, "decoder": "own"})):
        task, _, shared = shared_stage(SpectralXMethod(**options), make_task(classes=classes, steps=steps))
        assert (task.benchmark, task.num_classes, task.budget.steps) == ("shared-stage", 1, 0)
        torch.manual_seed(0)
        states.append(shared.method.build(task).state_dict())
    assert same(*states)


# ---------------------------------------------------------------------------------------------- while it is trained


def test_the_stage_never_sees_a_label(tree, tmp_path, monkeypatch):
    seen = []
    plain = spectralx.method.reconstruction_loss

    def loss(module, batch):
        seen.append(set(batch))
        return plain(module, batch)

    monkeypatch.setattr(spectralx.method, "reconstruction_loss", loss)
    run(cells_of(tree), tmp_path)
    assert seen == [{"image", "domain"}] * 2


def test_a_card_names_training_chips_alone(both_ways, tree):
    (cell,) = cells_of(tree)
    text = next(both_ways["whole first"][0].glob("stages/*/stage.json")).read_text()
    contents = cell.opened.index.frame["content"].str[:16]
    for role, there in (("train", True), ("validation", False), ("target", False)):
        for chip in cell.split().chips(role):
            assert (f'"{chip}"' in text, contents[chip] in text) == (there, there)


def test_an_interruption_leaves_nothing_that_could_be_taken_for_a_stage(both_ways, tree, cache, tmp_path, monkeypatch):
    plain, calls = spectralx.method.reconstruction_loss, []

    def loss(module, batch):
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(module, batch)

    with monkeypatch.context() as patch:
        patch.setattr(spectralx.method, "reconstruction_loss", loss)
        with pytest.raises(KeyboardInterrupt):
            execute(cells_of(tree), tmp_path, CPU, 0, quiet)
    assert len(calls) == 2 and not list(tmp_path.rglob("record.json"))
    assert list((cache / "stages").iterdir()) == []
    (outcome,) = run(cells_of(tree), tmp_path)
    assert first_stage(outcome).options["reused"] is False
    assert same(weights(outcome), weights(both_ways["whole first"][1][0]))


def test_a_stage_that_diverges_is_not_kept(tree, tmp_path, monkeypatch):
    plain = spectralx.method.reconstruction_loss
    monkeypatch.setattr(spectralx.method, "reconstruction_loss", lambda m, b: plain(m, b) * float("nan"))
    (outcome,) = execute(cells_of(tree), tmp_path, CPU, 0, quiet)
    assert outcome.state == "refused" and "has diverged" in outcome.message and "--learning-rate" in outcome.message
    assert not list(tmp_path.rglob("stage.*"))


@pytest.mark.parametrize("damage", ["tensors", "card", "frozen weights"])
def test_a_damaged_stage_is_trained_again(both_ways, tree, cache, tmp_path, damage):
    shutil.copytree(both_ways["whole first"][0] / "stages", cache / "stages")
    (folder,) = stages_in(cache)
    before = (folder / "stage.safetensors").read_bytes()
    if damage == "tensors":
        (folder / "stage.safetensors").write_bytes(before[:-10])
    elif damage == "card":
        (folder / "stage.json").write_text("{")
    else:
        text = (folder / "stage.json").read_text()
        old = text.split('"relies_on": "')[1][:64]
        (folder / "stage.json").write_text(text.replace(old, "0" * 64))
    said: list[str] = []
    (outcome,) = run(cells_of(tree), tmp_path, said.append)
    assert first_stage(outcome).options["reused"] is False
    assert sum("cannot be used and is made again" in line for line in said) == 1
    assert (folder / "stage.safetensors").read_bytes() == before


def test_pictures_change_nothing(both_ways, tree, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "picture_steps", lambda steps: ())
    run(cells_of(tree), tmp_path)
    (folder,), (other,) = map(stages_in, (cache, both_ways["whole first"][0]))
    assert not (folder / "pictures").exists() and len(list((other / "pictures").glob("*.png"))) == 2
    assert (folder / "stage.safetensors").read_bytes() == (other / "stage.safetensors").read_bytes()


def test_a_damaged_record_is_made_again_and_the_others_go_on(both_ways, tree, cache, tmp_path):
    shutil.copytree(both_ways["whole first"][1][0].record.parents[3], tmp_path / "runs")
    shutil.copytree(both_ways["whole first"][0] / "stages", cache / "stages")
    record = next((tmp_path / "runs").glob("*/spectralx/*/record.json"))
    before = read_record(record)
    record.write_text(record.read_text()[:100])
    said: list[str] = []
    outcomes = run(cells_of(tree, WHOLE, PART), tmp_path / "runs", said.append)
    assert [outcome.state for outcome in outcomes] == ["done", "found"]
    assert sum("cannot be used and is made again" in line for line in said) == 1
    assert read_record(record).scores == before.scores
    next(record.parent.glob("evidence-*.parquet")).write_bytes(b"gone")
    assert [o.state for o in run(cells_of(tree, WHOLE, PART), tmp_path / "runs")] == ["done", "found"]


# ---------------------------------------------------------------------------------------------- declarations


def test_only_a_first_unlabelled_stage_can_be_shared(tree):
    shared = SpectralXMethod().stages(make_task())[0].shared

    class Wrong(Method):
        kind: str

        def build(self, task):
            raise NotImplementedError

        def stages(self, task):
            first, last = Stage("first", 1, labelled=False), Stage("last", 1)
            return {
                "late": [first, replace(first, shared=shared), last],
                "labelled": [replace(last, shared=shared), last],
                "alone": [replace(first, shared=shared)],
            }[self.kind]

    for kind in ("late", "labelled", "alone"):
        with pytest.raises(Exception, match="cannot be shared"):
            shared_stage(Wrong(kind=kind), make_task())


def test_a_stage_that_changes_what_it_relies_on_says_so(tree, tmp_path, monkeypatch):
    plain = SpectralXMethod._shared
    # Claims to rely on what it trains.
    monkeypatch.setattr(
        SpectralXMethod, "_shared",
        lambda self, config: replace(plain(self, config), relies_on=lambda name: name.startswith("patch_path.")),
    )  # fmt: skip
    (outcome,) = execute(cells_of(tree), tmp_path, CPU, 0, quiet)
    assert "changed weights that its checkpoint lacks" in outcome.message

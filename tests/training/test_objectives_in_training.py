"""Objectives at work in training and in whole runs: what they change, and what they leave alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_wall import reachable
from tiny import SIZES, Pixelwise, fit, install, make_request, make_source, run_main
from torch import nn

from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.loaders import Normalise
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets
from spectral_tl_bench.data.samplers import BalancedDomainWindows
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.evaluate import evaluate
from spectral_tl_bench.evaluation.metrics import score
from spectral_tl_bench.leaderboard.measured import row_key
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.methods.registry import check_known, make_method, split_name
from spectral_tl_bench.objectives.base import Average, Objective
from spectral_tl_bench.objectives.registry import make_objectives, objective_entries, read_options
from spectral_tl_bench.objectives.risks import Erm
from spectral_tl_bench.objectives.spectral import SpectralAugmentation
from spectral_tl_bench.objectives.swad import Swad
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.sample.dfc2020 import write_dfc2020
from spectral_tl_bench.training import task as task_module
from spectral_tl_bench.training import train as train_module
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.trained import TrainedModel, load_state

CLASSES = 8
BUDGET = Budget(steps=4, batch_size=2, learning_rate=1e-2)
DFC = "dfc2020-autumn"


@pytest.fixture(scope="module")
def source(tree):
    return make_source(tree)


@pytest.fixture(scope="module")
def cities(tmp_path_factory) -> Path:
    """A data root with a small DFC2020, whose autumn has three cities."""
    root = tmp_path_factory.mktemp("cities")
    write_dfc2020(root / "DFC2020", chip=32, chips_per_city=4)
    return root


def train(folder: Path, source, module: nn.Module, steps: int = 4, validations: int = 2, **objectives) -> TrainedModel:
    folder = folder / str(len(list(folder.iterdir())))
    folder.mkdir()
    return fit(
        module, [Stage("segment", steps)], source, BUDGET, CLASSES, folder=folder, validations=validations,
        objectives=objectives,
    )  # fmt: skip


def module_of(kind=Pixelwise, **options) -> nn.Module:
    torch.manual_seed(5)
    return kind(**options)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------------------------------- training


def test_erm_changes_not_a_bit(tmp_path, source):
    plain, erm = train(tmp_path, source, module_of()), train(tmp_path, source, module_of(), erm=Erm())
    assert same(plain.last[1], erm.last[1]) and same(plain.selected[1], erm.selected[1]) and plain.trace == erm.trace
    assert plain.selected_value == erm.selected_value == max(value for _, value in plain.trace)


def test_augmentation_acts_on_source_training_windows_alone_and_is_seeded(tmp_path, source, monkeypatch):
    seen = []

    class Watched(SpectralAugmentation):
        def augment(self, images, generator):
            seen.append(images.clone())
            return super().augment(images, generator)

    start = module_of().state_dict()
    fitted = [train(tmp_path, source, module_of(), aug=Watched()) for _ in range(2)]
    plain = train(tmp_path, source, module_of())
    assert same(fitted[0].last[1], fitted[1].last[1]) and not same(fitted[0].last[1], plain.last[1])
    assert not same(fitted[0].last[1], start)
    assert len(seen) == 8, "once per step, never in validation"
    batches = list(source.train_loader(4, True, "segment"))
    assert all(torch.equal(batch["image"], images) for batch, images in zip(batches, seen[:4], strict=True))


class Tracking(nn.Module):
    """With batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(24), nn.Conv2d(24, CLASSES, 1)

    def forward(self, images):
        return self.head(self.norm(images) * 3)


def test_the_average_is_the_selected_checkpoint(tmp_path, source):
    trail = []

    class Whole(Objective):
        """Averages everything."""

        def average(self, folder):
            class Averager:
                def after_step(self, step, weights):
                    trail.append({name: value.detach().clone() for name, value in weights.items()})

                def after_validation(self, step, loss):
                    assert loss > 0

                def result(self):
                    mean = {name: torch.stack([one[name] for one in trail]).mean(dim=0) for name in trail[0]}
                    return Average(mean, 4, {"steps": len(trail)})

            return Averager()

    module = module_of(Tracking)
    fitted = train(tmp_path, source, module, whole=Whole())
    assert len(trail) == 4 and not same(trail[0], trail[3])
    last, chosen = fitted.last[1], fitted.selected[1]
    assert torch.equal(last["head.weight"], trail[3]["head.weight"])
    mean = torch.stack([one["head.weight"] for one in trail]).mean(dim=0)
    torch.testing.assert_close(chosen["head.weight"], mean)
    assert same({name: module.state_dict()[name] for name in last}, last), "the module holds the last weights"
    assert fitted.stages[0].options["objectives"] == {"whole": {"steps": 4}}

    # Statistics belong to the average: plain means over batches, which for the first layer are those of the images.
    assert not torch.allclose(chosen["norm.running_mean"], last["norm.running_mean"])
    assert chosen["norm.num_batches_tracked"] == 4 and module.norm.momentum == 0.1
    loader = source.train_loader(4, False, "batch statistics of an average")
    means = [Normalise(source.statistics)(batch["image"]).mean(dim=(0, 2, 3)) for batch in loader]
    torch.testing.assert_close(chosen["norm.running_mean"], torch.stack(means).mean(dim=0), atol=1e-5, rtol=1e-4)

    fresh = module_of(Tracking)
    load_state(fresh, chosen)
    table = evaluate(fresh, Normalise(source.statistics), source.validation, CLASSES, torch.device("cpu"))
    value = score(np.sum(table["matrix"].to_list(), axis=0)).miou
    assert fitted.selected_value == fitted.averaged == pytest.approx(value)


def test_swad_sees_the_cross_entropy_of_source_validation(tmp_path, source):
    fitted = train(tmp_path, source, module_of(), steps=6, validations=6, swad=Swad(start_patience=6))
    (facts,) = fitted.stages[0].options["objectives"].values()
    module = module_of()
    load_state(module, fitted.last[1])
    module.eval()
    total, pixels = 0.0, 0
    for batch in source.validation.loader():
        logits = module(Normalise(source.statistics)(batch["image"])).detach()
        for number, chip in enumerate(batch["chip"]):
            line, column = batch["line"][number], batch["column"][number]
            truth = torch.from_numpy(source.validation.truth(chip))[line : line + 16, column : column + 16].long()
            total += nn.functional.cross_entropy(logits[number][None], truth[None], ignore_index=255, reduction="sum")
            pixels += int((truth != 255).sum())
    assert facts["validation_loss"][-1] == pytest.approx(float(total) / pixels, rel=1e-4)
    assert len(facts["validation_loss"]) == 6


@pytest.mark.parametrize(("asked", "steps", "number"), [(50, 6, 6), (4, 6, 4), (3, 9, 3), (0, 6, 2)])
def test_swad_has_a_rhythm_of_its_own(tmp_path, source, asked, steps, number):
    """With dropout, which another draw of chance would change: nothing but the average is another one."""
    swad = Swad(validations=asked)
    plain = train(tmp_path, source, module_of(dropout=0.5), steps=steps)
    fitted = train(tmp_path, source, module_of(dropout=0.5), steps=steps, swad=swad)
    assert fitted.trace == plain.trace and same(fitted.last[1], plain.last[1])
    facts = fitted.stages[0].options["objectives"]["swad"]
    assert len(facts["validation_loss"]) == number and facts["last_step"] <= steps
    assert facts["valley"] or facts["last_step"] == steps


def test_swad_looks_no_more_when_the_valley_is_over(tmp_path, source, monkeypatch):
    looked: list[int] = []
    losses = iter([3.0, 1.0, 1.1, 9.0, 9.0, 9.0])

    def loss(*_):
        looked.append(1)
        return next(losses)

    monkeypatch.setattr(task_module, "source_loss", loss)
    swad = Swad(start_patience=2, end_patience=2)
    facts = train(tmp_path, source, module_of(), steps=12, swad=swad).stages[0].options["objectives"]["swad"]
    assert facts["validation_loss"] == [3.0, 1.0, 1.1, 9.0, 9.0] and len(looked) == 5
    assert (facts["first_step"], facts["last_step"]) == (2, 3)


def test_a_validation_aside_counts_as_one_and_not_as_waiting(tmp_path, source, monkeypatch):
    slow = task_module.source_loss

    def loss(*given):
        time.sleep(0.2)
        return slow(*given)

    monkeypatch.setattr(task_module, "source_loss", loss)
    measured = train(tmp_path, source, module_of(), swad=Swad()).stages[0].measured
    assert measured["share_waiting_for_data"] < 0.9 and measured["windows_per_second"] > 4 * 2 / 0.8


def test_no_way_leads_from_an_objective_to_data(tmp_path, source, monkeypatch):
    """Not even to the source's: an objective is told names and numbers, and is handed batches."""
    made = []

    class Caught(train_module.ActiveObjectives):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(train_module, "ActiveObjectives", Caught)
    objectives = make_objectives("lora+erm+spectralaug+swad")
    train(tmp_path, source, module_of(), **objectives)
    kinds = {type(thing).__name__ for active in made for thing in reachable(active.objectives)}
    assert made and "SpectralAugmentation" in kinds and "Tensor" in kinds
    assert not kinds & {"SourceData", "EvaluationData", "ChipCollection", "SpectralChips", "ChipIndex", "SplitTable"}


# ---------------------------------------------------------------------------------------------- windows by domain


def test_balanced_windows(own):
    """Six chips in the east, four in the west."""
    benchmark = own.benchmark()
    collection = ChipCollection(open_datasets(benchmark, build_index(benchmark, own.root)))
    windows = list(BalancedDomainWindows(collection, 8, 400, 3))
    assert windows == list(BalancedDomainWindows(collection, 8, 400, 3))
    assert windows != list(BalancedDomainWindows(collection, 8, 400, 4))
    samples = [collection[key] for key in windows]
    domains = [sample["domain"] for sample in samples]
    assert all(set(pair) == {"east", "west"} for pair in zip(domains[::2], domains[1::2], strict=True))
    assert 0 < sum(one == "east" for one in domains[::2]) < 200, "in random order"
    chips = {sample["chip"] for sample in samples}
    assert len(chips) == 10 and all(sample["image"].shape == (3, 8, 8) for sample in samples)


# ---------------------------------------------------------------------------------------------- names


def test_names():
    assert split_name("spectralx@hypert+vrex+swad") == ("spectralx", "hypert") and split_name("a+b") == ("a", None)
    assert list(make_objectives("spectralx@hypert+vrex+swad")) == ["vrex", "swad"] and make_objectives("lora") == {}
    assert make_method("lora+vrex", {"rank": 3}).rank == 3
    made = make_objectives("lora+vrex+swad", read_options(["vrex.weight=2.5", "swad.start-patience=2", "erm.x=1"]))
    assert made["vrex"].weight == 2.5 and made["swad"].start_patience == 2
    assert set(objective_entries()) >= {"erm", "groupdro", "vrex", "coral", "mixstyle", "swad", "spectralaug"}
    for name in objective_entries():
        (one,) = make_objectives(f"lora+{name}").values()
        assert one.reference and all(field.description for field in type(one).model_fields.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora+vrx", "did you mean vrex"),
        ("lora+", "no objective ''"),
        ("lora+vrex+vrex", "named twice"),
        ("lora+vrex@strong", "only methods have"),
        ("lora+vrex+groupdro", "cannot be combined"),
        ("lorra+vrex", "did you mean lora"),
    ],
)
def test_wrong_names(name, message):
    with pytest.raises(UserError, match=message):
        check_known([name])
        make_objectives(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vrex": {"wieght": "1"}}, "did you mean weight"),
        ({"vrex": {"weight": "much"}}, "option 'weight' of objective 'vrex'"),
        ({"vrex": {"anneal": "2"}}, "less than or equal to 1"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        make_objectives("lora+vrex", options)


@pytest.mark.parametrize("entry", ["weight=1", "vrex.weight", ".weight=1", "vrex.=1"])
def test_options_of_another_form(entry):
    with pytest.raises(UserError, match="not of the form"):
        read_options([entry])


def test_methods_lists_and_shows_objectives(monkeypatch, capsys):
    assert run_main(monkeypatch, ["methods"]) == 0
    out = capsys.readouterr().out
    assert all(f"+{name} " in out for name in objective_entries())
    sizes = [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]
    assert run_main(monkeypatch, ["methods", "show", "lora+vrex", "--backbone", "compact", *sizes]) == 0
    out = capsys.readouterr().out
    assert "+vrex  Variance risk" in out and "Krueger" in out and "vrex.anneal" in out
    assert run_main(monkeypatch, ["methods", "show", "lora+vrx"]) == 2


STRANGER = '''
from spectral_tl_bench.objectives.base import Objective

class Double(Objective):
    """Twice the loss."""
    domains_needed = 2
    times: float = 2.0

    def risk(self, losses):
        return self.times * losses.mean()
'''


def test_a_stranger_s_objective(tmp_path, cities, monkeypatch):
    entries = {"double": "tiny_double:Double"}
    install(tmp_path / "site", "tiny_double", STRANGER, entries, monkeypatch, group="objectives")
    request = make_request(cities, "lora+double", benchmarks=(DFC,), objective_options={"double": {"times": "3"}})
    (cell,), broken = plan(request, lambda _: None)
    assert broken == [] and cell.objectives["double"].times == 3
    (outcome,) = execute([cell], tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message


# ---------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def runs(cities, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    names = ("lora", "lora+erm", "lora+groupdro+swad")
    request = make_request(cities, *names, benchmarks=(DFC,), steps=3, validations=3)
    cells, broken = plan(request, lambda _: None)
    assert broken == []
    outcomes = execute(cells, out, Hardware("cpu"), 0, lambda _: None)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3, [outcome.message for outcome in outcomes]
    return {outcome.cell.method_name: read_record(outcome.record) for outcome in outcomes}


def test_records_keep_names_and_options(runs):
    found = runs["lora+groupdro+swad"]
    assert found.objectives == {
        "groupdro": {"balanced": True, "step_size": 0.01},
        "swad": {"start_patience": 3, "end_patience": 6, "tolerance": 1.3, "validations": 50},
    }
    assert found.path.parent.parent.name == found.method == "lora+groupdro+swad"
    assert runs["lora"].objectives == {} and runs["lora+erm"].objectives == {"erm": {"balanced": False}}
    assert len({row_key(record) for record in runs.values()}) == len({r.fingerprint for r in runs.values()}) == 3
    weights = found.stages[-1].options["objectives"]["groupdro"]["weights"]
    assert set(weights) == set(found.source_domains) and sum(weights.values()) == pytest.approx(1, abs=1e-4)
    facts = found.stages[-1].options["objectives"]["swad"]
    assert found.selection.step == facts["last_step"]
    assert json.loads(found.path.read_text())["objectives"]["swad"]["end_patience"] == 6


def test_erm_is_the_run_without_an_objective(runs):
    one, other = (load_file(runs[name].path.with_name("selected.safetensors")) for name in ("lora", "lora+erm"))
    assert same(one, other)
    assert runs["lora"].scores == runs["lora+erm"].scores
    assert runs["lora"].selection == runs["lora+erm"].selection


def test_objectives_count_in_rows_and_fingerprints(runs, cities):
    record = runs["lora+groupdro+swad"]
    changed = record.model_copy(update={"objectives": {**record.objectives, "groupdro": {"step_size": 1.0}}})
    assert row_key(changed) != row_key(record)
    prints = set()
    for name, options in (
        ("lora+vrex", {}),
        ("lora+vrex", {"vrex": {"weight": "1"}}),
        ("lora+coral", {}),
        ("lora", {}),
    ):
        request = make_request(cities, name, benchmarks=(DFC,), objective_options=options)
        (cell,), _ = plan(request, lambda _: None)
        prints.add(cell.identity(cell.split()).fingerprint)
    assert len(prints) == 4


def test_what_cannot_act_is_refused_and_the_rest_runs(tree, cities):
    cells, broken = plan(make_request(tree, "lora", "lora+vrex", "lora+swad", "lora+mixstyle"), lambda _: None)
    assert [cell.method_name for cell in cells] == ["lora", "lora+swad"]
    assert [name for name, _ in broken] == ["lora+vrex on mts12-n2s", "lora+mixstyle on mts12-n2s"]
    assert "needs 2 source domains, mts12-n2s has 1" in str(broken[0][1])
    random = make_request(tree, "lora+mixstyle", objective_options={"mixstyle": {"mix": "random"}})
    assert len(plan(random, lambda _: None)[0]) == 1
    _, broken = plan(make_request(cities, "majority+erm", benchmarks=(DFC,)), lambda _: None)
    assert "training by gradients" in str(broken[0][1])
    cached = {"cache": True, "train_patch_embed": False}
    _, broken = plan(make_request(cities, "frozen+erm", benchmarks=(DFC,), options=cached), lambda _: None)
    assert "not kept features" in str(broken[0][1])


def test_the_command_refuses_with_2(tree, tmp_path, monkeypatch, capsys):
    sizes = [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]
    common = ["-b", "mts12-n2s", "--data-root", tree, "--allow-partial", "--out", tmp_path / "runs"]
    common += ["--backbone", "compact", *sizes]
    assert run_main(monkeypatch, ["run", "-m", "lora+vrex", *common]) == 2
    assert "lora+vrex on mts12-n2s cannot run" in capsys.readouterr().err
    assert run_main(monkeypatch, ["run", "-m", "lora+swad", "-O", "vrex.weight=1", *common]) == 2
    assert "no method of this run has the objective 'vrex'" in capsys.readouterr().err
    assert run_main(monkeypatch, ["run", "-m", "lora+swad", "-O", "swda.tolerance=1", *common]) == 2
    said = capsys.readouterr().err
    assert "there is no objective 'swda'" in said and "did you mean swad?" in said and "to do" not in said
    assert not (tmp_path / "runs").exists()

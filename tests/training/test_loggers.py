"""Loggers from the shelf: by cell and stage, going on where a stage goes on, and no number moved by them."""

from __future__ import annotations

import csv
import importlib.util
import json
import time

import pytest
import torch
from tiny import Pixelwise, make_request, make_source

from spectral_tl_bench.cli.main import main
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.results.schema import StageFacts
from spectral_tl_bench.results.store import read_record, read_records
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training import loggers as loggers_module
from spectral_tl_bench.training import measured as measured_module
from spectral_tl_bench.training.gradient import GradientStage, train_stage
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.loggers import CellLogs, check_loggers
from spectral_tl_bench.training.measured import StepClock, energy, waiting_line
from spectral_tl_bench.training.trained import StageSummary

CPU = torch.device("cpu")


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(rows, name):
    return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]


def train_logged(folder, tmp_path, source, steps=4, loggers=("csv",)):
    torch.manual_seed(0)
    module = Pixelwise()
    job = GradientStage(
        module, Stage("segment", steps), source, Budget(steps=steps, batch_size=2),
        {name for name, _ in module.named_parameters()}, tmp_path, "segment", 1, Hardware("cpu", loggers=loggers),
        lambda _: None, "a title", logs=folder,
    )  # fmt: skip
    train_stage(job)
    return module.state_dict()


def test_a_run_is_logged_beside_its_record(tree, tmp_path):
    request = make_request(tree, "full", steps=4, validations=2, schedule="cosine")
    cells, _ = plan(request, lambda _: None)
    logged, plain = tmp_path / "logged", tmp_path / "plain"
    (outcome,) = execute(cells, logged, Hardware("cpu", loggers=("csv", "tensorboard")), 0, lambda _: None)
    (other,) = execute(cells, plain, Hardware("cpu"), 0, lambda _: None)
    record = read_record(outcome.record)
    assert record.scores == read_record(other.record).scores, "a logger moves no number"
    assert not (other.record.parent / "logs").exists()
    folder = outcome.record.parent / "logs" / "segment"
    rows = rows_of(folder / "csv")
    assert [step for step, _ in values(rows, "train_loss")] == [0, 1, 2, 3]
    rates = values(rows, "learning_rate")
    assert len(rates) == 4 and rates[0][1] > rates[-1][1], "the cosine's"
    seen = [value for _, value in values(rows, "val_miou")]
    assert seen == pytest.approx([value for _, value in record.selection.trace], abs=1e-6)
    assert list((folder / "tensorboard").glob("events.out.*"))
    assert len(list(read_records([logged]))) == 1, "and what loggers write is taken for no record"


def test_events_hold_the_values(tmp_path, tree):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    source = make_source(tree)
    for _ in range(2):  # the second run begins anew
        train_logged(tmp_path / "logs", tmp_path, source, loggers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "logs" / "segment" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train_loss")] == [0, 1, 2, 3]


def test_another_place(tree, tmp_path):
    cells, _ = plan(make_request(tree, "full"), lambda _: None)
    hardware = Hardware("cpu", loggers=("csv",), log_dir=tmp_path / "mine")
    (outcome,) = execute(cells, tmp_path / "runs", hardware, 0, lambda _: None)
    inside = outcome.record.parent.relative_to(tmp_path / "runs")
    assert rows_of(tmp_path / "mine" / inside / "logs" / "segment" / "csv")
    assert not (outcome.record.parent / "logs").exists()


class Trainer:
    """As much of Lightning's as the callback asks for."""

    is_global_zero = True

    def __init__(self, step: int) -> None:
        self.global_step = step


def test_a_stage_that_goes_on_keeps_its_rows(tmp_path, tree):
    """Rows of steps that are done again are those of the second time; there is no version_1 beside."""
    folder = tmp_path / "logs" / "segment"
    train_logged(folder.parent, tmp_path, make_source(tree))
    before = rows_of(folder / "csv")
    logs = CellLogs(["csv"], folder, "a title", 4)
    (logger,) = logs.loggers
    logger.log_hyperparams({})  # as Lightning does at first; it makes the logger forget its file
    logs.on_train_start(Trainer(2), None)
    logger.log_metrics({"train_loss": 7.0, "something new": 1.0}, step=2)
    logger.save()
    rows = rows_of(folder / "csv")
    assert values(rows, "train_loss") == [*values(before, "train_loss")[:2], (2, 7.0)]
    assert values(rows, "something new") == [(2, 1.0)]
    assert [path.name for path in folder.rglob("*") if "version" in path.name] == []
    fresh = CellLogs(["csv"], folder, "a title", 4)
    fresh.loggers[0].log_hyperparams({})
    fresh.on_train_start(Trainer(0), None)
    fresh.loggers[0].log_metrics({"train_loss": 1.0}, step=0)
    fresh.loggers[0].save()
    assert values(rows_of(folder / "csv"), "train_loss") == [(0, 1.0)], "a stage that begins anew does not"


def test_unknown_and_missing_loggers_are_refused_before_anything_starts(monkeypatch, tmp_path, capsys):
    with pytest.raises(UserError, match="none of that name") as caught:
        check_loggers(["tensorbord"])
    assert "tensorboard" in str(caught.value)
    found = importlib.util.find_spec
    absent = ("wandb", "mlflow", "mlflow_skinny", "tensorboard", "tensorboardX")
    monkeypatch.setattr(
        loggers_module.importlib.util, "find_spec", lambda name: None if name in absent else found(name)
    )
    for name in ("wandb", "mlflow", "tensorboard"):
        with pytest.raises(UserError, match=f"--logger {name} needs") as caught:
            check_loggers([name])
        assert f"pip install {name}" in str(caught.value)
    check_loggers(["csv"])
    arguments = [
        "stbench",
        "run",
        "-m",
        "full",
        "-b",
        "mts12-n2s",
        "--logger",
        "wandb",
        "--out",
        str(tmp_path / "runs"),
    ]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ending:
        main()
    assert ending.value.code == 2 and "pip install wandb" in capsys.readouterr().err


def test_nothing_leaves_the_machine_by_itself(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(loggers_module, "WandbLogger", lambda **options: made.append(options))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "mts12-n2s" / "full" / "0123456789abcdef" / "logs" / "segment" / "wandb"
    loggers_module._wandb(folder, "a title")
    monkeypatch.setenv("WANDB_MODE", "online")
    loggers_module._wandb(folder, "a title")
    assert [options["offline"] for options in made] == [True, False]
    assert made[0]["id"] == made[1]["id"] and "0123456789abcdef" in made[0]["id"], "the same run, if it goes on"

    class Mlflow:
        def __init__(self, **options):
            made.append(options)
            self.run_id = options["run_id"] or "r1"

    monkeypatch.setattr(loggers_module, "MLFlowLogger", Mlflow)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):
        loggers_module._mlflow(folder, "a title")
    assert [options["run_id"] for options in made[2:]] == [None, "r1"]
    assert all(options["tracking_uri"].startswith("sqlite:///") for options in made[2:])


# ------------------------------------------------------------------------------------------------ what is measured


def test_a_record_tells_how_fast_and_how_long_it_waited(tree, tmp_path):
    cells, _ = plan(make_request(tree, "full", "majority"), lambda _: None)
    trained, solved = execute(cells, tmp_path, Hardware("cpu"), 0, lambda _: None)
    (stage,) = read_record(trained.record).stages
    assert stage.measured["windows_per_second"] > 0 and 0 <= stage.measured["share_waiting_for_data"] <= 1
    assert "measured" not in stage.options
    content = json.loads(solved.record.read_text())
    assert all("measured" not in stage for stage in content["stages"]), "nothing is said where nothing was measured"


def test_earlier_records_keep_their_bytes():
    facts = {"name": "segment", "steps": 3, "seconds": 1.5, "trainable": 7, "options": {"a": 1}}
    assert StageFacts(**facts).model_dump(mode="json") == facts
    assert StageFacts(**facts, measured={"x": 1.0}).model_dump(mode="json") == {**facts, "measured": {"x": 1.0}}


def test_waiting_and_validation_are_told_apart(monkeypatch):
    """Steps take 1 s, the first batch comes after 3 s, the others after half a second, a validation takes 100 s."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = StepClock(10, CPU)
    clock.on_train_start(None, None)
    for number, wait in enumerate((3.0, 0.5, 100.0, 0.5)):
        now[0] += wait
        clock.on_train_batch_start(None, None, None, number)
        now[0] += 1.0
        clock.on_train_batch_end(None, None, None, None, number)
        if number in (1, 3):
            clock.on_validation_start(None, None)
    now[0] += 50.0
    clock.on_train_end(None, None)
    assert clock.facts["windows_per_second"] == 5.0 and clock.facts["share_waiting_for_data"] == 0.5


def stage_that_waited(seconds: float, **measured: float) -> StageSummary:
    return StageSummary("x", 1, seconds, 1, {}, measured)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([(10.0, 0.02)], "waited for data in 2% of the training time"),
        ([(10.0, 0.10)], "waited for data in 10% of the training time"),
        ([(10.0, 0.0), (30.0, 0.4)], "waited for data in 30% of the training time; what helps: more --workers (now 3), "
         "`stbench data pack`, the data on a local disk"),
        ([(10.0, None)], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_a_cell_says_how_long_it_has_waited_and_what_helps(stages, said):
    made = [stage_that_waited(s, **({} if w is None else {"share_waiting_for_data": w})) for s, w in stages]
    assert waiting_line(made, 3, packed=False) == said
    assert waiting_line(made, 3, packed=True) == said.replace("`stbench data pack`, the data", "the packed chips")


def test_a_run_says_it_once_for_each_cell_that_was_trained_by_steps(tree, tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(measured_module, "MUCH", -1.0)
    cells, _ = plan(make_request(tree, "full", "majority"), lambda _: None)
    execute(cells, tmp_path, Hardware("cpu"), 0, lines.append)
    (line,) = [line for line in lines if "waited for data" in line]
    assert line.startswith(f"{cells[0].title} | waited") and "more --workers (now 0), `stbench data pack`" in line


def test_energy_where_it_can_be_read_and_not_elsewhere(monkeypatch, tmp_path):
    for name, value in {"intel-rapl:0": 3_000_000, "intel-rapl:1": 4_000_000, "intel-rapl:0:0": 9_000_000}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
    monkeypatch.setattr(measured_module, "POWERCAP", tmp_path)
    assert energy(CPU) == {"cpu_joules": 7.0}, "packages, of which their parts are parts"
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("nonsense")
    assert energy(CPU) == {}
    monkeypatch.setattr(measured_module, "POWERCAP", tmp_path / "nothing")
    assert energy(CPU) == {}
    assert energy(torch.device("cuda")) == {}, "no pynvml, or no GPU"

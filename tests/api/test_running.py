"""``plan`` and ``run`` from Python: the arguments, cells, records and mistakes of the commands."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL
from tiny import SIZES, quiet, run_main

import spectral_tl_bench
from spectral_tl_bench import plan, predict, run
from spectral_tl_bench.api import Choices
from spectral_tl_bench.cli import predict as map_command
from spectral_tl_bench.cli import run as command
from spectral_tl_bench.cli import run_options
from spectral_tl_bench.errors import BenchmarkError, DataError, MethodError, UserError
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.results.store import read_record

ONLY_AS_COMMAND = {"dry_run", "num_nodes", "executor", "profile", "slurm", "wait", "only", "context"}


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("record.json")}


def test_the_package_imports_nothing_heavy_and_knows_its_names():
    code = (
        "import sys, spectral_tl_bench as stb\n"
        "assert {'load_benchmark', 'run', 'plan', 'load_results', 'compare', 'board', 'plot', 'predict', 'load_model',"
        " 'make_method'} <= set(dir(stb))\n"
        "heavy = {'torch', 'pandas', 'numpy', 'torchgeo', 'lightning', 'rasterio', 'matplotlib', 'typer', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in spectral_tl_bench.__all__:
        assert callable(getattr(spectral_tl_bench, name)) and inspect.getdoc(getattr(spectral_tl_bench, name))
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        spectral_tl_bench.runs  # noqa: B018


def test_arguments_are_those_of_the_command():
    ours, theirs = inspect.signature(run).parameters, inspect.signature(command.run).parameters
    assert set(ours) - {"say"} == set(theirs) - ONLY_AS_COMMAND
    assert set(Choices.__annotations__) == {one.name for one in fields(run_options.Choices)}
    assert set(inspect.signature(plan).parameters) == {*Choices.__annotations__, "out", "say"}
    usual = {name: one.default for name, one in theirs.items() if name not in Choices.__annotations__}
    for name in ("accelerator", "devices", "jobs", "workers", "hang_after", "checkpoint_every", "feature_cache_limit"):
        assert ours[name].default == usual[name], name


def test_predict_takes_the_arguments_of_its_command():
    ours, theirs = (inspect.signature(one).parameters for one in (predict, map_command.predict))
    assert list(ours) == [*theirs, "say"]
    assert {name: str(ours[name].default) for name in ours if name not in {"bands", "say"}} == {
        name: str(one.default) for name, one in theirs.items() if name != "bands"
    }


def test_a_run_gives_a_row_for_each_cell(ran):
    assert list(ran["method"]) == ["majority"] * 2 + ["nearest-mean"] * 2 and list(ran["seed"]) == [0, 1, 0, 1]
    assert set(ran["state"]) == {"done"} and set(ran["benchmark"]) == {"mts12-n2s"}
    for row in ran.to_dict("records"):
        record = read_record(row["record"])
        assert record.scores.selected.miou == row["miou"] and record.fingerprint.startswith(row["cell"])


def test_what_is_finished_is_found(ran, tree, out):
    again = run(method="majority", benchmark="mts12-n2s", seed=0, data_root=tree, out=out, say=quiet, **SMALL)
    assert list(again["state"]) == ["found"] and again["miou"][0] == ran["miou"][0]


def test_a_plan_tells_what_is_left_and_writes_nothing(ran, tree, out):
    before = records(out)
    looks = plan(
        method="majority,nearest-mean", benchmark=["mts12-n2s"], seed="0-2", data_root=str(tree), out=str(out),
        say=quiet, **SMALL,
    )  # fmt: skip
    assert list(looks["state"]) == ["done", "done", "new", "done", "done", "new"] and "miou" not in looks
    assert set(ran["cell"]) <= set(looks["cell"]) and records(out) == before


def test_the_command_makes_the_same_cell(ran, tree, out, tmp_path, monkeypatch, capsys):
    small = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items() if name != "allow_partial"]
    code = run_main(monkeypatch, [
        "run", "-m", "nearest-mean", "-b", "mts12-n2s", "--data-root", tree, "--out", tmp_path, "--allow-partial",
        *small,
    ])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    ((name, record),) = records(tmp_path).items()
    assert name in records(out) and records(out)[name]["scores"] == record["scores"]


@pytest.mark.parametrize(("python", "text"), [
    ({"option": {"rank": 4, "alpha": 8.0}}, {"option": ["rank=4", "alpha=8"]}),
    ({"option": {"train-norms": False}}, {"option": "train_norms=false"}),
    ({"grid": {"rank": [2, 4]}}, {"grid": ["rank=2,4"]}),
    ({"backbone_size": {**SIZES, "depth": 1}}, {"backbone_size": ["width=32", "depth=1", "heads=2", "patch=8"]}),
    ({"input_scale": 2}, {"input_scale": "2"}),
    ({"method": "lora+swad", "objective_option": {"swad": {"end_patience": 2}}},
     {"method": ["lora+swad"], "objective_option": ["swad.end_patience=2"]}),
])  # fmt: skip
def test_values_of_python_mean_what_their_texts_do(tree, tmp_path, python, text):
    usual = {"method": "lora", "benchmark": "mts12-n2s", "backbone": "compact", "data_root": tree, "out": tmp_path}
    ours, theirs = (plan(**{**usual, **SMALL, **given}, say=quiet) for given in (python, text))
    assert list(ours["cell"]) == list(theirs["cell"]) and len(ours) == (2 if "grid" in python else 1)


def test_methods_are_made_with_options():
    assert make_method("lora", {"rank": 4}).rank == spectral_tl_bench.make_method("lora", {"rank": "4"}).rank == 4
    with pytest.raises(MethodError, match="did you mean rank"):
        spectral_tl_bench.make_method("lora", {"rnak": 4})


@pytest.mark.parametrize(("wrong", "kind", "said"), [
    ({"method": "lroa"}, MethodError, "did you mean lora"),
    ({"benchmark": "mts12-n2"}, BenchmarkError, "did you mean"),
    ({"benchmark": []}, UserError, "names no benchmark"),
    ({"seed": -1}, UserError, "no seed"),
    ({"steps": 0}, UserError, "--steps"),
    ({"option": {"rank": "many"}, "method": "lora"}, MethodError, "rank"),
    ({"accelerator": "tpu"}, UserError, "one of auto, cpu, gpu"),
    ({"on_oom": "wait"}, UserError, "--on-oom"),
    ({"checkpoint_every": "10"}, UserError, "no time"),
    ({"logger": "tensorbored"}, UserError, "tensorbored"),
    ({"plan": "no.yaml", "method": None, "benchmark": None, "seed": None}, UserError, "no.yaml"),
    ({"data_root": "/nowhere/at/all"}, DataError, "cannot run"),
])  # fmt: skip
def test_a_mistake_is_the_error_of_the_command(tree, tmp_path, wrong, kind, said):
    usual = {"method": "majority", "benchmark": "mts12-n2s", "seed": 0, "data_root": tree}
    usual |= {} if "plan" in wrong else SMALL
    with pytest.raises(kind, match=said):
        run(**{**usual, **wrong}, out=tmp_path / "runs", say=quiet)
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize(("wrong", "meant"), [("learning_rat", "learning_rate"), ("acelerator", "accelerator")])
def test_an_unknown_argument_is_a_type_error_that_tells_what_was_meant(wrong, meant):
    with pytest.raises(TypeError, match=rf"there is no argument '{wrong}': did you mean {meant}\b"):
        run(method="majority", benchmark="mts12-n2s", **{wrong: 0.1})


def test_what_cannot_run_is_a_row_where_the_rest_can(tree, tmp_path, own):
    rows = run(
        method="majority", benchmark=["mts12-n2s", "whuohs-s2t"], data_root=tree, out=tmp_path, jobs=1, say=quiet,
        **SMALL,
    )  # fmt: skip
    assert list(rows["state"]) == ["done", "refused"] and list(rows["benchmark"]) == ["mts12-n2s", "whuohs-s2t"]
    assert rows["reason"][1] and rows["record"][1] is None


@pytest.mark.slow
def test_a_script_without_a_main_guard_runs_once(tree, tmp_path):
    """Cells in processes of their own: these must not run the script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import spectral_tl_bench as stb\nprint('once')\n"
        f"rows = stb.run(method='majority', benchmark='mts12-n2s', seed=[0, 1], data_root={str(tree)!r}, jobs=2,"
        f" out='runs', **{SMALL!r})\nprint(*rows.state)\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True
    )
    assert done.stdout.count("once\n") == 1 and done.stdout.endswith("done done\n"), done.stderr

"""``stbench tune``: what it prints, where it goes on, and mistakes that are answered before anything is trained."""

from __future__ import annotations

import pytest
from tiny import SIZES, make_tree, run_main

from spectral_tl_bench.results.store import read_records


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tuning"))


@pytest.fixture
def stbench(monkeypatch):
    return lambda *arguments: run_main(monkeypatch, arguments)


@pytest.fixture
def small(tree, tmp_path):
    sizes = [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]
    return ["--steps", 2, "--batch-size", 2, "--validations", 1, "--backbone", "compact", *sizes, "--allow-partial",
            "--accelerator", "cpu", "--data-root", tree, "--out", tmp_path / "runs", "--jobs", 1]  # fmt: skip


def test_the_draws_are_shown_without_the_target_and_the_choice_is_run(stbench, small, tmp_path, capsys):
    command = ["tune", "pixel-mlp", "-b", "mts12-n2s", "--budget", 2, "-s", 1, "-s", 0, *small]
    assert stbench(*command, "--no-run") == 0
    out = capsys.readouterr().out
    assert "2 random draws from learning_rate=0.0004..0.04; seed 1, source validation only" in out
    assert "target mIoU" not in out and "testing" not in out
    table = out[out.index("rank  draw") :].splitlines()
    values = [float(line.split()[2]) for line in table[1:3]]
    assert values == sorted(values, reverse=True) and "the choice: --learning-rate" in out
    assert table[-1].startswith("to run it, with the search in its records: stbench tune pixel-mlp")
    assert "--no-run" not in table[-1] and not list((tmp_path / "runs").rglob("record.json"))
    assert len(list((tmp_path / "runs" / ".tune").rglob("draw-*.json"))) == 2
    assert stbench(*command) == 0
    out = capsys.readouterr().out
    assert "2 of 2 draws were tried before" in out and out.count("done") >= 2
    records = read_records([tmp_path / "runs"])
    assert sorted(record.seed for record in records) == [0, 1]
    first, second = (record.tuning for record in records)
    assert first == second and first.seed == 1 and len(first.draws) == 2
    rates = {record.settings["budget"]["learning_rate"] for record in records}
    assert rates == {first.choice.settings["learning_rate"]}


def test_a_grid_that_is_smaller_than_the_budget_says_so(stbench, small, capsys):
    command = ["tune", "pixel-mlp", "-b", "mts12-n2s", "--search", "grid", "--space", "hidden=4,8", "--no-run", *small]
    assert stbench(*command) == 0
    out = capsys.readouterr().out
    assert "2 grid draws: there are no more (--budget 20) from hidden=4,8" in out and "-o hidden=" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pixel-mlp", "-b", "cross-region"], "the source of one benchmark is the target of another"),
        (["pixel-mpl", "-b", "mts12-n2s"], "pixel-mlp"),
        (["pixel-mlp", "-b", "mts12-n2s", "--space", "hiden=4,8"], "did you mean hidden"),
        (["pixel-mlp", "-b", "mts12-n2s", "--space", "steps=4,8"], "--space steps"),
        (["pixel-mlp", "-b", "mts12-n2s", "--space", "hidden=4"], "one value is -o"),
        (["pixel-mlp", "-b", "mts12-n2s", "--space", "hidden=4,0"], "hidden"),
        (["pixel-mlp", "-b", "mts12-n2s", "--space", "hidden=4,8", "--space", "hidden=2,3"], "given twice"),
        (["pixel-mlp", "-b", "mts12-n2s", "--space", "hidden=4,8", "-o", "hidden=4"], "set by -o hidden=4"),
        (["pixel-mlp", "-b", "mts12-n2s", "--learning-rate", "0.1"], "nothing to search"),
        (["pixel-mlp", "-b", "mts12-n2s", "--learning-rate", "-1"], "--learning-rate"),
        (["pixel-mlp", "-b", "mts12-n2s", "--training-budget", "large"], "large"),
        (["pixel-mlp", "-b", "mts12-n2s", "--search", "bayes"], "random or grid"),
        (["pixel-mlp", "-b", "mts12-n2s", "--budget", "0"], "--budget"),
        (["majority", "-b", "mts12-n2s"], "nothing to search"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_before_anything_is_trained(stbench, small, tmp_path, capsys, arguments, message):
    assert stbench("tune", *arguments, *small) == 2
    printed = capsys.readouterr()
    assert message in printed.err.replace("\n", " ") + printed.out and "Traceback" not in printed.err
    assert not (tmp_path / "runs" / ".tune").exists()

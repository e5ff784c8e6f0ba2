"""What is given twice is an error on every verb, and ~ is the home folder in every path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tiny import run_main
from typer.testing import CliRunner

from spectral_tl_bench.cli.main import app
from spectral_tl_bench.cli.strict import make_strict

RUN = ("run", "-m", "lora+vrex", "-b", "mts12-n2s")


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Runs a command that must be refused and leave nothing, and gives what it says."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        code = run_main(monkeypatch, arguments)
        err = capsys.readouterr().err
        assert code == 2 and "Traceback" not in err and list(tmp_path.iterdir()) == []
        return err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*RUN, "-o", "rank=4", "-o", "rank=8"), "rank is given twice: rank=4 and rank=8"),
        ((*RUN, "-o", "rank=4", "--option", "rank=4"), "rank=4 and rank=4"),
        ((*RUN, "-o", "weight-decay=1", "-o", "weight_decay=2"), "weight_decay=1 and weight_decay=2"),
        ((*RUN, "-o", " rank = 4", "-o", "rank=8"), "rank=4 and rank=8"),
        ((*RUN, "-O", "vrex.weight=1", "-O", "vrex.weight=2"), "vrex.weight=1 and vrex.weight=2"),
        ((*RUN, "-O", "vrex.a-b=1", "-O", "vrex.a_b=2"), "vrex.a_b=1 and vrex.a_b=2"),
        ((*RUN, "--backbone-size", "width=1", "--backbone-size", "width=2"), "width=1 and width=2"),
        ((*RUN, "--steps", "5", "--steps", "6"), "--steps is given twice: 5 and 6"),
        ((*RUN, "--steps", "5", "--steps=5", "--steps", "6"), "--steps is given 3 times: 5 and 5 and 6"),
        ((*RUN, "--out", "a", "--out=b"), "--out is given twice: a and b"),
        ((*RUN, "--oracle", "--oracle"), "--oracle is given twice"),
        (("backbones", "--count", "--no-count"), "--count is given twice"),
        (("cache", "clear", "--older-than", "3d", "--older-than", "2d"), "3d and 2d"),
        (("cache", "clear", "-y", "--yes"), "--yes is given twice"),
        (("plot", "gap", "--out", "a.png", "--out", "b.png"), "a.png and b.png"),
        (("report", "--out", "a", "--out", "b"), "a and b"),
        (("compare", "a", "b", "--track", "x", "--track", "y"), "x and y"),
        (("methods", "probe", "lora", "-b", "x", "--benchmark", "y"), "--benchmark is given twice: x and y"),
        (("methods", "show", "lora", "--backbone", "x", "--backbone", "y"), "x and y"),
        (("check-method", "lora", "-o", "rank=1", "-o", "rank=2"), "rank=1 and rank=2"),
        (("submit", "--results", "a", "--results", "b"), "a and b"),
    ],
)
def test_what_is_given_twice_is_refused(refused, arguments, said):
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnu",), "has no command rnu\n  expected: did you mean run?"),
        (("data", "gett"), "data` has no command gett\n  expected: did you mean get?"),
        (("run", "--method"), "--method has no value\n  expected: --method VALUE"),
        (("run", "--jobs", "two"), "--jobs: "),
        (("predict",), "predict` needs MODEL\n  expected: selected.safetensors of a run"),
        (("run", "--epochs", "3"), "no option --epochs\n  expected: did you mean --steps?"),
        (("run", "--model", "x"), "did you mean --backbone or --method?"),
        (("plan", "publishd"), "to do: stbench plan published --table I"),
    ],
)
def test_what_typer_refuses_is_said_as_all_else(refused, arguments, said):
    told = refused(*arguments)
    assert told.startswith("error: ") and said in told and "  to do: " in told


def test_what_may_be_repeated_is_not_refused(monkeypatch, capsys, tmp_path):
    from spectral_tl_bench.runner import run as run_module

    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "plan", lambda requests, say: asked.extend(requests) or ([], []))
    names = ("-m", "lora", "-m", "full", "-m", "lora", "-b", "all", "-b", "mts12-n2s", "-s", "0", "-s", "0")
    assert run_main(monkeypatch, ("run", *names, "-o", "rank=4", "-o", "alpha=4")) == 0
    assert asked[0].seeds == [0] and asked[0].options == {"rank": "4", "alpha": "4"}
    assert run_main(monkeypatch, ("run", "--help", "--help")) == 0 and "Usage" in capsys.readouterr().out


def test_every_verb_is_strict():
    """Also those that are added later: no verb of the app was registered behind its back."""
    from typer.main import get_command

    open_ends, verbs = [get_command(app)], []
    while open_ends:
        command = open_ends.pop()
        verbs.append(command)
        open_ends += list(getattr(command, "commands", {}).values())
    assert len(verbs) > 15 and all(type(command).__name__.startswith("Strict") for command in verbs)


def test_home_is_meant_by_a_tilde_in_any_path(monkeypatch, tmp_path):
    small, got = typer.Typer(), []

    @small.command()
    def verb(name: str = "~", out: Path = Path("runs"), records: list[Path] | None = None) -> None:
        got.extend([name, out, records])

    make_strict(small)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    arguments = ["--out=~/a, b", "--records", "~", "--records", "x/~"]
    assert CliRunner().invoke(small, arguments).exit_code == 0
    assert got == ["~", tmp_path / "a, b", [tmp_path, Path("x/~")]]


def test_a_home_that_is_not_there(refused):
    assert re.search(r"'~no-such-user-here/x'.*no such home folder", refused(*RUN, "--out=~no-such-user-here/x"))
    assert "no such home folder" in refused("run", "-m", "lora", "-b", "~no-such-user-here/my.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "-m", "lora", "--benchmrk", "all"), "has no option --benchmrk\n  expected: did you mean --benchmark?"),
        (("run", "--learning_rate", "1"), "expected: did you mean --learning-rate?\n"),
        (("run", "--lr", "1"), "did you mean --learning-rate?"),
        (("run", "--sed", "1"), "did you mean --seed or --seeds?"),
        (("run", "--zzz"), "--help` lists them"),
        (("run", "-x"), "has no option -x"),
        (("run", "--benchmrk=all"), "did you mean --benchmark?"),
        (("report", "--recrods", "x"), "did you mean --records?"),
        (("data", "check", "mts12-n2s", "--data-rot", "x"), "did you mean --data-root?"),
        (("methods", "show", "lora", "--bakbone", "x"), "did you mean --backbone or --backbone-size?"),
        (("--versio",), "did you mean --version?"),
        (("run", "-m", "lora", "-b", "all", "-steps", "3"), "two dashes: --steps"),
        (("run", "lora", "-b", "all"), "takes no argument lora\n  expected: a value behind its option, as in -m lora"),
        (("compare", "a", "b", "c"), "takes no argument c\n  to do"),
    ],
)
def test_a_misspelt_option_is_answered_with_what_it_may_have_been(refused, arguments, said):
    assert said in refused(*arguments)


def test_an_option_that_is_hidden_is_not_proposed(refused):
    assert "--only" not in refused("run", "--onl", "x")


def test_a_shell_completes_options_and_names(monkeypatch, tmp_path):
    command = Path(sys.executable).with_name("stbench")
    if not command.is_file():
        pytest.skip("the command is not installed beside Python")
    for words, wanted in (
        ("stbench run --benchm", ["--benchmark"]),
        ("stbench run -m full", ["full"]),
        ("stbench run -b mts12-", ["mts12-id", "mts12-n2s", "mts12-s2n"]),
        ("stbench rep", ["report"]),
    ):
        environment = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
                       "_STBENCH_COMPLETE": "complete_bash"}  # fmt: skip
        done = subprocess.run([command], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert sorted(done.stdout.split()) == wanted and done.stderr == ""

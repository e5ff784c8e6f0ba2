"""The verb: what it prints, how it ends, and that it says what to do next."""

from __future__ import annotations

import pytest
from submitting import edit
from tiny import run_main

from spectral_tl_bench.leaderboard.submit.truth import read_truths


@pytest.fixture
def stbench(world, monkeypatch, capsys):
    """Runs ``stbench submit`` at the top of a checkout; gives exit code, output and errors."""
    monkeypatch.chdir(world.root / "checkout")

    def run(*arguments):
        code = run_main(monkeypatch, ["submit", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_submit_then_check(stbench, world, record):
    code, out, err = stbench(world.runs)
    assert code == 0 and err == "" and "1 records are in leaderboard/results; next: stbench report" in out
    assert "leaderboard/results/sample/pixel-mlp.jsonl" in out
    assert stbench("--check")[0] == 0
    code, out, _ = stbench("--check", "leaderboard/results")
    assert code == 0 and out.splitlines()[1].split()[:4] == ["sample", "mts12-n2s", "pixel-mlp", "1"]


def test_refusals_end_with_1_and_stand_on_one_line_each(stbench, world, record):
    edit(record.path, lambda value: value.update(device="\x1b[2J\n::error::<script>"))
    code, out, err = stbench(world.runs)
    assert code == 1 and err == "" and out.endswith("nothing was published\n") and world.files() == []
    assert "\x1b" not in out and not any(line.startswith("::") for line in out.splitlines())
    assert "key 'device' holds a control character (U+001B)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no run is named"),
        (("no/such/run",), "there is no such run"),
        (("--check", "a", "b"), "takes one folder"),
        (("--check", "no/such/folder"), "no results to check"),
        ((".", "--changed-from", "HEAD"), "belongs to --check"),
        ((".", "--write-truth", "mts12-n2s"), "stands by itself"),
        (("--write-truth", "mts12-n2z"), "did you mean"),
        (("--check", "--changed-from", "HEAD"), "git cannot say what changed"),
    ],
)
def test_mistakes_end_with_2(stbench, world, arguments, message):
    code, _, err = stbench(*arguments)
    assert code == 2 and message in err and "Traceback" not in err and world.files() == []


def test_outside_a_checkout_nothing_is_made(stbench, world, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, _, err = stbench(world.runs)
    assert code == 2 and "at the top of a checkout" in err and list((tmp_path / "elsewhere").iterdir()) == []


def test_truth_is_written_where_the_data_are(stbench, world, own):
    code, out, _ = stbench("--write-truth", own.yaml, "--write-truth", "mts12-n2s")
    assert code == 0 and "4 target chips" in out
    assert {key[0] for key in read_truths(world.truths)} == {"mine", "mts12-n2s"}
    assert stbench(world.runs, "--without-sample")[0] == 0, "the kept truth does where the sample is not made"

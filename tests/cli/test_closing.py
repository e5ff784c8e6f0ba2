"""What a run closes with: cells and records, means, floor, in-domain reference and drop, and what to do next."""

from __future__ import annotations

import re
import statistics

import pytest
from tiny import SIZES, make_tree, run_main

from spectral_tl_bench.cli.closing import in_ranges
from spectral_tl_bench.leaderboard.board import floors
from spectral_tl_bench.leaderboard.measured import measure_record
from spectral_tl_bench.results.store import read_records

SMALL = ("--steps", 2, "--pretrain-steps", 1, "--batch-size", 2, "--validations", 1, "--backbone", "compact",
         *(part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")), "--jobs", 1,
         "--accelerator", "cpu", "--allow-partial")  # fmt: skip


@pytest.fixture
def stbench(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, in a folder of its own; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_main(monkeypatch, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("tree"))


def summary(out: str) -> dict[tuple[str, str], list[str]]:
    """The cells of the summary by benchmark and method."""
    lines = out.split("mean over the seeds in this folder\n")[1].splitlines()
    head, rows = re.split(r" {2,}", lines[0]), []
    for line in lines[1:]:
        if len(cells := re.split(r" {2,}", line.strip())) < len(head):
            break
        rows.append(cells)
    return {(row[0], row[1]): row[2:] for row in rows}


def test_means_floor_reference_drop_and_what_is_next(stbench, tree, tmp_path):
    both = ("run", "-m", "nearest-mean", "-m", "majority", "--seeds", 2, "--data-root", tree, *SMALL)
    code, out, err = stbench(*both, "-b", "mts12-n2s")
    assert code == 0, err
    records = read_records([tmp_path / "runs"])
    assert len(records) == 4 and all(record.fingerprint[:8] in out for record in records), "by which `show` finds them"
    scores = [record.scores.selected.miou for record in records if record.method == "nearest-mean"]
    floor = floors([measure_record(record) for record in records])[0].scores.miou
    row = summary(out)["mts12-n2s", "nearest-mean"]
    target = f"{100 * statistics.mean(scores):.2f} ± {100 * statistics.stdev(scores):.2f} %"
    assert row == ["0-1", target, f"{100 * floor:.2f} %", "-", "-"]
    assert summary(out)["mts12-n2s", "majority"][1].split()[0] == f"{100 * floor:.2f}"
    (line,) = [line for line in out.splitlines() if line.startswith("for in-domain and drop: ")]
    assert line.endswith("--benchmark=mts12-id") and "--method=nearest-mean" in line and "--seeds=2" in line
    assert "results: runs" in out and "next: stbench report " in out and "stbench compare nearest-mean majority" in out

    again = line.removeprefix("for in-domain and drop: ").split()[1:]
    code, out, err = stbench(*again, "--jobs", 1)
    assert code == 0, err
    row = summary(out)["mts12-id", "nearest-mean"]
    assert row[3:] == ["-", "-"] and "for in-domain" not in out, "it is one itself"
    code, out, _ = stbench(*both, "-b", "mts12-n2s")
    inside = [one.scores.selected.miou for one in read_records([tmp_path / "runs" / "mts12-id" / "nearest-mean"])]
    drop = statistics.mean(inside) - statistics.mean(scores)
    assert summary(out)["mts12-n2s", "nearest-mean"][3:] == [
        f"{100 * statistics.mean(inside):.2f} %",
        f"{100 * drop:.2f}",
    ]
    assert "for in-domain" not in out


def test_one_seed_of_a_benchmark_of_ones_own_in_another_folder(stbench, own, tmp_path, monkeypatch):
    run = ("run", "-m", "nearest-mean", "-b", own.yaml, *SMALL, "--window", 16)
    code, out, err = stbench(*run, "--out", "else where")
    assert code == 0, err
    assert "one seed each" in out and "--seeds 3" in out
    assert "for in-domain and drop of mine: a benchmark of the same dataset with `gap: none`" in out
    assert "next: stbench report --records 'else where'" in out and "compare" not in out
    monkeypatch.setenv("STBENCH_RESULTS", "else where")
    code, out, _ = stbench(*run)
    assert code == 0 and "finished before" in out and "next: stbench report  " in out
    assert not (tmp_path / "runs").exists()
    for verb in (("status",), ("show",), ("compare",), ("logs", "mine/nearest-mean"), ("plan", *run[1:5])):
        code, out, err = stbench(*verb)
        assert code == 0 and "nearest-mean" in out, err


def test_a_damaged_neighbour_does_not_spoil_the_end(stbench, own, tmp_path):
    run = ("run", "-m", "nearest-mean", "-b", own.yaml, *SMALL, "--window", 16)
    assert stbench(*run)[0] == 0
    (record,) = (tmp_path / "runs").rglob("record.json")
    other = record.parents[1] / ("0" * 16) / "record.json"
    other.parent.mkdir()
    other.write_text("{")
    code, out, err = stbench(*run)
    assert code == 0 and "nothing is summed up" in err and "target mIoU" in out and "results: runs" in out


@pytest.mark.parametrize(
    ("seeds", "said"),
    [((), ""), ((0,), "0"), ((0, 1, 2), "0-2"), ((0, 2, 3, 7), "0,2-3,7"), ((5, 6), "5-6")],
)
def test_seeds_in_ranges(seeds, said):
    assert in_ranges(seeds) == said


def test_a_job_gets_the_folder_that_a_variable_names(stbench, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("STBENCH_RESULTS", str(tmp_path / "named"))
    run = ("run", "-m", "majority", "-b", "mts12-n2s", "--data-root", tree, *SMALL)
    code, _, err = stbench(*run, "--executor", "sbatch-script", "--slurm", "partition=x")
    assert code == 0, err
    (script,) = (tmp_path / "named" / ".jobs").glob("*.sh")
    assert f"--out={tmp_path / 'named'} --only" in script.read_text(), "its shell may not have the variable"

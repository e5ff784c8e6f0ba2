"""The plans of the results on real chips can be read, and the script that runs them says where the weights are."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest
from shared import REPOSITORY

from spectral_tl_bench.api.results import board
from spectral_tl_bench.results.store import read_records
from spectral_tl_bench.runner.blocks import check_names, requests
from spectral_tl_bench.runner.plan_file import read_plan

FOLDER = REPOSITORY / "docs" / "real-chips"
PLANS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_names_what_there_is_and_trains_until_a_plateau(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    blocks = read_plan(path)
    for block in blocks:
        check_names(block)
    asked = [request for block in blocks for request in requests(block, {})]
    assert len(asked) == len(blocks) >= 2
    seeds = (1,) if path.stem == "rates" else (3, 5)  # a search has one
    assert all(request.overrides.until_plateau and len(request.seeds) in seeds for request in asked)


def test_the_script_runs_each_plan_with_the_users_weights(tmp_path):
    for name in ("chips", "weights", "bin"):
        (tmp_path / name).mkdir()
    called = tmp_path / "bin" / "stbench"
    called.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\n')
    called.chmod(0o755)
    calls = tmp_path / "calls"
    subprocess.run(
        ["sh", FOLDER / "run.sh", tmp_path / "chips", tmp_path / "weights", tmp_path / "out", "frozen", "ablation"],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(calls)}, check=True, cwd=tmp_path,
    )  # fmt: skip
    lines = calls.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["run", "run", "report"]
    assert f"--data-root {tmp_path / 'chips'}" in lines[0]
    written = (tmp_path / "out" / "frozen.yaml").read_text()
    assert f"weights: {tmp_path / 'weights'}/dinov2-vits14.safetensors" in written
    assert "weights: none" in written


@pytest.fixture
def figure():
    spec = importlib.util.spec_from_file_location("figure_of_results", FOLDER / "figure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_differences_and_rates_are_those_of_the_committed_board(figure):
    results = REPOSITORY / "leaderboard" / "results"
    lines = figure.differences(board(results, "demonstration"), figure.rows())
    page = (REPOSITORY / "docs" / "results.md").read_text()
    assert len(lines) > 10 and [line for line in lines if line not in page] == []
    by_rate = figure.rates(read_records([results / "demonstration"]))
    assert len(by_rate) > 10 and [line for line in by_rate if line not in page] == []


def test_the_figure_is_drawn_from_the_committed_board(figure, tmp_path, monkeypatch, capsys):
    chosen = figure.rows()
    means = [float(row["mean"]) for row in chosen.values()]
    assert len(chosen) >= 6 and means == sorted(means, reverse=True)
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(figure, "ROOT", tmp_path)
    figure.main()
    picture = (tmp_path / "docs" / "results-real.svg").read_text()
    table = capsys.readouterr().out
    for row in chosen.values():
        assert figure.title(row) in picture
        assert f"`{row['method']}`" in table
        assert figure.title(row) in (REPOSITORY / "docs" / "results-real.svg").read_text()
    page = (REPOSITORY / "docs" / "results.md").read_text()
    assert [line for line in table.splitlines() if line not in page] == []

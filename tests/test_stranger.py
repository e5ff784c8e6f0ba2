"""The way of somebody who has never seen the suite: a method of one's own, from nothing to the leaderboard.

Each step is a command in a new virtual environment, as the documentation has it, on the bundled sample.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments import install_in_place, new_environment

NAME = "strangers-own"
BENCHMARKS = ("mts12-n2s", "whuohs-s2t")

pytestmark = pytest.mark.slow


@dataclass
class Stranger:
    """A person with a folder, a virtual environment and the commands of the suite."""

    home: Path
    python: Path

    def stbench(self, *arguments: object, at: Path | None = None) -> str:
        """Run a command that has to succeed; its output."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "STBENCH_DATA"))
        }
        done = subprocess.run(
            [self.python, "-m", "spectral_tl_bench.cli.main", *map(str, arguments)],
            cwd=at or self.home, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
            timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"stbench {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    """A new environment that finds what is installed in this one."""
    home = tmp_path / "home"
    home.mkdir()
    return Stranger(home, new_environment(tmp_path / "venv"))


@pytest.mark.skipif(sys.platform == "win32", reason="virtual environments have another layout there")
def test_from_nothing_to_the_leaderboard(stranger: Stranger) -> None:
    home = stranger.home
    stranger.stbench("init-method", NAME)
    assert (home / NAME / "pyproject.toml").is_file()
    install_in_place(stranger.python, home / NAME)
    assert NAME in stranger.stbench("methods")
    assert "passes" in stranger.stbench("check-method", NAME, "--quick")

    named = [part for name in BENCHMARKS for part in ("--benchmark", name)]
    stranger.stbench(
        "run", "--method", NAME, *named, "--seed", 0, "--seed", 1, "--steps", 4, "--validations", 1, "--jobs", 1
    )
    checkout = home / "checkout"
    (checkout / "leaderboard").mkdir(parents=True)
    said = stranger.stbench("submit", home / "runs", at=checkout)
    assert "4 records are in leaderboard/results" in said
    assert "fingerprint" not in said, "it was computed again: the method is installed here"
    published = checkout / "leaderboard" / "results" / "sample"
    lines = [json.loads(line) for line in (published / f"{NAME}.jsonl").read_text().splitlines()]
    assert [(line["benchmark"], line["seed"]) for line in lines] == [(b, s) for b in sorted(BENCHMARKS) for s in (0, 1)]
    assert all(line["numerics"][f"method {NAME}"].startswith(NAME) for line in lines), "its package's version"
    assert (published / f"{NAME}.parquet").is_file()
    assert "4 records: nothing has to be refused" in stranger.stbench("submit", "--check", at=checkout)

    stranger.stbench("report", "--records", "leaderboard/results", "--out", "leaderboard", at=checkout)
    board = (checkout / "leaderboard" / "tables" / "board-sample.md").read_text()
    (row,) = [line for line in board.splitlines() if line.startswith(f"| 1 | {NAME} |")]
    assert "0, 1" in row, "first of one, with both seeds"
    pages = {path: path.read_text(encoding="utf-8") for path in (checkout / "leaderboard" / "site").rglob("*.html")}
    assert any(path.name == "index.html" and NAME in text for path, text in pages.items()), "not on the first page"

"""The notebooks of docs/notebooks, from the first cell to the last, each in an empty folder and environment."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from environments import new_environment
from shared import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert path.stat().st_size < 20_000 and str(Path.home()) not in path.read_text(encoding="utf-8")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A kernel in a new environment that finds what is installed in this one, and can install more; its name."""
    home = tmp_path / "venv"
    new_environment(home)
    command = home / "bin" / "stbench"
    command.write_text(f"#!{home}/bin/python\nfrom spectral_tl_bench.cli.main import main\nmain()\n")
    command.chmod(0o755)
    spec = tmp_path / "jupyter" / "kernels" / "stranger"
    spec.mkdir(parents=True)
    words = [f"{home}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "stranger", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", f"{home}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return "stranger"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, kernel, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    folder = tmp_path / "work"
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name=kernel, resources={"metadata": {"path": str(folder)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    frames = [output for output in shown if "text/html" in output.get("data", {})]
    assert len(frames) >= 4 and list(folder.rglob("record.json"))
    said = "".join(output.get("text", "") for output in shown)
    CHECKS[path.stem](folder, shown, said)


def _figures(folder: Path, shown: list[Any], _said: str) -> None:
    assert (folder / "forest.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3


def _method(folder: Path, shown: list[Any], said: str) -> None:
    assert "spectral-mean passes" in said
    assert len(list((folder / "runs" / "mts12-n2s" / "spectral-mean").iterdir())) >= 2
    assert any("SpectralMean(side=5" in output.get("data", {}).get("text/plain", "") for output in shown)


CHECKS = {"from-a-record-to-a-figure": _figures, "my-method-in-ten-minutes": _method}

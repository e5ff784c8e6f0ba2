"""Folders of processes that were killed are removed, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from spectral_tl_bench.storage import scratch, sweep_scratch

KILLED = """
import os, sys
from spectral_tl_bench.storage import scratch
with scratch() as folder:
    (folder / "checkpoint").write_text("x")
    print(folder, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_and_then_gone(temporary):
    with scratch() as folder:
        assert folder.is_dir() and not list(folder.iterdir()) and folder.is_relative_to(temporary)
        assert sweep_scratch() == [], "this process lives"
        assert folder.is_dir()
    assert list(temporary.iterdir()) == []
    with pytest.raises(KeyError), scratch() as folder:
        (folder / "file").write_text("x")
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_that_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(temporary):
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    folder = process.stdout.readline().strip()
    assert sweep_scratch() == [] and Path(folder, "checkpoint").exists()
    process.communicate("\n", timeout=30)
    assert process.returncode == -9 and Path(folder, "checkpoint").exists()
    (removed,) = sweep_scratch()
    assert folder.startswith(str(removed)) and list(temporary.iterdir()) == []


def test_what_is_not_known_to_be_abandoned_stays(temporary, monkeypatch):
    names = ["stbench-abcdef", "stbench-other-host-1~12~abc", ".stbench-new-abc", "stbench-0"]
    with scratch() as folder:
        own = folder.parent.name
        names.append(f"{own.rpartition('~')[0]}~nolock")
    names.append(own)  # a link, that leads elsewhere
    for name in names[:-1]:
        (temporary / name).mkdir()
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".in-use").write_text("")
    (temporary / own).symlink_to(elsewhere)
    assert sweep_scratch() == []
    left = temporary / f"{own}x"
    left.mkdir()
    (left / ".in-use").write_text("")
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert sweep_scratch() == [] and left.is_dir(), "another user's"
    monkeypatch.undo()

"""Users without a home or an account, and libraries that ask for one."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from spectral_tl_bench.storage.place import stand_in_for_home

VARIABLES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_HOME", "LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A user without a home, a name or an account; gives the temporary folder."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "set so that it is taken back")
        monkeypatch.delenv(name)
    monkeypatch.setattr("pwd.getpwuid", lambda number: (_ for _ in ()).throw(KeyError(number)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_libraries_get_a_folder_and_a_name(nobody):
    stand_in_for_home()
    folder = nobody / f"stbench-{os.getuid()}"
    assert {os.environ[name] for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_HOME")} == {str(folder)}
    assert folder.stat().st_mode & 0o777 == 0o700 and getpass.getuser() == f"uid-{os.getuid()}"


def test_what_is_set_stays(nobody, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/mine")
    monkeypatch.setenv("LOGNAME", "me")
    stand_in_for_home()
    assert os.environ["XDG_CONFIG_HOME"] == "/mine" and "USER" not in os.environ and getpass.getuser() == "me"


def test_whoever_has_a_home_is_left_alone(nobody, monkeypatch):
    monkeypatch.setenv("HOME", str(nobody))
    monkeypatch.setattr("pwd.getpwuid", lambda number: ("me",))
    before = dict(os.environ)
    stand_in_for_home()
    assert dict(os.environ) == before and list(nobody.iterdir()) == []


def test_a_folder_of_somebody_else_is_not_taken(nobody):
    (nobody / f"stbench-{os.getuid()}").mkdir(mode=0o777)
    (nobody / f"stbench-{os.getuid()}").chmod(0o777)
    stand_in_for_home()
    assert "XDG_CACHE_HOME" not in os.environ


@pytest.fixture
def open_folder(own):
    """A folder that everybody may write into, with a data set; those of pytest are its user's alone."""
    folder = Path(tempfile.mkdtemp(prefix="test-"))
    shutil.copytree(own.root, folder / "own")
    (folder / "work").mkdir()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_by_a_user_id_without_an_account(open_folder):
    become = [shutil.which("setpriv") or "", "--reuid=54321", "--regid=54321", "--clear-groups"]
    if not become[0] or os.geteuid() != 0:
        pytest.skip("only root may become another user, with setpriv")
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", "-m", "lora", "-b", "../own/mine.yaml"]
    command += ["--data-root", "../own", "--backbone", "compact", "--steps", "1", "--window", "16", "--jobs", "1"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*become, *command], cwd=open_folder / "work", env=environment, timeout=300, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    assert {path.name for path in (open_folder / "work").iterdir()} == {"runs"}, "no folder is called ~"

"""A new package is whole, works as it is, and is written only where nothing is in the way."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny import install, run_main

from spectral_tl_bench.authoring import scaffold
from spectral_tl_bench.authoring.check import check_method, failures
from spectral_tl_bench.authoring.scaffold import contents, names_for, write_package
from spectral_tl_bench.errors import MethodError, UserError


def test_what_is_written_is_a_method_that_passes(tmp_path, monkeypatch):
    folder = write_package("tiny-new-one", tmp_path)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["spectral_tl_bench.methods"]
    assert (project["name"], entries) == ("tiny-new-one", {"tiny-new-one": "tiny_new_one:TinyNewOne"})
    code = (folder / "tiny_new_one" / "__init__.py").read_text()
    install(tmp_path / "site", "tiny_new_one", code, entries, monkeypatch)
    verdicts = check_method("tiny-new-one", {"width": "8"}, runs=False)
    assert not failures(verdicts) and {one.state for one in verdicts} == {"pass"}
    assert not failures(check_method("tiny-new-one@spectral", only=["logits", "trains"]))


def test_no_placeholder_stays_and_the_files_are_python(tmp_path):
    folder = write_package("my-new-method", tmp_path)
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {"README.md", "my_new_method/__init__.py", "pyproject.toml", "tests/test_my_new_method.py"}
    assert files == contents(names_for("my-new-method"))
    assert not any("$" in text for text in files.values())
    for name, text in files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    assert list(tmp_path.iterdir()) == [folder]
    mask = os.umask(0)
    os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora", "there is a method 'lora' already"),
        ("torch", "a package 'torch' is installed already"),
        ("json", "a module of it"),
        ("class", "a word of Python"),
        ("match", "a word of Python"),
        ("MyMethod", "take my-method"),
        ("my_method", "take my-method"),
        ("a--b", "take a-b"),
        ("-a", "take a"),
        ("3d", "such as my-method"),
        ("", "such as my-method"),
        ("../up", "take up"),
        ("a/b", "take a-b"),
        ("lora@mine", "take lora-mine"),
        ("méthode", "cannot be called"),
        ("x" * 41, "40 at most"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path, name, message):
    with pytest.raises(MethodError) as error:
        write_package(name, tmp_path)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_nothing_is_left_half_written(tmp_path, monkeypatch):
    (tmp_path / "my-new-method").mkdir()
    with pytest.raises(UserError, match="exists already"):
        write_package("my-new-method", tmp_path)
    (tmp_path / "my-link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="exists already"):
        write_package("my-link", tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        write_package("my-other", tmp_path / "missing")

    def breaks(names):
        yield from [("a.txt", "a"), ("b.txt", "b")]
        raise OSError(28, "No space left on device")

    class Broken(dict):
        def items(self):
            return breaks(None)

    monkeypatch.setattr(scaffold, "contents", lambda names: Broken())
    with pytest.raises(UserError, match="No space left"):
        write_package("my-other", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-link", "my-new-method"]
    assert list((tmp_path / "my-new-method").iterdir()) == []


def test_the_command_says_what_to_do_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, ["init-method", "my-new-method"]) == 0
    out = capsys.readouterr().out
    assert "pip install -e my-new-method" in out and "stbench check-method my-new-method" in out
    assert all(Path(line).is_file() for line in out.split("\n\n")[0].splitlines())
    assert run_main(monkeypatch, ["init-method", "my-new-method"]) == 2
    assert run_main(monkeypatch, ["init-method", "other-method", "--folder", tmp_path / "sub"]) == 2
    error = capsys.readouterr().err
    assert "exists already" in error and "mkdir -p" in error and "Traceback" not in error


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling, to build without a network")
def test_pip_installs_it_and_its_own_test_passes(tmp_path):
    folder = write_package("tiny-piped", tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, folder], check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests"],
        env={**os.environ, "PYTHONPATH": str(site)}, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr

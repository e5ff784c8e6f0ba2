"""How the Makefile installs: what uv is told of pip's configuration, and when pip does it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "install.py"


@pytest.fixture
def install():
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_is_told_what_pip_was(install):
    configuration = (
        ":env:.timeout='180'\n:env:.find-links='/wheels'\nglobal.cert='/ca.crt'\n"
        "global.index-url='https://mirror/simple'\nglobal.extra-index-url='\\nfile:///a\\nfile:///b'\n"
        "user.find-links='/wheels'\ninstall.constraint='pins.txt'\n"
    )
    assert install.for_uv(configuration) == [
        "--find-links", "/wheels", "--default-index", "https://mirror/simple", "--index", "file:///a",
        "--index", "file:///b", "--constraints", "pins.txt",
    ]  # fmt: skip
    assert install.for_uv("") == []


@pytest.mark.parametrize("line", ["global.trusted-host='mirror'", "install.no-binary=':all:'", "global.proxy='p:1'"])
def test_what_uv_cannot_be_told_is_left_to_pip(install, line):
    assert install.for_uv(f"global.index-url='https://mirror/simple'\n{line}") is None


@pytest.mark.parametrize(
    ("fails", "by"),
    [
        (lambda line: False, ["uv"]),
        (lambda line: " uv pip " in line, ["uv", "pip"]),
        (lambda line: line.endswith(" uv"), ["pip"]),
        (lambda line: " config " in line, ["pip"]),
    ],
)
def test_pip_installs_where_uv_cannot(install, monkeypatch, fails, by):
    calls = []

    def run(command, **_):
        line = " ".join(command)
        calls.append(line)
        return subprocess.CompletedProcess(command, int(fails(line)), stdout="")

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["install.py", "dev"])
    assert install.main() == 0
    assert ["uv" if " uv pip " in line else "pip" for line in calls if line.endswith("--editable .[dev]")] == by

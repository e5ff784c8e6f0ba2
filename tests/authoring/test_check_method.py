"""The command and its verdicts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from installing import entry
from tiny import run_main

from spectral_tl_bench.authoring.check import CHECKS, check_method, failures
from spectral_tl_bench.authoring.surroundings import settings, undone
from spectral_tl_bench.errors import UserError


@pytest.fixture
def check(monkeypatch, capsys):
    """Runs ``stbench check-method``; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        code = run_main(monkeypatch, ("check-method", *arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_pass_ends_with_0_and_leaves_the_verdicts(check, tmp_path):
    code, out, _ = check("pixel-mlp", "--quick", "-o", "hidden=5", "--json", tmp_path / "verdicts.json")
    assert code == 0 and "pixel-mlp passes" in out
    found = json.loads((tmp_path / "verdicts.json").read_text())
    assert (found["method"], found["options"], found["passed"]) == ("pixel-mlp", {"hidden": "5"}, True)
    names = [check.name for check in CHECKS if not check.runs]
    assert [one["check"] for one in found["verdicts"]] == names
    assert all(one["state"] == "pass" and one["title"] for one in found["verdicts"])
    assert all(name in out for name in names)


@pytest.mark.usefixtures("faulty")
def test_a_fail_ends_with_1_and_says_what_to_do(check, tmp_path):
    code, out, _ = check(entry("OneClassTooMany"), "--quick", "--json", tmp_path / "verdicts.json")
    assert code == 1 and "to do: one channel for each" in out and "needs logits" in out
    found = {one["check"]: one for one in json.loads((tmp_path / "verdicts.json").read_text())["verdicts"]}
    assert found["logits"]["state"] == "fail" and found["seed"]["state"] == "not applicable"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pixel-mpl",), "did you mean pixel-mlp?"),
        (("pixel-mlp", "-o", "hiden=3"), "did you mean hidden?"),
        (("pixel-mlp", "-o", "hidden"), "is not of the form name=value"),
        (("spectralx@papr",), "did you mean paper?"),
        (("lora+vrex",), "check the method alone: lora"),
        (("pixel-mlp", "--only", "wal"), "there is no check 'wal'"),
        (("pixel-mlp", "--backbone", "compac"), "there is no backbone 'compac'"),
    ],
)
def test_a_mistake_of_the_user_ends_with_2(check, tmp_path, arguments, message):
    code, _, error = check(*arguments, "--json", tmp_path / "verdicts.json")
    assert code == 2 and message in error and "Traceback" not in error
    assert not (tmp_path / "verdicts.json").exists()


def test_only_what_is_asked_for_and_what_that_needs():
    seen = []
    verdicts = check_method("pixel-mlp", only=["numbers"], on_verdict=seen.append)
    assert [one.check for one in verdicts] == ["cpu", "build", "logits", "numbers"] and seen == verdicts
    with pytest.raises(UserError, match="there is no check"):
        check_method("pixel-mlp", only=["everything"])


@pytest.mark.usefixtures("faulty")
def test_what_a_method_does_to_the_process_is_undone():
    torch.manual_seed(7)
    state, before = torch.get_rng_state(), settings()
    for name in ("SetsCudnn", "SetsEnvironment", "SetsSeed"):
        assert failures(check_method(entry(name), runs=False))
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), state)
    with undone():
        torch.set_default_dtype(torch.float64)
    assert torch.get_default_dtype() == torch.float32


def test_other_backbones_and_presets_can_be_checked():
    sizes = {"width": 24, "depth": 1, "heads": 2, "patch": 4}
    verdicts = check_method("spectralx@hypert", backbone_sizes=sizes, only=["windows", "files"])
    assert not failures(verdicts), "\n".join(map(str, failures(verdicts)))
    assert "64 px" in next(one for one in verdicts if one.check == "windows").reason


def test_nothing_heavy_is_imported_for_a_mistake():
    code = (
        "import sys\nfrom spectral_tl_bench.cli.main import main\nsys.argv[0] = 'stbench'\n"
        "try:\n    main()\nexcept SystemExit as ending:\n    print(ending.code, 'torch' in sys.modules)\n"
    )
    for arguments in (["init-method", "lora"], ["check-method", "pixel-mpl"], ["check-method", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=True
        )
        wanted = "0 False" if "--help" in arguments else "2 False"
        assert done.stdout.splitlines()[-1] == wanted, done.stdout + done.stderr


def test_titles_and_needs_are_in_order():
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for number, check in enumerate(CHECKS):
        assert check.title and set(check.needs) <= set(names[:number]), check.name

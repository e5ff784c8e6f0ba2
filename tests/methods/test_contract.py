"""Anybody's method is found through an entry point, checked, and run like ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from tiny import install, make_request, make_task, make_tree

from spectral_tl_bench.cli.main import main
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import Budget, Method, Stage
from spectral_tl_bench.methods.registry import check_known, distribution_of, load_method, make_method, method_entries
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.results.store import read_record, verify
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

PIXEL_MLP = '''
from torch import nn
from spectral_tl_bench.methods.base import Method

class PixelMLP(Method):
    """Looks at one pixel's spectrum at a time."""
    family = "floor"
    hidden: int = 8

    def build(self, task):
        return nn.Sequential(
            nn.Conv2d(task.num_bands, self.hidden, 1), nn.GELU(), nn.Conv2d(self.hidden, task.num_classes, 1)
        )
'''


def exit_code_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["stbench", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)


def test_a_method_of_ten_lines_is_found_and_runs(tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny_pixel_mlp", PIXEL_MLP, {"tiny-mlp": "tiny_pixel_mlp:PixelMLP"}, monkeypatch)
    assert {"full", "frozen", "lora", "spectralx", "tiny-mlp"} <= set(method_entries())
    assert "tiny_pixel_mlp" not in sys.modules, "listing methods must not import them"
    assert distribution_of("tiny-mlp") == ("tiny_pixel_mlp", "1.2")

    request = make_request(make_tree(tmp_path / "data"), "tiny-mlp", options={"hidden": "5"})
    cells, broken = plan(request, lambda _: None)
    outcome, *rest = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert (broken, rest, outcome.state) == ([], [], "done"), outcome.message
    record = read_record(outcome.record)
    verify(record)
    assert (record.method, record.family, record.options) == ("tiny-mlp", "floor", {"hidden": 5})
    assert record.environment["method package tiny_pixel_mlp"] == "1.2"
    assert record.parameters.total == record.parameters.trainable == 24 * 5 + 5 + 5 * 8 + 8


def test_two_packages_with_one_name_are_refused(tmp_path, monkeypatch):
    install(tmp_path / "a", "tiny_one", PIXEL_MLP, {"same": "tiny_one:PixelMLP"}, monkeypatch)
    assert load_method("same").__name__ == "PixelMLP"
    install(tmp_path / "b", "tiny_two", PIXEL_MLP, {"same": "tiny_two:PixelMLP"}, monkeypatch)
    assert "same" not in method_entries() and "lora" in method_entries(), "only this name is an error"
    with pytest.raises(MethodError, match=r"'same' cannot be used: two installed packages offer this name") as error:
        load_method("same")
    assert "tiny_one:PixelMLP" in str(error.value) and "tiny_two:PixelMLP" in str(error.value)


def test_a_name_of_ours_cannot_be_taken_over(tmp_path, monkeypatch):
    install(tmp_path, "tiny_thief", PIXEL_MLP, {"lora": "tiny_thief:PixelMLP"}, monkeypatch)
    assert load_method("lora").__module__ == "spectral_tl_bench.methods.peft_methods"


@pytest.mark.parametrize(
    ("package", "code", "target", "message"),
    [
        ("tiny_raises", "raise RuntimeError('no licence')", "Anything", "cannot be imported: RuntimeError: no licence"),
        ("tiny_needs", "import no_such_library", "Anything", "No module named 'no_such_library'"),
        ("tiny_lacks", "x = 1", "Missing", "cannot be imported: AttributeError"),
        ("tiny_function", "def make(): pass", "make", "not a subclass"),
        ("tiny_class", "class Other: pass", "Other", "not a subclass"),
        (
            "tiny_abstract",
            "from spectral_tl_bench.methods.base import Method\nclass Half(Method):\n    depth: int = 1\n",
            "Half",
            "is not complete",
        ),
    ],
)
def test_what_is_no_method_is_refused(tmp_path, monkeypatch, capsys, package, code, target, message):
    install(tmp_path, package, code, {"bad": f"{package}:{target}"}, monkeypatch)
    with pytest.raises(MethodError, match=message):
        make_method("bad")
    assert exit_code_of(monkeypatch, "run", "-m", "bad", "-b", "mts12-n2s", "--data-root", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_an_unknown_name_gets_the_nearest(capsys, monkeypatch):
    with pytest.raises(MethodError, match=r"there is no method 'spectralX'[\s\S]*spectralx"):
        check_known(["full", "spectralX"])
    assert exit_code_of(monkeypatch, "run", "-m", "frozn", "-b", "all") == 2
    assert "did you mean frozen?" in capsys.readouterr().err


def test_options_are_typed_and_known():
    made = make_method("lora", {"rank": "4", "alpha": "8", "train_norms": "false"})
    assert (made.rank, made.alpha, made.train_norms) == (4, 8.0, False)
    with pytest.raises(MethodError, match=r"has no option 'rnak'[\s\S]*did you mean rank"):
        make_method("lora", {"rnak": 4})
    with pytest.raises(MethodError, match=r"option 'rank' of method 'lora'[\s\S]*not 'four'"):
        make_method("lora", {"rank": "four"})
    with pytest.raises(MethodError, match=r"option 'dropout'"):
        make_method("lora", {"dropout": 1.5})
    with pytest.raises(MethodError, match=r"has no option 'rank'"):
        make_method("full", {"rank": 4})


def test_a_rule_about_several_options_reads_well():
    with pytest.raises(MethodError) as error:
        make_method("spectralx", {"hyper_tokenizer": "false"})
    text = str(error.value)
    assert text.startswith("options of method 'spectralx': are_adapter needs the hyper tokenizer")
    assert "''" not in text and "expected" not in text


def test_methods_and_budgets_do_not_change_once_made():
    with pytest.raises(ValidationError, match="frozen"):
        make_method("lora").rank = 3
    with pytest.raises(ValidationError, match="frozen"):
        Budget().steps = 3


def test_the_default_is_one_labelled_stage():
    task = make_task(steps=7)
    stages = make_method("full").stages(task)
    assert [(stage.name, stage.steps, stage.labelled, stage.trainable) for stage in stages] == [
        ("segment", 7, True, None)
    ]
    assert Stage("a", 3, labelled=False).with_steps(9) == Stage("a", 9, labelled=False)
    assert (task.num_bands, task.num_classes) == (4, 3)


@pytest.mark.parametrize(
    ("depth", "levels"),
    [(24, (5, 11, 17, 23)), (12, (2, 5, 8, 11)), (4, (0, 1, 2, 3)), (2, (0, 0, 1, 1)), (1, (0,) * 4)],
)
def test_levels_end_the_quarters(depth, levels):
    assert get_backbone("compact", depth=depth).levels == levels


def test_the_base_class_is_not_a_method_by_itself():
    with pytest.raises(TypeError, match="abstract"):
        Method()


def test_plugins_are_read_where_they_were_installed(tmp_path, monkeypatch):
    module = install(tmp_path, "tiny_placed", PIXEL_MLP, {"placed": "tiny_placed:PixelMLP"}, monkeypatch)
    assert Path(sys.modules[load_method("placed").__module__].__file__) == module

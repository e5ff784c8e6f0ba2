"""Installed packages that are broken: each breaks its own name only, and the listings say why."""

from __future__ import annotations

import shutil
import signal
import sys

import pytest
from tiny import install, run_main

from spectral_tl_bench import plugins, trial
from spectral_tl_bench.endings import LeftError, contained
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.methods.registry import check_known, load_method, method_entries
from spectral_tl_bench.plugins import broken, installed, is_ours

METHODS = "spectral_tl_bench.methods"

LEAVES = {
    "exits": ("import sys\nsys.exit(3)\n", "it called sys.exit(3)"),
    "interrupts": ("raise KeyboardInterrupt\n", "it raised KeyboardInterrupt"),
    "stranger": ("class Odd(BaseException): pass\nraise Odd('what')\n", "it raised Odd"),
    "raises": ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
    "garbled": ("def (:\n", "SyntaxError"),
    "empty": ("", "AttributeError"),
    "nothing": ("class Thing: pass\n", "is not a subclass of"),
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes cannot be copied here")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os\nos._exit(0)\n", "it ended its process with code 0"),
        ("import os\nos._exit(5)\n", "it ended its process with code 5"),
        ("import ctypes\nctypes.string_at(0)\n", "it died of SIGSEGV"),
        ("import os\nos.abort()\n", "it died of SIGABRT"),
        ("import time\ntime.sleep(60)\n", "it did not end within 1 seconds"),
    ],
)
def test_a_package_that_would_take_the_program_with_it_at_import(tmp_path, monkeypatch, code, reason):
    monkeypatch.setattr(trial.fate_of, "__defaults__", (1.0,))
    install(tmp_path, "tiny_fatal", code, {"fatal": "tiny_fatal:Thing"}, monkeypatch)
    with pytest.raises(UserError, match="cannot be imported") as caught:
        load_method("fatal")
    assert reason in str(caught.value) and load_method("lora").family == "peft"
    assert run_main(monkeypatch, ["methods"]) == 0


@pytest.mark.parametrize("name", LEAVES)
def test_what_a_package_does_at_import_breaks_its_own_name(tmp_path, monkeypatch, name):
    code, reason = LEAVES[name]
    install(tmp_path, f"tiny_{name}", code, {name: f"tiny_{name}:Thing"}, monkeypatch)
    with pytest.raises(UserError, match=r"cannot be imported|is not a subclass") as caught:
        load_method(name)
    assert reason in str(caught.value) and load_method("lora").family == "peft"


@pytest.mark.parametrize(
    ("arguments", "group", "noun", "builtin"),
    [
        (["methods"], "methods", "method", "lora"),
        (["methods"], "objectives", "objective", "vrex"),
        (["backbones", "--no-count"], "backbones", "backbone", "vit-tiny"),
        (["benchmarks", "layouts"], "layouts", "layout", "mts12"),
    ],
)
def test_the_listings_show_them_with_the_reason(tmp_path, monkeypatch, capsys, arguments, group, noun, builtin):
    code, _ = LEAVES["exits"]
    entries = {builtin: "tiny_a:X", "odd": "not a place", "leaver": "tiny_a:X", "same": "tiny_a:X"}
    install(tmp_path / "a", "tiny_a", code, entries, monkeypatch, group)
    install(tmp_path / "b", "tiny_b", code, {"same": "tiny_b:X"}, monkeypatch, group)
    assert run_main(monkeypatch, arguments) == 0
    listed = capsys.readouterr().out.splitlines()
    reasons = {line.split()[2]: line for line in listed if line.startswith(f"broken {noun}: ")}
    assert "(tiny_a:X): the name belongs to the suite" in reasons[builtin] and "tiny_a 1.2" in reasons[builtin]
    assert "'not a place' is no place: module:object" in reasons["odd"]
    assert "sys.exit(3)" in reasons["leaver"]
    assert "two installed packages offer this name: tiny_a (tiny_a:X) and tiny_b (tiny_b:X)" in reasons["same"]
    assert set(reasons) == {builtin, "odd", "leaver", "same"}
    shown = [line for line in listed if line.lstrip("+").split()[:1] == [builtin]]
    assert shown and "tiny_" not in shown[0], "ours is listed as ever"


def test_protocols_that_are_broken_are_refused_by_name_only(tmp_path, monkeypatch):
    from spectral_tl_bench.protocol.registry import get_protocol

    code, _ = LEAVES["exits"]
    entries = {"strict": "tiny_p:X", "odd": "not a place", "leaver": "tiny_p:X"}
    install(tmp_path, "tiny_p", code, entries, monkeypatch, "protocols")
    assert get_protocol("strict").name == "strict"
    for name, reason in (("odd", "is no place"), ("leaver", r"sys\.exit\(3\)"), ("strickt", "did you mean strict")):
        with pytest.raises(UserError, match=reason):
            get_protocol(name)


def test_a_broken_name_is_refused_with_its_reason_and_an_unknown_one_with_the_nearest(tmp_path, monkeypatch):
    install(tmp_path, "tiny_odd", "", {"odd": "not a place", "lora": "tiny_odd:X"}, monkeypatch)
    with pytest.raises(UserError, match="'odd' cannot be used: 'not a place' is no place"):
        check_known(["odd"])
    with pytest.raises(UserError, match="did you mean lora"):
        check_known(["lorra"])
    check_known(["lora", "full"])
    assert is_ours(method_entries()["lora"])


def test_a_list_of_entry_points_that_cannot_be_read_hides_no_other(tmp_path, monkeypatch):
    install(tmp_path / "good", "tiny_good", "", {"good": "tiny_good:X"}, monkeypatch)
    install(tmp_path / "bad", "tiny_bad", "", {"bad": "tiny_bad:X"}, monkeypatch)
    (tmp_path / "bad" / "tiny_bad-1.2.dist-info" / "entry_points.txt").write_text(f"[{METHODS}]\njust a word\n")
    assert {"lora", "good"} <= set(installed(METHODS))
    assert any("tiny_bad" in str(one) for one in broken(METHODS))


def test_a_group_is_read_again_when_a_package_comes_or_goes(tmp_path, monkeypatch):
    read = []
    entries = plugins._entries
    monkeypatch.setattr(plugins, "_entries", lambda group: read.append(group) or entries(group))
    install(tmp_path, "tiny_first", "", {"first": "tiny_first:X"}, monkeypatch)
    assert all("first" in installed(METHODS) for _ in range(3)) and read == [METHODS]
    with monkeypatch.context() as patch:  # into a folder that was read before
        install(tmp_path, "tiny_second", "", {"second": "tiny_second:X"}, patch)
    assert {"first", "second"} <= set(installed(METHODS))
    shutil.rmtree(tmp_path / "tiny_first-1.2.dist-info")
    assert "first" not in installed(METHODS) and "second" in installed(METHODS)


def test_two_copies_of_one_package_are_one(tmp_path, monkeypatch):
    for place in ("a", "b"):
        install(tmp_path / place, "tiny_twin", "", {"twin": "tiny_twin:X"}, monkeypatch)
    assert "twin" in installed(METHODS) and not [one for one in broken(METHODS) if one.name == "twin"]


def test_foreign_code_is_contained_and_a_user_is_not():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(LeftError, match="KeyboardInterrupt"), contained():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), contained():
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit) as ending, contained(), contained():
        signal.raise_signal(signal.SIGTERM)
    assert ending.value.code == 143
    with pytest.raises(KeyboardInterrupt), contained(), contained():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemExit(4) from None  # as Lightning has it
    with pytest.raises(ZeroDivisionError), contained():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is handler and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

"""The verbs ``stbench methods``."""

from __future__ import annotations

import json

import pytest
from tiny import SIZES, make_request, make_tree, run_main

from spectral_tl_bench.methods.base import Stage
from spectral_tl_bench.methods.registry import load_method
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

SMALL = ["--backbone", "compact"]
SMALL += [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]


@pytest.fixture
def methods(monkeypatch, capsys):
    """Runs ``stbench methods`` in this process; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_main(monkeypatch, ("methods", *arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def table(out: str, start: str) -> dict[str, list[str]]:
    """The cells of the rows below a heading, by the first of them."""
    lines = out[out.index(f"\n{start}") + 1 :].split("\n\n", maxsplit=1)[0].splitlines()[1:]
    cells = [[cell for cell in line.split("  ") if cell] for line in lines]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_presets_are_in_the_list(methods):
    code, out, _ = methods()
    assert code == 0
    for preset in load_method("spectralx").presets:
        assert f"spectralx@{preset}" in out


def test_spectralx_on_vit_large_has_the_numbers_of_the_paper(methods):
    """13 bands, 224 px, 9 classes: the defaults."""
    code, out, _ = methods("show", "spectralx", "-o", "decoder=own", "-o", "decoder_channels=512")
    released = table(out, "part ")
    assert code == 0 and released["Are-adapter"][:4] == ["1,872,265", "1,799,400", "3,671,665", "11,805,825"]
    assert released["HyperT"][:3] == ["0", "22,205,744", "22,205,744"]
    assert "of Are-adapter, as published, 1,799,400 parameters cannot have a gradient here" in out
    code, out, _ = methods("show", "spectralx@paper", "-o", "decoder=own", "-o", "decoder_channels=512")
    assert "cannot have a gradient" not in out
    parts = table(out, "part ")
    assert code == 0 and {name: (row[0], row[3]) for name, row in list(parts.items())[:4]} == {
        "low-rank patch path and scale": ("267,536", "267,536"),
        "LayerNorms": ("100,352", "367,888"),
        "AoMoA": ("7,766,272", "8,134,160"),
        "Are-adapter": ("3,671,665", "11,805,825"),
    }
    assert parts["HyperT"] == ["22,205,744", "0", "22,205,744", "every stage"]
    assert (parts["neck"][0], parts["head"][0]) == ("41,951,232", "34,357,769")
    assert parts["reconstruction decoder"][-1] == "reconstruct" and parts["Are-adapter"][-1] == "segment"
    assert "head, reconstruction decoder: 11,805,825" in out
    assert table(out, "stage ")["segment"][:3] == ["yes", "45,000", "60"]
    assert table(out, "option ")["decoder"][1:3] == ["auto", "own"]


def test_as_json_the_same_is_told(methods):
    _, out, _ = methods("show", "spectralx@released", "--backbone", "vit-large", "--bands", "13", "--json")
    found = json.loads(out)
    parts = {part["name"]: part for part in found["parts"]}
    assert (parts["HyperT"]["trainable"], parts["HyperT"]["frozen"]) == (0, 22_205_744)
    assert parts["Are-adapter"]["total"] == 3_671_665
    assert found["sums"]["total"] == sum(part["total"] for part in parts.values())
    assert (found["backbone"]["depth"], found["window"], found["method"]) == (24, 224, "spectralx@released")
    assert {option["name"]: option["value"] for option in found["options"]}["reading"] == "released"


@pytest.mark.parametrize("name", ["full", "frozen", "lora"])
def test_baselines_are_shown(methods, name):
    code, out, _ = methods("show", name, *SMALL, "--window", "32", "--bands", "3")
    kind = load_method(name)
    assert code == 0 and kind.family in out and kind.reference in out and all(one in out for one in kind.model_fields)
    assert f"trainable in decoder: {table(out, 'part ')['decoder'][0]}\n" in out
    assert "trainable without decoder" in out and table(out, "part ")["decoder"][1] == "0"


@pytest.mark.parametrize("name", ["slr", "earth-adapter@p2vi", "bitfit+coral"])
def test_the_source_and_what_differs_are_shown(methods, name):
    """Of a method with a preset or an objective, too; and as JSON."""
    code, out, _ = methods("show", name, *SMALL, "--window", "32", "--bands", "3")
    kind = load_method(name.split("@")[0].split("+")[0])
    assert code == 0 and f"\nacts      {kind.places}\n" in out and f"\nstarts    {kind.starts}\n" in out
    assert f"\ndiffers   {kind.differs[0]}\n" in out and all(f"  {one}\n" in out for one in kind.differs)
    assert (f"\ncode      {kind.source_code}\n" in out) is bool(kind.source_code)
    assert "\noptimiser the suite's: AdamW" in out and "\ntrain_norms" in out
    _, text, _ = methods("show", name, *SMALL, "--window", "32", "--bands", "3", "--json")
    assert json.loads(text)["source"]["differs"] == list(kind.differs)


def test_an_optimiser_of_its_own_is_shown(methods, monkeypatch):
    kind = load_method("full")
    monkeypatch.setattr(kind, "stages", lambda _, task: [Stage("segment", task.budget.steps, learning_rate=3e-3)])
    _, out, _ = methods("show", "full", *SMALL, "--window", "32")
    assert "; learning rate 0.003 in stage segment\n" in out
    _, out, _ = methods("show", "nearest-mean", "--window", "32")
    assert "\noptimiser none, the stage is in closed form\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "spectraly"), "did you mean spectralx?"),
        (("show", "spectralx@hypet"), "did you mean hypert"),
        (("show", "full", "--backbone", "vit-larg"), "there is no backbone 'vit-larg'"),
        (("show", "full", "--backbone-size", "depth=x"), "a whole number"),
        (("show", "lora", "-o", "rnak=3"), "did you mean rank?"),
        (("show", "lora", "-o", "rank"), "is not of the form name=value"),
        (("show", "lora", "--window", "100"), "100 px is not a multiple of the patch of vit-large (16 px)"),
        (("show", "lora", "--bands", "0"), "--bands"),
        (("show",), "METHOD"),
        (("probe", "spectraly"), "did you mean spectralx?"),
        (("probe", "full", "-b", "mts12"), "there is no benchmark 'mts12'"),
        (("probe", "full", "-b", "all"), "names 8 benchmarks"),
        (("probe", "full", "-b", "none", "--window", "30"), "not a multiple of the patch"),
        (("probe", "full", "-b", "none", "--chips", "1"), "--chips"),
        (("probe", "full", "--weights", "no.safetensors"), "no weights with a record beside them"),
    ],
)
def test_a_mistake_ends_with_a_message_and_2(methods, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = methods(*arguments)
    assert code == 2 and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_blind_tokenizer_is_named(methods):
    found = {}
    for preset in ("paper", "released"):
        code, out, _ = methods("probe", f"spectralx@{preset}", "-b", "none", "--bands", "6", *SMALL, "--chips", "6")
        assert code == 0 and "6 of white noise, 6 bands, 64 px" in out
        found[preset] = table(out, "tokens ")["HyperT tokens"]
    assert found["released"][-1] == "blind"
    assert float(found["paper"][0].strip(" %")) > 3 * float(found["released"][0].strip(" %"))


def test_real_chips_are_looked_at(methods, tmp_path):
    arguments = ("--data-root", make_tree(tmp_path), "-b", "mts12-n2s", *SMALL, "--chips", "3")
    code, out, _ = methods("probe", "frozen", *arguments)
    assert code == 0 and "3 training chips of mts12-n2s, 32 px of each" in out
    assert list(table(out, "tokens ")) == [
        "patch embedding of the backbone", "tokens after block 0", "tokens after block 1",
    ]  # fmt: skip


def test_trained_weights_are_looked_at(methods, tmp_path):
    root = make_tree(tmp_path / "data")
    request = make_request(root, "spectralx@hypert-no-stage1", steps=3, learning_rate=0.05, seeds=(3,))
    (outcome,) = execute(plan(request, lambda _: None)[0], tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message
    weights = outcome.record.with_name("selected.safetensors")
    common = ("--data-root", root)
    code, trained, _ = methods("probe", "spectralx@hypert-no-stage1", *common, "--weights", weights)
    assert code == 0 and f"weights of {weights}" in trained and "of mts12-n2s" in trained
    _, random, _ = methods("probe", "spectralx@hypert-no-stage1", *common, "-b", "mts12-n2s", "-s", "3", *SMALL)
    assert table(random, "tokens ") != table(trained, "tokens "), "the weights act"
    code, _, err = methods("probe", "spectralx", *common, "--weights", weights)
    assert code == 2 and "not of spectralx" in err
    weights.write_bytes(b"nothing")
    code, _, err = methods("probe", "spectralx@hypert-no-stage1", *common, "--weights", weights)
    assert code == 2 and "cannot be read" in err


def test_what_auto_means_is_said_for_every_budget(methods):
    code, out, _ = methods("show", "lora", "--backbone", "vit-large")
    assert code == 0 and "decoder on this backbone: upernet (paper), light (small); counted is the first" in out
    assert table(out, "option ")["decoder"][1:3] == ["auto", "upernet"]
    _, out, _ = methods("show", "spectralx", *SMALL, "--window", "32", "-o", "decoder=auto+pixels", "--json")
    found = json.loads(out)
    assert found["chosen"] == {"decoder": {"paper": "light+pixels", "small": "light+pixels"}}
    parts = {part["name"]: part for part in found["parts"]}
    assert parts["pixel path"]["kind"] == "decoder" and parts["pixel path"]["trainable"] > 64 * 64
    _, out, _ = methods("show", "lora", *SMALL, "--window", "32", "-o", "decoder=linear")
    assert "decoder on this backbone" not in out

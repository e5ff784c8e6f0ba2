"""Starting from a given first stage: what fits is used and named in the record, what does not is refused in words."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SIZES, make_request

from spectral_tl_bench.errors import StageError, UserError
from spectral_tl_bench.files import file_digest
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner import stages as stages_module
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.stage_store import StageIdentity, read_card

CPU = Hardware("cpu")


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory) -> Path:
    """The folder of a stage that a run on mts12-n2s has left."""
    out = tmp_path_factory.mktemp("given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STBENCH_CACHE", str(out / "cache"))
        cells, _ = plan(make_request(tree, "spectralx"), quiet)
        (outcome,) = execute(cells, out, CPU, 0, quiet)
        assert outcome.state == "done", outcome.message
        return next((out / "cache" / "stages").iterdir())


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "stage"))


def change(folder: Path, identity=None, tensors=None, **card) -> None:
    """Change what a stage says of itself, as if it had been trained so."""
    path = folder / "stage.json"
    value = json.loads(path.read_text())
    value["identity"] |= identity or {}
    value["fingerprint"] = StageIdentity.model_validate(value["identity"]).fingerprint
    if tensors is not None:
        save_file(tensors, folder / "stage.safetensors")
        value["tensors"] = file_digest(folder / "stage.safetensors")
    path.write_text(json.dumps(value | card))


def refusal(tree, folder, *methods, benchmark="mts12-n2s", **more) -> str:
    """Why nothing can be run."""
    request = make_request(tree, *(methods or ("spectralx",)), benchmarks=(benchmark,), from_stage=folder, **more)
    cells, broken = plan(request, quiet)
    assert cells == [] and [name for name, _ in broken] == [benchmark]
    assert isinstance(broken[0][1], UserError)
    return str(broken[0][1])


# ---------------------------------------------------------------------------------------------- what fits


def test_a_given_stage_serves_all_seeds_and_the_record_says_so(tree, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(stages_module, "train_shared", None)
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    # Another length, rate or share of hidden patches is how it would be trained, which is over.
    more = {"seeds": (0, 1), "pretrain_steps": 9, "options": {"mask_ratio": 0.5, "are_adapter": False}}
    cells, broken = plan(make_request(tree, "spectralx", from_stage=trained, **more), said.append)
    assert broken == [] and len(cells) == 2
    outcomes = execute(cells, tmp_path, CPU, 0, said.append)
    assert [outcome.state for outcome in outcomes] == ["done", "done"], outcomes[1].message
    card = read_card(trained)
    for outcome in outcomes:
        record = read_record(outcome.record)
        first = record.stages[0]
        assert (first.steps, first.seconds) == (card.identity.steps, card.seconds)
        facts = {"stage": card.fingerprint, "reused": True, "given": True, "stage_seed": 0}
        assert facts.items() <= first.options.items() and "all seeds" in first.options["stage_note"]
        assert str(trained) not in outcome.record.read_text()
        stored = load_file(outcome.record.parent / "selected.safetensors")
        assert load_file(trained / "stage.safetensors").keys() <= stored.keys()
    assert read_record(outcomes[0].record).stages[0].options["validation_chips_in_stage"] == 0
    assert sum("serves all seeds" in line for line in said) == 1
    assert not (tmp_path / "cache" / "stages").exists()

    plain, _ = plan(make_request(tree, "spectralx", **more), quiet)
    assert plain[0].identity(plain[0].split()) != cells[0].identity(cells[0].split())


def test_another_stage_is_another_result(tree, trained, folder):
    tensors = {name: value + 1 for name, value in load_file(folder / "stage.safetensors").items()}
    change(folder, tensors=tensors)
    one, other = (plan(make_request(tree, "spectralx", from_stage=path), quiet)[0][0] for path in (trained, folder))
    assert one.identity(one.split()) != other.identity(other.split())


def test_the_command_takes_a_folder(tree, trained, tmp_path, stbench, small, capsys):
    arguments = ("run", "-m", "spectralx", "-b", "mts12-n2s", "--data-root", tree, "--allow-partial", "--out", tmp_path)
    assert stbench(*arguments, "--from-stage", trained, *small, "--jobs", 1) == 0
    assert "starting from the given stage" in capsys.readouterr().out
    assert stbench(*arguments, "--from-stage", tmp_path / "nowhere", *small) == 2
    error = capsys.readouterr().err
    assert "there is no trained stage" in error and "Traceback" not in error


# ---------------------------------------------------------------------------------------------- what does not

MISMATCHES = {
    "window": ({"window": 24}, "window: the checkpoint has 32, this run needs 24", "--window 32"),
    "backbone": (
        {"backbone": "vit-tiny", "backbone_sizes": SIZES},
        "backbone name: the checkpoint has compact, this run needs vit-tiny",
        "--backbone compact",
    ),
    "width": (
        {"backbone_sizes": SIZES | {"width": 64}},
        "backbone width: the checkpoint has 32, this run needs 64",
        "--backbone-size width=32",
    ),
    "patch": (
        {"backbone_sizes": SIZES | {"patch": 4}},
        "backbone patch: the checkpoint has 8, this run needs 4",
        "--backbone-size patch=8",
    ),
    "rank": ({"options": {"rank": 3}}, "option rank: the checkpoint has 16, this run needs 3", "-o rank=16"),
    "experts": (
        {"options": {"aomoa": False}},
        "option aomoa: the checkpoint has True, this run needs False",
        "-o aomoa",
    ),
    "reading": (
        {"options": {"reading": "paper"}},
        "option reading: the checkpoint has released, this run needs paper",
        "-o reading=released",
    ),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_what_the_run_does_otherwise_is_named(tree, trained, name):
    settings, message, fix = MISMATCHES[name]
    text = refusal(tree, trained, **settings)
    assert message in text and fix in text and str(trained) in text


FOREIGN = {
    "bands": ({"bands": ["B1"]}, "bands: the checkpoint has B1, this run needs Mar-B02, "),
    "wavelengths": ({"wavelengths": [0.5, 0.6]}, "wavelengths: the checkpoint has 0.5, 0.6, this run needs "),
    "gsd": ({"gsd": 30.0}, "gsd: the checkpoint has 30.0, this run needs 10.0"),
    "dataset": ({"dataset": "Other"}, "dataset: the checkpoint has Other, this run needs MTS12"),
    "domains": ({"domains": ["east"]}, "domains: the checkpoint has east, this run needs "),
    "method": ({"method": "some:One"}, "method: the checkpoint has some:One, this run needs spectralx.method:"),
    "stage": ({"stage": "contrast"}, "stage: the checkpoint has contrast, this run needs reconstruct"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_the_stage_was_trained_otherwise_on_is_named(tree, folder, name):
    identity, message = FOREIGN[name]
    change(folder, identity)
    assert message in refusal(tree, folder)


def test_all_differences_are_named_at_once(tree, trained):
    text = refusal(tree, trained, window=24, options={"rank": 3, "experts": 3})
    assert all(word in text for word in ("window: the", "option rank: the", "option experts: the"))


def test_a_method_without_such_a_stage(tree, trained):
    assert "method full has no first stage" in refusal(tree, trained, "full")
    assert "has no first stage" in refusal(tree, trained, pretrain_steps=0)


# ---------------------------------------------------------------------------------------------- the wall


def test_a_stage_that_has_seen_the_target_is_refused(tree, trained):
    text = refusal(tree, trained, benchmark="mts12-s2n")
    assert "pretrained on the target of mts12-s2n (domain " in text and "not even without labels" in text
    assert "leave out --from-stage" in text


def test_chips_are_looked_at_and_not_only_names(tree, folder):
    (cell,), _ = plan(make_request(tree, "spectralx"), quiet)
    chip = cell.split().chips("target")[0]
    card = read_card(folder)
    domain = next(iter(card.identity.chips))
    stolen = {"a harmless name": str(cell.opened.index.frame.loc[chip, "content"])[:16]}
    change(folder, {"chips": {domain: {**card.identity.chips[domain], **stolen}}})
    text = refusal(tree, folder)
    assert f"pretrained on the target of mts12-n2s (1 of its chips, such as {chip})" in text


def test_the_reference_without_gap_is_guarded_by_its_chips(tree, trained):
    """Source and target share their domains there; a stage of another cut has seen test chips."""
    (cell,), _ = plan(make_request(tree, "spectralx", benchmarks=("mts12-id",)), quiet)
    seen = {content for chips in read_card(trained).identity.chips.values() for content in chips.values()}
    target = cell.opened.index.frame.loc[cell.split().chips("target"), "content"].str[:16]
    assert target.isin(seen).any(), "the test needs a common chip"
    assert "pretrained on the target of mts12-id" in refusal(tree, trained, benchmark="mts12-id")


# ---------------------------------------------------------------------------------------------- damage


class Harmful:
    def __reduce__(self):
        return (Path("/nonexistent/touched").touch, ())


DAMAGE = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Harmful())),
    "a torch file": lambda path: torch.save({"weight": torch.zeros(2)}, path),
    "another's tensors": lambda path: save_file({"weight": torch.zeros(2)}, path),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_or_foreign_tensors(tree, folder, name):
    DAMAGE[name](folder / "stage.safetensors")
    with pytest.raises(StageError, match=r"not those that stage.json was written for: the file is damaged or foreign"):
        plan(make_request(tree, "spectralx", from_stage=folder), quiet)


def test_a_pickle_is_not_opened_even_if_the_card_vouches_for_it(tree, folder):
    path = folder / "stage.safetensors"
    path.write_bytes(pickle.dumps(Harmful()))
    change(folder, **{"tensors": None})
    value = json.loads((folder / "stage.json").read_text())
    (folder / "stage.json").write_text(json.dumps(value | {"tensors": file_digest(path)}))
    with pytest.raises(StageError, match="tensors of the stage cannot be read"):
        plan(make_request(tree, "spectralx", from_stage=folder), quiet)


CARDS = {
    "none": (None, "there is no trained stage: stage.json is missing"),
    "no JSON": ("{", "the card of the stage cannot be read"),
    "a list": ("[]", "this is not the card of a trained stage"),
    "another's": ('{"format": 1}', r"this is not the card of a trained stage: key '\w+': field required"),
    "edited": ("edit", "the card of the stage was changed"),
}


@pytest.mark.parametrize("name", CARDS)
def test_damaged_or_foreign_cards(tree, folder, name):
    content, message = CARDS[name]
    path = folder / "stage.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace('"MTS12"', '"Other"') if content == "edit" else content)
    with pytest.raises(StageError, match=message) as error:
        plan(make_request(tree, "spectralx", from_stage=folder), quiet)
    assert str(folder) in str(error.value) and "to do" in str(error.value)


def test_missing_tensors(tree, folder):
    (folder / "stage.safetensors").unlink()
    with pytest.raises(StageError, match=r"no tensors: stage.safetensors is missing"):
        plan(make_request(tree, "spectralx", from_stage=folder), quiet)


@pytest.mark.parametrize("wrong", ["shape", "missing", "too many", "frozen weights"])
def test_what_only_the_module_can_tell(tree, folder, tmp_path, wrong):
    tensors = load_file(folder / "stage.safetensors")
    name = "patch_path.scale"
    if wrong == "frozen weights":
        change(folder, relies_on="0" * 64)
        message = "trained on other frozen weights of compact than this run has"
    elif wrong == "shape":
        change(folder, tensors=tensors | {name: torch.zeros(5)})
        message = f"tensor {name}: the checkpoint has (5,), this run needs (32,)"
    elif wrong == "missing":
        change(folder, tensors={key: value for key, value in tensors.items() if key != name})
        message = f"tensor {name}: the checkpoint has none, this run needs (32,)"
    else:
        change(folder, tensors=tensors | {"more": torch.zeros(2)})
        message = "tensor more: the checkpoint has (2,), this run needs none"
    cells, broken = plan(make_request(tree, "spectralx", from_stage=folder), quiet)
    assert broken == []
    (outcome,) = execute(cells, tmp_path / "runs", CPU, 0, quiet)
    assert outcome.state == "refused" and message in outcome.message and "to do" in outcome.message

"""Trained weights that are loaded in one line, elsewhere, and are what they were; and those that cannot be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_request, quiet

from spectral_tl_bench.errors import AdapterError, RecordError, UserError
from spectral_tl_bench.maps.model import load_model
from spectral_tl_bench.methods.adapters_io import HEADER, read_card
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware


def with_header(path: Path, change) -> None:
    card = json.loads(read_card(path).model_dump_json())
    change(card)
    save_file(load_file(path), path, {HEADER: json.dumps(card)})


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained.folders["lora"], tmp_path / "copy"))


def test_what_is_loaded_says_what_it_is(trained):
    model = load_model(trained.folders["lora"] / "record.json")
    assert model.classes == model.benchmark.labels.names and len(model.bands) == 24 and model.window == 16
    assert model.title == "lora, trained on mts12-n2s" and not model.module.training
    images = torch.from_numpy(model.statistics.mean).float()[None, :, None, None].expand(2, 24, 16, 16)
    assert torch.allclose(model.transforms(images), torch.zeros(()), atol=1e-4)
    assert model(images).shape == (2, 8, 16, 16)


def test_what_a_notebook_shows_of_it_is_one_line(trained):
    assert re.fullmatch(
        r"<pixel-mlp, trained on mts12-n2s: 24 bands, 8 classes, windows of 16 px, [0-9,]+ weights>",
        repr(trained.load("pixel-mlp")),
    )


def test_a_record_is_found_by_how_its_fingerprint_begins(trained, monkeypatch):
    monkeypatch.setenv("STBENCH_RESULTS", str(trained.folders["lora"].parents[2]))
    expected = load_model(trained.folders["lora"])
    assert load_model(expected.fingerprint[:8]).fingerprint == expected.fingerprint
    other = "0123" if not expected.fingerprint.startswith("0123") else "3210"
    with pytest.raises(RecordError, match=f"no fingerprint begins with '{other}'"):
        load_model(other)


def test_loading_draws_no_random_numbers(trained):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_model(trained.folders["spectralx"])
    assert torch.equal(torch.rand(2), expected)


def test_weights_alone_are_enough_in_another_process(trained, tmp_path):
    weights = tmp_path / "selected.safetensors"
    shutil.copy(trained.folders["lora"] / "selected.safetensors", weights)
    code = (
        "import torch\nfrom spectral_tl_bench import load_model\n"
        f"model = load_model({str(weights)!r})\n"
        "print(model(torch.full((1, 24, 16, 16), 700.0)).double().sum().item())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = load_model(weights)(torch.full((1, 24, 16, 16), 700.0)).double().sum().item()
    assert float(told) == pytest.approx(here, abs=1e-4)


def test_a_run_that_has_no_weights_is_told_so(copied):
    (copied / "selected.safetensors").unlink()
    with pytest.raises(AdapterError, match="there are no trained weights"):
        load_model(copied)


def test_weights_of_an_older_version_are_refused(copied):
    def old(card):
        card.pop("use")
        card["format"] = 1

    with_header(copied / "selected.safetensors", old)
    with pytest.raises(AdapterError, match="do not say how to use them"):
        load_model(copied)


def test_weights_on_another_backbone_are_refused(copied):
    with_header(copied / "selected.safetensors", lambda card: card.update(backbone_seed=5))
    with pytest.raises(AdapterError, match="frozen weights"):
        load_model(copied)


def test_whole_chips_have_no_maps(copied):
    with_header(copied / "selected.safetensors", lambda card: card["use"].update(protocol="as-published"))
    with pytest.raises(UserError, match="reads whole chips"):
        load_model(copied)


def test_a_method_that_is_not_installed_is_named(copied):
    with_header(copied / "selected.safetensors", lambda card: card.update(method="gone"))
    with pytest.raises(UserError, match="gone"):
        load_model(copied)


@pytest.mark.parametrize("damage", [b"", b"no safetensors at all", None])
def test_a_damaged_file_is_no_traceback(copied, damage):
    path = copied / "selected.safetensors"
    path.write_bytes(path.read_bytes()[:-50] if damage is None else damage)
    with pytest.raises(AdapterError, match="cannot be read"):
        load_model(copied)


def test_statistics_of_the_training_chips_are_in_the_file(trained):
    use = read_card(trained.folders["pixel-mlp"] / "selected.safetensors").use
    assert use.track == "partial" and len(use.mean) == len(use.std) == len(use.low) == 24
    assert np.all(np.array(use.std) > 0) and np.all(np.array(use.low) <= np.array(use.mean))


def test_objectives_do_not_matter_for_use(trained, tmp_path):
    cells, _ = plan(make_request(trained.tree, "pixel-mlp+erm", window=16), quiet)
    [outcome] = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, quiet)
    assert outcome.state == "done", outcome.message
    assert load_model(outcome.record.parent).method == "pixel-mlp"

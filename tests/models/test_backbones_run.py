"""Pretrained weights from the command line to the record."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import SIZES, make_request, make_tree, run_main

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "data")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    state = get_backbone("compact", **SIZES).build(3, 32).state_dict()
    save_file({**state, "extra": torch.zeros(2)}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_output_record_and_fingerprint_name_the_weights(root, weights, tmp_path):
    said: list[str] = []
    cells, broken = plan(make_request(root, "frozen", weights=str(weights)), said.append)
    assert not broken and any("1 unexpected (unexpected extra); patch embedding: wavelength" in line for line in said)
    outcome = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, said.append)[0]
    assert outcome.state == "done", outcome.message
    assert outcome.record is not None
    facts = read_record(outcome.record).backbone
    assert facts.weights is not None and facts.weights.unexpected == 1 and facts.weights.source == "file"
    assert facts.patch_embedding == "wavelength" and facts.pretrained.startswith("file:")
    assert str(tmp_path) not in outcome.record.read_text()

    def fingerprint(**options: str) -> str:
        cell = plan(make_request(root, "frozen", **options), lambda _line: None)[0][0]
        return cell.identity(cell.split()).fingerprint

    own = fingerprint(weights=str(weights))
    moved = weights.rename(tmp_path / "elsewhere.safetensors")
    assert fingerprint(weights=str(moved)) == own, "the digest counts, not the path"
    others = {
        fingerprint(),
        fingerprint(weights=str(moved), patch_embedding="mean"),
        fingerprint(patch_embedding="mean"),
    }
    assert len(others | {own}) == 4
    save_file({"extra": torch.ones(2), **get_backbone("compact", **SIZES).build(3, 32).state_dict()}, moved)
    assert fingerprint(weights=str(moved)) not in others | {own}


def test_the_method_stands_on_the_weights(root, weights):
    cell = plan(make_request(root, "frozen", weights=str(weights)), lambda _line: None)[0][0]
    module = cell.method.build(cell.task())
    trained = get_backbone("compact", str(weights), **SIZES).for_sensor((0.665, 0.56, 0.49), None).build(3, 32)
    assert torch.equal(module.backbone.blocks[0].attn.qkv.weight, trained.blocks[0].attn.qkv.weight)


def test_mistakes_are_found_before_any_data_is_read(weights, monkeypatch, capsys):
    command = ["run", "-m", "frozen", "-b", "mts12-n2s", "--data-root", "/nowhere"]
    for more, message in (
        (["--backbone", "compat"], "did you mean compact"),
        (["--patch-embedding", "wave"], "there is no patch embedding 'wave'"),
        (["--backbone", "dofa-base"], "which weights for dofa-base"),
        (["--weights", "no-such-file.pth"], "there are no weights for rgb-mini"),
    ):
        assert run_main(monkeypatch, [*command, *more]) == 2
        assert message in capsys.readouterr().err


def test_a_pair_that_does_not_fit_leaves_the_others_alone(root):
    request = make_request(root, "full", "spectralx", backbone="resnet50", backbone_sizes={}, window=32)
    cells, broken = plan(request, lambda _line: None)
    assert [cell.method_name for cell in cells] == ["full"]
    assert [name for name, _ in broken] == ["spectralx on mts12-n2s"]


def test_probe_wants_the_weights_of_the_record(root, weights, tmp_path, monkeypatch, capsys):
    cells, _ = plan(make_request(root, "lora", weights=str(weights)), lambda _line: None)
    outcome = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _line: None)[0]
    assert outcome.record is not None
    selected = outcome.record.parent / "selected.safetensors"
    command = ["methods", "probe", "lora", "--weights", selected, "--data-root", root, "--chips", 2]
    assert run_main(monkeypatch, command) == 2
    assert "name that file with --backbone-weights" in capsys.readouterr().err
    sizes = [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]
    assert run_main(monkeypatch, [*command, "--backbone-weights", weights, *sizes]) == 0, capsys.readouterr().err


def test_describe_counts_named_backbones_without_weights(monkeypatch, capsys):
    assert run_main(monkeypatch, ["methods", "show", "lora", "--backbone", "dofa-base"]) == 0
    assert "dofa-base" in capsys.readouterr().out


def test_unreadable_weights_end_in_one_message(root, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match="cannot be read"):
        plan(make_request(root, "frozen", weights=str(path)), lambda _line: None)

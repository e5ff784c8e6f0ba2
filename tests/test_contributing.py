"""CONTRIBUTING.md: it names every part of the suite, and its examples run as they stand there."""

from __future__ import annotations

import dataclasses
import re
import tomllib

import pytest
import torch
from shared import REPOSITORY
from test_imports import SUITE
from tiny import SIZES, install, make_request, make_task, make_tree

from spectral_tl_bench.data.layouts import find_chips
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.objectives.base import DomainLosses
from spectral_tl_bench.objectives.registry import make_objectives
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.protocol.strict import STRICT
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def example(request, tmp_path, monkeypatch) -> str:
    """Install the example below the heading that the test is called with; the name of its entry point."""
    _, _, section = TEXT.partition(f"\n### {request.param}\n")
    code, declaration = (re.search(rf"```{kind}\n(.*?)```", section, re.S)[1] for kind in ("python", "toml"))
    ((group, entries),) = tomllib.loads(declaration)["project"]["entry-points"].items()
    install(tmp_path / "site", "my_package", code, entries, monkeypatch, group.removeprefix("spectral_tl_bench."))
    return next(iter(entries))


def test_every_part_of_the_suite_is_named():
    parts = {
        path.name + "/" * path.is_dir()
        for path in SUITE.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.name != "__init__.py"
    }
    named = {row.group(1) for row in re.finditer(r"^\| `([a-z_./]+)` \|", TEXT, re.M)}
    assert parts <= named, f"not in the table of CONTRIBUTING.md: {sorted(parts - named)}"


def test_files_that_are_named_are_there():
    names = re.findall(r"`((?:tests|docs|splits|profiling|leaderboard)/[\w./-]+)`|\]\(((?:docs)/[\w./-]+)\)", TEXT)
    missing = [name for pair in names for name in pair if name and not (REPOSITORY / name).exists()]
    assert not missing and len(names) > 8


@pytest.mark.parametrize("example", ["A method"], indirect=True)
def test_the_method(example):
    task = make_task(bands=5, classes=4)
    module = make_method(example, {"side": "5"}).build(task)
    assert module(torch.rand(2, 5, 16, 16)).shape == (2, 4, 16, 16) and module[0].kernel_size == 5


@pytest.mark.parametrize("example", ["A backbone"], indirect=True)
def test_the_backbone(example):
    spec = get_backbone(example, depth=SIZES["depth"])
    network = spec.build(7, 32)
    assert network.forward_features(torch.rand(1, 7, 32, 32)).shape == (1, 17, 48)
    module = make_method("lora").build(dataclasses.replace(make_task(bands=4), backbone=spec))
    assert module(torch.rand(1, 4, 32, 32)).shape == (1, 3, 32, 32), "methods adapt it as any other"


@pytest.mark.parametrize("example", ["A layout"], indirect=True)
def test_the_layout(example, own):
    for name in ("east/a.tif", "east/a_label.tif", "west/b.tif", "west/b_label.tif", "west/b_truth.tif"):
        (own.root / name).parent.mkdir(exist_ok=True)
        (own.root / name).touch()
    benchmark = own.benchmark(layout={"kind": example, "ending": "_label"}, split={})
    _, chips = find_chips(benchmark, own.root)
    assert [(chip.chip, chip.domain, chip.image, chip.label) for chip in chips] == [
        ("a", "east", "east/a.tif", "east/a_label.tif"),
        ("b", "west", "west/b.tif", "west/b_label.tif"),
    ]


@pytest.mark.parametrize("example", ["An objective"], indirect=True)
def test_the_objective(example):
    objective = make_objectives(f"full+{example}", {example: {"share": "0.25"}})[example]
    losses = DomainLosses(torch.tensor([1.0, 3.0, 0.0]), torch.tensor([True, True, False]))
    assert objective.risk(losses).item() == pytest.approx(0.75 * 2.0 + 0.25 * 3.0) and objective.needs() == 2


@pytest.mark.parametrize("example", ["A protocol"], indirect=True)
def test_the_protocol(example, tmp_path):
    protocol = get_protocol(example)
    assert protocol.pixels.augment(0) is None and protocol.metric is STRICT.metric
    root = make_tree(tmp_path / "data")
    (cell,), broken = plan(make_request(root, "full", protocol=example), lambda _: None)
    (usual,), _ = plan(make_request(root, "full"), lambda _: None)
    assert broken == [] and cell.settings.augment == "none"
    ours, theirs = (one.identity(one.split()) for one in (cell, usual))
    assert set(ours.differences(theirs)) == {"settings.protocol", "settings.augment"}, "the rest is that of strict"
    (outcome,) = execute([cell], tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message

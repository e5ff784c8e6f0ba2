"""Trained weights as a file: what is in it, that it gives the same predictions, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import make_request, make_task, make_tree
from torch import nn

from spectral_tl_bench.authoring.watching import train_a_little
from spectral_tl_bench.errors import AdapterError, UserError
from spectral_tl_bench.methods.adapters_io import HEADER, card_of, changeable, load_adapter, read_adapter, save_adapter
from spectral_tl_bench.methods.base import Method, Task
from spectral_tl_bench.methods.registry import make_method, method_entries
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.task import trained_state

NETWORKS = ("adabn", "deeplabv3plus", "unet")
"""Whole networks, taken in their small preset."""


def seeded(task: Task, seed: int = 0) -> Task:
    """Frozen weights from a seed, as in a run."""
    return replace(task, backbone=replace(task.backbone, seed=seed))


def trained(name: str, method: Method, task: Task) -> tuple[nn.Module, set[str]]:
    """A module after a few steps of its gradient stages, and the names of what has changed in it."""
    torch.manual_seed(1)
    module = method.build(task)
    declared = {key for key, parameter in module.named_parameters() if parameter.requires_grad}
    changed: set[str] = set()
    for stage in method.stages(task):
        if stage.fit is None and declared:
            seen = train_a_little(
                module, stage, task.num_bands, task.num_classes, task.window, declared=declared,
                target_images=method.target_images,
            )  # fmt: skip
            changed |= seen.changed
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(key in declared)
    return module.eval(), changed


@pytest.mark.parametrize("name", method_entries())
def test_every_method_comes_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    name = f"{name}@small" if name in NETWORKS else name
    task, method = seeded(make_task(steps=3, pretrain_steps=3)), make_method(name)
    module, changed = trained(name, method, task)
    path, card = tmp_path / "adapter.safetensors", card_of(name, method, task)
    save_adapter(module, path, card)
    torch.manual_seed(1)
    fresh = method.build(task)
    assert load_adapter(fresh, path, card_of(name, method, task)).method == name
    images = torch.randn(2, task.num_bands, task.window, task.window)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(images), module(images))

    stored, own = load_file(path).keys(), module.state_dict().keys()
    # What is frozen beside the backbone was drawn at random: no other place keeps it.
    parameters = {
        key
        for key, parameter in module.named_parameters()
        if parameter.requires_grad or not key.startswith("backbone.")
    }
    buffers = {key for key, _ in module.named_buffers()} & own
    assert changed & own <= stored, "all that has changed is stored"
    assert stored & dict(module.named_parameters()).keys() == parameters, "and no frozen weight of the backbone"
    assert stored <= parameters | buffers


def frozen_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6).requires_grad_(False), nn.Conv2d(6, 3, 1), nn.BatchNorm2d(3)
    )


def test_statistics_are_stored_where_they_can_move() -> None:
    expected = {f"{layer}.{leaf}" for layer in (0, 2, 3) for leaf in ("weight", "bias")}
    moving = {f"3.{leaf}" for leaf in ("running_mean", "running_var", "num_batches_tracked")}
    assert changeable(frozen_norm()) == expected | moving
    drifting = frozen_norm()
    drifting.statistics_drift = True  # type: ignore[assignment]
    assert changeable(drifting) == expected | moving | {name.replace("3.", "1.") for name in moving}
    assert changeable(frozen_norm()) < trained_state(frozen_norm()).keys()


@pytest.fixture
def lora(tmp_path: Path) -> tuple[Path, Task, Method]:
    task, method = seeded(make_task()), make_method("lora", {"rank": 3})
    module, _ = trained("lora", method, task)
    save_adapter(module, tmp_path / "lora.safetensors", card_of("lora", method, task))
    return tmp_path / "lora.safetensors", task, method


def test_the_header_says_what_the_weights_are(lora) -> None:
    path, task, _ = lora
    card, state = read_adapter(path)
    assert (card.method, card.options["rank"], card.bands) == ("lora", 3, task.bands)
    assert (card.classes, card.window, card.backbone["width"], card.backbone_seed) == (task.classes, 32, 32, 0)
    assert len(card.frozen) == 64 and torch.__version__.startswith(card.environment["torch"])
    assert state.keys() == load_file(path).keys()
    assert path.stat().st_size < 1.3 * sum(value.numel() for value in state.values()) * 4 + 20_000


def other_options(task: Task) -> tuple[Task, Method]:
    return task, make_method("lora", {"rank": 4, "where": "mlp"})


def other_bands(task: Task) -> tuple[Task, Method]:
    return replace(task, bands=("B0", "B1", "B2", "B9")), make_method("lora", {"rank": 3})


def other_classes(task: Task) -> tuple[Task, Method]:
    return replace(task, classes=("water", "forest", "town")), make_method("lora", {"rank": 3})


def other_width(task: Task) -> tuple[Task, Method]:
    backbone = replace(get_backbone("compact", width=64, depth=2, heads=2, patch=8), seed=0)
    return replace(task, backbone=backbone), make_method("lora", {"rank": 3})


def other_seed(task: Task) -> tuple[Task, Method]:
    return seeded(task, 5), make_method("lora", {"rank": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_options, r"options rank: the file has 3, the module 4\n\s+options where: the file has all, the"),
        (other_bands, r"bands: the file has B0, B1, B2, B3, the module B0, B1, B2, B9"),
        (other_classes, r"classes: the file has class 0, class 1, class 2, the module water, forest, town"),
        (other_width, r"backbone width: the file has 32, the module 64"),
        (other_seed, r"frozen weights: the file belongs to another compact[\s\S]*seed 0, [\s\S]*torch"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_changed(lora, change, message: str) -> None:
    path, task, _ = lora
    elsewhere, method = change(task)
    module = method.build(elsewhere)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(AdapterError, match=message):
        load_adapter(module, path, card_of("lora", method, elsewhere))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_another_method_is_told_by_its_name_and_by_its_tensors(lora) -> None:
    path, task, _ = lora
    module = make_method("dora", {"rank": 3}).build(task)
    with pytest.raises(AdapterError, match=r"method: the file has lora, the module dora"):
        load_adapter(module, path, card_of("dora", make_method("dora", {"rank": 3}), task))
    with pytest.raises(
        AdapterError, match=r"tensor backbone\.blocks\.0\.\S*lora_magnitude_vector\S*: the file has none"
    ):
        load_adapter(module, path)
    narrow = make_method("lora", {"rank": 2}).build(task)
    with pytest.raises(
        AdapterError, match=r"the file has \(3, 32\) float32, the module \(2, 32\) float32[\s\S]*and 11 more"
    ):
        load_adapter(narrow, path)
    with pytest.raises(AdapterError, match=r"tensor \S*lora_A\S*: the module has none"):
        load_adapter(make_method("frozen").build(task), path)


def test_damaged_and_foreign_files_are_users_mistakes(lora, tmp_path: Path) -> None:
    path, task, method = lora
    module = method.build(task)
    state = load_file(path)
    broken = {
        "missing": (lambda p: None, "cannot be read"),
        "text": (lambda p: p.write_text("hello"), "cannot be read"),
        "short": (lambda p: p.write_bytes(path.read_bytes()[:-10]), "cannot be read"),
        "plain": (lambda p: save_file(state, p), "does not say what its weights belong to"),
        "json": (lambda p: save_file(state, p, {HEADER: "{"}), "header of the weights cannot be used"),
        "format": (
            lambda p: save_file(state, p, {HEADER: read_adapter(path)[0].model_dump_json().replace(":1,", ":7,", 1)}),
            "header of the weights cannot be used: format",
        ),
    }
    for name, (make, message) in broken.items():
        file = tmp_path / f"{name}.safetensors"
        make(file)
        with pytest.raises(UserError, match=message) as error:
            load_adapter(module, file)
        assert str(file) in str(error.value)


def test_names_that_the_module_lacks_are_not_written(tmp_path: Path) -> None:
    task, method = make_task(), make_method("frozen")
    with pytest.raises(ValueError, match="no weights called strange"):
        save_adapter(method.build(task), tmp_path / "a", card_of("frozen", method, task), {"strange": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


def test_a_run_leaves_such_a_file(tmp_path: Path) -> None:
    request = make_request(make_tree(tmp_path / "data"), "lora", "spectralx", steps=2, pretrain_steps=1)
    cells, broken = plan(request, lambda _: None)
    outcomes = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert not broken and [outcome.state for outcome in outcomes] == ["done", "done"], outcomes[-1].message
    for outcome in outcomes:
        path, cell = outcome.record.with_name("selected.safetensors"), outcome.cell
        module = cell.method.build(cell.task())
        card = load_adapter(module, path, card_of(cell.method_name, cell.method, cell.task()))
        assert (card.benchmark, card.options) == ("mts12-n2s", read_record(outcome.record).options)
        declared = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
        stored = load_file(path)
        assert declared <= stored.keys()
        if cell.method_name == "lora":
            assert stored.keys() == changeable(module)
            with safe_open(path, framework="pt") as stream:
                assert set(stream.metadata()) == {HEADER}

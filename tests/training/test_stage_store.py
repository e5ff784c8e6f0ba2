"""Trained stages on disk: what is written is read, and the card comes last."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectral_tl_bench.errors import StageError
from spectral_tl_bench.models.weights import weights_digest
from spectral_tl_bench.training.stage_store import (
    StageIdentity,
    misfits,
    read_card,
    read_tensors,
    save_stage,
)

IDENTITY = StageIdentity(
    method="some:One", options={"rank": 3}, backbone={"name": "compact"}, dataset="D", domains=("a", "b"),
    chips={"a": {"x": "00"}, "b": {}}, nodata="fill", bands=("B1",), wavelengths=(0.5,), gsd=10.0, window=32,
    augment="none", stage="first", steps=4, batch_size=2, learning_rate=0.1, weight_decay=0.0, schedule="constant",
    precision="32-true", seed=0, numerics={"training": "1"},
    normalisation="training chips, mean and standard deviation",
)  # fmt: skip


def save(folder, state, identity=IDENTITY):
    return save_stage(
        folder, identity, state, relies_on="r", seconds=1.5, trainable=7, loss=[(4, 0.5)], environment={"torch": "1"}
    )


def test_what_is_saved_comes_back(tmp_path):
    state = {"w": torch.randn(3, 2).t(), "n": torch.tensor(4), "h": torch.ones(2, dtype=torch.bfloat16)}
    card = save(tmp_path, state)
    assert read_card(tmp_path) == card and card.fingerprint == IDENTITY.fingerprint
    found = read_tensors(tmp_path, card)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    assert {path.name for path in tmp_path.iterdir()} == {"stage.json", "stage.safetensors"}


def test_without_a_card_there_is_no_stage(tmp_path, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("spectral_tl_bench.training.stage_store.write_json", fails)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, {"w": torch.ones(2)})
    with pytest.raises(StageError, match=r"stage.json is missing"):
        read_card(tmp_path)
    with pytest.raises(StageError, match=r"has diverged: v is not finite after 4 steps"):
        save(tmp_path / "other", {"w": torch.ones(2), "v": torch.tensor([1.0, torch.inf])})
    assert {path.name for path in tmp_path.iterdir()} == {"stage.safetensors"}


def test_seeds_follow_the_content_and_not_the_versions():
    edited = IDENTITY.model_copy(update={"numerics": {"training": "2"}})
    assert edited.fingerprint != IDENTITY.fingerprint
    assert (edited.weight_seed, edited.order_seed) == (IDENTITY.weight_seed, IDENTITY.order_seed)
    for update in ({"seed": 1}, {"chips": {"a": {"x": "01"}, "b": {}}}, {"domains": ("b", "a")}, {"dataset": "E"}):
        other = IDENTITY.model_copy(update=update)
        assert other.weight_seed != IDENTITY.weight_seed and other.order_seed != IDENTITY.order_seed
    longer = IDENTITY.model_copy(update={"steps": 5, "options": {}})
    assert longer.order_seed == IDENTITY.order_seed, "methods on one source are paired by windows"


def test_shapes_are_compared_name_by_name():
    module = nn.Linear(2, 3)
    assert misfits(module, module.state_dict(), lambda name: True) == []
    assert misfits(module, {"weight": torch.zeros(3, 2)}, lambda name: name == "weight") == []
    found = misfits(module, {"weight": torch.zeros(1, 2), "more": torch.zeros(4)}, lambda name: True)
    assert [line.split(":")[0] for line in found] == ["tensor bias", "tensor more", "tensor weight"]
    assert "the checkpoint has (1, 2), this run needs (3, 2)" in found[2]


def test_the_digest_covers_names_values_and_types():
    torch.manual_seed(0)
    module = nn.Linear(2, 2)

    def chosen(name):
        return name == "weight"

    start = weights_digest(module, chosen)
    with torch.no_grad():
        module.bias.add_(1)
    assert weights_digest(module, chosen) == start
    assert weights_digest(module.bfloat16(), chosen) != start
    with torch.no_grad():
        module.float().weight[0, 0] += 1
    assert weights_digest(module, chosen) not in (start, weights_digest(module, lambda name: True))

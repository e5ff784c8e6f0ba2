"""What the model says it trains, it trains: for every option that changes the structure, in both stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spectral_tl_bench.authoring.watching import Watched, train_a_little, trained_norms
from spectral_tl_bench.methods.base import Stage
from spectralx import READINGS, SpectralX, SpectralXConfig
from spectralx.method import reconstruction_loss, segmentation_loss
from spectralx.trainable import StageName, chooser

BANDS, CLASSES = 5, 5
WAVELENGTHS = [0.4 + 0.05 * band for band in range(BANDS)]
LOSSES = {"reconstruct": reconstruction_loss, "segment": segmentation_loss}

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reading": "paper"},
    *({"reading": "paper", name: value} for name, value in READINGS["released"].items()),
    *({name: value} for name, value in READINGS["paper"].items()),
    {"positions": "backbone"},
    {"positions": "mixed", "reading": "paper"},
    {"are_adapter": False},
    {"aomoa": False},
    {"hyper_tokenizer": False, "are_adapter": False},
    {"hyper_tokenizer": False, "are_adapter": False, "aomoa": False},
    {"train_hyper_tokenizer": False, "drifting_statistics": True},
    {"reconstruction": False},
    {"top_k": 1},
    {"top_k": 1, "balance": 0.0},
    {"top_k": 4},
    {"experts": 1, "top_k": 1},
    {"levels": (0, 0, 0, 1)},
    {"levels": (0, 0, 0, 0)},
    {"attribute_cells": 1},
    {"backbone_trains": "none"},
    {"backbone_trains": "all"},
    {"backbone_trains": "all", "positions": "backbone"},
    {"backbone_trains": "all", "hyper_tokenizer": False, "are_adapter": False},
    {"backbone_trains": "none", "hyper_tokenizer": False, "are_adapter": False, "aomoa": False},
]

UNREACHED: list[tuple[Callable[[SpectralXConfig], bool], str, tuple[str, ...]]] = [
    (
        lambda config: config.matching == "hard",
        "hard matching takes no more of an attention than the place of its largest entry, and adds no linear map",
        (".attend.", ".direct."),
    ),
    (
        lambda config: config.top_k == 1 and (config.balance == 0 or config.experts == 1),
        "the only gate of a token is always 1, so that only the balance loss can teach the gate",
        (".gate.gate", ".gate.noise"),
    ),
]
"""Trained parameters that cannot have a gradient: where, why, and parts of their names."""


def test_flips_cover_every_difference_of_the_readings() -> None:
    for name in READINGS["paper"]:
        for reading in READINGS:
            other = next(values[name] for key, values in READINGS.items() if key != reading)
            flipped = [SpectralXConfig(**options) for options in OPTIONS]
            assert any(c.reading == reading and getattr(c, name) == other for c in flipped), (reading, name)


def train(make: Callable[..., SpectralX], options: dict[str, Any], stage: StageName, **more: Any) -> Watched:
    config = SpectralXConfig(**options)
    if stage == "reconstruct" and not config.reconstruction:
        pytest.skip("such a model has no first stage")
    model = make(bands=BANDS, wavelengths=WAVELENGTHS, depth=2, **options)
    what = Stage(stage, 3, loss=LOSSES[stage], trainable=chooser(config, stage))
    seen = train_a_little(model, what, BANDS, CLASSES, **more)
    assert seen.chosen == model.trainable_names(stage)
    return seen


def unreached(config: SpectralXConfig, chosen: set[str]) -> set[str]:
    parts = [part for applies, _, names in UNREACHED if applies(config) for part in names]
    return {name for name in chosen if any(part in name for part in parts)}


@pytest.mark.parametrize("stage", LOSSES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_exactly_what_is_chosen_learns(
    make: Callable[..., SpectralX], options: dict[str, Any], stage: StageName
) -> None:
    seen, config = train(make, options, stage), SpectralXConfig(**options)
    exempt = unreached(config, seen.chosen)
    assert seen.reached == seen.chosen - exempt
    assert seen.touched <= seen.chosen
    changed = seen.changed & seen.parameters
    assert changed - exempt == seen.chosen - exempt  # weight decay may still shrink what only has a gradient of zero
    assert not seen.odd


@pytest.mark.parametrize("stage", LOSSES)
@pytest.mark.parametrize("options", [*OPTIONS[:8], *(pytest.param(one, marks=pytest.mark.slow) for one in OPTIONS[8:])],
                         ids=str)  # fmt: skip
def test_statistics_move_where_parameters_train(
    make: Callable[..., SpectralX], options: dict[str, Any], stage: StageName
) -> None:
    seen, config = train(make, options, stage, steps=1), SpectralXConfig(**options)
    tokenizer = {name for name in seen.ran if name.startswith("hyper_tokenizer.")}
    assert bool(tokenizer) == config.hyper_tokenizer
    drifting = tokenizer if config.drifting_statistics else set()
    assert seen.moved == trained_norms(seen) | drifting
    assert {name for name in seen.ran if name.startswith("decoder.")} == (
        {name for name in seen.moved if name.startswith("decoder.")}
    )


@pytest.mark.parametrize("stage", LOSSES)
@pytest.mark.parametrize("matching", ["soft", "hard"])
@pytest.mark.parametrize("reading", READINGS)
def test_a_batch_of_one_trains_the_same(
    make: Callable[..., SpectralX], reading: str, matching: str, stage: StageName
) -> None:
    options = {"reading": reading, "matching": matching, "drifting_statistics": False}
    seen = train(make, options, stage, batch=1)
    exempt = unreached(SpectralXConfig(**options), seen.chosen)  # type: ignore[arg-type]
    assert seen.reached == seen.chosen - exempt
    assert seen.changed & seen.parameters == seen.chosen - exempt
    # A pooled map of one pixel has no variance: its layer works with the running statistics, and still learns.
    alone = {"decoder.head.pools.0.1"} if stage == "segment" else set()
    assert seen.moved == trained_norms(seen) - alone
    assert alone <= seen.ran

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from spectral_tl_bench.inspect.token_shares import image_share, probe
from spectralx import SpectralX

Make = Callable[..., SpectralX]


def shares(model: nn.Module, images: torch.Tensor) -> dict[str, float]:
    return {one.name: one.share for one in probe(model, images)}


def test_shares_of_tokens_made_by_hand() -> None:
    place, image = torch.randn(1, 7, 5), torch.randn(6, 1, 5)
    assert image_share(place.expand(6, 7, 5))[0] == pytest.approx(0, abs=1e-12)
    assert image_share(image.expand(6, 7, 5))[0] == pytest.approx(1)
    # Two signs per factor: both have variance 1 and do not mix, so that the image has 9 parts of 10.
    place = torch.tensor([1.0, -1.0]).view(1, 2, 1)
    image = torch.tensor([3.0, -3.0]).view(2, 1, 1)
    share, variance = image_share((place + image + 100).expand(2, 2, 4))
    assert (share, variance) == (pytest.approx(0.9), pytest.approx(10.0))
    share, variance = image_share(torch.full((3, 2, 2), 5.0))
    assert math.isnan(share) and variance == 0


def test_independent_tokens_have_the_share_that_is_documented() -> None:
    assert image_share(torch.randn(4, 500, 200))[0] == pytest.approx(3 / 4, abs=0.01)


@pytest.mark.parametrize("tokens", [torch.zeros(1, 3, 3), torch.zeros(4, 3)])
def test_what_cannot_be_compared_is_refused(tokens: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="at least two images"):
        image_share(tokens)


def test_the_release_is_blind_and_the_paper_is_not(make: Make) -> None:
    images = torch.randn(12, 5, 32, 32)
    found = {reading: shares(make(reading=reading), images) for reading in ("paper", "released")}
    assert found["released"]["HyperT tokens"] < 0.01
    assert found["paper"]["HyperT tokens"] > 10 * found["released"]["HyperT tokens"]
    for of in found.values():
        assert of["low-rank path"] > 0.5 and of["attribute features, spatial"] > 0.01
    verdicts = {one.name: one.verdict for one in probe(make(reading="released"), images)}
    assert verdicts["HyperT tokens"] == "blind" and verdicts["low-rank path"] == ""


def test_shares_are_those_of_the_tokens_themselves(make: Make, shake: Callable[[nn.Module], None]) -> None:
    model, images = make(), torch.randn(5, 5, 32, 32)
    shake(model)
    model.eval()
    with torch.no_grad():
        tokens, attributes = model.hyper_tokenizer(images)
        embedded = model.patch_path(images, tokens)
        blocks: list[torch.Tensor] = []
        hook = model.are_adapter.register_forward_hook(lambda _m, inputs, output: blocks.append((inputs[0], output)))
        model(images)
        hook.remove()
    found = {one.name: one for one in probe(model, images, batch=2)}
    expected = {
        "HyperT tokens": tokens,
        "attribute features, spatial": attributes.spatial,
        "attribute features, spectral": attributes.spectral,
        "patch embedding (sum)": embedded,
        **{f"tokens after block {level}": before for level, (before, _) in enumerate(blocks)},
        **{f"Are-adapter after block {level}": after - before for level, (before, after) in enumerate(blocks)},
    }
    for name, values in expected.items():
        share, variance = image_share(values)
        assert found[name].share == pytest.approx(share, rel=1e-3), name
        assert found[name].variance == pytest.approx(variance, rel=1e-3), name
    added = [one for name, one in found.items() if name.startswith("AoMoA")]
    assert len(added) == 8 and all(0 < one.share < 1 for one in added)
    assert set(found) == {*expected, "low-rank path", *(one.name for one in added)}


@pytest.mark.parametrize(
    ("options", "missing", "there"),
    [
        ({"aomoa": False}, "AoMoA", "Are-adapter"),
        ({"are_adapter": False}, "Are-adapter", "AoMoA"),
        ({"hyper_tokenizer": False, "are_adapter": False}, "HyperT", "patch embedding of the backbone"),
        ({"hyper_tokenizer": False, "are_adapter": False, "aomoa": False}, "AoMoA", "low-rank path"),
    ],
)
def test_parts_that_are_switched_off_are_not_there(make: Make, options: dict, missing: str, there: str) -> None:
    names = shares(make(**options), torch.randn(3, 5, 32, 32))
    assert not any(name.startswith(missing) for name in names)
    assert any(name.startswith(there) for name in names)
    assert {f"tokens after block {level}" for level in range(4)} <= set(names)


def test_untrained_experts_add_nothing(make: Make) -> None:
    found = {one.name: one for one in probe(make(adapter_start="zero"), torch.randn(3, 5, 32, 32))}
    one = found["AoMoA beside fc1 of block 0"]
    assert math.isnan(one.share) and (one.percent, one.verdict) == ("-", "all tokens equal")


def test_any_other_transformer_shows_embedding_and_blocks(make: Make) -> None:
    backbone = make().backbone
    found = shares(nn.Sequential(backbone), torch.randn(3, 5, 32, 32))
    assert list(found) == ["patch embedding of the backbone", *(f"tokens after block {n}" for n in range(4))]
    assert found["patch embedding of the backbone"] > 0.3


def test_the_model_is_left_as_it_was(make: Make) -> None:
    model = make().train()
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    probe(model, torch.randn(3, 5, 32, 32))
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_without_images_or_transformer_there_is_nothing_to_see(make: Make) -> None:
    with pytest.raises(ValueError, match="at least two"):
        probe(make(), torch.randn(1, 5, 32, 32))
    with pytest.raises(ValueError, match="no vision transformer"):
        probe(nn.Conv2d(5, 5, 1), torch.randn(2, 5, 32, 32))

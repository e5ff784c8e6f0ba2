"""Any number of bands, any patch side, images of any size that the patch divides; same seed, same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from spectralx import SpectralX, SpectralXConfig

Make = Callable[..., SpectralX]
READINGS = ["paper", "released"]


def assert_works(model: SpectralX, images: Tensor) -> None:
    """Both stages in training mode, with finite losses and gradients, and a prediction for every pixel."""
    model.train()
    logits, balance = model.segment(images)
    assert logits.shape == (len(images), 5, *images.shape[2:])
    loss = logits.square().mean() + balance
    if model.reconstruction is not None:
        loss = loss + model.forward_reconstruction(images)
    model.zero_grad()
    loss.backward()
    assert loss.isfinite()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert model.eval()(images).isfinite().all()


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("bands", [1, 2, 3, 13, 32, 200])
def test_any_number_of_bands(make: Make, bands: int, reading: str) -> None:
    wavelengths = [0.4 + 2.0 * band / bands for band in range(bands)]
    model = make(bands=bands, depth=1, wavelengths=wavelengths, reading=reading)
    assert_works(model, torch.randn(2, bands, 32, 32))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("patch", [4, 7, 8, 14, 16])
@pytest.mark.parametrize("patches", [2, 3, 5])
def test_any_patch(make: Make, patch: int, patches: int, reading: str) -> None:
    model = make(size=patch * patches, patch=patch, depth=1, reading=reading)
    assert_works(model, torch.randn(2, 5, patch * patches, patch * patches))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("grid", [(4, 4), (1, 2), (2, 1), (1, 6), (6, 1), (3, 5), (9, 4), (1, 4), (8, 8)], ids=str)
@pytest.mark.parametrize("matching", ["soft", "hard"])
def test_images_of_other_sizes(make: Make, matching: str, grid: tuple[int, int], batch: int) -> None:
    model = make(depth=1, matching=matching)  # for 32 x 32 pixels in patches of 8
    assert_works(model, torch.randn(batch, 5, 8 * grid[0], 8 * grid[1]))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (1, 5), (2, 3), (7, 2)], ids=str)
@pytest.mark.parametrize("reading", READINGS)
def test_models_for_sizes_that_are_not_square(reading: str, grid: tuple[int, int], batch: int) -> None:
    size = (8 * grid[0], 8 * grid[1])
    backbone = VisionTransformer(
        img_size=size, patch_size=8, in_chans=5, embed_dim=48, depth=1, num_heads=4, num_classes=0
    )
    config = SpectralXConfig(reading=reading)  # type: ignore[arg-type]
    model = SpectralX(backbone, [0.5 + 0.1 * band for band in range(5)], 5, size, config=config)
    assert_works(model, torch.randn(batch, 5, *size))
    assert model(torch.randn(1, 5, size[1], size[0])).shape == (1, 5, size[1], size[0])


@pytest.mark.parametrize("positions", ["backbone", "mixed"])
@pytest.mark.parametrize("tokenizer", [True, False])
def test_other_sizes_with_other_positions(make: Make, positions: str, tokenizer: bool) -> None:
    model = make(depth=1, positions=positions, hyper_tokenizer=tokenizer, are_adapter=tokenizer)
    for size in ((32, 32), (16, 48), (40, 8)):
        assert_works(model, torch.randn(2, 5, *size))


def test_a_size_beside_the_own_is_not_another_computation(make: Make) -> None:
    """What is interpolated for other sizes is the table of the own size: a little more image changes little."""
    model = make(depth=1, size=64).eval()
    images = torch.randn(1, 5, 1, 1).expand(1, 5, 72, 72)
    own, larger = model(images[..., :64, :64]), model(images)
    change = (larger[..., 16:48, 16:48] - own[..., 16:48, 16:48]).abs().mean()
    assert 0 < change < 0.5 * own.std()


@pytest.mark.parametrize("shape", [(5, 0, 32), (5, 32, 0), (5, 12, 32), (5, 32, 33), (4, 32, 32), (6, 32, 32)], ids=str)
@pytest.mark.parametrize("stage", ["reconstruct", "segment"])
def test_impossible_images_are_named(make: Make, stage: str, shape: tuple[int, int, int]) -> None:
    model, images = make(depth=1), torch.zeros(2, *shape)
    with pytest.raises(ValueError, match=r"images are \(2, .*expected \(B, 5, .*multiples of the patch side 8"):
        model.segment(images) if stage == "segment" else model.forward_reconstruction(images)


def test_one_patch_cannot_be_reconstructed_but_segmented(make: Make) -> None:
    model, images = make(depth=1), torch.randn(1, 5, 8, 8)
    with pytest.raises(ValueError, match="at least two"):
        model.forward_reconstruction(images)
    assert model(images).shape == (1, 5, 8, 8)


@pytest.mark.parametrize("size", [(8, 8), (0, 8), (12, 16), (16, 4)], ids=str)
def test_models_for_impossible_sizes_are_refused(make: Make, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of the patch side 8, at least two patches"):
        SpectralX(make(depth=1).backbone, [0.5] * 5, 5, size)


@pytest.mark.parametrize("reading", READINGS)
def test_two_runs_are_the_same_bit_by_bit(make: Make, reading: str) -> None:
    states = []
    for _ in range(2):
        model = make(depth=1, reading=reading)  # seeds before it builds
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
        generator = torch.Generator().manual_seed(5)
        for _ in range(2):
            images = torch.randn(2, 5, 32, 32)
            optimiser.zero_grad()
            logits, balance = model.segment(images)
            (logits.square().mean() + balance + model.forward_reconstruction(images, generator)).backward()
            optimiser.step()
        states.append(dict([*model.named_parameters(), *model.named_buffers()]))
    assert states[0].keys() == states[1].keys()
    assert [name for name, value in states[0].items() if not torch.equal(value, states[1][name])] == []


@pytest.mark.parametrize("shape", [(32, 32), (16, 40)], ids=str)
def test_a_generator_draws_the_same_mask(make: Make, shape: tuple[int, int]) -> None:
    model, images = make(depth=1), torch.randn(3, 5, *shape)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + 100 * len(masks))  # the global chance must not matter
        masks.append(model.reconstruct(images, torch.Generator().manual_seed(seed))[1].hidden)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert (masks[0].sum(1) == masks[0].sum(1)[0]).all()
    assert not torch.equal(masks[0][0], masks[0][1]), "every image has a mask of its own"

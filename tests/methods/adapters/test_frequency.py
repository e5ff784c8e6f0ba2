"""Spatial frequencies: Earth-Adapter's split and mixture, Land-MoE's filter, against NumPy's full transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapting import WIDTH, adapters, stir, vit
from torch.nn import functional

from spectral_tl_bench.methods.adapters.earth_adapter import EarthAdapter, EarthAdapterModule
from spectral_tl_bench.methods.adapters.frequency import LARGEST_FREQUENCY, modulate, split_frequencies
from spectral_tl_bench.methods.registry import make_method

GRIDS = [(14, 14), (3, 5), (5, 3), (4, 6), (1, 7), (1, 1)]


def tokens(grid: tuple[int, int], batch: int = 2, width: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, grid[0] * grid[1], width)


def centred(grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Whole frequencies along rows and columns, zero in the middle."""
    rows, columns = (np.arange(side) - side // 2 for side in grid)
    return np.meshgrid(rows, columns, indexing="ij")


def filtered(given: torch.Tensor, grid: tuple[int, int], factor: np.ndarray) -> torch.Tensor:
    """Multiplies the centred two-sided spectrum by factors (h, w, 1 or D)."""
    cells = given.double().numpy().reshape(len(given), *grid, -1)
    spectrum = np.fft.fftshift(np.fft.fft2(cells, axes=(1, 2)), axes=(1, 2)) * factor
    back = np.fft.ifft2(np.fft.ifftshift(spectrum, axes=(1, 2)), axes=(1, 2))
    assert np.abs(back.imag).max() < 1e-10
    return torch.from_numpy(back.real.reshape(given.shape)).float()


@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_the_low_part_is_a_square_of_the_spectrum(grid, cutoff):
    given, (down, right) = tokens(grid), centred(grid)
    keep = (np.abs(down) <= cutoff * min(grid) / 2) & (np.abs(right) <= cutoff * min(grid) / 2)
    low, high = split_frequencies(given, grid, cutoff)
    torch.testing.assert_close(low, filtered(given, grid, keep[..., None]))
    torch.testing.assert_close(high, filtered(given, grid, ~keep[..., None]))
    torch.testing.assert_close(low + high, given)


def test_a_ramp_is_low_and_a_chequerboard_is_high():
    down, right = np.indices((8, 12))
    for pattern, is_low in ((np.cos(2 * np.pi * down / 8), True), ((-1.0) ** (down + right), False)):
        given = torch.from_numpy(pattern.reshape(1, -1, 1)).float()
        low, high = split_frequencies(given, (8, 12), 0.3)
        torch.testing.assert_close(low if is_low else high, given, atol=1e-6, rtol=1e-5)
        assert (high if is_low else low).abs().max() < 1e-5


@pytest.mark.parametrize("grid", GRIDS)
def test_a_filter_multiplies_frequencies_by_their_distance_from_zero(grid):
    given, gains = tokens(grid), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    down, right = centred(grid)
    distance = np.hypot(down / grid[0], right / grid[1]) / LARGEST_FREQUENCY
    factor = np.stack([1 + np.interp(distance, np.linspace(0, 1, 5), gains[:, c]) for c in range(3)], axis=-1)
    torch.testing.assert_close(modulate(given, grid, gains), filtered(given, grid, factor), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(modulate(given, grid, torch.zeros(5, 3)), given)


def test_transforms_are_in_single_precision_under_autocast():
    given, gains = tokens((6, 6)), torch.randn(5, 3)
    expected = (*split_frequencies(given, (6, 6), 0.3), modulate(given, (6, 6), gains))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = (*split_frequencies(given, (6, 6), 0.3), modulate(given, (6, 6), gains))
    assert all(torch.equal(one, other) for one, other in zip(rounded, expected, strict=True))
    low, _ = split_frequencies(given.bfloat16(), (6, 6), 0.3)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected[0], atol=2e-2, rtol=2e-2)
    assert split_frequencies(given.double(), (6, 6), 0.3)[0].dtype == torch.float64


@pytest.mark.parametrize(("early", "late"), [(2, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("grid", [(3, 5), (14, 14)])
def test_earth_adapter_is_its_equation(grid, early, late):
    torch.manual_seed(0)
    module = stir_all(EarthAdapterModule(depth=3, width=4, hidden=5, early=early, cutoff=0.4, late=late))
    given, (down, right) = tokens(grid, width=4), centred(grid)
    keep = ((np.abs(down) <= 0.2 * min(grid)) & (np.abs(right) <= 0.2 * min(grid)))[..., None]
    parts = [given, filtered(given, grid, keep), filtered(given, grid, ~keep)]
    split = [layer for layer in range(3) if layer < early or layer >= 3 - late]
    for number, layer in enumerate(split):
        mixture = module.mixtures[number]
        expected = given.clone()
        for image in range(2):
            for place in range(grid[0] * grid[1]):
                logits = mixture.router.weight @ given[image, place] + mixture.router.bias
                shares = logits.exp() / logits.exp().sum()
                for share, part, expert in zip(shares, parts, mixture.experts, strict=True):
                    hidden = (expert.down.weight @ part[image, place] + expert.down.bias).clamp(min=0)
                    added = expert.up.weight @ hidden + expert.up.bias
                    expected[image, place] += module.scale[layer] * share * added
        torch.testing.assert_close(module(given, layer, grid), expected)
    (rest,) = {0, 1, 2} - set(split)
    last = module.bottlenecks[0]
    plain = given + module.scale[rest] * last.up(functional.relu(last.down(given)))
    torch.testing.assert_close(module(given, rest, grid), plain)


def stir_all(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.requires_grad_(False)


@pytest.mark.parametrize(("early", "late", "mixtures"), [(3, 0, 3), (0, 0, 0), (9, 0, 4), (1, 1, 2), (3, 3, 4)])
def test_the_first_and_last_blocks_have_mixtures(early, late, mixtures):
    backbone = EarthAdapter(early=early, late=late, bottleneck=7, cutoff=0.5, scale=0.2).insert(vit(depth=4))
    adapter = backbone.adapter
    assert (len(adapter.mixtures), len(adapter.bottlenecks)) == (mixtures, 4 - mixtures)
    assert adapter.scale.tolist() == pytest.approx([0.2] * 4)
    assert all(one.cutoff == 0.5 for one in adapter.mixtures)
    names = [name for name in adapters(backbone) if name.endswith("down.weight")]
    assert len(names) == 3 * mixtures + 4 - mixtures
    assert all(adapters(backbone)[name].shape == (7, WIDTH) for name in names)
    assert stir(backbone) is backbone


@pytest.mark.parametrize("side", [4, 5, 13, 14, 16])
def test_the_square_of_low_frequencies_has_its_centre_at_zero(side):
    """As many frequencies of either sign, on even grids, too: an image turned by 180 degrees has its parts turned."""
    down, right = centred((side, side))
    reach = int(0.2 * side)
    keep = (np.abs(down) <= 0.4 * side / 2) & (np.abs(right) <= 0.4 * side / 2)
    assert keep.sum() == (2 * reach + 1) ** 2
    given = tokens((side, side))
    low, _ = split_frequencies(given, (side, side), 0.4)
    torch.testing.assert_close(low, filtered(given, (side, side), keep[..., None]))
    turned, _ = split_frequencies(given.flip(1), (side, side), 0.4)
    torch.testing.assert_close(turned, low.flip(1))


@pytest.mark.parametrize(
    ("preset", "layers", "width"),
    [
        ("r2u", range(6), 64), ("vi2p", range(6), 64), ("u2r", range(21, 24), 24), ("p2vi", range(18, 24), 24),
        ("", range(6), 64),
    ],
)  # fmt: skip
def test_presets_are_the_settings_of_the_source(preset, layers, width):
    """In 24 blocks, as published; the default is one of them."""
    method = make_method(f"earth-adapter@{preset}" if preset else "earth-adapter")
    adapter = method.insert(vit(depth=24)).adapter
    assert sorted(adapter.place) == list(layers)
    widths = {one.down.out_features for one in adapter.bottlenecks}
    widths |= {one.down.out_features for mixture in adapter.mixtures for one in mixture.experts}
    assert widths == {width} and {mixture.cutoff for mixture in adapter.mixtures} == {0.3}

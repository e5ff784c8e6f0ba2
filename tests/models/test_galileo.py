"""Galileo: which bands it reads, the authors' weights, and the numbers of their encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from real import HLS, pattern, short_run
from safetensors.torch import load_file, save_file
from shared import SHARED, needs_shared

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.models.backbones import Backbone, get_backbone
from spectral_tl_bench.models.backbones.galileo import places_of
from spectral_tl_bench.models.patch_embedding import SENTINEL2

NANO = SHARED / "weights" / "galileo-nano" / "galileo-nano-encoder.safetensors"
CHIPS = SHARED / "data" / "hls-worldcover"
MTS12 = (0.490, 0.560, 0.665, 0.842, 1.610, 2.190) * 4
TINY = {"width": 48, "depth": 2, "heads": 4}
OHS = tuple(0.466 + 0.015 * band for band in range(32))


def on(sensor: tuple[float, ...], gsd: float | None, weights: str = "none", **sizes: Any) -> Backbone:
    return get_backbone("galileo-nano", weights, **sizes).for_sensor(sensor, gsd)


@pytest.mark.parametrize(
    ("sensor", "groups"),
    [
        (SENTINEL2, {"S2_RGB": (1, 2, 3), "S2_Red_Edge": (4, 5, 6), "S2_NIR_10m": (7,), "S2_NIR_20m": (8,),
                     "S2_SWIR": (11, 12)}),
        (SENTINEL2[::-1], {"S2_RGB": (11, 10, 9), "S2_Red_Edge": (8, 7, 6), "S2_NIR_10m": (5,), "S2_NIR_20m": (4,),
                           "S2_SWIR": (1, 0)}),
        (HLS, {"S2_RGB": (1, 2, 3), "S2_NIR_20m": (4,), "S2_SWIR": (5, 6)}),  # a band goes to one group
        ((0.49, 0.56, 0.842, 1.61), {"S2_NIR_10m": (2,)}),  # neither red nor the second short-wave band is there
        ((0.40, 0.52, 0.60), {}),
    ],
)  # fmt: skip
def test_a_group_takes_part_where_all_of_its_bands_are(sensor, groups):
    assert places_of(sensor) == {name: (one,) for name, one in groups.items()}


def test_many_narrow_bands_give_the_nearest_ones():
    found = places_of(OHS)
    assert set(found) == {"S2_RGB", "S2_Red_Edge", "S2_NIR_10m", "S2_NIR_20m"}
    assert [round(OHS[channel], 3) for channel in found["S2_RGB"][0]] == [0.496, 0.556, 0.661]


def test_dates_of_a_time_series_are_dates():
    assert places_of(MTS12)["S2_SWIR"] == ((4, 5), (10, 11), (16, 17), (22, 23))


@needs_shared(NANO)
@pytest.mark.parametrize(
    ("sensor", "gsd", "patch", "side", "expected"),
    [
        (SENTINEL2, 10.0, 8, 32, [-0.0092, -0.0143, 0.1019, 0.0583, 0.0837, -0.0290]),
        (SENTINEL2, None, 4, 16, [0.0073, -0.0117, 0.1048, 0.0685, 0.0856, 0.0125]),
        (HLS, 30.0, 8, 32, [-0.0302, 0.0183, 0.1821, 0.0568, 0.0704, 0.0431]),
        (MTS12, 10.0, 8, 32, [0.0250, 0.0154, -0.1878, -0.0023, 0.0300, 0.0072]),
    ],
)
def test_the_numbers_of_the_authors_encoder(sensor, gsd, patch, side, expected):
    """Made with their encoder in PyTorch, in June, with all other groups hidden, as the mean over what is seen."""
    spec = on(sensor, gsd, str(NANO), patch=patch)
    assert spec.weights is not None
    assert (spec.weights.matched, spec.weights.missing, spec.weights.unexpected) == (1.0, 0, 0)
    network = spec.build(len(sensor), side).eval()
    with torch.no_grad():
        (last,) = network.forward_intermediates(
            pattern(len(sensor), side), indices=[3], norm=True, intermediates_only=True
        )
    assert last.shape == (1, 128, side // patch, side // patch)
    torch.testing.assert_close(last[0, :6, 1, 2], torch.tensor(expected), rtol=0, atol=2e-4)


@needs_shared(NANO)
def test_levels_of_the_real_weights():
    spec = on(SENTINEL2, 30.0, str(NANO))
    with torch.no_grad():
        maps = spec.build(13, 32).eval().forward_intermediates(
            pattern(13, 32), indices=list(spec.levels), norm=False, intermediates_only=True
        )  # fmt: skip
    expected = [
        [0.0162, 1.1894, 0.7341],
        [-0.3760, 1.9198, 0.5906],
        [-0.8443, 0.3348, 1.6723],
        [-0.2298, 0.1162, 1.7038],
    ]
    torch.testing.assert_close(
        torch.stack([one[0, :3, 1, 2] for one in maps]), torch.tensor(expected), rtol=0, atol=1e-3
    )


@needs_shared(NANO)
def test_names_with_backbone_in_them_as_the_authors_save(tmp_path):
    """Their file has it in some names, and their loader takes it out."""
    state = load_file(NANO)
    torch.save(
        {name.replace(".attn.", ".attn.backbone."): value for name, value in state.items()}, tmp_path / "encoder.pt"
    )
    network = on(SENTINEL2, 10.0, str(tmp_path / "encoder.pt")).build(13, 16)
    rows = [state[f"blocks.2.attn.{part}.weight"] for part in "qkv"]
    assert torch.equal(network.blocks[2].attn.qkv.weight, torch.cat(rows))
    assert torch.equal(network.s_t_channel_embed, state["s_t_channel_embed"])


@needs_shared(NANO)
def test_the_file_of_another_model_is_said(tmp_path):
    with pytest.raises(UserError, match=r"grouped channels[\s\S]*galileo-nano"):
        get_backbone("compact", str(NANO))
    with pytest.raises(UserError, match="do not have the shapes of galileo-tiny"):
        get_backbone("galileo-tiny", str(NANO))
    save_file(get_backbone("compact", "none").build(3, 32).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"not those of galileo-nano|do not have the shapes of galileo-nano"):
        get_backbone("galileo-nano", str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("sensor", "sizes", "message"),
    [
        ((0.40, 0.52, 0.60), {}, r"reads none of these 3 bands[\s\S]*S2_RGB: 0.49, 0.56, 0.665"),
        (MTS12[:6] * 25, {}, "24 dates at most, these images have 25"),
        (SENTINEL2, {"width": 40}, "a multiple of 16"),
    ],
)
def test_what_it_cannot_read_is_refused(sensor, sizes, message):
    with pytest.raises(UserError, match=message):
        on(sensor, 10.0, **(TINY | sizes)).build(len(sensor), 32)


def test_bands_of_no_group_are_not_read_and_all_others_are():
    network = on(HLS, 30.0, **TINY).build(7, 32).eval()
    images = pattern(7, 32).requires_grad_()
    network.forward_intermediates(images, indices=[1], intermediates_only=True)[0].square().sum().backward()
    assert images.grad is not None
    assert [bool(band.any()) for band in images.grad[0]] == [False, True, True, True, True, True, True]


def test_positions_are_in_metres():
    first, same, other = (on(SENTINEL2, gsd, **TINY).build(13, 32).where for gsd in (10.0, None, 30.0))
    assert torch.equal(first, same) and not torch.equal(first, other)


@needs_shared(NANO)
@pytest.mark.skipif(not CHIPS.exists(), reason="needs the real chips")
@pytest.mark.parametrize("method", [
    "linear-probe",
    pytest.param("frozen", marks=pytest.mark.slow),
    pytest.param("lora", marks=pytest.mark.slow),
])  # fmt: skip
def test_real_weights_on_real_chips(few_chips, tmp_path, method):
    record = short_run(method, "galileo-nano", NANO, few_chips, tmp_path / "runs")
    assert record.backbone.pretrained == "galileo-nano" and record.backbone.patch_embedding == "own-groups"

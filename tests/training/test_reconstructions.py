"""Pictures of a stage: which bands and windows they show, and that looking changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_source, make_task
from torch import nn

from spectral_tl_bench.data.loaders import BandStatistics, Normalise
from spectral_tl_bench.methods.base import Budget, Shared, Stage
from spectral_tl_bench.training.gradient import GradientStage, train_stage
from spectral_tl_bench.training.hardware import Hardware
from spectral_tl_bench.training.reconstructions import (
    CAPTION,
    GAP,
    Album,
    PictureBook,
    compositions,
    draw_grid,
    fixed_windows,
    look,
    picture_steps,
)
from spectralx.method import SpectralXMethod

SENTINEL = (0.443, 0.49, 0.56, 0.665, 0.705, 0.842, 1.61)


def test_steps_are_spread_and_end_with_the_last():
    assert picture_steps(1000) == (200, 400, 600, 800, 1000)
    assert picture_steps(3) == (1, 2, 3) and picture_steps(1) == (1,)


@pytest.mark.parametrize(
    ("wavelengths", "expected"),
    [
        (SENTINEL, {"true colour": (3, 2, 1), "false colour": (5, 3, 2)}),
        (SENTINEL * 2, {"true colour": (3, 2, 1), "false colour": (5, 3, 2)}),
        (SENTINEL[:4], {"true colour": (3, 2, 1)}),
        ((0.56, 0.665, 0.842), {"false colour": (2, 1, 0)}),
        ((1.6, 2.2, 10.9, 12.0), {"first bands": (0, 1, 2)}),
        ((1.6, 2.2), {"first band": (0,)}),
        ((0.55,), {"first band": (0,)}),
    ],
    ids=["all", "two dates", "no infrared", "no blue", "none", "two bands", "one band"],
)
def test_bands_are_chosen_by_wavelength(wavelengths, expected):
    assert compositions(wavelengths) == expected


def tiles(sheet: Image.Image, rows: int, columns: int) -> np.ndarray:
    """(rows, columns, side, side, 3)."""
    pixels = np.asarray(sheet)
    side = (pixels.shape[0] - CAPTION) // rows - GAP
    assert pixels.shape[1] == GAP + columns * (side + GAP)
    return np.stack([
        [pixels[CAPTION + r * (side + GAP) :, GAP + c * (side + GAP) :][:side, :side] for c in range(columns)]
        for r in range(rows)
    ])  # fmt: skip


def test_one_stretch_for_all_columns_of_a_row():
    torch.manual_seed(0)
    images = torch.rand(2, len(SENTINEL), 16, 16) * torch.tensor([1.0, 100.0])[:, None, None, None]
    shown = tiles(
        draw_grid({"input": images, "same": images, "half": images / 2, "nan": images * torch.nan}, SENTINEL), 2, 8
    )
    assert shown.shape[2] == 128, "small windows are enlarged"
    for row in shown:
        assert np.array_equal(row[0], row[1]) and not np.array_equal(row[0], row[4])
        assert row[0].max() == 255 and row[0].min() == 0
        assert row[2].mean() == pytest.approx(row[0].mean() / 2, rel=0.1), "not stretched by itself"
        assert not row[3].any()
    assert abs(int(shown[0, 0].mean()) - int(shown[1, 0].mean())) < 10, "each row has a stretch of its own"
    grey = tiles(draw_grid({"input": images[:, :1]}, SENTINEL[:1]), 2, 1)
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()


def test_undoing_the_normalisation():
    normalise = Normalise(BandStatistics(np.array([5.0, 7.0]), np.array([2.0, 0.0])))
    image = torch.stack([torch.rand(4, 4) * 9, torch.full((4, 4), 7.0)])[None]
    torch.testing.assert_close(normalise.undo(normalise(image)), image)


def test_windows_are_fixed_and_of_different_chips(tree):
    one = fixed_windows(make_source(tree))
    assert one.shape == (4, 24, 16, 16) and torch.equal(one, fixed_windows(make_source(tree, batch_size=1)))
    assert not torch.equal(one, fixed_windows(make_source(tree, order_seed=1)))
    source = make_source(tree)
    means = {round(float(window.mean()), 3) for window in one}
    assert len(means) == min(4, len({row["chip"] for _, _, row in source.collection.chips()}))


class Moody(nn.Module):
    """Remembers its modes, takes random numbers, and moves statistics in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.frozen = nn.BatchNorm2d(24), nn.BatchNorm2d(24)
        self.frozen.eval()

    def forward(self, images):
        return self.norm(images) + torch.randn_like(images) * 0.1


def test_looking_leaves_modes_statistics_and_chance_alone():
    module, images = Moody(), torch.rand(2, 24, 8, 8) + 3
    seen = []

    def draw(inner, given):
        seen.append((inner.training, torch.is_grad_enabled()))
        return {"input": given, "out": inner(given)}

    state = torch.get_rng_state()
    first = look(module, draw, images)
    assert torch.equal(torch.get_rng_state(), state) and seen == [(False, False)]
    assert (module.training, module.norm.training, module.frozen.training) == (True, True, False)
    assert int(module.norm.num_batches_tracked) == 0
    torch.rand(5)
    assert torch.equal(look(module, draw, images)["out"], first["out"]), "a picture does not depend on when it is drawn"

    def fails(inner, given):
        raise RuntimeError("no picture")

    with pytest.raises(RuntimeError, match="no picture"):
        look(module, fails, images)
    assert module.norm.training and not module.frozen.training


def test_pictures_do_not_change_what_is_learned(tree, tmp_path):
    source, results = make_source(tree), []

    def loss(inner, batch):
        return (inner(batch["image"]) * torch.rand(())).square().mean()

    album = Album(
        tmp_path / "pictures", lambda inner, images: {"input": images, "out": inner(images)}, SENTINEL + (1.0,) * 17
    )
    for book in ([], [PictureBook(album, fixed_windows(source), (1, 3))]):
        torch.manual_seed(0)
        module = Moody()
        stage = GradientStage(
            module, Stage("first", 4, labelled=False, loss=loss), source, Budget(batch_size=2),
            {name for name, _ in module.named_parameters() if name.startswith("norm")}, tmp_path, "first",
            seed=1, hardware=Hardware("cpu"), say=lambda _: None, title="", callbacks=book,
        )  # fmt: skip
        train_stage(stage)
        results.append(module.state_dict())
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["step-000001.png", "step-000003.png"]
    assert all(torch.equal(value, results[0][name]) for name, value in results[1].items())
    assert int(results[0]["norm.num_batches_tracked"]) == 4


def test_the_columns_of_stage_1_differ():
    task = make_task(bands=7, window=16)
    torch.manual_seed(0)
    method = SpectralXMethod()
    stage = method.stages(task)[0]
    assert isinstance(stage.shared, Shared)
    images = torch.randn(3, 7, 16, 16)
    columns = look(method.build(task), stage.pictures, images)
    assert list(columns) == ["input", "masked", "reconstruction"] and torch.equal(columns["input"], images)
    hidden = (columns["masked"] == 0).all(dim=1)
    assert hidden.float().mean() == 0.75 and hidden.unfold(1, 8, 8).unfold(2, 8, 8).float().std(dim=(3, 4)).max() == 0
    visible = ~hidden[:, None].expand_as(images)
    torch.testing.assert_close(columns["reconstruction"][visible], images[visible])
    assert not torch.isclose(columns["reconstruction"][~visible], images[~visible]).all()
    shown = tiles(draw_grid(columns, SENTINEL), 3, 6)
    assert len({shown[0, column].tobytes() for column in range(6)}) == 6

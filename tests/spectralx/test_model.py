from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from spectralx import SpectralX, SpectralXConfig
from spectralx.hyper_tokenizer import stem_widths
from spectralx.model import quarter_ends
from spectralx.positions import spatial

Make = Callable[..., SpectralX]
READINGS = ["paper", "released"]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(("bands", "size", "patch"), [(1, 32, 8), (13, 32, 8), (32, 48, 16), (3, 40, 8), (4, 28, 14)])
def test_shapes(make: Make, reading: str, bands: int, size: int, patch: int) -> None:
    model = make(bands=bands, size=size, patch=patch, reading=reading)
    for batch in (1, 3):
        logits, balance = model.segment(torch.randn(batch, bands, size, size))
        assert logits.shape == (batch, 5, size, size)
        assert logits.isfinite().all() and balance.isfinite()
        assert model.forward_reconstruction(torch.randn(batch, bands, size, size)).isfinite()
    model.eval()
    assert model(torch.randn(1, bands, size, size)).shape == (1, 5, size, size)


def test_time_series_repeats_wavelengths(make: Make) -> None:
    wavelengths = [0.49, 0.56, 0.665, 0.842, 1.61, 2.19] * 4
    model = make(bands=24, wavelengths=wavelengths)
    assert model(torch.randn(2, 24, 32, 32)).isfinite().all()


def test_wavelengths_must_fit_in_paper_only(make: Make) -> None:
    with pytest.raises(ValueError, match="4 wavelengths for 5 bands"):
        make(bands=5, wavelengths=[0.5] * 4, reading="paper")
    model = make(bands=5, wavelengths=[0.5 + 0.01 * i for i in range(32)], reading="released")
    assert model(torch.randn(1, 5, 32, 32)).shape == (1, 5, 32, 32)


def test_wrong_images_are_refused(make: Make) -> None:
    for shape in ((4, 32, 32), (5, 36, 32), (5, 32, 7)):
        with pytest.raises(ValueError, match="expected \\(B, 5, H, W\\)"):
            make()(torch.randn(1, *shape))
    with pytest.raises(ValueError, match="image_size"):
        SpectralX(make().backbone, [0.5] * 5, 5, 36)


def test_wavelengths_and_bands_act(make: Make) -> None:
    images = torch.randn(1, 5, 32, 32)
    outputs = [make(wavelengths=[0.4 + 0.01 * shift * band for band in range(5)]).eval()(images) for shift in (1, 5, 5)]
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[1], outputs[2])


def expected_trainable(model: SpectralX, stage: str) -> set[str]:
    """What a stage trains, told from the modules rather than from the rule on names."""
    parts: list[nn.Module | None] = [model.patch_path, model.adapters]
    are = model.are_adapter
    if stage == "reconstruct":
        parts += [model.reconstruction, model.backbone.norm]
    elif model.config.matching == "soft":
        parts += [are, model.decoder]
    elif are is not None:  # hard matching has no gradient
        parts += [are.norm, are.refine_spatial, are.refine_spectral, model.decoder]
    if model.config.train_hyper_tokenizer:
        parts.append(model.hyper_tokenizer)
    parts += [block.norm1 for block in model.backbone.blocks] + [block.norm2 for block in model.backbone.blocks]
    wanted = {id(p) for part in parts if part is not None for p in part.parameters()}
    if stage == "segment" and are is not None:
        wanted.add(id(are.scale))
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("stage", ["reconstruct", "segment"])
def test_gradients_reach_exactly_what_the_stage_trains(
    make: Make, shake: Callable[[nn.Module], None], reading: str, stage: str
) -> None:
    model = make(reading=reading)
    shake(model)
    trained = model.trainable_names(stage)  # type: ignore[arg-type]
    assert trained == expected_trainable(model, stage)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    images = torch.randn(4, 5, 32, 32)
    if stage == "reconstruct":
        loss = model.forward_reconstruction(images)
    else:
        logits, balance = model.segment(images)
        loss = nn.functional.cross_entropy(logits, torch.randint(0, 5, (4, 32, 32))) + balance
    loss.backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert reached == trained


@pytest.mark.parametrize("reading", READINGS)
def test_one_step_moves_only_what_trains(make: Make, reading: str) -> None:
    model = make(reading=reading)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == model.trainable_names()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        images = torch.randn(2, 5, 32, 32)
        (model.segment(images).logits.square().mean() + model.forward_reconstruction(images)).backward()
        optimiser.step()
    trained, buffers = model.trainable_names(), {name for name, _ in model.named_buffers()}
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name in changed if name not in buffers} <= trained
    assert {"patch_path.scale", "backbone.blocks.0.norm1.weight"} <= changed
    moved = {name for name in changed if name.startswith("hyper_tokenizer") and name in buffers}
    assert moved, "batch statistics move where HyperT trains, and drift in the release"


def test_statistics_of_a_frozen_tokenizer_stay(make: Make) -> None:
    for drifting in (False, True):
        model = make(train_hyper_tokenizer=False, drifting_statistics=drifting)
        before = {n: b.clone() for n, b in model.hyper_tokenizer.named_buffers()}
        model.train()(torch.randn(2, 5, 32, 32) + 3)
        drifted = [n for n, b in model.hyper_tokenizer.named_buffers() if not torch.equal(b, before[n])]
        assert bool(drifted) == drifting


def test_backbone_is_never_in_training_mode(make: Make) -> None:
    model = make().train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.decoder.training


@pytest.mark.parametrize("reading", READINGS)
def test_same_seed_same_numbers(make: Make, reading: str) -> None:
    images = torch.randn(2, 5, 32, 32)
    results = []
    for seed in (1, 1, 2):
        model = make(reading=reading)
        torch.manual_seed(seed)
        loss = model.segment(images).logits.sum() + model.forward_reconstruction(images)
        loss.backward()
        results.append((loss.detach(), model.patch_path.down.weight.grad))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])


def test_generator_alone_decides_the_mask(make: Make) -> None:
    model, images = make(aomoa=False), torch.randn(2, 5, 32, 32)
    losses = [model.forward_reconstruction(images, torch.Generator().manual_seed(seed)).detach() for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_overflow(make: Make, shake: Callable[[nn.Module], None], dtype: torch.dtype) -> None:
    model, images = make(), 5 * torch.randn(2, 5, 32, 32)
    shake(model)
    exact = model.eval()(images)
    with torch.autocast("cpu", dtype):
        close = model(images)
        model.train()
        loss = model.segment(images).logits.float().square().mean() + model.forward_reconstruction(images)
    loss.backward()
    assert (close.float() - exact).abs().max() < 0.15 * exact.abs().max()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "options",
    [
        {"hyper_tokenizer": False, "are_adapter": False},
        {"aomoa": False},
        {"are_adapter": False},
        {"aomoa": False, "are_adapter": False, "hyper_tokenizer": False},
        {"positions": "backbone"},
        {"positions": "resolution"},
        {"matching": "soft"},
        {"experts": 6, "top_k": 3},
        {"stem_widths": (8, 16, 32)},
        {"levels": (0, 0, 3, 3)},
    ],
    ids=str,
)
def test_every_option_acts(make: Make, shake: Callable[[nn.Module], None], options: dict) -> None:
    images, logits = torch.randn(2, 5, 32, 32), []
    for chosen in ({}, options):
        model = make(**chosen)
        shake(model)
        logits.append(model.eval()(images))
        assert model.train().forward_reconstruction(images).isfinite()
    assert not torch.allclose(logits[0], logits[1])


def test_own_decoder_can_be_replaced(make: Make) -> None:
    class Last(nn.Module):
        def forward(self, features: list[torch.Tensor], image_size: tuple[int, int]) -> torch.Tensor:
            assert [tuple(f.shape) for f in features] == [(2, 48, 4, 4)] * 4
            return nn.functional.interpolate(features[-1][:, :7], image_size)

    model = SpectralX(make().backbone, [0.5] * 5, 7, 32, decoder=Last())
    assert model(torch.randn(2, 5, 32, 32)).shape == (2, 7, 32, 32)


def test_rgb_backbone_reads_other_bands(make: Make) -> None:
    backbone = make(bands=3).backbone
    model = SpectralX(backbone, [0.5] * 7, 5, 32, bands=7)
    assert model(torch.randn(1, 7, 32, 32)).shape == (1, 5, 32, 32)
    with pytest.raises(ValueError, match="3 bands"):
        SpectralX(backbone, [0.5] * 7, 5, 32, bands=7, config=SpectralXConfig(hyper_tokenizer=False, are_adapter=False))


@pytest.mark.parametrize(("stage1_image", "leaks"), [("masked", False), ("whole", True)])
def test_hidden_pixels_cannot_leak_where_they_are_blanked(make: Make, stage1_image: str, leaks: bool) -> None:
    """With the mask fixed, the prediction must not change when hidden pixels change, unless attributes see them."""
    model = make(aomoa=False, stage1_image=stage1_image).eval()
    seen = []
    assert model.reconstruction is not None
    model.reconstruction.register_forward_hook(lambda _m, inputs, output: seen.append((inputs[1], output[0])))
    images = torch.randn(1, 5, 32, 32)
    model.forward_reconstruction(images, torch.Generator().manual_seed(0))
    hidden = seen[0][0].hidden.view(1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    model.forward_reconstruction(images + 10 * hidden, torch.Generator().manual_seed(0))
    assert torch.allclose(seen[0][1], seen[1][1], atol=1e-5) != leaks
    assert int(seen[0][0].hidden.sum()) == 12


def test_configuration_refuses_nonsense() -> None:
    for options in ({"reading": "third"}, {"top_k": 5}, {"mask_ratio": 1.0}, {"hyper_tokenizer": False}):
        with pytest.raises(ValueError):
            SpectralXConfig(**options)  # type: ignore[arg-type]
    assert SpectralXConfig(reading="released", balance=0.5).balance == 0.5
    assert SpectralXConfig(reading="released").differences()["matching"] == "hard"


def test_the_image_shows_in_paper_tokens(make: Make) -> None:
    images = torch.rand(8, 5, 1, 1) + torch.rand(8, 5, 32, 32)
    shares = []
    for reading in READINGS:
        tokenizer = make(reading=reading).hyper_tokenizer
        with torch.no_grad():
            tokens = tokenizer(images)[0]
        spread = (tokens - tokens.mean((0, 1))).square().mean()
        shares.append((tokens - tokens.mean(0)).square().mean() / spread)
    assert shares[0] > 0.2
    assert shares[1] < 0.05


def test_positions_by_resolution_are_those_of_scale_mae() -> None:
    """Which makes them as it runs: its table of positions, that ``positions=backbone`` would take, is not used."""
    scale_mae = pytest.importorskip("torchgeo.models").ScaleMAE
    backbone = scale_mae(
        res=20.0, img_size=32, patch_size=8, in_chans=3, embed_dim=48, depth=1, num_heads=4, num_classes=0
    )
    with torch.no_grad():
        backbone.cls_token.zero_()
        found = backbone._pos_embed(torch.zeros(1, 16, 48))
    torch.testing.assert_close(found[0, 1:], spatial(48, 4, 4, 20.0))
    with pytest.raises(ValueError, match="ScaleMAE computes its positions"):
        SpectralX(backbone, [0.5, 0.6, 0.7], 4, 32, config=SpectralXConfig(positions="backbone"))


def test_sizes_follow_the_backbone() -> None:
    assert quarter_ends(24) == (5, 11, 17, 23)
    assert quarter_ends(4) == (0, 1, 2, 3)
    assert stem_widths(1024, 16) == (64, 128, 256, 512)
    assert stem_widths(96, 8) == (12, 24, 48)


@pytest.mark.parametrize("reading", READINGS)
def test_parameters_of_vit_large(reading: str) -> None:
    """The paper's table, 13 bands and 9 classes."""
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        backbone = VisionTransformer(
            img_size=224, patch_size=16, in_chans=13, embed_dim=1024, depth=24, num_heads=16, num_classes=0
        )
        model = SpectralX(backbone, [0.5 + 0.1 * b for b in range(13)], 9, 224, config=SpectralXConfig(reading=reading))

    def count(module: nn.Module | None) -> int:
        assert module is not None
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(model.patch_path) == 267_536
    assert (
        sum(p.numel() for n, p in model.named_parameters() if n.startswith("backbone") and p.requires_grad) == 100_352
    )
    assert count(model.adapters) == 7_766_272
    assert count(model.are_adapter) == 3_671_665
    assert count(model.hyper_tokenizer) == 22_205_744
    assert count(model.decoder.neck) == 41_951_232
    assert count(model.decoder.head) == 34_357_769


def test_import_pulls_in_no_suite() -> None:
    code = (
        "import sys, spectralx\n"
        "heavy = {'lightning', 'pytorch_lightning', 'torchgeo', 'spectral_tl_bench', 'pydantic', 'rasterio'}\n"
        "sys.exit(', '.join(sorted(heavy & {name.split('.')[0] for name in sys.modules})) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

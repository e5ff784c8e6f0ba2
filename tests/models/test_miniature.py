"""The miniature foundation model: what it was trained on, that it can be made again, and that it has learnt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional

from spectral_tl_bench.files import file_digest
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.miniature import RGB_MINI, landscapes
from spectral_tl_bench.models.miniature.pretrain import Learner, Recipe, main, pretrain, whitening, windows, write
from spectral_tl_bench.models.patch_embedding import RGB
from spectral_tl_bench.sample import build, dfc2020, mts12, whuohs
from spectral_tl_bench.sample.covers import COVERS
from spectral_tl_bench.sample.scene import make_scene, render, rng_for
from spectral_tl_bench.sample.sensors import REFLECTANCE_SCALE

FOLDER = Path(str(files("spectral_tl_bench.models.miniature")))
WEIGHTS = FOLDER / "rgb-mini.safetensors"
CARD = json.loads(WEIGHTS.with_suffix(".json").read_text())
SMALL = Recipe(width=16, depth=1, heads=2, landscapes=2, size=128, steps=3, batch=4)
WRITERS = (whuohs, dfc2020, mts12)


def quiet(_line: str) -> None:
    pass


# ------------------------------------------------------------------------------------------------ The images


class Recorder:
    """Notes what generates images: names of seeds, layouts of covers, and views."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules) -> None:
        self.names: list[tuple[str, ...]] = []
        self.layouts: set[bytes] = set()
        self.views: set[str] = set()
        self.tints: set[object] = set()
        for module in modules:
            monkeypatch.setattr(module, "rng_for", self.rng_for)
            monkeypatch.setattr(module, "make_scene", self.make_scene)
            monkeypatch.setattr(module, "render", self.render)

    def rng_for(self, *names):
        self.names.append(tuple(map(str, names)))
        return rng_for(*names)

    def make_scene(self, *arguments):
        found = make_scene(*arguments)
        self.layouts |= {found.patches.tobytes(), found.chosen.tobytes()}
        return found

    def render(self, canvas, views, *rest):
        self.views |= {repr(view) for view in views}
        self.tints |= {view.tint for view in views}
        return render(canvas, views, *rest)


def test_nothing_of_the_sample_is_in_the_pretraining(monkeypatch, tmp_path):
    side = 48  # on less ground than an object covers, maps of one cover are equal by chance
    sample = Recorder(monkeypatch, *WRITERS)
    sizes = {"whu_ohs_transfer": {"chip": side, "chips_per_city": 2}, "dfc2020": {"chip": side, "chips_per_city": 4},
             "mts12": {"chip": side, "north": 4, "south": 4}}  # fmt: skip
    build.write_sample(tmp_path, sizes)
    mine = Recorder(monkeypatch, landscapes)
    landscapes.collection(seed=0, landscapes=40, size=side, views=2)

    assert {names[0] for names in sample.names} == {"whu-ohs", "dfc2020", "mts12"}
    assert {names[0] for names in mine.names} == {landscapes.NAMESPACE}
    assert len(set(mine.names)) == len(mine.names) == 40
    for kind in ("layouts", "views", "tints"):
        theirs, own = getattr(sample, kind), getattr(mine, kind)
        assert len(theirs) > 10 and len(own) > 40, kind
        assert not theirs & own, kind


def test_its_sensors_see_visible_light_only():
    for name, sensor in landscapes.SENSORS.items():
        assert len(sensor.centres) == 3, name
        response = sensor.response()
        infrared = response[scene_wavelengths() > 0.72].sum(axis=0)
        assert (infrared < 0.01).all(), name
        assert np.allclose(sensor.centres, RGB, atol=0.03), name


def scene_wavelengths():
    from spectral_tl_bench.sample.spectra import WAVELENGTHS

    return WAVELENGTHS


def test_the_views_of_a_landscape_differ_and_are_plausible_reflectance():
    images, covers = landscapes.landscape(seed=0, number=3, size=32, views=4)
    assert images.shape == (4, 3, 32, 32) and images.dtype == np.float32
    assert (images > 0).all() and (images < 1.3).mean() > 0.99 and images.max() <= 1.6  # the sensor's most
    means = images.mean((2, 3))
    assert len({tuple(row) for row in means.round(4).tolist()}) == 4
    assert np.array_equal(images, landscapes.landscape(0, 3, 32, 4).colours)
    assert not np.array_equal(images, landscapes.landscape(1, 3, 32, 4).colours)
    assert covers.shape == (4, 32, 32) and all(np.array_equal(covers[0], one) for one in covers)


def test_covers_are_numbered_alike_in_all_landscapes():
    images, covers = landscapes.collection(seed=0, landscapes=24, size=48, views=1)
    assert covers.max() < len(COVERS) and len(np.unique(covers)) > 15
    water, bright = ([list(COVERS).index(name) for name in names] for names in (("lake", "ocean"), ("dune", "snow")))
    red = images[:, 0]
    assert red[np.isin(covers, water)].mean() < 0.5 * red[np.isin(covers, bright)].mean()


# ------------------------------------------------------------------------------------------------ The training


def test_the_same_command_writes_the_same_file(tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    write(tmp_path / "a" / "mini.safetensors", SMALL, quiet)
    torch.manual_seed(5)
    command = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(SMALL).items()]
    main(["--out", str(tmp_path / "b" / "mini.safetensors"), *command])
    write(tmp_path / "c" / "mini.safetensors", replace(SMALL, seed=1), quiet)

    one, two, other = ((tmp_path / name / "mini.safetensors").read_bytes() for name in "abc")
    assert one == two != other
    cards = [json.loads((tmp_path / name / "mini.json").read_text()) for name in "ab"]
    assert cards[0] == cards[1] and cards[0]["sha256"] == file_digest(tmp_path / "a" / "mini.safetensors")
    assert cards[0]["recipe"] == asdict(SMALL) and [step for step, *_ in cards[0]["loss"]] == [1, 2, 3]
    assert torch.get_num_threads() == threads
    torch.set_rng_state(state)


def test_pretraining_leaves_the_state_of_chance_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    pretrain(replace(SMALL, steps=1), quiet)
    assert torch.equal(torch.rand(2), expected)


def make_learner(colours: Tensor | None = None) -> Learner:
    return Learner(16, 2, 2, 8, 64, covers=3, positions=0.2, colours=torch.eye(3) if colours is None else colours)


def shares_of(kinds: Tensor) -> Tensor:
    return functional.one_hot(kinds, 3).movedim(-1, 1).float()


def test_every_weight_but_the_position_table_is_trained():
    torch.manual_seed(0)
    learner = make_learner()
    assert [name for name, value in learner.named_parameters() if not value.requires_grad] == ["encoder.pos_embed"]
    errors = learner(torch.randn(4, 3, 64, 64), shares_of(torch.randint(3, (4, 8, 8))))
    sum(errors).backward()
    # The decoder of a user takes block outputs, so nothing trains the norm behind the last block.
    unused = {"encoder.norm.weight", "encoder.norm.bias"}
    missing = {name for name, value in learner.named_parameters() if value.requires_grad and value.grad is None}
    assert missing == unused


def test_the_errors_are_those_of_the_right_patches():
    torch.manual_seed(0)
    learner = make_learner()
    images, kinds = torch.randn(2, 3, 64, 64), torch.randint(3, (2, 8, 8))
    with torch.no_grad():
        for layer in (learner.classify, *learner.redraw):
            layer.weight.zero_()
            layer.bias.zero_()
        of_covers, of_pixels = learner(images, shares_of(kinds))
        assert of_covers.item() == pytest.approx(np.log(3), abs=1e-5) and of_pixels.item() == pytest.approx(1.0)
        patches = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 64, 192)
        learner.redraw[0].bias.copy_(patches.mean((0, 1)))
        expected = 0.5 * (1 + (patches - patches.mean((0, 1))).square().mean() / patches.square().mean())
        assert learner(images, shares_of(kinds))[1].item() == pytest.approx(expected.item(), abs=1e-5)
        learner.classify.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
        assert learner(images, shares_of(torch.zeros_like(kinds)))[0] < 1e-4 < learner(images, shares_of(kinds))[0]


def test_whitened_colours_have_equal_weight():
    torch.manual_seed(0)
    brightness, rest = torch.randn(1, 1, 40, 50), torch.randn(1, 3, 40, 50)
    images = brightness + 0.3 * rest
    white = torch.einsum("kc,bchw->bkhw", whitening(images), images)
    covariance = torch.cov(white[0].flatten(1))
    assert torch.allclose(covariance, torch.eye(3), atol=0.15)
    assert torch.cov(images[0].flatten(1))[0, 1] > 0.5


def test_windows_keep_covers_under_their_pixels():
    torch.manual_seed(0)
    blocks = torch.randint(len(COVERS), (3, 8, 8))
    covers = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    images = (1.0 + covers[:, None]).expand(3, 3, 128, 128).float()
    plain = replace(SMALL, mixing=0.0, batch=64)
    cut, shares = next(windows(images, covers, plain, torch.Generator().manual_seed(0)))
    assert cut.shape == (64, 3, 64, 64) and shares.shape == (64, len(COVERS), 8, 8)
    assert torch.allclose(shares.sum(1), torch.ones(64, 8, 8), atol=1e-5)
    numbers = torch.arange(len(COVERS), dtype=torch.float32)
    wanted = torch.einsum("bkhw,k->bhw", shares, numbers).flatten(1)
    found = functional.adaptive_avg_pool2d(cut[:, :1], 8).flatten(1)
    agreement = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in zip(wanted, found, strict=True)]
    assert min(agreement) > 0.97, "each window is a linear map of its covers, whatever its scale and turn"
    assert cut.std((1, 2, 3)).std() > 0.05, "windows are standardised by themselves to a varying degree"


def test_windows_are_enlarged_as_they_are_and_coarser():
    checks = (torch.arange(128)[:, None] + torch.arange(128)) % 2
    images = checks.expand(2, 3, 128, 128).float() + 0.1 * torch.rand(2, 3, 128, 128)
    cut, _ = next(windows(images, checks.expand(2, 128, 128), replace(SMALL, mixing=0.0, batch=48),
                          torch.Generator().manual_seed(0)))  # fmt: skip
    across = (cut[:, 0, :, 1:] - cut[:, 0, :, :-1]).abs().mean((1, 2))
    kinds = torch.histc(across, bins=3, min=0.0, max=float(across.max()))
    assert (kinds > 0).sum() >= 2 and across.min() < 0.3 * across.max(), "checks vanish where pixels are averaged"


# ------------------------------------------------------------------------------------------------ The weights


def test_the_card_belongs_to_the_file_and_to_the_recipe():
    assert CARD["sha256"] == file_digest(WEIGHTS)
    assert CARD["recipe"] == asdict(Recipe()), "the recipe was changed: pretrain again"
    assert CARD["command"].endswith("pretrain --out rgb-mini.safetensors")
    assert CARD["data"] == landscapes.describe(0, Recipe().landscapes, 128, 2)
    assert CARD["licence"] == "MIT" and CARD["wavelengths"] == list(RGB)
    (_, *first), (step, *last) = CARD["loss"][0], CARD["loss"][-1]
    assert step == Recipe().steps and all(after < 0.8 * before for before, after in zip(first, last, strict=True))
    assert CARD["parameters"] == sum(value.numel() for value in load_file(WEIGHTS).values())


def test_the_file_is_small_and_inside_the_package():
    assert WEIGHTS.stat().st_size <= 3 * 2**20
    assert WEIGHTS.parent == Path(landscapes.__file__).parent


def test_the_entry_reads_its_own_weights():
    spec = get_backbone("rgb-mini").for_sensor(RGB, 10.0)
    assert spec.pretrained == "rgb-mini" and spec.weights is not None
    assert (spec.weights.source, spec.weights.digest) == ("bundled", CARD["sha256"])
    assert (spec.weights.matched, spec.weights.missing, spec.weights.unexpected) == (1.0, 0, 0)
    state, stored = spec.build(3, 64).state_dict(), load_file(WEIGHTS)
    assert state.keys() == stored.keys()
    assert all(torch.allclose(state[name], stored[name], atol=1e-6) for name in stored)
    assert get_backbone("rgb-mini", "none").weights is None


def test_other_images_have_about_the_stored_mean_and_spread():
    images = landscapes.collection(1, 40, 64, 2).colours
    assert np.allclose(images.mean((0, 2, 3)), CARD["mean"], rtol=0.2)
    assert np.allclose(images.std((0, 2, 3)), CARD["std"], rtol=0.3)


def labelled(numbers: range, side: int = 64) -> tuple[Tensor, Tensor]:
    """New landscapes: standardised images (N, 3, side, side), and the most frequent cover of each patch (N, L)."""
    images, labels = [], []
    for number in numbers:
        rng = rng_for("test-of-rgb-mini", number)
        canvas = make_scene(rng, (side, side), landscapes.draw_landscape(rng))
        sensor = list(landscapes.SENSORS.values())[number % 4]
        images.append(render(canvas, [landscapes.draw_view(rng)], sensor, rng) / REFLECTANCE_SCALE)
        kinds = np.asarray([list(COVERS).index(name) for name in canvas.covers])[canvas.chosen]
        cells = kinds.reshape(side // 8, 8, side // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
        labels.append([np.bincount(cell).argmax() for cell in cells])
    mean, std = (np.asarray(CARD[name])[:, None, None] for name in ("mean", "std"))
    return torch.tensor((np.stack(images) - mean) / std).float(), torch.tensor(np.asarray(labels))


def probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Accuracy of ridge regression on one-hot labels."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (torch.cat([(one - mean) / std, torch.ones(len(one), 1)], 1).double() for one in (train, test))
    wanted = torch.nn.functional.one_hot(labels, len(COVERS)).double()
    penalty = 10.0 * torch.eye(train.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(train.T @ train + penalty, train.T @ wanted)
    return ((test @ weights).argmax(1) == truth).double().mean().item()


@torch.inference_mode()
def test_linear_probes_of_new_landscapes_read_covers_better_than_from_random_weights():
    images, labels = labelled(range(96))
    cut = 64 * labels.shape[1]

    def accuracy(network: VisionTransformer, levels: Sequence[int]) -> float:
        maps = network.eval().forward_intermediates(
            images, indices=list(levels), norm=False, output_fmt="NLC", intermediates_only=True
        )
        features = torch.cat(maps, dim=-1).flatten(0, 1)
        return probe(features[:cut], labels.flatten()[:cut], features[cut:], labels.flatten()[cut:])

    pretrained = get_backbone("rgb-mini").for_sensor(RGB, 10.0).build(3, 64)
    at_random = [replace(get_backbone("rgb-mini", "none"), seed=seed).build(3, 64) for seed in range(2)]
    for levels in (RGB_MINI.levels, RGB_MINI.levels[-1:]):
        assert accuracy(pretrained, levels) > max(accuracy(network, levels) for network in at_random) + 0.05


@torch.inference_mode()
def test_its_levels_have_the_size_that_decoders_without_a_norm_can_read():
    images, _ = labelled(range(8))
    network = get_backbone("rgb-mini").for_sensor(RGB, 10.0).build(3, 64).eval()
    maps = network.forward_intermediates(
        images, indices=list(RGB_MINI.levels), norm=False, output_fmt="NLC", intermediates_only=True
    )
    assert all(0.4 < level.std() < 2.5 for level in maps)

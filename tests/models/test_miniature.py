"""The miniature foundation model: what it was trained on, that it can be made again, and that it has learnt."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from spectral_tl_bench.files import file_digest
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.models.miniature import RGB_MINI, landscapes
from spectral_tl_bench.models.miniature.pretrain import MaskedAutoencoder, Recipe, main, pretrain, windows, write
from spectral_tl_bench.models.patch_embedding import RGB
from spectral_tl_bench.sample import build, dfc2020, mts12, scene, whuohs
from spectral_tl_bench.sample.scene import make_scene, render, rng_for
from spectral_tl_bench.sample.sensors import REFLECTANCE_SCALE

FOLDER = Path(str(files("spectral_tl_bench.models.miniature")))
WEIGHTS = FOLDER / "rgb-mini.safetensors"
CARD = json.loads(WEIGHTS.with_suffix(".json").read_text())
SMALL = Recipe(width=16, depth=1, heads=2, landscapes=2, size=64, steps=3, batch=4, decoder_width=8)
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
    images = landscapes.composites(seed=0, number=3, size=32, views=4)
    assert images.shape == (4, 3, 32, 32) and images.dtype == np.float32
    assert (images > 0).all() and (images < 1.3).all()
    means = images.mean((2, 3))
    assert len({tuple(row) for row in means.round(4).tolist()}) == 4
    assert np.array_equal(images, landscapes.composites(0, 3, 32, 4))
    assert not np.array_equal(images, landscapes.composites(1, 3, 32, 4))


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
    assert cards[0]["recipe"] == asdict(SMALL) and [step for step, _ in cards[0]["loss"]] == [1, 2, 3]
    assert torch.get_num_threads() == threads
    torch.set_rng_state(state)


def test_pretraining_leaves_the_state_of_chance_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    pretrain(replace(SMALL, steps=1), quiet)
    assert torch.equal(torch.rand(2), expected)


def test_hidden_patches_reach_the_error_but_not_the_encoder():
    torch.manual_seed(0)
    model = MaskedAutoencoder(replace(SMALL, mask_ratio=0.75)).eval()
    seen: list[Tensor] = []
    model.encoder.blocks[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    model(torch.randn(2, 3, 64, 64), torch.Generator().manual_seed(0))
    assert seen[0].shape == (2, 1 + 16, 16)


def test_every_weight_but_the_position_table_is_trained():
    before = MaskedAutoencoder(SMALL)
    assert [name for name, value in before.named_parameters() if not value.requires_grad] == ["encoder.pos_embed"]
    loss = before(torch.randn(4, 3, 64, 64), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(value.grad is not None for value in before.parameters() if value.requires_grad)


def test_windows_are_turned_cuts_of_the_images_in_varied_brightness():
    images = torch.arange(2 * 3 * 65 * 66, dtype=torch.float32).view(2, 3, 65, 66)[..., :65] + 1.0
    plain = replace(SMALL, brightness=0.0, batch=64)
    batch = next(windows(images, plain, torch.Generator().manual_seed(0)))
    assert batch.shape == (64, 3, 64, 64)
    cuts = {
        tuple(sorted((cut[0, 0, 0].item(), cut[0, 0, -1].item(), cut[0, -1, 0].item(), cut[0, -1, -1].item())))
        for cut in batch
    }
    assert 4 <= len(cuts) <= 8, "two images, four places each; corners stay corners under the symmetries"
    assert len({cut[0, 0, :2].sub(cut[0, 0, 0]).tolist()[1] for cut in batch}) == 4, "all four directions"
    bright = next(windows(images, replace(plain, brightness=0.3), torch.Generator().manual_seed(0)))
    factors = (bright / batch).flatten(1)
    assert torch.allclose(factors.amin(1), factors.amax(1), rtol=1e-4)
    assert 0.15 < factors[:, 0].log().std() < 0.45


# ------------------------------------------------------------------------------------------------ The weights


def test_the_card_belongs_to_the_file_and_to_the_recipe():
    assert CARD["sha256"] == file_digest(WEIGHTS)
    assert CARD["recipe"] == asdict(Recipe()), "the recipe was changed: pretrain again"
    assert CARD["command"].endswith("pretrain --out rgb-mini.safetensors")
    assert CARD["data"] == landscapes.describe(0, CARD["recipe"]["landscapes"], 128, 2)
    assert CARD["licence"] == "MIT" and CARD["wavelengths"] == list(RGB)
    assert CARD["loss"][-1][0] == Recipe().steps and CARD["loss"][-1][1] < CARD["loss"][0][1]
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
    images = landscapes.collection(1, 40, 64, 2)
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
        kinds = np.asarray([list(scene.COVERS).index(name) for name in canvas.covers])[canvas.chosen]
        cells = kinds.reshape(side // 8, 8, side // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
        labels.append([np.bincount(cell).argmax() for cell in cells])
    mean, std = (np.asarray(CARD[name])[:, None, None] for name in ("mean", "std"))
    return torch.tensor((np.stack(images) - mean) / std).float(), torch.tensor(np.asarray(labels))


def probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Accuracy of ridge regression on one-hot labels."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, test = (torch.cat([(one - mean) / std, torch.ones(len(one), 1)], 1).double() for one in (train, test))
    wanted = torch.nn.functional.one_hot(labels, len(scene.COVERS)).double()
    penalty = 10.0 * torch.eye(train.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(train.T @ train + penalty, train.T @ wanted)
    return ((test @ weights).argmax(1) == truth).double().mean().item()


@torch.inference_mode()
def test_a_linear_probe_reads_land_cover_better_than_from_random_weights():
    images, labels = labelled(range(160))
    cut = 110 * labels.shape[1]

    def accuracy(network: VisionTransformer) -> float:
        (last,) = network.eval().forward_intermediates(
            images, indices=[RGB_MINI.levels[-1]], norm=False, output_fmt="NLC", intermediates_only=True
        )
        features = last.flatten(0, 1)
        return probe(features[:cut], labels.flatten()[:cut], features[cut:], labels.flatten()[cut:])

    pretrained = accuracy(get_backbone("rgb-mini").for_sensor(RGB, 10.0).build(3, 64))
    at_random = max(accuracy(replace(get_backbone("rgb-mini", "none"), seed=seed).build(3, 64)) for seed in range(2))
    assert pretrained > at_random + 0.02

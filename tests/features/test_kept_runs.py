"""Whole runs on kept features: the same numbers as without a store, the wall, and what cannot be kept."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import make_request, make_source, run_main
from torch import nn

from spectral_tl_bench.data.chip_files import ChipFiles
from spectral_tl_bench.data.rasters import SpectralChips
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.features import kept as kept_module
from spectral_tl_bench.features.modules import FeatureMaps, HeadOnFeatures, HeadOnImages, check_parts, without
from spectral_tl_bench.methods.base import Stage
from spectral_tl_bench.methods.baselines import Frozen
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.decoders import DECODERS
from spectral_tl_bench.results.store import evidence
from spectral_tl_bench.runner import cell as cell_module
from spectral_tl_bench.runner.definitions import Outcome
from spectral_tl_bench.runner.run import plan
from spectral_tl_bench.runner.write import WEIGHTS_FILE
from spectral_tl_bench.training import hardware as hardware_module


def matrices(record):
    return np.stack(list(evidence(record)["matrix"]))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("linear-probe", {"cache_copies": 8}),
        pytest.param("frozen", {"cache_dtype": "bfloat16"}, marks=pytest.mark.slow),
        ("frozen", {"cache_dtype": "float16", "decoder": "fpn"}),
        ("frozen", {"cache_dtype": "float16", "decoder": "light+pixels", "cache_copies": 8}),
    ],
)
def test_a_store_changes_no_number(tmp_path, kept_run, method, options):
    runs = []
    for folder, limit in (("a", 1.0), ("a", 1.0), ("b", 0.0)):
        record, outcome, said = kept_run(tmp_path / folder, method, limit, options, steps=4)
        assert outcome.state == "done"
        # Read at once: the second run writes where the first one wrote.
        weights = load_file(outcome.record.parent / WEIGHTS_FILE)
        runs.append((record, matrices(record), weights, sum("reusing features" in line for line in said)))
    assert [run[3] for run in runs] == [0, 3, 0] and not (tmp_path / "b" / "cache" / "features").exists()
    (stored, counts, weights, _), *others = runs
    assert weights and all(name.startswith("decoder.") for name in weights)
    for record, matrix, same, _ in others:
        assert record.fingerprint == stored.fingerprint, "where features are kept is no setting"
        np.testing.assert_allclose(record.selection.trace, stored.selection.trace, atol=1e-6)
        np.testing.assert_array_equal(matrix, counts)
        torch.testing.assert_close(same, weights, atol=1e-6, rtol=1e-5)


def test_the_record_says_what_was_kept_and_what_it_cost(tmp_path, kept_run):
    first, _, _ = kept_run(tmp_path)
    again, _, _ = kept_run(tmp_path, learning_rate=0.1)
    for record, reused in ((first, False), (again, True)):
        facts = record.stages[-1].options
        assert facts["fixed_windows"] and facts["stored"] and facts["copies"] == 1
        assert {role: one["reused"] for role, one in facts["features"].items()} == dict.fromkeys(
            ("training", "validation", "target"), reused
        )
        assert facts["feature_seconds"] > 0
    assert first.options["cache"] is True and first.fingerprint != again.fingerprint
    original = first.stages[-1].options["feature_seconds"]
    assert again.stages[-1].options["feature_seconds"] <= original
    assert again.seconds.total >= again.stages[-1].options["feature_seconds"], "features cost the same, reused or not"


def test_a_second_head_reads_no_image_and_no_backbone(tmp_path, kept_run, monkeypatch):
    kept_run(tmp_path, "frozen")
    counted = {"read": 0, "computed": 0}
    read, compute = SpectralChips.read_window, kept_module.compute_features
    monkeypatch.setattr(
        SpectralChips, "read_window", lambda *a: counted.update(read=counted["read"] + 1) or read(*a)
    )  # fmt: skip
    monkeypatch.setattr(
        kept_module, "compute_features", lambda *a: counted.update(computed=counted["computed"] + 1) or compute(*a)
    )
    record, outcome, _ = kept_run(tmp_path, "frozen", options={"head_seed": 3, "decoder": "linear"})
    assert outcome.state == "done" and counted == {"read": 1, "computed": 0}, "one window to check the module"
    assert record.options["head_seed"] == 3
    features = {path.name for path in (tmp_path / "cache" / "features").iterdir()}
    assert len(features) == 3, "the last of four levels is read from where all four are kept"


@pytest.mark.parametrize("first", ["frozen", "linear-probe"])
def test_features_behind_the_norm_are_not_those_of_a_decoder(tmp_path, kept_run, first):
    """Both keep the last level, and neither may read what the other has kept."""
    second = "linear-probe" if first == "frozen" else "frozen"
    options = {"decoder": "linear"}
    kept_run(tmp_path, first, options=options if first == "frozen" else {})
    record, outcome, said = kept_run(tmp_path, second, options=options if second == "frozen" else {})
    assert outcome.state == "done" and not [line for line in said if "reusing features" in line]
    assert {role: one["reused"] for role, one in record.stages[-1].options["features"].items()} == dict.fromkeys(
        ("training", "validation", "target"), False
    )


def test_a_linear_head_keeps_one_level(tmp_path, kept_run):
    kept_run(tmp_path)
    assert {path.name for path in (tmp_path / "cache" / "features").rglob("*.npy")} == {"level-3.npy"}


def test_a_pixel_path_keeps_the_windows_too(tmp_path, kept_run):
    kept_run(tmp_path, options={"pixels": True})
    folders = list((tmp_path / "cache" / "features").iterdir())
    assert [sorted(path.name for path in folder.glob("*.npy")) for folder in folders] == [
        ["level-3.npy", "level-4.npy"]
    ] * 3
    kept = [np.load(folder / "level-4.npy") for folder in folders]
    assert all(one.shape[1] == 24 and one.shape[2] == one.shape[3] for one in kept), "all bands of native windows"
    record, _, said = kept_run(tmp_path)
    assert not any("reusing" in line for line in said) and "pixels" not in record.options


def test_what_is_kept_of_a_pixel_path_counts_as_room(tmp_path, kept_run):
    sizes = {}
    for pixels in (False, True):
        _, outcome, _ = kept_run(tmp_path / str(pixels), limit=1e-9, options={"pixels": pixels})
        number, unit = re.search(r"would take ([\d.]+) (\S+)", outcome.message).groups()
        sizes[pixels] = float(number) * {"KiB": 1, "MiB": 1024}[unit]
    assert sizes[True] > 20 * sizes[False], "24 bands of every pixel beside 32 channels of every patch of 8 px"


def test_another_seed_of_the_head_is_another_head(tmp_path, kept_run):
    runs = [kept_run(tmp_path, options={"head_seed": seed}, steps=3) for seed in (0, 1)]
    traces = [record.selection.trace for record, _, _ in runs]
    assert traces[0] != traces[1] and runs[0][0].fingerprint != runs[1][0].fingerprint


# ---------------------------------------------------------------------------------------------- the wall


def test_the_target_is_not_looked_at_before_training_is_over(tmp_path, kept_run, monkeypatch):
    events, target = [], []
    fit, read, stored = cell_module.train, SpectralChips.read_window, kept_module.FeatureRun._stored

    def spy_fit(*arguments, **more):
        events.append("training begins")
        result = fit(*arguments, **more)
        events.append("training over")
        return result

    def spy_read(self, number, *more):
        events.append(("read", self.chip_rows()[number]["domain"]))
        return read(self, number, *more)

    def spy_stored(self, identity, images, cost, role):
        events.append(("features", role))
        target.extend(one.domain for one in images.windows if role == "target")
        return stored(self, identity, images, cost, role)

    monkeypatch.setattr(cell_module, "train", spy_fit)
    monkeypatch.setattr(SpectralChips, "read_window", spy_read)
    monkeypatch.setattr(kept_module.FeatureRun, "_stored", spy_stored)
    record, outcome, _ = kept_run(tmp_path)
    assert outcome.state == "done"
    over = events.index("training over")
    source, goal = set(record.source_domains), set(record.target_domains)
    assert set(target) == goal
    assert {event[1] for event in events[:over] if event[0] == "read"} == source
    assert [event[1] for event in events[:over] if event[0] == "features"] == ["training", "validation"]
    assert [event for event in events[over:] if event[0] == "features"] == [("features", "target")]
    assert {event[1] for event in events[over:] if event[0] == "read"} == goal


def test_no_label_of_the_target_is_in_the_store(tmp_path, kept_run, monkeypatch):
    """Features are made from images alone: with all labels read as void until then, they are the same."""
    kept_run(tmp_path / "a")
    monkeypatch.setattr(ChipFiles, "read", _blind(ChipFiles.read))
    kept_run(tmp_path / "b")
    files = sorted((tmp_path / "a" / "cache" / "features").rglob("*.npy"))
    assert len(files) == 3
    for path in files:
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        np.testing.assert_array_equal(np.load(path), np.load(other))


def _blind(load):
    def blind(self, row):
        image, mask, invalid = load(self, row)
        return image, np.full_like(mask, 255), invalid

    return blind


# ---------------------------------------------------------------------------------------------- what cannot be kept


def test_a_damaged_store_is_said_and_mended(tmp_path, kept_run):
    first, _, _ = kept_run(tmp_path)
    for path in (tmp_path / "cache" / "features").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    again, outcome, said = kept_run(tmp_path)
    assert outcome.state == "done" and sum("cannot be used and is made again" in line for line in said) == 3
    assert again.selection.trace == first.selection.trace


def test_too_little_room_is_said_before_anything_is_computed(tmp_path, kept_run):
    record, outcome, said = kept_run(tmp_path, limit=1e-9)
    assert outcome.state == "refused" and record.status == "failed"
    for part in ("training", "validation", "target", "--feature-cache-limit 0", "cache_dtype=float16"):
        assert part in outcome.message
    assert not any("computing" in line for line in said) and not list(tmp_path.rglob("*.npy"))


def test_options_that_contradict_each_other():
    with pytest.raises(MethodError, match="train_patch_embed=false"):
        make_method("frozen", {"cache": True})
    with pytest.raises(MethodError, match="do nothing without cache=true"):
        make_method("linear-probe", {"head_seed": 2})
    assert make_method("frozen").kept_features() is None
    assert make_method("lora").kept_features() is None
    for copies in (8, "8"):  # typed, it is text
        assert make_method("linear-probe", {"cache": "true", "cache_copies": copies}).kept_features().copies == 8


def test_a_stage_without_labels_is_refused(tmp_path, kept_run, monkeypatch):
    monkeypatch.setattr(
        Frozen, "stages", lambda self, task: [Stage("look", 1, labelled=False, loss=lambda m, b: m), Stage("go", 2)]
    )
    _, outcome, _ = kept_run(tmp_path, "frozen")
    assert outcome.state == "refused" and "'look'" in outcome.message and "cache=true" in outcome.message


class Whole(nn.Module):
    """Two parts, and whatever a test adds to them."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__()
        self.wrong, self.body, self.decoder = wrong, nn.Conv2d(2, 3, 1).requires_grad_(False), Last()

    def features(self, images):
        return [self.body(images), self.body(images) * 2]

    def forward(self, images):
        return self.decoder(self.features(images), tuple(images.shape[-2:])) + (1.0 if self.wrong else 0.0)


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 4, 1)

    def forward(self, features, image_size):
        return nn.functional.interpolate(self.last(features[-1]), image_size)


def test_modules_whose_features_cannot_be_kept():
    images = torch.randn(1, 2, 8, 8)
    maps, used = check_parts(Whole(), images, "toy")
    assert used == (1,) and len(maps) == 2 and not maps[0].requires_grad
    with pytest.raises(MethodError, match="two parts"):
        check_parts(nn.Conv2d(2, 4, 1), images, "toy")
    with pytest.raises(MethodError, match="is not what its module returns"):
        check_parts(Whole(wrong=True), images, "toy")
    trains = Whole()
    trains.body.requires_grad_(True)
    with pytest.raises(MethodError, match=r"body\.weight and 1 more"):
        check_parts(trains, images, "toy")


@pytest.mark.parametrize("decoder", [*DECODERS, "light+pixels", "linear+pixels", "upernet+pixels"])
def test_levels_that_a_decoder_looks_at(tree, decoder):
    request = make_request(tree, "frozen", options={"train_patch_embed": False, "decoder": decoder})
    (cell,), _ = plan(request, lambda _: None)
    module = cell.method.build(cell.task()).eval()
    task = cell.task()
    images = torch.randn(2, task.num_bands, task.window, task.window)
    maps, used = check_parts(module, images, "frozen")
    base = decoder.removesuffix("+pixels")
    levels = (3,) if base in ("linear", "fcn") else (0, 1, 2, 3)
    assert used == (levels if base == decoder else (*levels, 4)), "the images come last"
    head = HeadOnFeatures(module.decoder)
    with torch.no_grad():
        on_images = HeadOnImages(module, torch.float32)(images)
        torch.testing.assert_close(head(FeatureMaps(without(maps, used), task.window)), on_images)
        torch.testing.assert_close(on_images, module(images))


# ---------------------------------------------------------------------------------------------- precision


def test_features_are_float32_whatever_the_precision(tmp_path, kept_run):
    _, _, _ = kept_run(tmp_path / "a")
    _, outcome, said = kept_run(tmp_path / "a", precision="bf16-mixed")
    assert outcome.state == "done" and sum("reusing features" in line for line in said) == 3


def test_fixed_source_takes_no_augmentation(tree):
    source = make_source(tree)
    assert isinstance(source.augmentation("segment"), nn.Module)
    image = torch.randn(1, 24, 4, 4)
    torch.testing.assert_close(source.normaliser()(source.normaliser().undo(image)), image, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="without labels"):
        kept_module.KeptSource(source, None, source.validation, nn.Identity()).train_loader(1, False, "x")


def test_the_command_takes_the_limit(tree, tmp_path, monkeypatch, capsys):
    caught = []
    monkeypatch.setattr(
        "spectral_tl_bench.runner.work.execute_in_processes",
        lambda cells, out, hardware, *more, **options: (
            caught.append(hardware) or [Outcome(cell, "done", None, 0.5) for cell in cells]
        ),
    )
    arguments = ["run", "-m", "linear-probe", "-o", "cache=true", "-b", "mts12-n2s", "--data-root", tree, "--out",
                 tmp_path, "--allow-partial", "--jobs", "1", "--feature-cache-limit", "2.5"]  # fmt: skip
    assert run_main(monkeypatch, arguments) == 0
    assert caught[0].feature_limit == 2.5 and hardware_module.Hardware().feature_limit == hardware_module.FEATURE_LIMIT

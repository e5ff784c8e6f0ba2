"""Methods that train on unlabelled target images: their parts, and what the target's images and labels do to them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import make_task
from torch import nn

from spectral_tl_bench.authoring.watching import batch_of
from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import VOID, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import load_method, make_method
from spectral_tl_bench.methods.uda.adabn import adapt
from spectral_tl_bench.methods.uda.entropy_min import entropy
from spectral_tl_bench.methods.uda.self_training import half_of_the_classes, pixels_by_class, teacher_of
from spectral_tl_bench.models.backbones import get_backbone
from spectral_tl_bench.objectives.coral import Coral

NAMES = ("adabn@small", "entropy-min", "self-training")


def given(task, target: float = 0.0) -> dict[str, torch.Tensor]:
    """A batch with target images of a given mean."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, task.num_bands, task.window, task.window, generator=generator)
    torch.manual_seed(4)
    batch = batch_of(images, task.num_classes)
    return {**batch, "target_image": images.flip(0) + target}


def built(name: str, task, **options) -> tuple[nn.Module, list[Stage]]:
    method = make_method(name, options)
    torch.manual_seed(1)
    return method.build(task), method.stages(task)


# ---------------------------------------------------------------------------------------------- entropy


def test_the_entropy_is_that_of_its_definition():
    logits = torch.randn(2, 5, 3, 4)
    p = torch.softmax(logits, 1).double().numpy()
    assert entropy(logits).item() == pytest.approx(np.mean(-(p * np.log(p)).sum(axis=1)) / math.log(5), rel=1e-5)
    assert entropy(torch.zeros(1, 3, 2, 2)).item() == pytest.approx(1) and entropy(1e4 * logits).item() < 0.05


def test_the_entropy_of_target_images_is_added_to_the_loss():
    task = make_task()
    module, (stage,) = built("entropy-min", task, weight=0.5)
    batch = given(task, 1.0)
    module.eval()
    expected = segmentation_loss(module, batch) + 0.5 * entropy(module(batch["target_image"]))
    torch.testing.assert_close(stage.loss(module, batch), expected)
    logits, added = stage.outputs(module, batch)
    torch.testing.assert_close(logits, module(batch["image"]))
    assert 0 < added.item() <= 0.5
    module, (stage,) = built("entropy-min", task, weight=0)
    torch.testing.assert_close(stage.loss(module.eval(), batch), segmentation_loss(module, batch))


# ---------------------------------------------------------------------------------------------- self-training


def test_half_of_the_classes_of_a_window_are_pasted_and_void_never():
    torch.manual_seed(2)
    mask = torch.randint(5, (40, 6, 6)) * torch.arange(40)[:, None, None].remainder(2)  # every second has one class
    mask[:, 0] = VOID
    mask[7] = VOID
    present = pixels_by_class(mask, 5) > 0
    pasted, drawn = half_of_the_classes(mask, present), set()
    for window, chosen, labels in zip(range(40), pasted, mask, strict=True):
        inside, outside = set(labels[chosen].tolist()), set(labels[~chosen].tolist()) - {VOID}
        assert VOID not in inside and not inside & outside, "whole classes"
        assert len(inside) == math.ceil(present[window].sum() / 2)
        drawn.add(frozenset(inside))
    assert len(drawn) > 5


def test_the_teacher_follows_and_is_no_part_of_the_student():
    task = make_task()
    module, (stage,) = built("self-training", task, decay=0.6)
    teacher = teacher_of(module)
    names = [name for name, _ in module.named_parameters()]
    plain = make_method("full").build(task)
    assert (
        names == [name for name, _ in plain.named_parameters()]
        and module.state_dict().keys() == plain.state_dict().keys()
    )
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    expected = [value.detach().clone() for value in module.parameters()]
    for step in (1, 2, 3):
        with torch.no_grad():
            for value in module.parameters():
                value.add_(1.0)
        stage.after_step(module, step, 10)
        stays = min(1 - 1 / (step + 1), 0.6)
        expected = [stays * own + (1 - stays) * other for own, other in zip(expected, module.parameters(), strict=True)]
    for own, value in zip(teacher.network.parameters(), expected, strict=True):
        torch.testing.assert_close(own, value)


def test_what_it_remembers_goes_into_a_module_that_is_built_afresh():
    task = make_task()
    module, (stage,) = built("self-training", task)
    stage.loss(module, given(task)).backward()
    with torch.no_grad():
        next(module.parameters()).add_(1.0)
    stage.after_step(module, 1, 10)
    fresh, _ = built("self-training", task)
    kept = copy.deepcopy(stage.memory.save(module))
    stage.memory.load(fresh, kept)
    fresh.load_state_dict(module.state_dict())
    losses = []
    for one in (module, fresh):
        torch.manual_seed(9)
        losses.append(stage.loss(one, given(task)).item())
    assert losses[0] == losses[1] and teacher_of(fresh).seen == 8


def test_pseudo_labels_count_as_the_teacher_is_sure():
    task = make_task()
    batch = given(task)
    batch["mask"].fill_(VOID)  # the source says nothing
    losses = {}
    for threshold in (0.0, 1.0):
        module, (stage,) = built("self-training", task, threshold=threshold, classmix=False)
        losses[threshold] = stage.loss(module.eval(), batch).item()
    labels, _ = teacher_of(module).pseudo_labels(batch["target_image"])
    expected = nn.functional.cross_entropy(module(batch["target_image"]), labels).item()
    assert losses == {0.0: pytest.approx(expected, rel=1e-5), 1.0: 0}


def test_windows_weigh_as_rare_class_sampling_would_draw_them():
    """By simulation: weights of a uniform draw, summed by class, against frequencies of the sampling itself."""
    teacher = teacher_of(built("self-training", make_task())[0])
    chance = np.random.default_rng(0)
    pixels = torch.tensor(chance.multinomial(64, [0.85, 0.13, 0.02], 500) * (chance.random((500, 3)) < 0.5))
    present = pixels > 0
    for start in range(0, 500, 100):  # shares settle
        teacher.weights(present[start : start + 100], pixels[start : start + 100], 0.3)
    weights = teacher.weights(present, pixels, 0.3).numpy()
    share = (pixels.sum(0) / pixels.sum()).numpy()
    probability = np.exp((1 - share) / 0.3) / np.exp((1 - share) / 0.3).sum()
    drawn = np.zeros(500)
    for label in range(3):
        having = present[:, label].numpy()
        drawn += probability[label] * having / having.sum()
    np.testing.assert_allclose(weights / weights.sum(), drawn, rtol=1e-4)
    assert teacher.weights(present[:4] & False, pixels[:4] * 0, 0.3).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("decoder", ["upernet", "light+pixels"])
def test_features_are_held_where_there_are_pretrained_ones(decoder):
    task = make_task()
    assert teacher_of(built("self-training", task)[0]).encoder is None
    pretrained = replace(task, window=64, backbone=get_backbone("rgb-mini").for_sensor(task.wavelengths, 10.0))
    batch, losses = given(pretrained), []
    for weight in (0.0, 1.0):
        module, (stage,) = built("self-training", pretrained, feature_weight=weight, decoder=decoder)
        module.eval()
        torch.manual_seed(5)
        start = stage.loss(module, batch).item()
        with torch.no_grad():
            for value in module.backbone.parameters():
                value.mul_(1.2)
        torch.manual_seed(5)
        losses.append((start, stage.loss(module, batch)))
    assert losses[0][0] == losses[1][0], "there is no distance yet"
    first = teacher_of(module).first_features(batch["image"])
    distance = (module.features(batch["image"])[3] - first).norm(dim=1).mean()
    torch.testing.assert_close(losses[1][1] - losses[0][1], distance, rtol=1e-3, atol=1e-3)


def test_objectives_align_features_of_the_source(monkeypatch):
    """The classifier is called for target images, too; the last call is that for the source."""
    task = make_task()
    for name in ("entropy-min", "self-training"):
        module, (stage,) = built(name, task)
        batch = {**given(task), "domain": torch.tensor([0, 1, 0, 1])}
        coral, plain = Coral(), Coral()
        coral._classes = plain._classes = task.num_classes
        module.eval()
        with coral.wrap(module, batch):
            stage.loss(module, batch)
        with plain.wrap(module, batch):
            module(batch["image"])
        torch.testing.assert_close(coral.penalty(module, batch), plain.penalty(module, batch))


# ---------------------------------------------------------------------------------------------- adabn


def test_a_network_without_batch_statistics_is_refused():
    with pytest.raises(MethodError, match="no batch normalisation"):
        adapt(make_method("full").build(make_task()), [])


def test_they_say_where_they_come_from():
    for name in NAMES:
        kind = load_method(name)
        assert kind.target_images and kind.family == "uda" and kind.reference and kind.differs

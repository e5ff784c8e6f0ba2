"""Formulas of the objectives, each against a computation of its own on domains made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import Pixelwise, make_task
from torch import nn
from torch.nn import functional

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.base import VOID, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.objectives.base import DomainLosses, Objective, Setting
from spectral_tl_bench.objectives.coral import Coral, coral_distance, covariance
from spectral_tl_bench.objectives.mixstyle import MixStyle, choose_partners, mix_statistics
from spectral_tl_bench.objectives.risks import Erm, GroupDro, Vrex
from spectral_tl_bench.objectives.spectral import SpectralAugmentation, dates
from spectral_tl_bench.objectives.swad import Swad, find_valley
from spectral_tl_bench.training.active_objectives import ActiveObjectives, losses_by_domain

BANDS, CLASSES = 4, 3
WAVELENGTHS = (0.49, 0.56, 0.66, 0.84)
MEANS = (900.0, 1000.0, 1100.0, 3000.0)


def setting(**changes) -> Setting:
    given = {
        "domains": ("a", "b", "c"), "wavelengths": WAVELENGTHS, "mean": MEANS, "std": (200.0,) * BANDS,
        "num_classes": CLASSES, "steps": 10, "seed": 3,
    }  # fmt: skip
    return Setting(**(given | changes))


def begun(objective: Objective, **changes) -> Objective:
    copy = objective.model_copy(deep=True)
    copy.begin(setting(**changes))
    return copy


def source(domains=("a", "b", "c")) -> SimpleNamespace:
    """What ``ActiveObjectives`` looks at."""
    statistics = SimpleNamespace(mean=np.array(MEANS), std=np.full(BANDS, 200.0))
    return SimpleNamespace(domains=domains, wavelengths=WAVELENGTHS, statistics=statistics, order_seed=0)


def active(stage: Stage | None = None, domains=("a", "b", "c"), **objectives: Objective) -> ActiveObjectives:
    return ActiveObjectives(objectives, stage or Stage("segment", 10), source(domains), CLASSES, "segment")


def batch_of(owners, side: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(len(owners), BANDS, side, side, generator=generator),
        "mask": torch.randint(CLASSES, (len(owners), side, side), generator=generator),
        "domain": torch.tensor(owners),
    }


def module_of(**options) -> Pixelwise:
    torch.manual_seed(5)
    return Pixelwise(BANDS, CLASSES, **{"dropout": 0.0, **options})


def losses(*values: float | None) -> DomainLosses:
    return DomainLosses(
        torch.tensor([0.0 if v is None else v for v in values], requires_grad=True),
        torch.tensor([v is not None for v in values]),
    )


# ---------------------------------------------------------------------------------------------- losses by domain


def test_the_loss_of_a_domain_is_its_mean_over_labelled_pixels():
    batch, module = batch_of([0, 2, 0, 2, 2]), module_of()
    batch["mask"][0, :2] = VOID
    batch["mask"][3] = VOID
    found = losses_by_domain(module(batch["image"]), batch, 3)
    assert found.present.tolist() == [True, False, True] and found.values[1] == 0
    for domain in (0, 2):
        part = {name: value[batch["domain"] == domain] for name, value in batch.items()}
        torch.testing.assert_close(found.values[domain], segmentation_loss(module, part))
    torch.testing.assert_close(found.mean(), (found.values[0] + found.values[2]) / 2)


def test_a_loss_that_cannot_be_looked_into_gives_the_same_domain_by_domain():
    batch, module = batch_of([0, 2, 0, 2]), module_of()
    batch["mask"][1, 0] = VOID
    own = Stage("segment", 10, loss=segmentation_loss)
    seen = []

    class Look(Objective):
        def risk(self, losses):
            seen.append(losses)
            return losses.mean()

    one, other = active(look=Look()).loss(module, batch), active(own, look=Look()).loss(module, batch)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(seen[0].values, seen[1].values)
    assert seen[0].present.tolist() == seen[1].present.tolist() == [True, False, True]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("objective", [GroupDro(), Vrex(), Coral()])
def test_a_batch_of_nothing_but_void_gives_zero_gradients(own, objective):
    batch, module = batch_of([0, 1]), module_of()
    batch["mask"].fill_(VOID)
    stage = Stage("segment", 10, loss=segmentation_loss if own else None)
    loss = active(stage, one=objective).loss(module, batch)
    loss.backward()
    finite = all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert finite and (loss.item() == 0 or isinstance(objective, Coral))


@pytest.mark.parametrize("objective", [Erm(), GroupDro(), Vrex(), Coral(), MixStyle(layers="body.0")])
def test_one_domain_in_a_batch(objective):
    """What is left is the loss of that domain, in GroupDRO times its weight."""
    batch, module = batch_of([1, 1]), module_of()
    expected = segmentation_loss(module, batch).item()
    it = active(one=objective)
    found = it.loss(module, batch).item()
    if isinstance(objective, GroupDro):
        expected *= it.facts()["one"]["weights"]["b"]
    if not isinstance(objective, MixStyle):
        assert found == pytest.approx(expected, rel=1e-5)
    assert math.isfinite(found)


def test_the_loss_of_spectralx_is_its_logits_cross_entropy_and_the_balance():
    task = make_task(steps=2, pretrain_steps=0)
    method = make_method("spectralx@no-stage1", {"balance": 0.1})
    torch.manual_seed(0)
    module, (stage,) = method.build(task).train(), method.stages(task)
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.randn(2, 4, 32, 32, generator=generator),
        "mask": torch.randint(3, (2, 32, 32), generator=generator),
        "domain": torch.tensor([0, 1]),
    }

    def seeded(function):
        torch.manual_seed(1)  # dropout
        return function(module, batch)

    logits, balance = seeded(stage.outputs)
    assert balance > 0
    torch.testing.assert_close(seeded(stage.loss), functional.cross_entropy(logits, batch["mask"]) + balance)

    class Mean(Objective):
        def risk(self, losses):
            return losses.mean()

    mean = ActiveObjectives({"mean": Mean()}, stage, source(("a", "b")), 3, "segment")
    torch.testing.assert_close(seeded(mean.loss), seeded(stage.loss))  # equal domains: equal mean


# ---------------------------------------------------------------------------------------------- risks


def test_groupdro_is_algorithm_1():
    objective, q = begun(GroupDro(step_size=0.5)), np.full(3, 1 / 3)
    for values in ((1.0, 2.0, 0.5), (0.3, None, 4.0), (None, None, 1.0)):
        batch = losses(*values)
        found = objective.risk(batch)
        plain = np.array([0.0 if v is None else v for v in values])
        q = q * np.exp(0.5 * plain)
        q /= q.sum()
        assert found.item() == pytest.approx(float(q @ plain), rel=1e-5)
        (gradient,) = torch.autograd.grad(found, batch.values)
        np.testing.assert_allclose(gradient.numpy(), q, rtol=1e-5)  # the weights carry no gradient
    assert list(objective.facts()["weights"].values()) == pytest.approx(q.tolist(), abs=1e-5)
    assert GroupDro().step_size == 0.01


def test_groupdro_survives_a_loss_that_overflows():
    objective = begun(GroupDro(step_size=1.0))
    assert objective.risk(losses(500.0, 1.0, 1.0)).item() == pytest.approx(500.0)


def test_vrex_is_mean_and_variance_after_the_anneal():
    objective = begun(Vrex(weight=7.0, anneal=0.2), steps=10)
    values = (1.0, None, 3.0)
    found = [objective.risk(losses(*values)).item() for _ in range(4)]
    mean, variance = np.mean([1.0, 3.0]), np.var([1.0, 3.0])
    assert found == pytest.approx([mean + variance] * 2 + [mean + 7 * variance] * 2)
    assert begun(Vrex()).risk(losses(None, 2.0, None)).item() == pytest.approx(2.0)
    assert (Vrex().weight, Vrex().anneal) == (10.0, 0.1)


def train_two_domains(objective: Objective, steps: int = 150) -> list[float]:
    """The same pixels, of which nine windows say class 0 and one, of the other domain, says class 1."""
    torch.manual_seed(0)
    module = nn.Conv2d(BANDS, CLASSES, 1)
    batch = batch_of([0] * 9 + [1], side=2)
    batch["image"] = torch.ones_like(batch["image"])
    batch["mask"] = (batch["domain"][:, None, None] * torch.ones(10, 2, 2)).long()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    it = active(Stage("segment", steps), domains=("big", "small"), one=objective)
    for _ in range(steps):
        optimiser.zero_grad()
        it.loss(module, batch).backward()
        optimiser.step()
    return losses_by_domain(module(batch["image"]), batch, 2).values.tolist()


def test_groupdro_and_vrex_lower_the_loss_of_the_worst_domain():
    erm, dro, rex = (max(train_two_domains(one)) for one in (Erm(), GroupDro(step_size=0.1), Vrex(weight=2)))
    assert erm > 1.5
    assert dro < 0.7 * erm and rex < 0.7 * erm


# ---------------------------------------------------------------------------------------------- coral


def domainbed(one, other):
    """Mean difference and covariance difference, as DomainBed's penalty has them, in NumPy."""
    means = np.mean((one.mean(axis=0) - other.mean(axis=0)) ** 2)
    return means + np.mean((np.cov(one.T) - np.cov(other.T)) ** 2)


def test_coral_is_the_distance_of_means_and_covariances():
    generator = torch.Generator().manual_seed(1)
    one, other = torch.randn(30, 5, generator=generator), 2 * torch.randn(50, 5, generator=generator)
    np.testing.assert_allclose(covariance(one).numpy(), np.cov(one.numpy().T), rtol=1e-4, atol=1e-6)
    assert coral_distance(one, other).item() == pytest.approx(domainbed(one.numpy(), other.numpy()), rel=1e-4)
    assert coral_distance(one, one + 3).item() == pytest.approx(9, rel=1e-4), "the means alone"
    assert coral_distance(one, one).item() == 0


@pytest.mark.parametrize("own", [False, True])
def test_coral_aligns_the_classifier_s_input_over_pairs_of_domains(own):
    batch, module = batch_of([0, 1, 0, 2]), module_of()
    stage = Stage("segment", 10, loss=segmentation_loss if own else None)
    it = active(stage, coral=Coral(weight=0.5))
    found = it.loss(module, batch)
    features = module.body[:3](batch["image"]).permute(0, 2, 3, 1)
    parts = [features[batch["domain"] == domain].reshape(-1, 8).detach().numpy() for domain in range(3)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    distance = np.mean([domainbed(parts[i], parts[j]) for i, j in pairs])
    expected = segmentation_loss(module, batch).item() + 0.5 * distance
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert it.facts() == {"coral": {"features": "input of body.3"}}
    found.backward()
    assert module.body[0].weight.grad.abs().sum() > 0
    assert not any(child._forward_pre_hooks for child in module.modules())


def test_coral_aligns_windows_where_it_is_asked_to():
    batch, module = batch_of([0, 1, 0, 1, 2]), module_of()
    found = active(coral=Coral(features="windows")).loss(module, batch)
    means = module.body[:3](batch["image"]).mean(dim=(2, 3)).detach().numpy()
    # The third domain has one window, which has no covariance.
    distance = domainbed(means[[0, 2]], means[[1, 3]])
    assert found.item() == pytest.approx(segmentation_loss(module, batch).item() + distance, rel=1e-5)
    alone = active(coral=Coral(features="windows")).loss(module, batch_of([0, 1, 2]))
    assert alone.item() == pytest.approx(segmentation_loss(module, batch_of([0, 1, 2])).item())


def test_coral_says_which_layer_it_cannot_find():
    module = nn.Sequential(nn.Conv2d(BANDS, 8, 1), nn.Conv2d(8, CLASSES + 2, 1))
    with pytest.raises(MethodError, match=r"no classifier.*\n.*coral\.layer"):
        active(coral=Coral()).loss(module, batch_of([0, 1]))
    with pytest.raises(MethodError, match="no module of the method"):
        active(coral=Coral(layer="2")).loss(module, batch_of([0, 1]))


# ---------------------------------------------------------------------------------------------- mixstyle


@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (4, 7, 5)])
def test_mixed_statistics(shape):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(shape, generator=generator) * 3 + 1
    places = (2, 3) if len(shape) == 4 else (1,)
    partners, shares = torch.tensor([2, 3, 0, 0]), torch.tensor([0.25, 0.5, 1.0, 0.0])
    mixed = mix_statistics(features, partners, shares)

    def column(values):
        return values.reshape(-1, *[1] * (values.ndim - 1))

    assert mixed.shape == features.shape
    share = shares[:, None]
    for statistic in (lambda x: x.mean(dim=places), lambda x: x.std(dim=places)):
        own = statistic(features)
        torch.testing.assert_close(statistic(mixed), share * own + (1 - share) * own[partners], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[2], features[2], atol=1e-5, rtol=1e-5)


def test_partners_are_of_another_domain_where_there_is_one():
    chance = np.random.default_rng(0)
    domains = np.array([0, 0, 1, 2, 0])
    for _ in range(20):
        assert (domains[choose_partners(domains, True, chance)] != domains).all()
    assert sorted(choose_partners(domains, False, chance)) == [0, 1, 2, 3, 4]
    assert set(choose_partners(np.zeros(3), True, chance)) <= {0, 1, 2}


def test_mixstyle_acts_in_training_steps_alone():
    batch, module = batch_of([0, 1, 0, 1]), module_of()
    it = active(mixstyle=MixStyle(p=1.0, alpha=1.0, layers="body.0"))
    plain, logits = segmentation_loss(module, batch).item(), module(batch["image"])
    found = [it.loss(module, batch).item() for _ in range(3)]
    assert all(abs(value - plain) > 1e-6 for value in found) and len(set(found)) == 3
    assert torch.equal(module(batch["image"]), logits), "in training mode too, outside of a step"
    assert torch.equal(module.eval()(batch["image"]), logits)
    assert not any(child._forward_hooks for child in module.modules())
    again = active(mixstyle=MixStyle(p=1.0, alpha=1.0, layers="body.0"))
    state = torch.get_rng_state()
    assert [again.loss(module, batch).item() for _ in range(3)] == found, "seeded"
    assert torch.equal(torch.get_rng_state(), state), "dropout and the like must not notice"
    assert active(mixstyle=MixStyle(p=0.0, layers="body.0")).loss(module, batch).item() == plain


@pytest.mark.parametrize(
    ("method", "places"),
    [
        ("full", ["backbone.norm_pre", "backbone.blocks.0"]),
        ("lora", ["backbone.norm_pre", "backbone.blocks.0"]),
        # Depth 2: both blocks hold experts and are run piece by piece.
        ("spectralx@no-stage1", ["backbone.norm_pre"]),
        ("unet", ["network.encoder.layer1", "network.encoder.layer2"]),
    ],
)
def test_mixstyle_finds_its_places(method, places):
    task = make_task(steps=1, pretrain_steps=0)
    module, (stage,) = make_method(method).build(task), make_method(method).stages(task)
    batch = {**batch_of([0, 1], side=32), "mask": torch.zeros(2, 32, 32, dtype=torch.long)}
    it = active(stage, mixstyle=MixStyle(p=1.0))
    assert it.loss(module, batch).isfinite()
    assert it.facts() == {"mixstyle": {"places": places}}


def test_mixstyle_says_what_it_cannot_find():
    for layers, message in (("", "neither the blocks"), ("bodi.0", "did you mean body.0"), ("unused", "does not call")):
        module = module_of()
        module.unused = nn.Identity()
        with pytest.raises(MethodError, match=message):
            active(mixstyle=MixStyle(layers=layers)).loss(module, batch_of([0, 1]))


# ---------------------------------------------------------------------------------------------- spectral augmentation


def augmented(images: torch.Tensor, seed: int = 0, wavelengths=WAVELENGTHS, mean=MEANS, **options) -> torch.Tensor:
    off = {"p": 1.0, "gain": 0.0, "band_gain": 0.0, "haze": 0.0, "noise": 0.0, "drop": 0.0}
    objective = begun(SpectralAugmentation(**(off | options)), wavelengths=wavelengths, mean=mean)
    return objective.augment(images, torch.Generator().manual_seed(seed))


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.rand(40, BANDS, 6, 6, generator=torch.Generator().manual_seed(9)) * 2000 + 100


def test_all_off_changes_nothing(windows):
    assert torch.equal(augmented(windows), windows)
    assert torch.equal(augmented(windows, gain=0.3, haze=0.5, noise=0.1, drop=0.5, p=0.0), windows)


def test_gain_is_one_factor_per_window(windows):
    factor = augmented(windows, gain=0.2) / windows
    assert factor.std(dim=(1, 2, 3)).max() < 1e-5
    assert factor.min() >= 0.8 - 1e-5 and factor.max() <= 1.2 + 1e-5 and factor.std() > 0.05
    by_band = (augmented(windows, band_gain=0.05) / windows).mean(dim=(2, 3))
    assert 0.03 < by_band.std() < 0.07 and by_band.std(dim=1).min() > 0


def test_haze_is_added_and_falls_with_wavelength(windows):
    haze = augmented(windows, haze=0.3) - windows
    assert haze.std(dim=(2, 3)).max() < 1e-2, "one value per window and band"
    haze = haze.mean(dim=(2, 3))
    assert (haze[:, :-1] > haze[:, 1:] - 1e-2).all() and haze.min() >= -1e-3
    assert 0.1 * MEANS[0] < haze[:, 0].max() <= 0.3 * MEANS[0] + 1e-2
    clear = haze[haze[:, 0] > 20]
    exponent = -torch.log(clear[:, 3] / clear[:, 0]) / math.log(WAVELENGTHS[3] / WAVELENGTHS[0])
    assert exponent.min() > 0.9 and exponent.max() < 4.1


def test_every_date_has_its_own_haze(windows):
    wavelengths = (0.49, 0.84, 0.49, 0.84)
    assert dates(wavelengths) == [0, 0, 1, 1]
    haze = (augmented(windows, haze=0.3, wavelengths=wavelengths) - windows).mean(dim=(2, 3))
    ratio = haze / torch.tensor([MEANS[0], MEANS[0], MEANS[2], MEANS[2]])
    assert (ratio[:, 0] - ratio[:, 2]).abs().mean() > 0.03
    assert (haze[:, 0] >= haze[:, 1] - 1e-2).all() and (haze[:, 2] >= haze[:, 3] - 1e-2).all()


def test_noise_is_measured_in_the_band_s_mean(windows):
    noise = (augmented(windows, noise=0.1) - windows).std(dim=(0, 2, 3))
    expected = 0.1 * torch.tensor(MEANS) / math.sqrt(3)  # the root mean square of a uniform level
    torch.testing.assert_close(noise, expected, rtol=0.15, atol=0)


def test_missing_bands_get_the_source_mean_and_one_stays(windows):
    changed = augmented(windows, drop=0.7)
    missing = (changed == torch.tensor(MEANS)[:, None, None]).flatten(2).all(dim=2)
    kept = (changed == windows).flatten(2).all(dim=2)
    assert (missing ^ kept).all() and kept.any(dim=1).all() and 0.3 < missing.float().mean() < 0.6


def test_augmentation_is_seeded_by_step_and_leaves_other_chance_alone(windows):
    it, again = active(aug=SpectralAugmentation()), active(aug=SpectralAugmentation())
    state = torch.get_rng_state()
    one = it.augment(windows, 4)
    assert torch.equal(one, again.augment(windows, 4)) and not torch.equal(one, it.augment(windows, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.dtype == torch.float32 and one.isfinite().all()


# ---------------------------------------------------------------------------------------------- swad


def valley_of(losses, patience=(3, 6), tolerance=1.2):
    """Algorithm 1 as it is printed, with every validation for an iteration, from 1."""
    start, end, limit = None, len(losses), None
    for i in range(1, len(losses) + 1):
        if limit is None:
            if i >= patience[0]:
                recent = [losses[i - k - 1] for k in range(patience[0])]
                if losses[i - patience[0]] == min(recent):
                    start, limit = i - patience[0] + 1, tolerance / patience[0] * sum(recent)
        elif i >= patience[1] and limit < min(losses[i - k - 1] for k in range(patience[1])):
            end = i - patience[1]
            break
    return None if start is None else (start - 1, end - 1)


def test_the_valley_is_that_of_algorithm_1():
    chance = np.random.default_rng(4)
    closed = 0
    for _ in range(300):
        length = int(chance.integers(1, 40))
        bowl = (np.linspace(-1, 1.5, length) ** 2 + 0.1 * chance.random(length) + 0.2).tolist()
        found, expected = find_valley(bowl, 3, 6, 1.2), valley_of(bowl)
        assert (None if found is None else (found.start, found.end)) == expected
        closed += found is not None and found.closed
    assert closed > 50
    assert find_valley([3.0, 2.0, 1.0], 3, 6, 1.2) is None


@pytest.mark.parametrize(
    "values",
    [[5, 4, 3, 2, 1, 1.1, 1.1, 1.0, 1.1, 1.2, 1.1], [3, 1, 1.1, 1.2, *[9] * 10], [5, 4, 3, 2, 1]],
    ids=["open", "closed", "none"],
)
def test_swad_averages_the_weights_that_it_says(tmp_path, values):
    averager = Swad().average(tmp_path)
    weights, trail, step = {"w": torch.zeros(3)}, {}, 0
    for number, loss in enumerate(values):
        for _ in range(2 + number % 2):
            step += 1
            weights["w"] += torch.rand(3)  # in place, as an optimiser does
            trail[step] = weights["w"].clone()
            averager.after_step(step, weights)
        averager.after_validation(step, float(loss))
    found = averager.result()
    taken = [trail[s] for s in range(found.facts["first_step"], found.facts["last_step"] + 1)]
    torch.testing.assert_close(found.state["w"], torch.stack(taken).mean(dim=0))
    assert found.end == found.facts["last_step"] and len(taken) > 1
    assert found.facts["valley"] == (valley_of(values) is not None)
    if not found.facts["valley"]:
        assert found.end == step


def test_a_long_valley_needs_few_files(tmp_path):
    averager = Swad().average(tmp_path)
    weights, trail, most = {"w": torch.zeros(3)}, [], 0
    for step in range(1, 41):
        weights["w"] += torch.rand(3)
        trail.append(weights["w"].clone())
        averager.after_step(step, weights)
        averager.after_validation(step, 1.0)
        most = max(most, len(list(tmp_path.iterdir())))
        if step == 20:  # cut off and gone on with
            again = Swad().average(tmp_path)
            again.restore(averager.state())
            averager = again
    found = averager.result()
    torch.testing.assert_close(found.state["w"], torch.stack(trail).mean(dim=0))
    assert found.facts["first_step"] == 1 and found.end == 40 and most <= 8

"""Golden cases of training: whole runs through the command, whose data, seeds and steps are those of anybody's run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from bench import WAVELENGTHS, Run, bench
from golden import Case, Numbers, kinds
from sketches import sketch
from torch import Tensor, nn

from spectral_tl_bench.files import seed_from
from spectral_tl_bench.methods import losses
from spectral_tl_bench.methods.base import VOID, Batch
from spectral_tl_bench.objectives.base import DomainLosses, Objective, Setting
from spectral_tl_bench.objectives.registry import make_objectives
from spectral_tl_bench.protocol.registry import get_protocol
from spectral_tl_bench.runner.seeds import order_seed, weight_seed
from spectral_tl_bench.training.stage_store import StageIdentity

Lines = Iterator[tuple[str, Numbers]]
PIXELS = ("data", "normalisation", "augmentation", "windows", "metric", "selection", "evaluation")
"""What takes part in every run beside training and method."""


def weights_of(state: dict[str, Tensor]) -> Lines:
    """A sketch of every tensor."""
    for name in sorted(state):
        yield name, sketch(state[name])


def outcome(run: Run) -> Lines:
    """Validation trace, confusion matrix and weights."""
    trace = run.record.selection.trace
    yield "steps", [run.record.selection.step, *(step for step, _ in trace)]
    yield "trace", [float(value or 0) for _, value in trace]
    yield from weights_of(run.weights)
    yield "target", run.shares()
    yield "last", run.shares("last")


def training() -> Lines:
    """Optimiser, schedules, the suite's loss, two stages, and a stage in closed form."""
    generator = torch.Generator().manual_seed(8)
    batch: Batch = {
        "image": torch.randn(2, 3, 5, 5, generator=generator),
        "mask": torch.arange(50).reshape(2, 5, 5) % 4,
    }
    batch["mask"][batch["mask"] == 3] = VOID
    yield "loss", [float(losses.segmentation_loss(nn.Identity(), batch))]
    for schedule, steps in (("constant", 6), ("cosine", 40)):
        run = bench().run("golden-ramp", "--schedule", schedule, steps=steps, validations=1)
        yield f"{schedule}", [float(run.weights["weight"])]
    run = bench().run("golden-pixels", "-o", "first=2", "--schedule", "constant")
    for name, numbers in outcome(run):
        yield f"two stages: {name}", numbers
    yield "two stages: steps of all", [stage.steps for stage in run.record.stages]
    run = bench().run("nearest-mean")
    for name, numbers in outcome(run):
        yield f"closed form: {name}", numbers


def first_stages() -> Lines:
    """A first stage that other runs share: its own seeds, losses and weights."""
    run = bench().run("spectralx", "--pretrain-steps", 2, steps=1, validations=1, rate=1e-3)
    ((trace, state),) = run.stages
    yield "losses", trace
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    yield "tensors", [len(state), sum(value.numel() for value in state.values())]
    yield "weights", [number for name in sorted(floats) for number in sketch(floats[name])[:2]]
    yield "stages", [stage.steps for stage in run.record.stages]


def selection() -> Lines:
    """The best of several checkpoints, the first of equal ones, and what the value of a checkpoint is."""
    rule = get_protocol().selection
    yield "value", [rule.value(torch.eye(3).long().numpy() * 5), rule.value(torch.zeros(3, 3).long().numpy())]
    for name, script in (("peak", "2,0,1,0,2"), ("equal", "1,0,2,0,0")):
        run = bench().run("golden-script", "--schedule", "constant", "-o", f"script={script}", steps=5, validations=5)
        chosen = run.record.selection
        yield f"{name}: step", [chosen.step, *(step for step, _ in chosen.trace)]
        yield f"{name}: value", [float(chosen.value or 0), *(float(value or 0) for _, value in chosen.trace)]
        yield f"{name}: weight", [float(run.weights["weight"])]
        yield f"{name}: target", run.shares()


def until_plateau() -> Lines:
    """Where the rate rises and falls, and where training stops."""
    script = ("-o", "script=0,0,0,2,1", "--until-plateau", "--validate-every", 1, "--patience", 2)
    run = bench().run("golden-script", *script, steps=30, validations=None)
    ending, chosen = run.record.selection.convergence, run.record.selection
    yield "ending", [float(ending.converged), ending.step, *ending.plateaus]
    yield "steps", [chosen.step, *(step for step, _ in chosen.trace)]
    yield "trace", [float(value or 0) for _, value in chosen.trace]
    yield "last", run.shares("last")
    for name, numbers in outcome(
        bench().run("pixel-mlp", "--until-plateau", "--validate-every", 4, "--patience", 1, steps=40, validations=None)
    ):
        yield f"pixels: {name}", numbers


def kept_features() -> Lines:
    """A decoder on features that are computed once, in all symmetries, and with another seed of the head."""
    other = ("-o", "cache=true", "-o", "head_seed=1", "-o", "cache_dtype=float16")
    for name, options in (("golden-copies", ()), ("linear-probe", other)):
        run = bench().run(name, *options)
        for key, numbers in outcome(run):
            yield f"{name}: {key}", numbers


# ---------------------------------------------------------------------------------------------- objectives


OWNERS = (0, 1, 1, 0)
SETTING = Setting(
    domains=("a", "b"), wavelengths=WAVELENGTHS, mean=(900.0, 1000.0, 1100.0, 3000.0), std=(200.0,) * 4, num_classes=3,
    steps=10, seed=3,
)  # fmt: skip
OPTIONS: dict[str, tuple[str, ...]] = {
    "mixstyle": ("-O", "mixstyle.layers=layers.0", "-O", "mixstyle.p=1"),
    "spectralaug": ("-O", "spectralaug.p=0.9"),
    "swad": ("-O", "swad.start_patience=1", "-O", "swad.end_patience=2"),
}


def objective(name: str) -> Lines:
    """The hooks of an objective on numbers made by hand, and a run with it."""
    options: dict[str, Any] = {"mixstyle": {"layers": "0", "p": 1.0}, "spectralaug": {"p": 0.9}}.get(name, {})
    (made,) = make_objectives(f"full+{name}", {name: options}).values()
    acting = made.model_copy(deep=True)
    acting.begin(SETTING)
    yield from hooks(acting)
    steps = 6 if acting.has("average") else 3
    run = bench().run(f"golden-pixels+{name}", *OPTIONS.get(name, ()), steps=steps, validations=steps)
    for key, numbers in outcome(run):
        yield f"run: {key}", numbers


def hooks(acting: Objective) -> Lines:
    """What each hook that the objective has makes of the same numbers."""
    generator = torch.Generator().manual_seed(8)
    images = torch.randn(len(OWNERS), 4, 6, 6, generator=generator)
    batch: Batch = {
        "image": images, "domain": torch.tensor(OWNERS),
        "mask": torch.randint(3, (len(OWNERS), 6, 6), generator=generator),
    }  # fmt: skip
    torch.manual_seed(5)
    module = nn.Sequential(nn.Conv2d(4, 8, 1), nn.GELU(), nn.Conv2d(8, 3, 1))
    yield "balanced", [int(acting.wants_balance())]
    if acting.has("augment"):
        yield "augment", sketch(acting.augment(images * 200 + 1000, torch.Generator().manual_seed(1)))
    with acting.wrap(module, batch):
        yield "logits", sketch(module(images))
    if acting.has("penalty"):
        yield "penalty", [float(acting.penalty(module, batch).detach())]
    if acting.has("risk"):
        given = [torch.tensor([0.4, 1.3]), torch.tensor([0.9, 0.1]), torch.tensor([2.0, 0.6])]
        present = torch.tensor([True, True])
        yield "risk", [float(acting.risk(DomainLosses(values, present))) for values in given]


# ---------------------------------------------------------------------------------------------- seeds

IDENTITY = StageIdentity(
    method="spectralx.method:SpectralXMethod", options={"mask_ratio": 0.75}, backbone={"name": "compact"},
    dataset="Golden", domains=("north",), chips={"north": {"n0_0": "0123456789abcdef"}}, nodata="fill", bands=("B0",),
    wavelengths=(0.49,), gsd=10.0, window=16, normalisation="source", augment="flips-and-turns", stage="reconstruct",
    steps=2, batch_size=4, learning_rate=1e-3, weight_decay=1e-4, schedule="constant", precision="32-true", seed=0,
    numerics={"data": "1"},
)  # fmt: skip


def seeds() -> Lines:
    """Seeds come from names. They are no component: a seed that moved would hide what a change does to numbers."""
    yield "names", [seed_from("windows", 3, "segment"), seed_from(), seed_from("a", 1)]
    yield "order", [order_seed("golden", 0), order_seed("golden", 1), order_seed("mts12-n2s", 0)]
    names = ("lora", "spectralx@hypert", "spectralx@hypert+vrex+swad")
    yield "weights", [weight_seed("golden", name, seed) for name in names for seed in (0, 1)]
    raised = IDENTITY.model_copy(update={"numerics": {"data": "2"}})
    yield "first stage", [IDENTITY.weight_seed, raised.weight_seed, IDENTITY.order_seed]
    spectralx: Any = kinds("method")["spectralx"]
    yield "names of classes", [seed_from(spectralx.seed_name)]


CASES = [
    Case("training", training, ("training", *PIXELS, "method nearest-mean")),
    Case(
        "first stages", first_stages,
        ("training", *PIXELS, "method spectralx", "backbone vit", "decoder"),
    ),
    Case("selection", selection, ("selection", *(one for one in PIXELS if one != "selection"), "training")),
    Case("plateau", until_plateau, ("plateau", *PIXELS, "training", "method pixel-mlp")),
    Case(
        "kept features", kept_features,
        ("kept features", *PIXELS, "training", "method linear-probe", "backbone vit", "decoder"),
    ),
    *(
        Case(f"objective {name}", lambda name=name: objective(name), (f"objective {name}", *PIXELS, "training"))
        for name in kinds("objective")
    ),
    Case("seeds", seeds, ()),
]  # fmt: skip

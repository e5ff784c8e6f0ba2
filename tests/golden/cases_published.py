"""Golden cases of the protocols ``published`` and ``as-published``: what differs in them from ``strict``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from bench import WINDOW, bench
from cases_data import places
from cases_run import outcome
from golden import Case, Numbers
from sketches import positions, sketch

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data import whole_chips
from spectral_tl_bench.protocol.registry import get_protocol

Lines = Iterator[tuple[str, Numbers]]
OF_A_RUN = (
    "published windows", "published normalisation", "published augmentation", "data", "metric", "evaluation",
    "training",
)  # fmt: skip


def normalisation() -> Lines:
    """A chip with a constant band and with holes."""
    image = torch.randn(4, 6, 7, generator=torch.Generator().manual_seed(0)) * 50 + 700
    image[2], invalid = 5000.0, torch.zeros(6, 7, dtype=torch.bool)
    invalid[:2, 3:5], image[:2, :2, 3:5] = True, 9000.0
    nothing = torch.zeros_like(invalid)
    for name, holes in (("whole", nothing), ("with holes", invalid), ("all holes", ~nothing)):
        for band, values in enumerate(whole_chips.scale_chip(image, holes)):
            yield f"{name}, band {band}", sketch(values)


def augmentation() -> Lines:
    """Windows and labels of some steps."""
    module = get_protocol("published").pixels.augment(17)
    image = torch.randn(5, 2, 12, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(5 * 144).reshape(5, 12, 12) % 7
    mask[mask == 6] = VOID
    for step in range(3):
        turned, labels = module(image, mask, step)  # type: ignore[misc]
        yield f"step {step}", sketch(turned)
        yield f"step {step}: labels", positions(labels)


def windows() -> Lines:
    """The order of chips, what becomes of them, and a run."""
    source, rules = bench().source(order_seed=4), get_protocol("published").pixels.windows.at(WINDOW)
    for balanced in (False, True):
        order = rules.training(source.collection, WINDOW, 16, 12, balanced)
        yield f"training, balanced {balanced}", places(source.collection[key] for key in order)
    samples = [rules.prepare(source.collection[key]) for key in rules.evaluation(source.collection, WINDOW, WINDOW)]
    yield "images", sketch(torch.stack([sample["image"] for sample in samples]))
    yield "labels", positions(torch.stack([sample["mask"] for sample in samples]))
    yield "holes", positions(torch.stack([sample["invalid"] for sample in samples]))
    run = bench().run("golden-pixels", "--protocol", "published", stride=WINDOW)
    for name, numbers in outcome(run):
        yield f"run: {name}", numbers


def selection() -> Lines:
    """What the release prints, and which checkpoint counts."""
    rule = get_protocol("as-published").selection
    one, other = np.array([[5, 1], [0, 3]]), np.array([[2, 0], [4, 6]])
    yield "value", [rule.value(one), rule.value(other, [one]), rule.value(np.zeros((2, 2), np.int64))]
    script = ("--schedule", "constant", "-o", "script=2,1,0,2,1")
    run = bench().run("golden-script", "--as-published", *script, steps=5, validations=2, stride=WINDOW)
    chosen = run.record.selection
    yield "step", [chosen.step, *(step for step, _ in chosen.trace)]
    yield "trace", [float(chosen.value or 0), *(float(value or 0) for _, value in chosen.trace)]
    yield "weight", [float(run.weights["weight"])]
    yield "target", run.shares()
    yield "last", run.shares("last")


CASES = [
    Case("published normalisation", normalisation, ("published normalisation",)),
    Case("published augmentation", augmentation, ("published augmentation",)),
    Case("published windows", windows, (*OF_A_RUN, "selection")),
    Case("as-published selection", selection, ("as-published selection", *OF_A_RUN)),
]

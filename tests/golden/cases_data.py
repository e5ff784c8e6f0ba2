"""Golden cases of what happens to pixels and labels, and of what is counted at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
import torch
from bench import SIDE, STRIDE, WINDOW, bench
from golden import Case, Numbers
from rasterio.transform import Affine
from sketches import positions, sketch
from torch import nn

from spectral_tl_bench.benchmarks import VOID, Split
from spectral_tl_bench.data.chip import ReadingRules, read_image, read_label
from spectral_tl_bench.data.index import ChipIndex
from spectral_tl_bench.data.layouts import ChipFiles
from spectral_tl_bench.data.loaders import BandStatistics, EvaluationData, TargetImages
from spectral_tl_bench.data.rasters import ChipCollection, open_datasets
from spectral_tl_bench.data.scan import scan_chip
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.evaluation.evaluate import ChipEvaluator, evaluate
from spectral_tl_bench.evaluation.metrics import confusion, majority_matrix, released_from_strict, released_score, score
from spectral_tl_bench.protocol.registry import get_protocol

Lines = Iterator[tuple[str, Numbers]]
ROLES = ("train", "validation", "target", "buffer")
MATRIX = np.array([[50, 3, 0, 7], [4, 31, 2, 0], [0, 0, 0, 0], [9, 1, 5, 22]])


def data() -> Lines:
    """Pixels, labels and statistics of chips, one of them with holes."""
    benchmark, index = bench().benchmark(), bench().index()
    yield "manifest", [int(index.manifest[:12], 16)]
    columns = ("valid_pixels", "nodata_pixels", "height", "width")
    yield "chips", [int(value) for column in columns for value in index.frame[column]]
    yield "class counts", [int(value) for counts in index.frame["class_counts"] for value in counts]
    statistics = BandStatistics.of(index, ["n0_0", "n1_0", "s2_1"])
    yield "band means", [float(value) for value in statistics.mean]
    yield "band deviations", [float(value) for value in statistics.std]
    collection = ChipCollection(open_datasets(benchmark, index, ["n1_0", "s2_1"], fill=statistics.mean))
    for number, _, row in collection.chips():
        sample = collection.datasets[number].read_window(0, 2, 9, WINDOW, WINDOW)
        yield f"pixels of {row['chip']}", sketch(sample["image"])
        yield f"labels of {row['chip']}", positions(sample["mask"])
        yield f"holes of {row['chip']}", positions(sample["invalid"])
    source = bench().source()
    yield "class pixels", [*map(int, source.class_pixels), source.majority_class]


def reading() -> Lines:
    """A chip whose files say a lot: turned, in a unit of its own, with a mask, a hole in one band and a wider label."""
    values = (np.arange(3 * 12 * 10).reshape(3, 12, 10) * 7919 % 997).astype(np.int16)
    values[1, 4, 5] = -1
    mask = np.full((12, 10), 255, dtype=np.uint8)
    mask[:2, 3:] = 0
    label = (np.arange(14 * 13).reshape(14, 13) * 31 % 4).astype(np.int32)
    chip = ChipFiles("a", "north", "", "image.tif", "label.tif")
    rules = ReadingRules(3, 0.0001, {}, "void", None, "georeference", "void", (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        place = {"driver": "GTiff", "crs": "EPSG:32633"}
        with rasterio.open(
            base / chip.image, "w", count=3, height=12, width=10, dtype="int16", nodata=-1,
            transform=Affine(0, 10, 500_000, 10, 0, 5_000_000), **place,
        ) as file:  # fmt: skip
            file.write(values)
            file.write_mask(mask)
            file.scales, file.offsets = (0.0001, 0.0002, 0.0001), (-0.1, 0.0, 0.05)
        with rasterio.open(
            base / chip.label, "w", count=1, height=14, width=13, dtype="int32", nodata=3,
            transform=Affine(10, 0, 499_990, 0, 10, 4_999_980), **place,
        ) as file:  # fmt: skip
            file.write(label[None])
        image = read_image(base / chip.image, "north", rules)
        found = read_label(base / chip.label, image.grid, image.turn, rules)
        row = scan_chip(base, chip, rules)
    yield "pixels", positions(image.pixels)
    yield "holes", positions(image.holes.values)
    yield "label", positions(found.raw)
    yield "hidden", positions(found.hidden)
    yield "counts", [*row["labels"], *row["label_counts"], *row["band_count"], row["valid_pixels"]]
    yield "content", [int(row["content"][:12], 16)]
    yield "unit", [*row["gain"], *(value / 1000 for value in row["bias"])]
    yield "sums", [*row["band_sum"]]
    yield "corner", [row["xmin"], row["ymax"]]


def ground() -> ChipIndex:
    """An index of chips in two clusters and two domains, without files."""
    rows = []
    for number in range(60):
        line, column, cluster = number // 10, number % 10, number % 3 == 0
        east, north = 500_000 + 300 * column + 40_000 * cluster, 5_000_000 + 300 * line
        rows.append({
            "chip": f"c{number:02}", "domain": "south" if number % 5 == 0 else "north", "site": f"s{number // 4}",
            "crs": "EPSG:32633", "xmin": east, "ymin": north, "xmax": east + 280, "ymax": north + 280,
            "class_counts": [number % 4, number % 7, 5],
        })  # fmt: skip
    return ChipIndex(Path(), pd.DataFrame(rows).set_index("chip"), {}, ())


def splits() -> Lines:
    """Who trains, validates and tests: cut by site, by blocks on the ground, and with an in-domain test part."""
    benchmark, index = bench().benchmark().model_copy(update={"source": ("north",), "target": ("south",)}), ground()
    blocks = Split(place="grid", block=600.0, validation=0.3)
    inside = {"gap": "none", "target": ("north",), "split": blocks.model_copy(update={"test": 0.3})}
    changes: dict[str, dict[str, Any]] = {"sites": {}, "blocks": {"split": blocks}, "inside": inside}
    for name, update in changes.items():
        unplaced = index.frame if name == "sites" else index.frame.assign(site="")
        for seed in (0, 1):
            table = make_split(benchmark.model_copy(update=update), replace(index, frame=unplaced), seed)
            yield f"{name}, seed {seed}", [ROLES.index(role) for role in table.role.sort_index()]


def windows() -> Lines:
    """Which windows come in which order, and how their logits become one map."""
    source, rules = bench().source(order_seed=4), get_protocol().pixels.windows
    for balanced in (False, True):
        order = rules.training(source.collection, WINDOW, 6, 12, balanced)
        yield f"training, balanced {balanced}", places(source.collection[key] for key in order)
    for name, loader in (
        ("batches", source.train_loader(2, True, "segment")),
        ("batches of another stage", source.train_loader(2, False, "reconstruct")),
        ("sweep", source.sweep_loader(True)),
    ):
        for key in ("domain", "mask"):
            yield f"{name}: {key}", positions(torch.cat([batch.get(key, batch["domain"]) for batch in loader]))
        yield f"{name}: image", sketch(torch.cat([batch["image"] for batch in loader]))
    grid = rules.evaluation(source.validation.collection, WINDOW, STRIDE)
    yield "evaluation", places(source.validation.collection[key] for key in grid)
    yield "count", [rules.count(SIDE, 40, WINDOW, STRIDE)]
    stitcher = rules.stitcher(3, 20, 24, WINDOW, "cpu")
    generator = torch.Generator().manual_seed(2)
    for row, column in ((0, 0), (0, 8), (4, 0), (4, 8)):
        stitcher.add(torch.randn(3, WINDOW, WINDOW, generator=generator), row, column)
    yield "stitched", positions(stitcher.finish())
    target = TargetImages(bench().benchmark(), bench().index(), ["e0_0", "e1_1"], source.settings, source.statistics)
    yield "target images", sketch(torch.cat([batch["image"] for batch in target.loader(2, 9)]))


def places(samples: Iterator[dict]) -> list[int]:
    """Which windows they are, exactly."""
    numbers = [
        (ord(one["chip"][0]), int(one["chip"][1]), int(one["chip"][3]), one["line"], one["column"]) for one in samples
    ]
    return [*positions(numbers), *map(int, numbers[1]), *map(int, numbers[-1])]


def normalisation() -> Lines:
    """A batch with the statistics of a constant band among others, and its way back."""
    statistics = BandStatistics(np.array([900.0, 0.3, -12.0, 5000.0]), np.array([210.0, 0.02, 4.0, 1e-5]))
    module = get_protocol().pixels.normalise(statistics)
    images = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * 50 + 700
    batch = module(images)
    for band in range(4):
        yield f"band {band}", sketch(batch[:, band])
    yield "undone", sketch(module.undo(batch))
    source = bench().source()
    batch = next(iter(source.train_loader(1, False, "segment")))
    yield "source", sketch(source.normaliser()(batch["image"]))


def augmentation() -> Lines:
    """Which of the eight symmetries each window of a step gets."""
    source = bench().source(order_seed=4)
    for name, module in (
        ("by seed", get_protocol().pixels.augment(17)),
        ("of a stage", source.augmentation("segment")),
    ):
        found, follow = [], []
        for step in range(4):
            image = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(5, 2, 1, 1)
            turned, mask = module(image, image[:, 0].long(), step)  # type: ignore[misc]
            found += [symmetry_of(one) for one in turned[:, 1].long()]
            follow.append(int(torch.equal(turned[:, 1].long(), mask)))
        yield name, found
        yield f"{name}: labels follow", follow


def symmetry_of(image: torch.Tensor) -> int:
    """The number of the symmetry that made (4, 4) of 0 to 15 in order."""
    plain = torch.arange(16).reshape(4, 4)
    for copy in range(8):
        axes = [axis for bit, axis in ((1, -1), (2, -2)) if copy & bit]
        one = plain.flip(axes) if axes else plain
        if torch.equal(one.T if copy & 4 else one, image):
            return copy
    return -1


def metric() -> Lines:
    """Scores of a matrix, by the benchmark's rule and by that of the release."""
    measure = get_protocol().metric
    yield "value", [measure.value(MATRIX), measure.value(MATRIX[:2, :2]), measure.value(MATRIX * 3)]
    found = score(MATRIX)
    yield "scores", [found.miou, found.oa, found.mean_f1, found.kappa]
    yield "by class", [-1.0 if np.isnan(value) else value for value in found.iou]
    yield "support", list(found.support)
    for name, released in (("released", released_score(MATRIX)), ("strict, released", released_from_strict(MATRIX))):
        yield name, [released.miou, released.oa, released.kappa]
    yield "majority", positions(majority_matrix(MATRIX, 3))


def fixed_module() -> nn.Module:
    """A classifier of pixels that is far from any tie."""
    module = nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-1, 0.2, -0.5, 2], [0.7, -0.1, 0.3, -2], [1, 1, 1, 0.31]])[..., None, None])
        module.bias.copy_(torch.tensor([0.11, -0.23, 0.07]))
    return module


def evaluation() -> Lines:
    """Confusion matrices of a fixed module and of a whole run, and the loss of validation."""
    truth = np.array([[0, 1, 2], [2, VOID, 1]])
    yield "confusion", confusion(truth, np.array([[0, 2, 2], [1, 0, 1]]), 3).ravel().tolist()
    benchmark, index, source = bench().benchmark(), bench().index(), bench().source()
    chips = make_split(benchmark, index, 0).chips("target")
    target = EvaluationData(benchmark, index, chips, source.settings, source.statistics)
    table = evaluate(fixed_module(), source.normaliser(), target, 3, torch.device("cpu"))
    yield "matrices", [int(value) for matrix in table["matrix"] for value in matrix.ravel()]
    evaluator = ChipEvaluator(source.validation, 3, with_loss=True)
    with torch.no_grad():
        for batch in source.validation.loader():
            evaluator.add(fixed_module()(source.normaliser()(batch["image"])), batch)
    yield "loss", [evaluator.loss()]
    run = bench().run("nearest-mean")
    yield "run: target", run.shares()
    yield "run: last", run.shares("last")


CASES = [
    Case("data", data, ("data",)),
    Case("reading", reading, ("data",)),
    Case("splits", splits, ("data",)),
    Case("windows", windows, ("windows", "data")),
    Case("normalisation", normalisation, ("normalisation", "windows", "data")),
    Case("augmentation", augmentation, ("augmentation",)),
    Case("metric", metric, ("metric",)),
    Case(
        "evaluation", evaluation,
        ("evaluation", "metric", "windows", "normalisation", "data", "training", "method nearest-mean"),
    ),
]  # fmt: skip

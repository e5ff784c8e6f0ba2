"""The example benchmarks on the real chips that they describe, where those are at hand."""

from __future__ import annotations

import numpy as np
import pytest
from shared import REPOSITORY, SHARED, needs_shared
from tiny import SIZES

from spectral_tl_bench.benchmarks import read_benchmark
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.rasters import open_datasets
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.results.store import read_records, verify
from spectral_tl_bench.runner.run import Request, execute, plan
from spectral_tl_bench.training.hardware import Hardware

CHIPS = SHARED / "data" / "hls-worldcover"
EXAMPLES = REPOSITORY / "docs" / "examples"

pytestmark = needs_shared(CHIPS)


@pytest.mark.parametrize(("name", "source", "target"), [("m2w", 143, 51), ("w2m", 51, 143)])
def test_sites_stay_whole_and_every_chip_has_one_part(name, source, target):
    benchmark = read_benchmark(EXAMPLES / f"hls-worldcover-{name}.yaml")
    index = build_index(benchmark, CHIPS)
    assert len(index.frame) == 194
    for seed in range(3):
        split = make_split(benchmark, index, seed)
        parts = {role: index.frame.loc[split.chips(role)] for role in ("train", "validation", "target")}
        assert len(parts["target"]) == target and sum(len(parts[role]) for role in ("train", "validation")) <= source
        assert not set(parts["train"]["site"]) & set(parts["validation"]["site"])
        assert 0.15 <= len(parts["validation"]) / source <= 0.35


def test_bands_are_in_the_order_that_the_definition_says():
    """Trees are brighter in the near infrared than in red, water is darkest in the short-wave infrared."""
    benchmark = read_benchmark(EXAMPLES / "hls-worldcover-m2w.yaml")
    (dataset,) = open_datasets(benchmark, build_index(benchmark, CHIPS))
    bands, classes = benchmark.sensor.band_names, benchmark.labels.names
    total = np.zeros((len(classes), len(bands)))
    count = np.zeros(len(classes))
    for number, row in enumerate(dataset.chip_rows()):
        sample = dataset.read_window(number, 0, 0, row["height"], row["width"])
        for label in range(len(classes)):
            pixels = sample["image"].numpy()[:, sample["mask"].numpy() == label]
            total[label] += pixels.sum(axis=1)
            count[label] += pixels.shape[1]
    mean = {name: dict(zip(bands, total[label] / count[label], strict=True)) for label, name in enumerate(classes)}
    assert mean["tree"]["nir"] > 2 * mean["tree"]["red"]
    assert mean["water"]["swir2"] == min(mean["water"].values())
    assert mean["water"]["swir2"] < mean["crop"]["swir2"]


def test_a_short_run_leaves_a_record_that_verifies(tmp_path):
    request = Request(
        [str(EXAMPLES / "hls-worldcover-w2m.yaml")],
        ["frozen"],
        backbone="compact",
        backbone_sizes=SIZES,
        data_root=CHIPS,
        overrides=Overrides(steps=2, batch_size=2, validations=1, window=64, stride=64),
    )
    cells, broken = plan(request, lambda _: None)
    assert broken == []
    (outcome,) = execute(cells, tmp_path, Hardware("cpu"), 0, lambda _: None)
    (record,) = read_records([tmp_path])
    assert outcome.state == "done" and record.track == "demonstration" and record.data.chips.target == 143
    assert verify(record)["selected"].miou == outcome.miou

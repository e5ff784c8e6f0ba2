"""Three classes that any method tells apart, in files that say something of themselves: right, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.protocol.settings import Overrides
from spectral_tl_bench.results.store import read_record
from spectral_tl_bench.runner.run import Request, execute, plan
from spectral_tl_bench.training.hardware import Hardware

SPECTRA = np.array([[0, 0, 0], [400, 700, 500], [900, 1100, 2400], [2600, 1500, 1200]], dtype=np.float64)
CLASSES = [
    {"name": name, "colour": f"#00000{number}", "raw": [number]}
    for number, name in enumerate(("one", "two", "three"), start=1)
]
Edit = Callable[[str, np.ndarray, np.ndarray, dict[str, Any], dict[str, Any]], tuple[np.ndarray, np.ndarray]]


def world(own, edit: Edit, dtype: str = "int32", **definition: Any) -> None:
    """Images that follow from labels; ``edit`` may change pixels, label and both profiles of a chip."""
    rng = np.random.default_rng(3)
    own.benchmark(labels={"void": [0], "classes": CLASSES}, **definition)
    for row in own.rows:
        name = row["name"]
        label = np.kron(rng.permuted([[1, 2], [3, 1 + rng.integers(3)]], axis=1), np.ones((8, 8))).astype(np.int16)
        pixels = SPECTRA[label].transpose(2, 0, 1) + rng.normal(0, 40, (3, 16, 16))
        x, y = own.corner(name)
        crs = own.crs["east" if name[0] == "e" else "west"]
        common = {"driver": "GTiff", "height": 16, "width": 16, "crs": crs, "transform": Affine(10, 0, x, 0, -10, y)}
        image, truth = {**common, "count": 3, "dtype": dtype}, {**common, "count": 1, "dtype": "int16"}
        pixels, label = edit(name, pixels, label, image, truth)
        for path, values, profile in ((own.image(name), pixels, image), (own.label(name), label[None], truth)):
            after = {key: profile.pop(key, None) for key in ("mask", "scales", "offsets")}
            with rasterio.open(path, "w", **profile) as file:
                file.write(values.astype(profile["dtype"]))
                for key, value in after.items():
                    if value is not None:
                        file.write_mask(value) if key == "mask" else setattr(file, key, value)


def run(own, tmp_path) -> tuple[float, Any]:
    """Target mIoU of a method without chance, and the record."""
    overrides = Overrides(window=16, steps=2, pretrain_steps=0, batch_size=2, validations=1)
    request = Request([str(own.yaml)], ["nearest-mean"], data_root=own.root, overrides=overrides)
    cells, broken = plan(request, lambda _: None)
    if broken:
        raise broken[0][1]
    (outcome,) = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert outcome.state == "done", outcome.message
    return outcome.miou, read_record(outcome.record)


def as_it_is(name, pixels, label, image, truth):
    return pixels, label


def south_up_labels(name, pixels, label, image, truth):
    if name[0] == "w":
        t = truth["transform"]
        truth["transform"] = Affine(10, 0, t.c, 0, 10, t.f - 160)
        label = label[::-1]
    return pixels, label


def mirrored_images(name, pixels, label, image, truth):
    t = image["transform"]
    image["transform"] = Affine(-10, 0, t.c + 160, 0, -10, t.f)
    return pixels[:, :, ::-1], label


def wrong_where_nodata(name, pixels, label, image, truth):
    image["nodata"] = -9999
    if name[0] == "w":
        pixels[1, :, :5] = -9999
    return pixels, label


def wrong_where_masked(name, pixels, label, image, truth):
    image["mask"] = np.full((16, 16), 255, dtype=np.uint8)
    image["mask"][:5] = 0
    pixels[:, :5] = np.roll(pixels, 5, axis=2)[:, :5]
    return pixels, label


def wrong_labels_where_masked(name, pixels, label, image, truth):
    truth["mask"] = np.full((16, 16), 255, dtype=np.uint8)
    truth["mask"][:5] = 0
    label[:5] = np.roll(label[:5], 1, axis=1) % 3 + 1
    return pixels, label


def offset_in_the_target(name, pixels, label, image, truth):
    image["scales"] = (0.0001,) * 3
    image["offsets"] = (-0.1 if name[0] == "w" else 0.0,) * 3
    return (pixels + 1000 if name[0] == "w" else pixels), label


def factor_in_the_target(name, pixels, label, image, truth):
    return (pixels * 10 if name[0] == "w" else pixels), label


def small_radiances(name, pixels, label, image, truth):
    return pixels * 1e-10, label


REFLECTANCE = {"name": "s", "gsd": 10, "unit": "reflectance x 10000", "scale": 0.0001}
RULE = [{"id": "east"}, {"id": "west", "scale": 0.00001}]


@pytest.mark.parametrize(
    ("edit", "definition", "unit", "unmeasured"),
    [
        (as_it_is, {}, "values as stored", 0),
        (south_up_labels, {}, "values as stored", 0),
        (mirrored_images, {}, "values as stored", 0),
        (wrong_where_nodata, {"nodata": "void"}, "values as stored", 4 * 5 * 16),
        (wrong_where_masked, {"nodata": "void"}, "values as stored", 4 * 5 * 16),
        (wrong_labels_where_masked, {}, "values as stored", 0),
        (offset_in_the_target, {}, "west: stored value * 1 -1000 (tags of the files)", 0),
        (factor_in_the_target, {"domains": RULE}, "west: stored value * 0.1 +0 (the benchmark)", 0),
        (small_radiances, {"dtype": "float64"}, "values as stored", 0),
    ],
)
def test_the_value_is_right_whatever_the_files_say_of_themselves(own, tmp_path, edit, definition, unit, unmeasured):
    sensor = {**REFLECTANCE, "bands": own.definition["sensor"]["bands"]}
    world(own, edit, sensor=sensor, **definition)
    miou, record = run(own, tmp_path)
    assert miou > 0.97
    assert unit in record.data.unit and record.data.unmeasured.target == unmeasured


@pytest.mark.parametrize("edit", [wrong_where_nodata, wrong_where_masked])
def test_refused_where_the_benchmark_does_not_say_what_to_do(own, tmp_path, edit):
    world(own, edit)
    with pytest.raises(UserError, match="NaN or nodata pixels, or a mask"):
        run(own, tmp_path)


def test_a_pixel_that_misses_one_band_is_still_known_by_the_others(own, tmp_path):
    world(own, wrong_where_nodata, nodata="fill")
    miou, record = run(own, tmp_path)
    assert miou > 0.9 and record.data.unmeasured.target == 320


def test_a_record_of_before_says_nothing_of_units_and_stays_as_it_was(own, tmp_path):
    world(own, as_it_is)
    _, record = run(own, tmp_path)
    facts = record.data.model_dump(mode="json")
    assert {"unit", "unmeasured"} <= facts.keys()
    earlier = {key: value for key, value in facts.items() if key not in ("unit", "unmeasured")}
    assert type(record.data).model_validate(earlier).model_dump(mode="json") == earlier

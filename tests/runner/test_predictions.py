"""What a run shows of its target."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import CHIP, make_request

from spectral_tl_bench.benchmarks import VOID
from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings
from spectral_tl_bench.leaderboard.measured import measure_record
from spectral_tl_bench.results.predictions import SIDE, chips_to_show, predictions_png
from spectral_tl_bench.results.store import evidence, read_record
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware


def rows(**chips: tuple[str, list[int]]) -> pd.DataFrame:
    """Rows of a chip index."""
    columns = {"domain": [d for d, _ in chips.values()], "class_counts": [np.array(c) for _, c in chips.values()]}
    return pd.DataFrame(columns, index=list(chips))


def test_the_most_varied_chips_are_shown_one_of_each_domain_first():
    frame = rows(a=("north", [3, 1, 1]), b=("north", [3, 1, 2]), c=("south", [9, 0, 0]), d=("north", [9, 9, 0]))
    assert chips_to_show(frame) == ("a", "c")  # b is as varied as a, and comes later by name
    assert chips_to_show(frame.iloc[::-1]) == ("a", "c")
    assert chips_to_show(rows(z=("north", [1, 0]), y=("north", [1, 1]), x=("north", [0, 1]))) == ("y", "x")
    assert chips_to_show(rows(only=("north", [1]))) == ("only",)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    """A finished run: its store, its cell and its record."""
    out = tmp_path_factory.mktemp("pictures") / "runs"
    cells, broken = plan(make_request(tree, "full"), lambda _: None)
    assert not broken
    outcome = execute(cells, out, Hardware("cpu"), 0, lambda _: None)[0]
    assert outcome.state == "done", outcome.message
    return out, cells[0], read_record(outcome.record)


def test_predictions_lie_beside_the_record_as_class_indices(finished):
    _, cell, record = finished
    path = record.path.parent / record.pictures.file
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.pictures.sha256
    picture = Image.open(path)
    assert picture.mode == "P" and picture.size == (CHIP * len(record.pictures.chips), CHIP)
    colour = cell.opened.benchmark.labels.classes[3].colour
    assert picture.getpalette()[9:12] == [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    # The pictures show what was counted: the columns of the confusion matrices say so.
    frame, shown = evidence(record), np.asarray(picture)
    for number, chip in enumerate(record.pictures.chips):
        row = frame[(frame["chip"] == chip) & (frame["checkpoint"] == "selected")].iloc[0]
        counted = row["matrix"].reshape(len(record.classes), -1).sum(axis=0)
        drawn = np.bincount(shown[:, number * CHIP : (number + 1) * CHIP].ravel(), minlength=len(record.classes))
        assert (drawn >= counted).all()  # where the ground truth is void, there is a prediction and no count
        assert drawn.sum() == CHIP * CHIP


def test_image_and_label_are_drawn_once_for_all_records_of_a_target(finished):
    out, cell, record = finished
    folder = out / record.benchmark / f"pictures-{measure_record(record).target}"
    listed = json.loads((folder / "chips.json").read_text())
    assert listed["chips"] == list(record.pictures.chips)
    assert {one["title"] for one in listed["colours"]} == {"true colour", "false colour"}
    label = np.asarray(Image.open(folder / "label.png"))
    loading = LoaderSettings(CHIP, CHIP, 1)
    data = EvaluationData(
        cell.opened.benchmark, cell.opened.index, cell.split().chips("target"), loading, fill(cell)
    )  # fmt: skip
    assert (label == np.concatenate([data.truth(chip) for chip in listed["chips"]], axis=1)).all()
    true, false = (np.asarray(Image.open(folder / f"{name}.png")) for name in ("true", "false"))
    assert true.shape == false.shape == (*label.shape, 3)
    # Each band is stretched by itself, and green of the one is blue of the other.
    assert (true[..., 1] == false[..., 2]).all() and (true[..., 0] == false[..., 1]).all()
    assert true.min() == 0 and true.max() == 255


def fill(cell):
    """Statistics for pixels without a measurement."""
    from spectral_tl_bench.data.loaders import BandStatistics

    return BandStatistics.of(cell.opened.index, cell.split().chips("train"))


def test_large_chips_are_cut_to_their_centre(finished):
    _, cell, _ = finished
    prediction = np.full((SIDE + 40, SIDE + 20), 1)
    prediction[20:-20, 10:-10] = 2
    name, sha256, content = predictions_png(cell.opened.benchmark, {"a": prediction, "b": prediction[: SIDE // 2]})
    assert name == f"pictures-{sha256[:16]}.png"
    import io

    shown = np.asarray(Image.open(io.BytesIO(content)))
    assert shown.shape == (SIDE, 2 * SIDE)
    assert (shown[:, :SIDE] == 2).all()
    assert (shown[SIDE // 2 :, SIDE:] == VOID).all()  # the smaller chip leaves void below

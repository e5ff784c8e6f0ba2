"""Where the data come from, and on which track their results stand."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.source import DataSource, locate, open_index
from spectral_tl_bench.errors import DataError
from spectral_tl_bench.sample import build

MTS = builtin_benchmarks()["mts12-n2s"]


@pytest.fixture
def small_sample(monkeypatch, tmp_path) -> Path:
    """The bundled sample, made small and in an empty cache."""
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "PARAMETERS", {"mts12": {"chip": 32, "north": 8, "south": 5}})
    return tmp_path / "cache"


def files(root: Path) -> DataSource:
    return DataSource("files", root, "")


def test_nothing_configured_gives_the_sample_which_is_made_at_once(small_sample):
    source = locate(MTS, None, None, environment={})
    assert source.kind == "sample" and small_sample in source.root.parents
    assert "synthetic" in source.line and "not a real result" in source.line
    index, track, _ = open_index(MTS, source, own=False)
    assert track == "sample" and len(index.frame) == 13, "the sample has fewer chips than were published, and may"


def test_an_empty_variable_counts_as_none(small_sample):
    assert locate(MTS, None, None, environment={"STBENCH_DATA": ""}).kind == "sample"


def test_data_root_beats_the_variable_which_beats_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ensure_sample", lambda: pytest.fail("the sample was made"))
    environment = {"STBENCH_DATA": str(tmp_path / "b")}
    flag = locate(MTS, None, tmp_path / "a", environment)
    assert (flag.kind, flag.root) == ("files", tmp_path / "a") and "--data-root" in flag.line
    variable = locate(MTS, None, None, environment)
    assert (variable.kind, variable.root) == ("files", tmp_path / "b") and "STBENCH_DATA" in variable.line
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "c"))
    assert locate(MTS, None, None).root == tmp_path / "c", "the process's own environment is the default"


def test_a_benchmark_of_ones_own_knows_its_root(own, tmp_path):
    benchmark = own.benchmark(layout={**own.definition["layout"], "root": "../data"})
    assert locate(benchmark, own.root, None, {}).root == (own.root / "../data").resolve()
    assert locate(benchmark, own.root, tmp_path, {}).root == tmp_path


def test_a_published_layout_of_ones_own_needs_a_root_and_never_gets_the_sample(own):
    benchmark = own.benchmark(layout={"kind": "mts12", "folders": ["x"]}, split={})
    with pytest.raises(DataError, match="no data root is set for the benchmark mine") as caught:
        locate(benchmark, own.root, None, {})
    assert "--data-root" in str(caught.value) and "STBENCH_DATA" in str(caught.value)
    assert locate(benchmark, own.root, None, {"STBENCH_DATA": "/d"}).root == Path("/d")


def test_a_missing_root_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError) as caught:
        open_index(MTS, files(tmp_path / "gone"), own=False)
    for fragment in ("does not exist", str(tmp_path / "gone"), "image/train", "--data-root", "STBENCH_DATA"):
        assert fragment in str(caught.value)


def test_an_incomplete_tree_says_what_is_missing_and_what_is_there(trees, tmp_path):
    shutil.copytree(trees / "MTS12", tmp_path / "MTS12")
    for kind in ("image", "label"):
        shutil.rmtree(tmp_path / "MTS12" / kind / "test")
    with pytest.raises(DataError) as caught:
        open_index(MTS, files(tmp_path), own=False, allow_partial=True)
    assert "no chip of domain south" in str(caught.value) and "north (16)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "mts12-n2s",
            ["16 source chips, published are 639", "12 target chips, published are 297", "chips of 32x32 px"],
        ),
        ("whuohs-t2s", ["32 source chips, published are 1450", "32 target chips, published are 1464"]),
        ("dfc2020-id", ["56 source chips, published are 6114"]),
    ],
)
def test_a_small_tree_runs_on_a_track_apart(trees, name, lines):
    benchmark = builtin_benchmarks()[name]
    _, track, notes = open_index(benchmark, files(trees), own=False)
    assert track == "partial"
    for line in lines:
        assert any(line in note for note in notes)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mts12-n2s", "16 source chips, published are 639"),
        ("whuohs-t2s", "32 target chips, published are 1464"),
        ("dfc2020-id", "56 source chips, published are 6114"),
    ],
)
def test_fewer_chips_of_the_published_size_need_allow_partial(trees, name, line):
    benchmark = builtin_benchmarks()[name]
    benchmark = benchmark.model_copy(update={"chip_size": 32})
    with pytest.raises(DataError) as caught:
        open_index(benchmark, files(trees), own=False)
    assert line in str(caught.value) and "--allow-partial" in str(caught.value)
    _, track, notes = open_index(benchmark, files(trees), own=False, allow_partial=True)
    assert track == "partial" and any(line in note for note in notes)


def published(**changes):
    """MTS12 as if the small tree were all that was published."""
    return MTS.model_copy(update={"expected": {"source": 16, "target": 12}, "chip_size": 32, **changes})


def test_a_complete_copy_is_real_and_one_chip_less_is_not(trees, tmp_path):
    assert open_index(published(), files(trees), own=False)[1:] == ("reproduced", ())
    assert open_index(published(), files(trees), own=False, allow_partial=True)[1] == "reproduced"
    shutil.copytree(trees / "MTS12", tmp_path / "MTS12")
    image = next((tmp_path / "MTS12" / "image" / "test").iterdir())
    image.unlink()
    (tmp_path / "MTS12" / "label" / "test" / f"{image.stem}_label.mat").unlink()
    with pytest.raises(DataError, match="11 target chips, published are 12"):
        open_index(published(), files(tmp_path), own=False)


def test_chips_of_another_size_are_not_the_published_ones(trees):
    _, track, notes = open_index(published(chip_size=500), files(trees), own=False)
    assert track == "partial" and "chips of 32x32 px, the benchmark says 500 px" in notes


def test_chips_that_were_left_out_as_void_count_as_there(trees, tmp_path):
    from spectral_tl_bench.sample.rasters import write_mat

    shutil.copytree(trees / "MTS12", tmp_path / "MTS12")
    label = next((tmp_path / "MTS12" / "label" / "test").iterdir())
    import numpy as np

    write_mat(label, np.zeros((32, 32), dtype="uint8"))
    index, track, notes = open_index(published(), files(tmp_path), own=False)
    assert (len(index.frame), len(index.skipped), track) == (27, 1, "reproduced")
    assert any("1 chips without a labelled pixel" in note for note in notes)


def test_own_data_stand_on_a_track_of_their_own(own, trees):
    source = locate(own.benchmark(), own.root, None, {})
    assert open_index(own.benchmark(), source, own=True)[1] == "demonstration"
    assert open_index(published(), files(trees), own=True)[1] == "demonstration"


def test_a_source_is_a_plain_value(tmp_path):
    source = locate(MTS, None, tmp_path, {})
    assert dataclasses.astuple(source) == ("files", tmp_path, f"data: {tmp_path} (--data-root)", False, None, None)

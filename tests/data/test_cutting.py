"""Published scenes become chips: pixel for pixel, in their place, with void where there is nothing; or not at all."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil

import numpy as np
import pytest
import rasterio
from data.published import CUBES, UTM, colours_of, save_73, write_cubes, write_isprs, write_tif
from scipy.io import savemat
from tiny import run_main

from spectral_tl_bench.benchmarks import further_benchmarks
from spectral_tl_bench.data import cutting
from spectral_tl_bench.data.cutting import cut_scenes
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import BenchmarkError, DataError

SIDE = 32
FOLDERS = {"potsdam-vaihingen": "isprs-chips", "pavia-u2c": "pavia-chips"}


def small(name: str, **changes):
    """A further benchmark with chips and blocks of a size for tests."""
    benchmark = further_benchmarks()[name]
    cut = benchmark.cut.model_copy(update={"block": benchmark.cut.block and SIDE})
    return benchmark.model_copy(update={"chip_size": SIDE, "cut": cut, **changes})


def cut_it(benchmark, folder, root, **options):
    return cut_scenes(benchmark, folder, root, lambda line: None, **options)


def refusal(benchmark, folder, root, kind=DataError, **options) -> str:
    """What is said; nothing may be left."""
    with pytest.raises(kind) as caught:
        cut_it(benchmark, folder, root, **options)
    assert not root.exists() or not list(root.iterdir()), "nothing is left behind"
    return str(caught.value)


def table(folder) -> list[dict[str, str]]:
    with (folder / "chips.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def isprs(tmp_path):
    """The folder of the raw files, and what is in them."""
    return tmp_path / "raw", write_isprs(tmp_path / "raw")


# ------------------------------------------------------------------------------------------------ ISPRS


def test_tiles_become_chips_pixel_for_pixel_in_their_place(isprs, tmp_path):
    raw, truth = isprs
    made = cut_it(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)
    assert made == tmp_path / "root" / "isprs-chips" and {row["scene"] for row in table(made)} == set(truth)
    for row in table(made):
        image, classes = truth[row["scene"]]
        if row["domain"] == "potsdam":
            image = image[[3, 0, 1]]  # infrared, red, green of red, green, blue, infrared
        top, left = int(row["row"]), int(row["column"])
        inside = np.s_[: min(SIDE, classes.shape[0] - top), : min(SIDE, classes.shape[1] - left)]
        part = classes[top : top + SIDE, left : left + SIDE]
        with rasterio.open(made / f"image/{row['chip']}.tif") as file:
            assert file.dtypes == ("uint8",) * 3 and file.shape == (SIDE, SIDE)
            np.testing.assert_array_equal(
                file.read()[(slice(None), *inside)], image[:, top : top + SIDE, left : left + SIDE]
            )
            valid = file.dataset_mask() > 0
            if row["domain"] == "potsdam":
                column = left + 45 * (row["scene"] == "potsdam-2_11")
                assert file.crs == "EPSG:32633"
                assert file.transform.almost_equals(UTM @ rasterio.Affine.translation(column, top))
            else:
                assert file.crs is None
        assert valid[inside].all() and valid.sum() == part.size == int(row["labelled"])
        with rasterio.open(made / f"label/{row['chip']}.tif") as file:
            label = file.read(1)
        np.testing.assert_array_equal(label[inside], part)
        assert label.sum() == part.sum(), "void around"
        assert row["site"] == row["scene"]
    origin = json.loads((made / "cut.json").read_text())["scenes"]
    assert {one["scene"] for one in origin} == set(truth) and len({one["image"]["sha256"] for one in origin}) == 4


def test_both_directions_read_the_chips_and_validation_is_whole_tiles(isprs, tmp_path):
    raw, _ = isprs
    cut_it(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)
    for name in ("potsdam-vaihingen", "vaihingen-potsdam"):
        benchmark = small(name)
        index = build_index(benchmark, tmp_path / "root")
        assert index.frame["domain"].value_counts().to_dict() == {"potsdam": 12, "vaihingen": 12}
        assert index.frame["nodata_pixels"].sum() == 24 * SIDE * SIDE - 4 * 70 * 45
        assert np.sum(index.frame["label_counts"].tolist()[0]) <= SIDE * SIDE
        split = make_split(benchmark, index, 0)
        sites = index.frame["site"]
        assert len({*sites[split.chips("train")]} & {*sites[split.chips("validation")]}) == 0
        assert {*index.frame["domain"][split.chips("target")]} == set(benchmark.target)
        assert build_index(benchmark, tmp_path / "root" / "isprs-chips").manifest == index.manifest


@pytest.mark.parametrize(("odd", "fits"), [(3, True), (4, False)])
def test_a_few_mixed_colours_are_void_and_many_are_refused(isprs, tmp_path, odd, fits):
    raw, truth = isprs
    path, (_, classes) = raw / "5_Labels_all" / "top_potsdam_2_10_label.tif", truth["potsdam-2_10"]
    colours = colours_of(classes)
    colours[:, 0, :odd] = np.array([[252], [255], [0]])
    colours[:, 1, :5] = 0  # black: borders that the ISPRS erodes
    write_tif(path, colours, photometric="RGB")
    if not fits:
        message = refusal(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)
        assert "4 of 3150 pixels" in message and path.name in message and "#ffff00 Car" in message
        return
    made = cut_it(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)
    with rasterio.open(made / "label" / "potsdam-2_10-r00000-c00000.tif") as file:
        label = file.read(1)
    assert (label[0, :3] == 0).all() and (label[1, :5] == 0).all() and (label[2:] > 0).all()


def test_a_fourth_band_that_is_called_alpha_is_the_infrared(isprs, tmp_path):
    raw, truth = isprs
    image, _ = truth["potsdam-2_10"]
    path = raw / "4_Ortho_RGBIR" / "top_potsdam_2_10_RGBIR.tif"
    write_tif(path, image, photometric="RGB", alpha="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3].name == "alpha"
    made = cut_it(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)
    with rasterio.open(made / "image" / "potsdam-2_10-r00000-c00000.tif") as file:
        np.testing.assert_array_equal(file.read(), image[[3, 0, 1], :SIDE, :SIDE])
        assert (file.dataset_mask() > 0).all()


def test_what_a_mask_hides_stays_hidden(isprs, tmp_path):
    raw, _ = isprs
    path = raw / "ISPRS_semantic_labeling_Vaihingen" / "top" / "top_mosaic_09cm_area1.tif"
    mask = np.full((45, 70), 255, np.uint8)
    mask[:7] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    made = cut_it(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)
    with rasterio.open(made / "image" / "vaihingen-area1-r00000-c00000.tif") as file:
        valid = file.dataset_mask() > 0
    assert not valid[:7].any() and valid[7:].all()


def test_what_is_missing_or_twice_is_named(isprs, tmp_path):
    raw, _ = isprs
    benchmark, root = small("potsdam-vaihingen"), tmp_path / "root"
    assert "2 scenes of potsdam, published are 38" in refusal(benchmark, raw, root)
    label = raw / "5_Labels_all" / "top_potsdam_2_10_label.tif"
    away = label.rename(tmp_path / "away.tif")
    message = refusal(benchmark.model_copy(update={"cut": uncounted(benchmark)}), raw, root)
    assert "1 of 2 images of potsdam have no label" in message and "top_potsdam_2_10_label.tif" in message
    made = cut_it(benchmark, raw, root, allow_partial=True)
    assert {row["scene"] for row in table(made) if row["domain"] == "potsdam"} == {"potsdam-2_11"}
    shutil.rmtree(root)
    away.rename(label)
    twice = raw / "gts_for_participants" / "top_mosaic_09cm_area1.tif"
    twice.parent.mkdir()
    shutil.copy(raw / "ground_truth_COMPLETE" / twice.name, twice)
    cut_it(benchmark, raw, root, allow_partial=True)
    shutil.rmtree(root)
    write_tif(twice, np.zeros((3, 45, 70), np.uint8), photometric="RGB")
    message = refusal(benchmark, raw, root, allow_partial=True)
    assert "2 files could be the label of vaihingen-area1" in message and "gts_for_participants" in message
    shutil.rmtree(raw / "4_Ortho_RGBIR")
    assert "no image of potsdam was found" in refusal(benchmark, raw, root, allow_partial=True)
    assert "--from is no folder" in refusal(benchmark, raw / "nothing", root)


def uncounted(benchmark):
    scenes = tuple(one.model_copy(update={"count": None}) for one in benchmark.cut.scenes)
    return benchmark.cut.model_copy(update={"scenes": scenes})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: write_tif(raw / "5_Labels_all/top_potsdam_2_10_label.tif", np.ones((1, 70, 45), np.uint8)),
         "the label has 1 bands"),
        (lambda raw: write_tif(raw / "5_Labels_all/top_potsdam_2_10_label.tif", np.ones((3, 45, 70), np.uint8)),
         "the image is 70x45 px, its label 45x70"),
        (lambda raw: write_tif(raw / "5_Labels_all/top_potsdam_2_10_label.tif", np.ones((3, 70, 45), np.uint16)),
         "the label holds uint16"),
        (lambda raw: write_tif(raw / "4_Ortho_RGBIR/top_potsdam_2_11_RGBIR.tif", np.ones((2, 70, 45), np.uint8)),
         "the image has 2 bands"),
        (lambda raw: write_tif(raw / "4_Ortho_RGBIR/top_potsdam_2_11_RGBIR.tif", np.ones((3, 70, 45), np.uint8)),
         "the image has 3 bands"),  # red, green, blue, and not the infrared, red, green of the benchmark
        (lambda raw: (raw / "4_Ortho_RGBIR/top_potsdam_2_11_RGBIR.tif").write_bytes(b"II*\0 torn"),
         "cannot be read as a raster"),
        (lambda raw: (raw / "4_Ortho_RGBIR/top_potsdam_2_11_RGBIR.tif").rename(
            raw / "4_Ortho_RGBIR/top_potsdam_2 11_RGBIR.tif"), "the scene is called 'potsdam-2 11'"),
    ],
)  # fmt: skip
def test_files_that_are_not_what_the_benchmark_says(isprs, tmp_path, change, words):
    raw, _ = isprs
    change(raw)
    assert words in refusal(small("potsdam-vaihingen"), raw, tmp_path / "root", allow_partial=True)


def test_an_interrupted_cut_leaves_nothing_and_a_finished_one_is_not_replaced(isprs, tmp_path, monkeypatch):
    raw, _ = isprs
    benchmark, root = small("potsdam-vaihingen"), tmp_path / "root"
    calls, write = [], cutting._write

    def stop(path, *rest):
        calls.append(path)
        if len(calls) == 7:
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(cutting, "_write", stop)
    refusal(benchmark, raw, root, KeyboardInterrupt, allow_partial=True)
    monkeypatch.setattr(cutting, "_write", write)
    made = cut_it(benchmark, raw, root, allow_partial=True)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(DataError, match="something is there"):
        cut_it(benchmark, raw, root, allow_partial=True)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


# ------------------------------------------------------------------------------------------------ MATLAB


@pytest.mark.parametrize("save", [savemat, save_73], ids=["v5", "v7.3"])
@pytest.mark.parametrize("name", CUBES)
def test_cubes_of_either_version_become_chips(name, save, tmp_path):
    if save is save_73:
        pytest.importorskip("h5py")
    truth = write_cubes(tmp_path / "raw", name, save)
    benchmark = small(name)
    made = cut_it(benchmark, tmp_path / "raw", tmp_path / "root")
    scenes = {rule.domain: truth[rule.image.removesuffix(".mat")] for rule in benchmark.cut.scenes}
    assert {row["site"] for row in table(made)} == {
        f"{domain}-{row}-{column}" for domain in scenes for row in (0, 1) for column in (0, 1, 2)
    }
    for row in table(made):
        image, label = scenes[row["domain"]]
        top, left = int(row["row"]), int(row["column"])
        part = image[top : top + SIDE, left : left + SIDE, : len(benchmark.sensor.bands)]
        with rasterio.open(made / f"image/{row['chip']}.tif") as file:
            found = file.read()[:, : part.shape[0], : part.shape[1]]
        np.testing.assert_array_equal(found, np.moveaxis(part, -1, 0))
        with rasterio.open(made / f"label/{row['chip']}.tif") as file:
            np.testing.assert_array_equal(
                file.read(1)[: part.shape[0], : part.shape[1]], label[top : top + SIDE, left : left + SIDE]
            )
    index = build_index(benchmark, tmp_path / "root")
    assert np.sum(index.frame["class_counts"].tolist()) == sum((label > 0).sum() for _, label in scenes.values())
    split = make_split(benchmark, index, 1)
    assert not {*index.frame["site"][split.chips("train")]} & {*index.frame["site"][split.chips("validation")]}


@pytest.mark.parametrize("save", [savemat, save_73], ids=["v5", "v7.3"])
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"paviaU": np.ones((40, 70, 103))}, ["no variable 'ori_data'", "paviaU 40x70x103", "--image-variable"]),
        ({"ori_data": np.ones((40, 70))}, ["has shape (40, 70)", "(rows, columns, bands)"]),
        ({"ori_data": np.ones((103, 40, 70))}, ["the image is 103x40 px, its label 40x70"]),
        ({"ori_data": np.ones((40, 70, 101))}, ["the image has 101 bands", "102 bands, or at least 102"]),
    ],
)
def test_a_cube_that_is_not_what_is_expected(tmp_path, save, variables, words):
    if save is save_73:
        pytest.importorskip("h5py")
    write_cubes(tmp_path / "raw", "pavia-u2c")
    save(tmp_path / "raw" / "paviaU.mat", variables)
    message = refusal(small("pavia-u2c"), tmp_path / "raw", tmp_path / "root")
    assert "paviaU.mat" in message and all(word in message for word in words), message


def test_files_of_version_7_3_that_lead_elsewhere_or_cannot_be_read(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    raw, root = tmp_path / "raw", tmp_path / "root"
    truth = write_cubes(raw, "pavia-u2c", save_73)
    path = raw / "paviaU.mat"
    path.rename(tmp_path / "outside.mat")
    with h5py.File(path, "w") as file:
        file["ori_data"] = h5py.ExternalLink(str(tmp_path / "outside.mat"), "/ori_data")
    assert "has no variable 'ori_data'" in refusal(small("pavia-u2c"), raw, root), "a link out of the file"
    path.unlink()
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((103, 70, 40), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "outside.mat"), "ori_data", (103, 70, 40))
        file.create_virtual_dataset("ori_data", layout)
    assert "has no variable 'ori_data'" in refusal(small("pavia-u2c"), raw, root)
    path.unlink()
    save_73(path, {"ori_data": truth["paviaU"][0]})
    path.write_bytes(path.read_bytes()[:3000])
    assert "cannot be read" in refusal(small("pavia-u2c"), raw, root)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "h5py" else find(name))
    assert "spectral-tl-bench[matlab]" in refusal(small("pavia-u2c"), raw, root)


def test_a_torn_file_of_version_5_and_fractions_in_a_label(tmp_path):
    raw, root = tmp_path / "raw", tmp_path / "root"
    write_cubes(raw, "pavia-u2c")
    savemat(raw / "paviaU_7gt.mat", {"map": np.full((40, 70), 0.5)})
    assert "fractions" in refusal(small("pavia-u2c"), raw, root)
    path = raw / "paviaU.mat"
    path.write_bytes(path.read_bytes()[:-9000])
    assert "paviaU.mat" in refusal(small("pavia-u2c"), raw, root)


# ------------------------------------------------------------------------------------------------ the command


def test_from_published_files_to_a_result(tmp_path, monkeypatch, capsys):
    truth = write_cubes(tmp_path / "raw", "pavia-u2c", size=(70, 140))
    savemat(tmp_path / "raw" / "paviaU.mat", {"cube": truth["paviaU"][0]})
    savemat(tmp_path / "raw" / "paviaC.mat", {"cube": truth["paviaC"][0]})
    raw, root = tmp_path / "raw", tmp_path / "root"
    cut = ["data", "cut", "pavia-u2c", "--from", raw, "--data-root", root]
    assert run_main(monkeypatch, cut) == 2 and "it has cube 70x140x103" in capsys.readouterr().err
    assert run_main(monkeypatch, [*cut, "--image-variable", "cube"]) == 0
    assert "next: stbench data check pavia-u2c" in capsys.readouterr().out
    assert run_main(monkeypatch, ["data", "verify", "pavia-u2c", "--data-root", root]) == 0
    capsys.readouterr()
    run = ["run", "--benchmark", "pavia-u2c", "--method", "majority", "--data-root", root, "--out", tmp_path / "out"]
    assert run_main(monkeypatch, run) == 0
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("record.json")]
    assert (record["track"], record["dataset"], len(record["classes"])) == ("hyperspectral", "Pavia", 7)
    assert run_main(monkeypatch, ["data", "list", "--data-root", root]) == 0
    assert "on disk          table: 12 chips" in capsys.readouterr().out


def test_what_cannot_be_cut(tmp_path, own, monkeypatch, capsys):
    for arguments, words in (
        (("mts12-n2s",), "names no scenes to cut"),
        (("loveda-u2r",), "names no scenes to cut"),
        (("track:hyperspectral",), "track:hyperspectral is 4 benchmarks"),
    ):
        code = run_main(monkeypatch, ["data", "cut", *arguments, "--from", tmp_path, "--data-root", tmp_path / "root"])
        assert code == 2 and words in capsys.readouterr().err
    assert run_main(monkeypatch, ["data", "cut", "pavia-u2c", "--from", tmp_path]) == 2
    assert "there is no folder to put the chips in" in capsys.readouterr().err
    scenes = [{"domain": name, "image": f"{name}.tif", "label": f"{name}_label.tif"} for name in ("east", "west")]
    benchmark = own.benchmark(cut={"scenes": scenes})
    assert "in which folder the chips are" in refusal(benchmark, own.root, tmp_path / "root", BenchmarkError)
    benchmark = own.benchmark(layout={**own.definition["layout"], "folders": ["mine-chips"]})
    assert "reads other chips than are cut" in refusal(benchmark, own.root, tmp_path / "root", BenchmarkError)


def test_scenes_of_a_user_s_own(own, tmp_path):
    rng = np.random.default_rng(5)
    image, label = rng.integers(1, 4000, (3, 20, 20), dtype=np.uint16), rng.integers(0, 4, (1, 20, 20), dtype=np.int16)
    image[:, :2, :2] = 7
    for name in ("east", "west"):
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5 + 1e5 * (name == "west"), 0, -10, 5e6)}
        write_tif(tmp_path / "raw" / f"{name}.tif", image + (name == "west"), nodata=7, **place)
        write_tif(tmp_path / "raw" / f"{name}_label.tif", label, **place)
    layout = {"kind": "table", "table": "chips.csv", "image": "image/{chip}.tif", "label": "label/{chip}.tif",
              "chip": "chip", "domain": "domain", "site": "site", "folders": ["mine-chips"]}  # fmt: skip
    scenes = [{"domain": name, "image": f"{name}.tif", "label": f"{name}_label.tif"} for name in ("east", "west")]
    benchmark = own.benchmark(cut={"scenes": scenes, "block": 16}, layout=layout, nodata="fill", domains_by="table")
    made = cut_it(benchmark, tmp_path / "raw", tmp_path / "root")
    index = build_index(benchmark, tmp_path / "root")
    assert len(index.frame) == 8 and table(made)[0]["site"] == "east-0-0"
    padded = 4 * 16 * 16 - 20 * 20
    assert index.frame.groupby("domain")["nodata_pixels"].sum().to_dict() == {"east": padded + 4, "west": padded}
    assert index.frame.loc["east-r00016-c00016", ["xmin", "ymax"]].tolist() == [5e5 + 160, 5e6 - 160]

"""Maps of scenes: equal to the protocol's whatever the size; bands, units and gaps; files that others can read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import spectral_tl_bench as stb
from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.source import DataSource, open_index
from spectral_tl_bench.errors import DataError, StorageError, UserError
from spectral_tl_bench.maps.predict import MapOptions, predict
from spectral_tl_bench.maps.scene import SceneOptions, match_bands
from spectral_tl_bench.results.store import read_record

Write = Callable[..., Path]
Make = Callable[..., np.ndarray]
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "maps.md"


def classes_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def pixel_by_pixel(model, pixels: np.ndarray) -> np.ndarray:
    """What a network without context says of each pixel: no window, no seam, no edge can change it."""
    logits = model(torch.from_numpy(pixels.astype(np.float32))[None])
    return logits[0].argmax(dim=0).numpy()


# ---------------------------------------------------------------------------------------------- the same as tested


@pytest.mark.parametrize("method", ["pixel-mlp", "lora", "spectralx", "majority"])
def test_the_map_of_a_target_chip_is_the_prediction_that_was_counted(trained, method, tmp_path):
    record = read_record(trained.folders[method] / "record.json")
    model = trained.load(method)
    index = open_index(model.benchmark, DataSource("files", trained.tree, ""), own=False, allow_partial=True)[0]
    shown = np.asarray(Image.open(trained.folders[method] / record.pictures.file))
    files = [index.root / index.frame.loc[chip]["image"] for chip in record.pictures.chips]
    maps = predict(trained.folders[method] / "selected.safetensors", files, tmp_path / "maps")
    side_by_side = np.concatenate([classes_of(one.path) for one in maps], axis=1)
    assert np.array_equal(side_by_side, shown)
    assert method == "majority" or len(np.unique(shown)) > 1


# ---------------------------------------------------------------------------------------------- sizes, edges, seams


@pytest.mark.parametrize(
    ("height", "width"), [(16, 16), (17, 16), (48, 33), (33, 80), (7, 40), (40, 7), (5, 9), (1, 1), (65, 64)]
)
@pytest.mark.parametrize("stride", [16, 8, 5])
def test_every_pixel_is_mapped_once(trained, scene_pixels, write_scene, tmp_path, height, width, stride):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(height, width)
    [one] = predict(model, [write_scene(pixels)], tmp_path / "maps", options=MapOptions(stride=stride),
                    scene_options=SceneOptions(trust_unit=True))  # fmt: skip
    assert np.array_equal(classes_of(one.path), pixel_by_pixel(model, pixels))


def test_context_is_blended_alike_in_one_batch_and_in_many(trained, scene_pixels, write_scene, tmp_path):
    model, scene = trained.load("lora"), write_scene(scene_pixels(40, 56))
    maps = [
        classes_of(predict(model, [scene], tmp_path / str(size), options=MapOptions(batch_size=size))[0].path)
        for size in (1, 3, 64)
    ]
    assert (maps[0] == maps[1]).mean() > 0.999 and (maps[0] == maps[2]).mean() > 0.999


def test_a_stride_beyond_the_window_is_refused(trained, scene_pixels, write_scene, tmp_path):
    with pytest.raises(UserError, match="--stride 17 leaves gaps"):
        predict(trained.load("lora"), [write_scene(scene_pixels(40, 40))], tmp_path, options=MapOptions(stride=17))


# ---------------------------------------------------------------------------------------------- what is not measured


@pytest.mark.parametrize("nodata", [0, 7, 65535])
def test_nodata_of_the_scene_is_nodata_of_the_map(trained, scene_pixels, write_scene, tmp_path, nodata):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(40, 48)
    expected = pixel_by_pixel(model, pixels)
    gap = np.zeros((40, 48), dtype=bool)
    gap[3:20, 5:9] = True
    gap[:, 32:] = True  # two rows of windows see nothing else
    pixels[:, gap] = nodata
    found = classes_of(predict(model, [write_scene(pixels, nodata=nodata)], tmp_path / "maps")[0].path)
    assert (found[gap] == 255).all() and np.array_equal(found[~gap], expected[~gap])


def test_nan_is_never_a_class_and_no_measurement(trained, scene_pixels, write_scene, tmp_path):
    model = trained.load("pixel-mlp")
    pixels = scene_pixels(24, 24).astype(np.float32)
    expected = pixel_by_pixel(model, pixels)
    pixels[5, 2:4, 3] = np.nan
    pixels[:, 10, 10] = np.inf
    found = classes_of(predict(model, [write_scene(pixels)], tmp_path / "maps")[0].path)
    gap = ~np.isfinite(pixels).all(axis=0)
    assert gap.sum() == 3 and (found[gap] == 255).all() and np.array_equal(found[~gap], expected[~gap])


def test_a_scene_without_a_measurement_is_a_map_without_a_class(trained, write_scene, tmp_path):
    scene = write_scene(np.zeros((24, 20, 20), dtype=np.uint16), nodata=0)
    said: list[str] = []
    [one] = predict(trained.load("lora"), [scene], tmp_path / "maps", say=said.append)
    assert (classes_of(one.path) == 255).all() and set(one.shares.values()) == {0.0}
    assert said[-1].endswith("nothing in the scene is measured")


def test_a_hidden_part_is_nodata(trained, scene_pixels, write_scene, tmp_path):
    pixels = scene_pixels(20, 20)
    scene = write_scene(pixels)
    with rasterio.open(scene, "r+") as file:
        file.write_mask(np.where(np.arange(20) < 8, 0, 255).astype(np.uint8)[None].repeat(20, axis=0))
    found = classes_of(predict(trained.load("pixel-mlp"), [scene], tmp_path / "maps")[0].path)
    assert (found[:, :8] == 255).all() and (found[:, 8:] < 8).all()


# ---------------------------------------------------------------------------------------------- bands


def test_bands_in_another_order_are_found_by_their_names(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(20, 20)
    order = np.random.default_rng(1).permutation(24)
    scene = write_scene(pixels[order], names=[model.bands[band].upper() for band in order])
    found = classes_of(predict(model, [scene], tmp_path / "maps")[0].path)
    assert np.array_equal(found, pixel_by_pixel(model, pixels))
    plain = write_scene(pixels[order], "unnamed.tif")
    assert not np.array_equal(classes_of(predict(model, [plain], tmp_path / "maps")[0].path), found)
    chosen = SceneOptions(bands=tuple(int(np.flatnonzero(order == band)[0]) + 1 for band in range(24)))
    by_hand = predict(model, [plain], tmp_path / "by-hand", scene_options=chosen)[0].path
    assert np.array_equal(classes_of(by_hand), found)


def test_more_bands_than_needed_do_no_harm_when_they_are_named(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(20, 20)
    more = np.concatenate([np.full((1, 20, 20), 9, dtype=np.uint16), pixels])
    scene = write_scene(more, names=["quality", *model.bands])
    assert np.array_equal(classes_of(predict(model, [scene], tmp_path / "maps")[0].path), pixel_by_pixel(model, pixels))


def test_a_missing_band_is_named(trained, scene_pixels, write_scene, tmp_path):
    model = trained.load("lora")
    scene = write_scene(scene_pixels(20, 20), names=["strange", *model.bands[1:]])
    with pytest.raises(DataError, match=f"{model.bands[0]} is not one of them"):
        predict(model, [scene], tmp_path / "maps")


def test_a_band_twice_is_refused(trained, scene_pixels, write_scene, tmp_path):
    model = trained.load("lora")
    scene = write_scene(scene_pixels(20, 20), names=[model.bands[1], *model.bands[1:]])
    with pytest.raises(DataError, match="is not one of them, or twice"):
        predict(model, [scene], tmp_path / "maps")


def test_too_few_bands_without_names_are_refused(trained, scene_pixels, write_scene, tmp_path):
    with pytest.raises(DataError, match="has 23 bands, and does not say which"):
        predict(trained.load("lora"), [write_scene(scene_pixels(20, 20)[:23])], tmp_path / "maps")


def test_names_of_other_bands_are_refused(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(20, 20)
    other = write_scene(pixels, "other.tif", names=[f"VV {chr(97 + band)}" for band in range(24)])
    with pytest.raises(DataError, match=r"called VV a, .*, VV x: none is a band of the benchmark") as refused:
        predict(model, [other], tmp_path / "maps")
    assert "--bands" in str(refused.value) and "Mar-B02" in str(refused.value)
    in_order = SceneOptions(bands=tuple(range(1, 25)))
    [one] = predict(model, [other], tmp_path / "maps", scene_options=in_order)
    assert np.array_equal(classes_of(one.path), pixel_by_pixel(model, pixels))


@pytest.mark.parametrize("name", ["layer_{}", "Band {}", "scene.0{}", "reflectance"])
@pytest.mark.parametrize("first", [0, 1])
def test_names_that_only_count_are_none(trained, scene_pixels, write_scene, tmp_path, name, first):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(20, 20)
    scene = write_scene(pixels, names=[name.format(number) for number in range(first, 24 + first)])
    assert np.array_equal(classes_of(predict(model, [scene], tmp_path / "maps")[0].path), pixel_by_pixel(model, pixels))


def test_bands_are_found_by_their_wavelengths(write_scene):
    sensor = builtin_benchmarks()["dfc2020-summer"].sensor
    order = np.random.default_rng(2).permutation(13)
    tags = [{"wavelength": f"{1000 * sensor.wavelengths[band] + 3:.1f}"} for band in order]
    pixels = np.zeros((13, 8, 8), dtype=np.uint16)
    with rasterio.open(write_scene(pixels, tags=tags)) as source:
        found, how = match_bands(source, Path("scene.tif"), sensor)
    assert [order[number - 1] for number in found] == list(range(13)) and how == "by their wavelengths"
    tags[4] = {"wavelength": "1000"}
    with (
        rasterio.open(write_scene(pixels, "other.tif", tags=tags)) as source,
        pytest.raises(DataError, match="has no band at"),
    ):
        match_bands(source, Path("other.tif"), sensor)


@pytest.mark.parametrize(("chosen", "message"), [((1, 2), "names 2 bands"), ((*range(2, 25), 99), "names band 99")])
def test_a_choice_of_bands_that_cannot_be(trained, scene_pixels, write_scene, tmp_path, chosen, message):
    with pytest.raises(DataError, match=message):
        predict(trained.load("lora"), [write_scene(scene_pixels(20, 20))], tmp_path / "maps",
                scene_options=SceneOptions(bands=chosen))  # fmt: skip


# ---------------------------------------------------------------------------------------------- units


def test_another_unit_is_caught_and_named(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(64, 64)
    reflectance = write_scene((pixels / 10_000).astype(np.float32), "reflectance.tif")
    with pytest.raises(DataError, match=r"look like those of the training chips times about .*e-05"):
        predict(model, [reflectance], tmp_path / "maps")
    [one] = predict(model, [reflectance], tmp_path / "maps", scene_options=SceneOptions(scale=1.0))
    same = classes_of(one.path) == pixel_by_pixel(model, pixels)
    assert same.mean() > 0.999  # float32 reflectances are not the integers to the last digit
    predict(model, [reflectance], tmp_path / "trusted", scene_options=SceneOptions(trust_unit=True))


def test_tags_of_the_file_say_the_unit(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(64, 64)
    scene = write_scene(pixels + 1000, scales=[0.0001] * 24, offsets=[-0.1] * 24)
    assert np.array_equal(classes_of(predict(model, [scene], tmp_path / "maps")[0].path), pixel_by_pixel(model, pixels))


# ---------------------------------------------------------------------------------------------- files


def test_the_map_is_a_geotiff_that_others_understand(trained, scene_pixels, write_scene, tmp_path):
    model = trained.load("pixel-mlp")
    options = MapOptions(probabilities=True, entropy=True)
    [one] = predict(model, [write_scene(scene_pixels(600, 40))], tmp_path / "maps", options=options)
    with rasterio.open(one.path) as file, rasterio.open(tmp_path / "scene.tif") as scene:
        assert (file.crs, file.transform, file.shape) == (scene.crs, scene.transform, scene.shape)
        assert (file.dtypes, file.nodata, file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"]) == (("uint8",), 255, "COG")
        assert file.overviews(1) and file.tags()["STBENCH_RUN"] == model.fingerprint
        colours = file.colormap(1)
        classes = file.read(1)
    assert [colours[number][:3] for number in range(8)] == [cover.rgb for cover in model.benchmark.labels.classes]
    names = ElementTree.parse(f"{one.path}.aux.xml").iter("Category")  # noqa: S314 - written a moment ago
    assert tuple(name.text for name in names) == model.classes
    with rasterio.open(one.path.with_name("scene-probabilities.tif")) as file:
        probabilities, described = file.read(), file.descriptions
    assert described == model.classes and np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(axis=0), classes)
    with rasterio.open(one.path.with_name("scene-entropy.tif")) as file:
        entropy = file.read(1)
    assert entropy.min() >= 0 and entropy.max() <= 1
    assert np.allclose(entropy, -(probabilities * np.log(probabilities)).sum(axis=0) / np.log(8), atol=1e-5)
    picture = Image.open(one.path.with_suffix(".png"))
    assert min(picture.size) > 200
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "scene-entropy.tif", "scene-probabilities.tif", "scene.png", "scene.tif", "scene.tif.aux.xml",
    ]  # fmt: skip


def test_a_scene_without_crs_has_a_map_without(trained, scene_pixels, write_scene, tmp_path):
    scene = write_scene(scene_pixels(20, 20), crs=None, transform=rasterio.Affine.identity())
    with rasterio.open(predict(trained.load("lora"), [scene], tmp_path / "maps")[0].path) as file:
        assert file.crs is None


def test_a_damaged_scene_leaves_nothing(trained, scene_pixels, write_scene, tmp_path):
    scene = write_scene(scene_pixels(200, 40))
    scene.write_bytes(scene.read_bytes()[:-100_000])
    with pytest.raises(DataError, match="cannot be read"):  # in midst of mapping: looking at the unit finds it before
        predict(trained.load("pixel-mlp"), [scene], tmp_path / "maps", scene_options=SceneOptions(trust_unit=True))
    assert not list((tmp_path / "maps").iterdir())


def test_folders_and_several_scenes(trained, scene_pixels, write_scene, tmp_path):
    write_scene(scene_pixels(20, 20), "in/one.tif")
    write_scene(scene_pixels(24, 20), "in/two.TIF")
    (tmp_path / "in" / "notes.txt").write_text("no scene")
    maps = predict(trained.load("pixel-mlp"), [tmp_path / "in", tmp_path / "in" / "one.tif"], tmp_path / "maps")
    assert [one.path.name for one in maps] == ["one.tif", "two.tif"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder has no scenes"):
        predict(trained.load("pixel-mlp"), [tmp_path / "empty"], tmp_path / "maps")


def test_one_scene_that_does_not_fit_stops_all_before_the_first_map(trained, scene_pixels, write_scene, tmp_path):
    good, reflectance = scene_pixels(64, 64), (scene_pixels(64, 64) / 10_000).astype(np.float32)
    for bad, message in [(good[:23], "has 23 bands"), (reflectance, "training chips times about")]:
        scenes = [write_scene(good, "good.tif"), write_scene(bad, "bad.tif")]
        with pytest.raises(DataError, match=message):
            predict(trained.load("pixel-mlp"), scenes, tmp_path / "maps")
        assert not list((tmp_path / "maps").glob("*"))
    with pytest.raises(DataError, match="the scene is missing"):
        predict(trained.load("pixel-mlp"), [scenes[0], tmp_path / "none.tif"], tmp_path / "maps")


def test_a_vrt_of_two_files_is_one_scene(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(20, 37)
    halves = {"left.tif": (0, 17), "right.tif": (17, 20)}
    for name, (column, width) in halves.items():
        write_scene(pixels[:, :, column : column + width], name)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band}">'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="20"/>'
            f'<DstRect xOff="{column}" yOff="0" xSize="{width}" ySize="20"/></SimpleSource>'
            for name, (column, width) in halves.items()
        )
        + "</VRTRasterBand>"
        for band in range(1, 25)
    )
    scene = tmp_path / "both.vrt"
    scene.write_text(
        '<VRTDataset rasterXSize="37" rasterYSize="20"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>430000, 10, 0, 5060000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    [one] = predict(model, [scene], tmp_path / "maps")
    assert np.array_equal(classes_of(one.path), pixel_by_pixel(model, pixels))
    with rasterio.open(one.path) as file, rasterio.open(tmp_path / "left.tif") as left:
        assert (file.crs, file.transform) == (left.crs, left.transform)


def test_nothing_is_replaced_by_accident(trained, scene_pixels, write_scene, tmp_path):
    model, scene = trained.load("pixel-mlp"), write_scene(scene_pixels(20, 20))
    predict(model, [scene], tmp_path / "maps")
    with pytest.raises(UserError, match="there is a map already"):
        predict(model, [scene], tmp_path / "maps")
    predict(model, [scene], tmp_path / "maps", options=MapOptions(overwrite=True))
    with pytest.raises(UserError, match="would replace its scene"):
        predict(model, [scene], scene.parent, options=MapOptions(overwrite=True))
    other = write_scene(scene_pixels(20, 20), "elsewhere/scene.tif")
    with pytest.raises(UserError, match=r"2 scenes would have the map scene\.tif"):
        predict(model, [scene, other], tmp_path / "fresh")


def test_a_file_in_the_way_of_the_folder(trained, scene_pixels, write_scene, tmp_path):
    (tmp_path / "maps").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        predict(trained.load("pixel-mlp"), [write_scene(scene_pixels(20, 20))], tmp_path / "maps")


# ---------------------------------------------------------------------------------------------- command and Python


def test_the_snippet_in_the_guide_maps_as_the_command_does(
    trained, scene_pixels, write_scene, stbench, tmp_path, monkeypatch
):
    scene = write_scene(scene_pixels(40, 40)).relative_to(tmp_path)
    snippet = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)[0]
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {}
    exec(snippet.replace("runs/mts12-n2s/lora/0123456789abcdef", str(trained.folders["lora"])), told)  # noqa: S102
    assert stbench("predict", trained.folders["lora"], scene, "--out", "other", "--entropy") == 0
    for name in ("scene.tif", "scene-entropy.tif"):
        assert np.array_equal(classes_of(Path("maps", name)), classes_of(Path("other", name)))
    assert told["one"].path == Path("maps/scene.tif") and sum(told["one"].shares.values()) == pytest.approx(1)


def test_the_call_in_python_has_all_of_the_commands_options(trained, scene_pixels, write_scene, tmp_path):
    model, pixels = trained.load("pixel-mlp"), scene_pixels(40, 40)
    scene = write_scene((pixels[::-1] / 10_000).astype(np.float32))
    lines: list[str] = []
    [one] = stb.predict(
        trained.folders["pixel-mlp"], scene, tmp_path / "maps", bands=range(24, 0, -1), scale=1.0, stride=5,
        probabilities=True, accelerator="cpu", say=lines.append,
    )  # fmt: skip
    assert (classes_of(one.path) == pixel_by_pixel(model, pixels)).mean() > 0.999 and "as --bands says" in lines[0]
    assert one.path.with_name("scene-probabilities.tif").is_file()
    with pytest.raises(UserError, match="there is a map already"):
        stb.predict(model, scene, tmp_path / "maps", trust_unit=True)
    with pytest.raises(UserError, match="for a model that is named by its path"):
        stb.predict(model, scene, tmp_path / "more", accelerator="gpu")


def test_the_command(trained, scene_pixels, write_scene, stbench, tmp_path, capsys):
    scene = write_scene(scene_pixels(40, 40))
    assert stbench("predict", trained.folders["lora"], scene, "--out", tmp_path / "maps") == 0
    said = capsys.readouterr().out
    assert "lora, trained on mts12-n2s; windows of 16 px, 8 classes" in said and "%" in said
    assert (tmp_path / "maps" / "scene.tif").is_file()
    assert stbench("predict", trained.folders["lora"], scene, "--out", tmp_path / "maps", "--bands", "a,b") == 2
    assert "--bands is 'a,b'" in capsys.readouterr().err
    assert stbench("predict", trained.folders["lora"], tmp_path / "none.tif", "--out", tmp_path / "new") == 2
    assert "missing" in capsys.readouterr().err

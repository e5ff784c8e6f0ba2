"""``stbench init-benchmark``: a folder in, a benchmark out that can be checked and run."""

from __future__ import annotations

import csv
from pathlib import Path

import folders
import numpy as np
import pytest
import rasterio
import yaml
from tiny import run_main

from spectral_tl_bench.benchmarks import Benchmark, read_benchmark


@pytest.fixture
def stbench(monkeypatch, capsys):
    """Runs the command in this process; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_main(monkeypatch, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def made(stbench, folder: Path, *more: object) -> Benchmark:
    """The benchmark that is written; what `benchmarks check` makes of it is said at the end."""
    code, out, err = stbench("init-benchmark", folder, "--id", "mine", *more)
    assert code == 0 and "mine: right" in out, out + err
    return read_benchmark(folder / "mine.yaml")


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "chips.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("places", "how"),
    [
        (folders.in_two_folders, "by word 1 of their names"),
        (folders.in_a_folder_for_each_domain, "by their folders"),
        (folders.side_by_side, "by their folders"),
        (folders.in_camel_case, "by word 1 of their names"),
        (folders.by_content, "by word 1 of their names"),
        (folders.by_numbers, "by their folders"),
    ],
)
def test_pairs_and_domains_are_found_in_any_arrangement(stbench, tmp_path, places, how):
    folders.write_chips(tmp_path, places)
    code, out, _ = stbench("init-benchmark", tmp_path, "--id", "mine")
    assert code == 0 and how in out
    assert stbench("benchmarks", "check", tmp_path / "mine.yaml")[0] == 0
    rows = table(tmp_path)
    expected = {places(domain, number): domain for domain in ("north", "south") for number in range(4)}
    assert {(row["image"], row["label"]): row["domain"] for row in rows} == expected
    assert len({row["chip"] for row in rows}) == 8
    benchmark = read_benchmark(tmp_path / "mine.yaml")
    assert (benchmark.source, benchmark.target, benchmark.gap) == (("north",), ("south",), "region")
    assert benchmark.sensor.band_names == ("green", "red", "nir") and benchmark.sensor.wavelengths == (
        0.56,
        0.665,
        0.842,
    )
    assert benchmark.sensor.gsd == 10 and benchmark.chip_size == 16 and benchmark.split.place == "grid"
    assert [cover.raw for cover in benchmark.labels.classes] == [(1,), (2,), (3,)]


def test_what_is_made_runs(stbench, tmp_path):
    folders.write_chips(tmp_path, folders.side_by_side)
    made(stbench, tmp_path, "--classes", "1=water,2=forest,3=bare soil")
    small = ("--steps", 2, "--window", 16, "--validations", 1, "--jobs", 1, "--accelerator", "cpu")
    code, out, err = stbench(
        "run", "-m", "nearest-mean", "-b", tmp_path / "mine.yaml", "--out", tmp_path / "runs", *small
    )
    assert code == 0, err
    assert "mine       nearest-mean" in out and " 1-" not in out and "target mIoU" in out


def test_a_user_can_say_all_of_it(stbench, tmp_path):
    folders.write_chips(tmp_path, folders.in_two_folders, ("a", "b", "c"), descriptions=())
    benchmark = made(
        stbench, tmp_path, "--source", "b,c", "--gap", "season", "--gsd", 3, "--unit", "counts", "--scale", 0.5,
        "--bands", "x,y,z", "--wavelengths", "0.5,0.6,0.7", "--classes", "1+3=land,2=water", "--title", "A title",
        "--citation", "me", "--nodata", "void", "--void", "none",
    )  # fmt: skip
    assert (benchmark.source, benchmark.target, benchmark.gap) == (("b", "c"), ("a",), "season")
    assert benchmark.sensor.wavelengths == (0.5, 0.6, 0.7) and benchmark.sensor.band_names == ("x", "y", "z")
    assert (benchmark.sensor.gsd, benchmark.sensor.scale, benchmark.sensor.unit) == (3, 0.5, "counts")
    assert [(cover.name, cover.raw) for cover in benchmark.labels.classes] == [("land", (1, 3)), ("water", (2,))]
    assert (benchmark.title, benchmark.citation, benchmark.nodata) == ("A title", "me", "void")


def test_it_asks_on_a_terminal_what_the_files_do_not_say_and_nothing_else(stbench, tmp_path, monkeypatch):
    folders.write_chips(tmp_path, folders.side_by_side, descriptions=())
    asked = []

    def answer(question: str, default: str | None = None) -> str:
        asked.append(question)
        return "0.56,0.66,0.84" if "--wavelengths" in question else default

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", answer)
    code, _, err = stbench("init-benchmark", tmp_path)
    assert code == 0, err
    flags = {question.rpartition("(")[2].strip(")") for question in asked}
    assert flags == {"--id", "--domains-by", "--source", "--gap", "--wavelengths", "--unit", "--scale", "--void",
                     "--classes", "--title", "--citation"}  # fmt: skip
    assert not flags & {"--gsd", "--nodata", "--bands"}


def test_all_that_nobody_can_propose_is_named_at_once(stbench, tmp_path):
    folders.write_chips(tmp_path, folders.side_by_side, crs=None, descriptions=())
    code, _, err = stbench("init-benchmark", tmp_path)
    assert code == 2 and "--gsd" in err and "--wavelengths" in err and not list(tmp_path.glob("*.yaml"))
    code, _, err = stbench("init-benchmark", tmp_path, "--gsd", 10, "--wavelengths", "0.5,0.6")
    assert code == 2 and "3, as many as the images have bands" in err


def test_wavelengths_stand_in_tags_names_or_a_range(stbench, tmp_path):
    nanometres = folders.write_chips(
        tmp_path / "tags",
        folders.side_by_side,
        descriptions=(),
        tags=lambda band: {"wavelength": f"{500 + 50 * band} nm"},
    )
    assert made(stbench, nanometres).sensor.wavelengths == (0.55, 0.6, 0.65)
    numbered = folders.write_chips(tmp_path / "numbers", folders.side_by_side, descriptions=("B03", "B04", "B8A"))
    assert made(stbench, numbered).sensor.wavelengths == (0.56, 0.665, 0.865)
    even = folders.write_chips(tmp_path / "range", folders.side_by_side, descriptions=())
    sensor = made(stbench, even, "--wavelengths", "0.4..0.8").sensor
    assert sensor.wavelengths == (0.4, 0.6, 0.8) and sensor.approximate


def test_without_a_crs_places_come_from_names(stbench, tmp_path):
    def places(domain: str, number: int) -> tuple[str, str]:
        name = f"{domain}/{'pqrstu'[number // 2]}_{number % 2}"
        return f"{name}_img.tif", f"{name}_lbl.tif"

    folders.write_chips(tmp_path, places, crs=None, chips=8)
    benchmark = made(stbench, tmp_path, "--gsd", 10)
    assert benchmark.split.place == "site"
    assert {row["site"] for row in table(tmp_path)} == {
        f"{domain}-{site}" for domain in ("north", "south") for site in "pqrs"
    }


def test_one_domain_is_an_in_domain_reference(stbench, tmp_path):
    folders.write_chips(tmp_path, lambda _, number: (f"{number}_img.tif", f"{number}_lbl.tif"), ("here",), chips=12)
    benchmark = made(stbench, tmp_path)
    assert benchmark.gap == "none" and benchmark.source == benchmark.target and benchmark.split.test


def test_a_table_of_the_owners_tells_domains(stbench, tmp_path):
    folders.write_chips(
        tmp_path, lambda d, n: (f"img/{n + 4 * (d == 'south')}.tif", f"lbl/{n + 4 * (d == 'south')}.tif")
    )
    lines = [f"{number}.tif,{'Upper Valley' if number < 4 else 'Lower Valley'},x" for number in range(8)]
    (tmp_path / "tiles.csv").write_text("\n".join(["file,valley,other", *lines]) + "\n")
    code, out, _ = stbench("init-benchmark", tmp_path, "--id", "mine", "--source", "Upper-Valley")
    assert code == 0 and "by the column valley of tiles.csv" in out
    assert {row["domain"] for row in table(tmp_path)} == {"Upper-Valley", "Lower-Valley"}


def test_domains_called_train_or_like_seasons(stbench, tmp_path):
    halves = folders.write_chips(tmp_path / "a", folders.side_by_side, ("test", "train"))
    assert made(stbench, halves).source == ("train",)
    seasons = folders.write_chips(tmp_path / "b", folders.side_by_side, ("winter", "summer"))
    assert made(stbench, seasons).gap == "season"


def test_units_void_values_colours_and_holes(stbench, tmp_path):
    colours = {1: (10, 20, 30), 2: (40, 50, 60), 3: (70, 80, 90)}

    def rim(values: np.ndarray) -> np.ndarray:
        values[0] = 255
        return values

    folder = folders.write_chips(
        tmp_path / "a", folders.side_by_side, dtype="float32", label={"change": rim, "colours": colours}
    )
    path = folder / "north/0_image.tif"
    with rasterio.open(path, "r+") as file:
        values = file.read()
        values[:, :2] = np.nan
        file.write(values)
    benchmark = made(stbench, folder)
    assert (benchmark.sensor.unit, benchmark.sensor.scale, benchmark.nodata) == ("reflectance", 1.0, "fill")
    assert benchmark.labels.void == (255,)
    assert [cover.colour for cover in benchmark.labels.classes] == ["#0a141e", "#28323c", "#46505a"]
    folder = folders.write_chips(tmp_path / "b", folders.side_by_side, label={"nodata": 0, "change": lambda v: v - 1})
    assert made(stbench, folder).labels.void == (0,), "what the files call nodata"


def test_a_chip_without_a_labelled_pixel_is_skipped(stbench, tmp_path):
    folders.write_chips(tmp_path, folders.side_by_side)
    with rasterio.open(tmp_path / "south/3_gt.tif", "r+") as file:
        file.write(np.full((1, 16, 16), 9, np.uint8))
    assert made(stbench, tmp_path, "--void", "9").void_chips == "skip"


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("north/3_gt.tif", "1 images have no label: north/3_image.tif"),
        ("north/3_image.tif", "1 labels have no image: north/3_gt.tif"),
    ],
)
def test_a_partner_that_is_missing(stbench, tmp_path, removed, said):
    folders.write_chips(tmp_path, folders.side_by_side)
    (tmp_path / removed).unlink()
    code, _, err = stbench("init-benchmark", tmp_path, "--id", "mine")
    assert code == 2 and said in err and "--drop-unpaired" in err and not list(tmp_path.glob("*.yaml"))
    made(stbench, tmp_path, "--drop-unpaired")
    assert len(table(tmp_path)) == 7


def test_mixed_sizes_bands_and_types(stbench, tmp_path):
    folder = folders.write_chips(tmp_path / "a", folders.side_by_side)
    folders.write_chips(folder, lambda d, n: (f"{d}/9{n}_image.tif", f"{d}/9{n}_gt.tif"), chips=1, side=32)
    code, _, err = stbench("init-benchmark", folder, "--id", "mine")
    assert code == 2 and "2 sizes in pixels" in err and "--size" in err and "data cut" in err
    made(stbench, folder, "--size", 16)
    assert len(table(folder)) == 8
    folder = folders.write_chips(tmp_path / "b", folders.side_by_side)
    with rasterio.open(folder / "south/2_image.tif") as file:
        profile, values = file.profile, file.read()
    with rasterio.open(folder / "south/2_image.tif", "w", **{**profile, "count": 2}) as file:
        file.write(values[:2])
    code, _, err = stbench("init-benchmark", folder)
    assert code == 2 and "2 numbers of bands: 3: 7 images; 2: 1 images" in err and "south/2_image.tif" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--source", "nroth"), "did you mean north"),
        (("--source", "north,south"), "none is left to test on"),
        (("--domains-by", "foldr"), "did you mean folder"),
        (("--classes", "1=a,2=b"), "label values 3 have no name"),
        (("--classes", "water"), "value=name"),
        (("--void", "x"), "no whole number"),
        (("--void", "1,2"), "two classes at least"),
        (("--gap", "time"), "one of region, season, none"),
        (("--scale", "0"), "scale"),
        (("--id", "my valleys"), "such as my-valleys"),
        (("--images", "*.nothing"), "0 images"),
        (("--wavelengths", "560,660,840"), "nanometres"),
        (("--out", "/nowhere/x.yaml"), "not in the folder of the data"),
    ],
)
def test_mistakes(stbench, tmp_path, arguments, said):
    folders.write_chips(tmp_path, folders.side_by_side)
    code, out, err = stbench("init-benchmark", tmp_path, *arguments)
    assert code == 2 and said in err and "Traceback" not in err, out + err


def test_other_mistakes(stbench, tmp_path):
    assert "no such folder" in stbench("init-benchmark", tmp_path / "none")[2]
    assert "there are no images here" in stbench("init-benchmark", tmp_path)[2]
    folders.write_chips(tmp_path, folders.side_by_side)
    (tmp_path / "chips.csv").write_text("precious")
    assert "chips.csv is there already" in stbench("init-benchmark", tmp_path)[2]
    assert (tmp_path / "chips.csv").read_text() == "precious"
    made(stbench, tmp_path, "--overwrite")


def test_globs_say_which_is_which(stbench, tmp_path):
    folders.write_chips(tmp_path, lambda d, n: (f"x/{d}_{n}.tif", f"y/{d}_{n}.tif"))
    folders.write_chips(tmp_path, lambda d, n: (f"z/{d}_{n}.tif", f"w/{d}_{n}.tif"), dtype="float32")
    made(stbench, tmp_path, "--images", "x/*.tif", "--labels", "y/*.tif")
    assert len(table(tmp_path)) == 8 and table(tmp_path)[0]["image"].startswith("x/")


# ------------------------------------------------------------------------------------------ benchmarks check


def test_check_looks_at_definition_and_data(stbench, own, tmp_path):
    code, out, _ = stbench("benchmarks", "check", own.yaml)
    assert code == 0 and "mine: right" in out and "stbench run -m pixel-mlp -b" in out
    own.definition["labels"]["classes"][0]["colour"] = "green"
    own.write_definition()
    code, _, err = stbench("benchmarks", "check", own.yaml)
    assert code == 2 and "labels.classes.0.colour" in err
    code, _, err = stbench("benchmarks", "check", own.root / "none.yaml")
    assert code == 2 and "No such file" in err


def test_check_without_data(stbench, own):
    own.label("e0_0").unlink()
    code, _, err = stbench("benchmarks", "check", own.yaml)
    assert code == 2 and "e0_0" in err
    code, out, _ = stbench("benchmarks", "check", own.yaml, "--no-data")
    assert code == 0 and "were not looked at" in out


def test_check_warns_of_what_will_disappoint(stbench, own):
    own.definition["labels"]["classes"].append({"name": "Snow", "colour": "#ffffff", "raw": [9]})
    own.write_definition()
    code, out, _ = stbench("benchmarks", "check", own.yaml)
    assert code == 0 and "warning: classes Snow occur nowhere" in out
    assert "warning: the target has 2 places: intervals and comparisons need at least 5" in out


def test_check_knows_the_benchmarks_of_the_suite_too(stbench):
    code, out, _ = stbench("benchmarks", "check", "mts12-n2s", "--no-data")
    assert code == 0 and "the definition is right" in out
    code, _, err = stbench("benchmarks", "check", "mts12-n2x")
    assert code == 2 and "did you mean mts12-n2s" in err


def test_a_table_without_sites_is_cut_on_the_ground(stbench, own):
    del own.definition["layout"]["site"]
    own.write_definition()
    code, _, err = stbench("benchmarks", "check", own.yaml)
    assert code == 2 and "layout.site" in err
    own.definition["split"] = {"place": "grid", "block": 1000, "validation": 0.3}
    own.write_definition()
    code, out, _ = stbench("benchmarks", "check", own.yaml)
    assert code == 0 and yaml.safe_load(own.yaml.read_text())["layout"].get("site") is None and "mine: right" in out

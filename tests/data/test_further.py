"""The further tracks: beside the suite's eight, and in nothing of theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import rasterio
import yaml
from data.published import CUBES, write_loveda
from PIL import Image
from shared import REPOSITORY, SHARED, needs_shared
from tiny import run_main

from spectral_tl_bench.benchmarks import (
    Benchmark,
    builtin_benchmarks,
    further_benchmarks,
    groups,
    read_benchmark,
    resolve,
    tracks,
)
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.layouts import find_chips
from spectral_tl_bench.data.source import DataSource, Track, locate, open_index
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import BenchmarkError, DataError, RecordError
from spectral_tl_bench.leaderboard.submit.definitions import Definitions
from spectral_tl_bench.leaderboard.text import title, warnings
from spectral_tl_bench.results.schema import TRACKS as TRACK_NAMES
from spectral_tl_bench.sensors import Sensor

FACTS = {  # source, target, bands, classes, px
    "potsdam-vaihingen": ("potsdam", "vaihingen", 3, 6, 512),
    "vaihingen-potsdam": ("vaihingen", "potsdam", 3, 6, 512),
    "loveda-u2r": ("urban", "rural", 3, 7, 1024),
    "loveda-r2u": ("rural", "urban", 3, 7, 1024),
    "houston-13to18": ("houston13", "houston18", 48, 7, 64),
    "hyrank-d2l": ("dioni", "loukia", 176, 12, 64),
    "pavia-u2c": ("university", "centre", 102, 7, 64),
    "pavia-c2u": ("centre", "university", 102, 7, 64),
}
TRACKS = {"aerial": {name for name, facts in FACTS.items() if facts[2] == 3}}
TRACKS["hyperspectral"] = set(FACTS) - TRACKS["aerial"]
ENMAP = SHARED / "data" / "enmap-potsdam"
EXAMPLE = REPOSITORY / "docs" / "examples" / "enmap-potsdam-w2e.yaml"


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    benchmark = further_benchmarks()[name]
    source, target, bands, classes, size = FACTS[name]
    assert (benchmark.source, benchmark.target, benchmark.id) == ((source,), (target,), name)
    assert (len(benchmark.sensor.bands), len(benchmark.labels.classes), benchmark.chip_size) == (bands, classes, size)
    assert benchmark.sensor.approximate and list(benchmark.labels.void) == [0] and benchmark.split.place == "site"
    assert {value for cover in benchmark.labels.classes for value in cover.raw} == set(range(1, classes + 1))
    shown = yaml.safe_load(yaml.safe_dump(benchmark.model_dump(mode="json", exclude_defaults=True)))
    assert Benchmark.model_validate(shown) == benchmark


def test_the_eight_stay_the_eight():
    assert set(further_benchmarks()) == set(FACTS) and not set(FACTS) & set(builtin_benchmarks())
    assert {track: set(members) for track, members in tracks().items()} == TRACKS
    assert all(benchmark.track is None for benchmark in builtin_benchmarks().values())
    assert not {member for members in groups().values() for member in members} & set(FACTS)
    assert len(resolve(["all"])) == 8
    assert all(not benchmark.groups for benchmark in further_benchmarks().values())


def test_by_name_and_by_track(own):
    assert {one.id for one, _ in resolve(["track:aerial"])} == TRACKS["aerial"]
    mixed = resolve(["pavia-u2c,mts12-n2s", "track:hyperspectral", str(own.yaml)])
    assert [one.id for one, _ in mixed][:2] == ["pavia-u2c", "mts12-n2s"] and len(mixed) == 6
    with pytest.raises(BenchmarkError, match="did you mean track:aerial"):
        resolve(["track:arial"])
    with pytest.raises(BenchmarkError, match="belongs to the suite"):
        own.benchmark(id="pavia-u2c")
        resolve([str(own.yaml)])


def test_the_list_has_them_under_their_track(monkeypatch, capsys):
    assert run_main(monkeypatch, ["benchmarks"]) == 0
    main, *further = capsys.readouterr().out.split("\ntrack ")
    assert not any(name in main for name in FACTS)
    listed = {part.split(":")[0]: part for part in further}
    for track, names in TRACKS.items():
        assert f"--benchmark track:{track}" in listed[track]
        assert {name for name in FACTS if f"\n{name} " in listed[track]} == names
    assert run_main(monkeypatch, ["benchmarks", "show", "hyrank-d2l"]) == 0
    shown = capsys.readouterr().out
    assert "track     hyperspectral" in shown and "wavelengths approximate" in shown and "Dioni.mat (dioni)" in shown


def test_the_sample_is_not_theirs(tmp_path):
    for name in FACTS:
        with pytest.raises(DataError, match="no data root is set"):
            locate(further_benchmarks()[name], None, None, {})
        assert locate(further_benchmarks()[name], None, None, {"STBENCH_DATA": str(tmp_path)}).root == tmp_path
        with pytest.raises(DataError) as caught:
            find_chips(further_benchmarks()[name], tmp_path)
        assert ("stbench data cut" in str(caught.value)) == ("loveda" not in name)


def test_records_know_the_tracks_and_a_submitted_one_is_held_against_its_definition(tmp_path):
    assert {*get_args(Track), *TRACKS} == {*TRACK_NAMES} and set(get_args(Track)) == set(TRACK_NAMES)
    definitions = Definitions(tmp_path)
    for track, names in TRACKS.items():
        assert title(track) and title(f"{track}-unlabelled-target") and len(warnings(track)) == 1
        for name in FACTS:
            record = SimpleNamespace(track=track, benchmark=name)
            if name in names:
                assert definitions.of(record) is further_benchmarks()[name]
            else:
                with pytest.raises(RecordError, match=f"on the track {track}"):
                    definitions.of(record)
        for wrong in (("demonstration", next(iter(names))), (track, "mts12-n2s"), ("reproduced", next(iter(names)))):
            with pytest.raises(RecordError):
                definitions.of(SimpleNamespace(track=wrong[0], benchmark=wrong[1]))


# ------------------------------------------------------------------------------------------------ LoveDA


@pytest.fixture
def loveda(tmp_path):
    write_loveda(tmp_path / "LoveDA")
    return tmp_path


def test_loveda_by_its_folders(loveda):
    for name in ("loveda-u2r", "loveda-r2u"):
        benchmark = further_benchmarks()[name]
        index, track, notes = open_index(benchmark, DataSource("files", loveda, ""), own=False)
        frame = index.frame
        assert track == "aerial" and any("1024" in note for note in notes)
        assert frame.groupby(["domain", "site"]).size().to_dict() == {
            (domain, fold): 3 for domain in ("urban", "rural") for fold in ("Train", "Val")
        }
        split = make_split(benchmark, index, 0)
        assert {*frame.loc[split.chips("validation"), "site"]} in ({"Train"}, {"Val"})
        assert not {*frame.loc[split.chips("validation"), "site"]} & {*frame.loc[split.chips("train"), "site"]}
        assert {*frame.loc[split.chips("target"), "domain"]} == {*benchmark.target}
        base, chips = find_chips(benchmark, loveda / "LoveDA")
        for chip in chips:
            with Image.open(base / chip.label) as mask:
                values = np.asarray(mask)
            assert np.sum(frame.loc[chip.chip, "class_counts"]) == (values > 0).sum(), "0 is no data"


def test_validation_of_loveda_is_the_authors_fold_at_their_numbers(loveda):
    for scene in ("Urban", "Rural"):
        for number in range(900, 903):
            for part in ("images_png", "masks_png"):
                folder = loveda / "LoveDA" / "Train" / scene / part
                first = sorted(folder.iterdir())[number - 900].read_bytes()
                (folder / f"{number}.png").write_bytes(first)
    benchmark = further_benchmarks()["loveda-u2r"]
    index = build_index(benchmark, loveda)
    for seed in range(3):
        split = make_split(benchmark, index, seed)
        assert {*index.frame.loc[split.chips("validation"), "site"]} == {"Val"}


def test_what_loveda_lacks_is_named(loveda):
    benchmark = further_benchmarks()["loveda-u2r"]
    gone = next((loveda / "LoveDA" / "Val" / "Urban" / "masks_png").iterdir())
    gone.unlink()
    with pytest.raises(DataError, match="1 of 12 images have no label") as caught:
        find_chips(benchmark, loveda)
    assert f"Val/Urban/masks_png/{gone.name}" in str(caught.value)
    with pytest.raises(DataError, match="Train/Urban/images_png"):
        find_chips(benchmark, loveda / "LoveDA" / "Test")


# ------------------------------------------------------------------------------------------------ sensors


def test_evenly_spaced_bands_are_called_approximate():
    facts = {"name": "x", "gsd": 1, "unit": "numbers", "bands": {"number": 3, "first": 0.4, "last": 0.5}}
    sensor = Sensor.model_validate(facts)
    assert sensor.wavelengths == (0.4, 0.45, 0.5) and sensor.band_names == ("b1", "b2", "b3") and sensor.approximate
    assert Sensor.model_validate(sensor.model_dump()) == sensor
    known = Sensor.model_validate({**facts, "bands": [{"name": "a", "wavelength": 0.5}]})
    assert not known.approximate
    for name in CUBES:
        waves = further_benchmarks()[name].sensor.wavelengths
        assert np.ptp(np.diff(waves)) < 2e-4 and waves[0] < 0.44 and waves[-1] > 0.85


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        ({"number": 3, "first": 0.4}, "key 'sensor.last' is missing"),
        ({"number": 1, "first": 0.4, "last": 0.5}, "key 'sensor.number'"),
        ({"number": 3, "first": 400, "last": 500}, "nanometres"),
    ],
)
def test_mistakes_in_evenly_spaced_bands(own, bands, words):
    with pytest.raises(BenchmarkError) as caught:
        own.benchmark(sensor={**own.definition["sensor"], "bands": bands})
    assert words in str(caught.value)


# ------------------------------------------------------------------------------------------------ EnMAP


def test_a_band_that_no_pixel_has_ends_in_no_traceback(own, monkeypatch, capsys):
    for row in own.rows:
        with rasterio.open(own.image(row["name"]), "r+") as file:
            file.nodata = 65_000
            file.write(np.full((16, 16), 65_000, np.uint16), 2)
    own.benchmark(nodata="fill", sensor={**own.definition["sensor"], "scale": 0.0001})
    assert run_main(monkeypatch, ["data", "verify", own.yaml]) == 0
    assert "mine: sound; 10 chips" in capsys.readouterr().out


def test_the_enmap_example_is_a_definition():
    benchmark = read_benchmark(EXAMPLE)
    assert len(benchmark.sensor.bands) == 224 and not benchmark.sensor.approximate
    assert benchmark.domains_by == ("table",) and benchmark.track is None


@needs_shared(ENMAP)
def test_the_enmap_example_reads_real_tiles(tmp_path):
    benchmark = read_benchmark(EXAMPLE)
    index = build_index(benchmark, ENMAP)
    assert index.frame["domain"].value_counts().to_dict() == {"east": 4, "west": 2}
    assert sum("have NaN, masked or nodata pixels" in note for note in index.notes) == 1
    with rasterio.open(ENMAP / index.frame["image"].iloc[0]) as file:
        tags = [float(file.tags(band)["wavelength"]) / 1000 for band in file.indexes]
        scaled = file.read(1).mean() * benchmark.sensor.scale
    assert benchmark.sensor.wavelengths == pytest.approx(tags, abs=6e-6) and 0 < scaled < 0.5
    assert make_split(benchmark, index, 0).chips("validation")


@needs_shared(ENMAP)
@pytest.mark.slow
def test_the_enmap_example_runs_to_a_result(tmp_path, monkeypatch, capsys):
    run = ["run", "--benchmark", EXAMPLE, "--method", "majority", "--method", "full", "--backbone", "compact",
           "--data-root", ENMAP, "--steps", 2, "--batch-size", 1, "--out", tmp_path]  # fmt: skip
    assert run_main(monkeypatch, run) == 0
    assert len(list(tmp_path.rglob("record.json"))) == 2
    assert run_main(monkeypatch, ["data", "show", EXAMPLE, "enmap_potsdam_tile_128_0", "--data-root", ENMAP,
                                  "--out", tmp_path / "chip.png"]) == 0  # fmt: skip
    assert (tmp_path / "chip.png").stat().st_size > 10_000

"""``stbench data audit`` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shapely
from tiny import run_main

from spectral_tl_bench.benchmarks import builtin_benchmarks, splits_folder
from spectral_tl_bench.data.audit import shipped


def test_every_benchmark_of_the_suite_passes(tmp_path, monkeypatch, capsys):
    """What CI asks: no split that ships has ground on both sides."""
    assert run_main(monkeypatch, ["data", "audit", "--all", "--geometry", "--out", tmp_path]) == 0
    assert {path.stem for path in tmp_path.glob("*.json")} == set(builtin_benchmarks())
    assert {path.stem for path in tmp_path.glob("*.html")} == set(builtin_benchmarks())
    said = capsys.readouterr().out
    assert "fault" not in said and "Pairs that touch" in said


def plant(folder: Path, domain: str, change) -> None:
    """A copy of the definitions whose ``domains.geojson`` says something else of a domain."""
    for path in (path for path in splits_folder().iterdir() if path.is_file()):
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "domains.geojson"
    known = json.loads(path.read_text())
    shapes = {one["properties"]["domain"]: shapely.geometry.shape(one["geometry"]) for one in known["features"]}
    for one in known["features"]:
        if one["properties"]["domain"] == domain:
            one["geometry"] = shapely.geometry.mapping(change(shapes))
    path.write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("domain", "change", "faulty"),
    [
        ("south", lambda known: shapely.union(known["south"], known["north"]), {"mts12-n2s", "mts12-s2n"}),
        ("T3", lambda known: known["S5"], {"whuohs-s2t", "whuohs-t2s"}),
    ],
)
def test_a_planted_overlap_fails(tmp_path, monkeypatch, capsys, domain, change, faulty):
    (tmp_path / "splits").mkdir()
    plant(tmp_path / "splits", domain, change)
    monkeypatch.setattr(shipped, "splits_folder", lambda: tmp_path / "splits")
    names = ["mts12-n2s", "mts12-s2n", "whuohs-s2t", "whuohs-t2s", "dfc2020-spring"]
    assert run_main(monkeypatch, ["data", "audit", *names, "--geometry", "--out", tmp_path / "out"]) == 2
    said = capsys.readouterr().out
    assert said.count("fault: source and target share ground") == 2
    assert "2 of 5 benchmarks have ground or chips on both sides" in said
    found = {path.stem for path in (tmp_path / "out").glob("*.json") if json.loads(path.read_text())["faults"]}
    assert found == faulty


def test_a_planted_overlap_of_files_fails(own, tmp_path, monkeypatch, capsys):
    arguments = ["data", "audit", own.yaml, "--data-root", own.root, "--geometry", "--out", tmp_path / "out"]
    assert run_main(monkeypatch, arguments) == 0
    own.crs["west"] = "EPSG:32633"  # west's coordinates are those of east
    for row in own.rows:
        name = row["name"]
        own.write_raster(own.image(name), own.pixels(name), name)
        own.write_raster(own.label(name), own.labels(name)[None], name)
    assert run_main(monkeypatch, arguments) == 2
    assert "fault: source and target share ground: 8 pairs of chips" in capsys.readouterr().out
    assert "share ground" in (tmp_path / "out" / "mine.html").read_text()


def test_in_a_process_of_its_own(own, tmp_path):
    """A damaged chip is named, the page and the numbers are there, and nothing else is."""
    own.image("w0_1").write_bytes(own.image("w0_1").read_bytes()[:200])
    done = subprocess.run(
        [sys.executable, "-m", "spectral_tl_bench.cli.main", "data", "audit", str(own.yaml), "--data-root",
         str(own.root), "--out", "deep/out"],
        cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "broken: w0_1: " in done.stdout and "Sides told apart" in done.stdout and "Traceback" not in done.stderr
    written = sorted(path.name for path in (tmp_path / "deep" / "out").iterdir())
    assert written == ["mine.html", "mine.json"]
    assert list(json.loads((tmp_path / "deep/out/mine.json").read_text())["broken"]) == ["w0_1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "audit needs benchmarks, or --all, and not both"),
        (["mts12-n2s", "--all"], "audit needs benchmarks, or --all, and not both"),
        (["mts12-n2"], "did you mean mts12-n2s"),
        (["mts12-n2s", "--out", "a-file"], "--out 'a-file'"),
        (["mts12-n2s", "--data-root", "nowhere"], "nowhere"),
        (["mts12-n2s", "--records", "nowhere"], "nowhere"),
        (["mts12-n2s", "--geometry", "--records", "."], "--records with --geometry needs the data"),
    ],
)
def test_mistakes(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("x")
    assert run_main(monkeypatch, ["data", "audit", *arguments]) == 2
    assert said in capsys.readouterr().err and not Path("audits").exists()


@pytest.mark.slow
def test_records_are_held_against_the_class_shares(tmp_path, monkeypatch, capsys):
    records = Path(__file__).resolve().parents[2] / "leaderboard" / "results"
    arguments = ["data", "audit", "mts12-n2s", "--geometry", "--out", tmp_path, "--records", records]
    from spectral_tl_bench.data.sample_source import ensure_sample

    assert run_main(monkeypatch, [*arguments, "--data-root", ensure_sample()]) == 0
    capsys.readouterr()
    methods = json.loads((tmp_path / "mts12-n2s.json").read_text())["methods"]
    assert len(methods) > 20 and all(one["reweighted"] is not None for one in methods)
    assert "What the class shares explain" in (tmp_path / "mts12-n2s.html").read_text()

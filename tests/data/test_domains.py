"""Chips whose names tell no domain: found by their place or by a table, refused else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.domains import TABLE
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.source import DataSource, open_index
from spectral_tl_bench.errors import DataError
from tests.tiny import run_main

NAMED = {name: builtin_benchmarks()[name] for name in ("dfc2020-spring", "dfc2020-id")}


@pytest.fixture
def shipped(trees: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A data root as Copernicus-Bench ships DFC2020, and the domain of each chip."""
    folder, domains = tmp_path / "of all" / "dfc2020_s1s2", {}
    for name in ("s1", "s2", "dfc"):
        (folder / name).mkdir(parents=True)
    for number, image in enumerate(sorted((trees / "DFC2020").glob("*/image/s2_*/*.tif"))):
        label = Path(str(image).replace("/image/s2_", "/label/dfc_").replace("_s2_", "_dfc_"))
        fold = ("train", "val", "test")[number % 3]
        shutil.copy(image, folder / "s2" / f"ROIs0000_{fold}_s2_0_p{number}.tif")
        shutil.copy(label, folder / "dfc" / f"ROIs0000_{fold}_dfc_0_p{number}.tif")
        domains[f"ROIs0000_{fold}_s2_0_p{number}"] = image.parent.name.removeprefix("s2_")
    return folder.parent, domains


def table_of(domains: dict[str, str]) -> str:
    return "chip,domain\n" + "".join(f"{chip},{domain}\n" for chip, domain in domains.items())


def moved(path: Path, **profile: object) -> None:
    """Write a raster anew with another georeference."""
    with rasterio.open(path) as source:
        pixels, facts = source.read(), source.profile
    with rasterio.open(path, "w", **facts | profile) as target:
        target.write(pixels)


def without_places(root: Path) -> None:
    for path in root.rglob("*.tif"):
        moved(path, crs=None, transform=Affine.identity())


def refusal(root: Path, name: str = "dfc2020-id") -> str:
    with pytest.raises(DataError) as caught:
        build_index(NAMED[name], root)
    return str(caught.value)


@pytest.mark.parametrize("where", ["", "dfc2020_s1s2"])
def test_by_their_footprints_chips_are_those_of_the_published_layout(shipped, trees, where):
    root, domains = shipped
    index, published = (build_index(NAMED["dfc2020-id"], folder) for folder in (root / where, trees))
    assert index.frame["domain"].to_dict() == domains
    assert sorted(index.frame["content"]) == sorted(published.frame["content"])
    assert any("within 150 km of a domain's centre" in note for note in index.notes)
    spring = build_index(NAMED["dfc2020-spring"], root)
    used = {*NAMED["dfc2020-spring"].source, *NAMED["dfc2020-spring"].target}
    assert spring.frame["domain"].to_dict() == {chip: name for chip, name in domains.items() if name in used}


def test_without_places_a_table_is_asked_for_and_then_used(shipped, monkeypatch, capsys, tmp_path):
    root, domains = shipped
    without_places(root)
    message = refusal(root)
    assert f"the domain of {len(domains)} of {len(domains)} chips is not known" in message
    assert "has no CRS" in message
    assert "--domains" in message
    given = tmp_path / "mine.csv"
    given.write_text(table_of(domains))
    check = ["data", "check", "dfc2020-id", f"--data-root={root}", "--allow-partial", f"--domains={given}"]
    assert run_main(monkeypatch, check) == 0
    assert "it was found in a table" in capsys.readouterr().out
    assert (root / TABLE).read_text() == given.read_text()
    assert build_index(NAMED["dfc2020-id"], root).frame["domain"].to_dict() == domains


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("domain", "city", 1), "has no column 'domain'"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "1 of 56 chips are not in the table of domains"),
        (lambda text: text + text.splitlines()[-1] + "\n", "1 chips stand in the table of domains more than once"),
        (lambda text: text.replace("Mumbai", "Munich", 1), "domain 'Munich'"),
        (lambda text: text.replace("Mumbai", "CapeTown", 1), "table: CapeTown, footprint: Mumbai"),
    ],
)
def test_a_table_that_is_wrong_is_refused(shipped, change, said):
    root, domains = shipped
    (root / TABLE).write_text(change(table_of(domains)))
    assert said in refusal(root)


def test_a_chip_that_lies_near_no_domain_is_refused_by_name(shipped):
    root, domains = shipped
    image = root / "dfc2020_s1s2" / "s2" / f"{next(iter(domains))}.tif"
    label = root / "dfc2020_s1s2" / "dfc" / image.name.replace("_s2_", "_dfc_")
    for path in (image, label):
        moved(path, crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 10, 10))
    message = refusal(root)
    assert f"{image.stem}: lies near no domain" in message


def test_names_that_tell_the_domain_need_no_table(trees, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("chip,domain\n")
    with pytest.raises(DataError, match="the files' names tell the domain"):
        build_index(NAMED["dfc2020-id"], trees, domains=table)


def test_pairs_and_names_are_checked(shipped):
    root, domains = shipped
    chip = next(iter(domains))
    label = root / "dfc2020_s1s2" / "dfc" / f"{chip.replace('_s2_', '_dfc_')}.tif"
    label.rename(root / "kept.tif")
    assert "1 of 56 images have no label" in refusal(root)
    (root / "kept.tif").rename(label)
    shutil.copy(label, root / "dfc2020_s1s2" / "s2" / "ROIs0000_spring_s2_BlackForest_p3.tif")
    assert "'ROIs0000_spring_s2_BlackForest_p3.tif' is not one of Copernicus-Bench" in refusal(root)


def test_the_copy_that_was_cut_again_is_refused_with_the_reason(tmp_path):
    from spectral_tl_bench.sample import write_dfc2020

    write_dfc2020(tmp_path / "DFC2020", chip=96, chips_per_city=1)
    with pytest.raises(DataError, match="cut again with overlap"):
        open_index(NAMED["dfc2020-spring"], DataSource("files", tmp_path, ""), own=False, allow_partial=True)


def test_chips_are_counted_by_domain(shipped):
    root, _ = shipped
    notes = open_index(NAMED["dfc2020-id"], DataSource("files", root, ""), own=False)[2]
    line = next(note for note in notes if "source chips, published are 6114" in note)
    assert "Mumbai 8 of 900" in line

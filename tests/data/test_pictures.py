"""Chips as pictures and domains as tables."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from spectral_tl_bench.data.pictures import band_statistics, chip_figure, class_shares
from spectral_tl_bench.errors import DataError
from tests.tiny import run_main


@pytest.mark.parametrize("name", ["whuohs-s2t", "dfc2020-spring", "mts12-n2s"])
def test_a_figure_has_colours_a_label_and_a_spectrum_for_each_class(indexed, name):
    benchmark, index = indexed(name)
    chip = str(index.frame.index[0])
    figure = chip_figure(benchmark, index, chip)
    *colours, label, spectra = figure.axes
    present = sum(count > 0 for count in index.frame.loc[chip, "class_counts"])
    assert [axes.get_title().split(":")[0] for axes in colours] == ["true colour", "false colour"]
    assert len(label.get_legend().get_texts()) == len(spectra.lines) == present
    assert len(spectra.lines[0].get_ydata()) == len(benchmark.sensor.bands)
    assert chip in figure.get_suptitle()


def test_an_unknown_chip_is_named(indexed):
    benchmark, index = indexed("mts12-n2s")
    with pytest.raises(DataError, match="has no chip 'nothing'"):
        chip_figure(benchmark, index, "nothing")


def test_tables_are_those_of_the_pixels(indexed):
    benchmark, index = indexed("dfc2020-spring")
    shares, (means, deviations) = class_shares(benchmark, index), band_statistics(benchmark, index)
    np.testing.assert_allclose(shares.sum(), 1)
    from spectral_tl_bench.data.rasters import open_datasets

    domain = str(shares.columns[0])
    chips = [str(chip) for chip in index.frame.index[index.frame["domain"] == domain]]
    samples = [
        dataset.read_window(number, 0, 0, 32, 32)
        for dataset in open_datasets(benchmark, index, chips)
        for number in range(len(dataset.chip_rows()))
    ]
    pixels = np.concatenate([sample["image"].numpy().reshape(13, -1) for sample in samples], axis=1) / 10_000
    labels = np.concatenate([sample["mask"].numpy().ravel() for sample in samples])
    np.testing.assert_allclose(means[domain], pixels.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(deviations[domain], pixels.std(axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        shares[domain], [(labels == number).sum() / (labels != 255).sum() for number in range(len(shares))]
    )


def test_chips_of_a_copy_in_which_others_are_broken(trees, monkeypatch, capsys, tmp_path):
    shutil.copytree(trees / "MTS12", tmp_path / "MTS12")
    first, broken, bare = sorted((tmp_path / "MTS12/image/train").glob("*.tif"))[:3]
    broken.write_bytes(broken.read_bytes()[:500])
    (tmp_path / f"MTS12/label/train/{bare.stem}_label.mat").unlink()
    show = ["data", "show", "mts12-n2s", f"--data-root={tmp_path}", f"--out={tmp_path / 'chip.png'}"]
    assert run_main(monkeypatch, [*show, first.stem]) == 0
    assert Image.open(tmp_path / "chip.png").size[0] > 1000
    assert "2 chips that cannot be used are left out; 1 of 28 images have no label" in capsys.readouterr().out
    assert run_main(monkeypatch, ["data", "stats", "mts12-n2s", f"--data-root={tmp_path}"]) == 0
    for chip, said in ((broken, "the file cannot be read as a raster"), (bare, "a chip's file is missing")):
        assert run_main(monkeypatch, [*show, chip.stem]) == 2
        assert f"the chip {chip.stem} cannot be used: {said}" in capsys.readouterr().err


def test_the_verbs(trees, indexed, monkeypatch, capsys, tmp_path):
    chip = str(indexed("mts12-n2s")[1].frame.index[0])
    path = tmp_path / "chip.png"
    assert run_main(monkeypatch, ["data", "show", "mts12-n2s", chip, f"--data-root={trees}", f"--out={path}"]) == 0
    assert Image.open(path).size[0] > 1000
    assert run_main(monkeypatch, ["data", "stats", "mts12-n2s", f"--data-root={trees}"]) == 0
    out = capsys.readouterr().out
    assert "share of labelled pixels, %" in out and "standard deviation of bands" in out
    assert run_main(monkeypatch, ["data", "show", "mts12-n2s", chip, f"--data-root={trees}", "--out=x.gif"]) == 2
    (tmp_path / "file").touch()
    nowhere = ["data", "show", "mts12-n2s", chip, f"--data-root={trees}", f"--out={tmp_path / 'file' / 'x.png'}"]
    assert run_main(monkeypatch, nowhere) == 2
    assert run_main(monkeypatch, ["data", "stats", "all", f"--data-root={trees}"]) == 2

"""``stbench data check``: what a run would read, and what it would refuse, without a run."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import run_main


@pytest.fixture
def check(own, monkeypatch, capsys):
    def run(*more: str) -> tuple[int, str, str]:
        code = run_main(monkeypatch, ["data", "check", str(own.yaml), *more])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_it_shows_unit_domains_and_distances(own, check):
    own.write_raster(own.image("w0_0"), np.where(own.pixels("w0_0") > 3990, 0, own.pixels("w0_0")), "w0_0", nodata=0)
    own.benchmark(nodata="fill", nodata_in="any")
    code, out, _ = check("--data-root", str(own.root))
    assert code == 0 and "values as stored" in out and "track: demonstration" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(("east", "west"))}
    assert rows["east"][1:4] == ["source", "6", "1536"] and rows["west"][1:4] == ["target", "4", "1024"]
    holes = int((own.pixels("w0_0") == 0).any(axis=0).sum())
    assert rows["west"][4:] == [str(holes), "EPSG:32634"] and rows["east"][4] == "0" and holes > 0
    assert f"1 chips have NaN, masked or nodata pixels: {holes} px, filled" in out
    assert "distances between the nearest chips: training and validation" in out


def test_it_warns_of_a_factor_as_a_run_does(own, check):
    for row in own.rows:
        if row["region"] == "west":
            own.write_raster(own.image(row["name"]), own.pixels(row["name"]).astype("int32") * 10, row["name"])
    code, out, _ = check("--data-root", str(own.root))
    assert code == 0 and "warning: values of west look like those of the source times about 10" in out


def test_it_refuses_what_a_run_refuses(own, check):
    own.label("e0_0").unlink()
    code, _, err = check("--data-root", str(own.root))
    assert code == 2 and "a chip's file is missing" in err and "e0_0" in err


def test_data_that_lead_out_need_trust(own, check, tmp_path):
    away = tmp_path / "away.tif"
    own.image("e0_0").rename(away)
    own.image("e0_0").symlink_to(away)
    code, _, err = check()
    assert code == 2 and "--trust-data" in err
    code, out, _ = check("--trust-data")
    assert code == 0 and "the data were trusted" in out

"""CRSs of GeoTIFFs are made out once for all files that say the same, and only where somebody asks."""

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from spectral_tl_bench.data import opening
from spectral_tl_bench.data.opening import geo_keys, open_raster

LOCAL = "+proj=tmerc +lat_0=3 +lon_0=10 +k=0.9996 +x_0=500000 +ellps=GRS80 +units=m"
OTHER_LOCAL = LOCAL.replace("lat_0=3", "lat_0=4")  # differs in GeoDoubleParamsTag alone
SYSTEMS = (None, "EPSG:32633", "EPSG:32634", "EPSG:4326", "EPSG:25832", LOCAL, OTHER_LOCAL)


def write(path, crs, place=(3e5, 5e6), points=0, **options):
    form = {"driver": "GTiff", "count": 2, "height": 4, "width": 5, "dtype": "uint8"} | options
    if points:
        form["gcps"] = [GroundControlPoint(y, x, x * 1e-3, y * 1e-3) for x, y in ((0, 0), (4, 0), (0, 3))][:points]
    elif crs is not None:
        form["transform"] = Affine(10, 0, place[0], 0, -10, place[1])
    with rasterio.open(path, "w", crs=crs, **form) as file:
        file.write(np.zeros((form["count"], form["height"], form["width"]), form["dtype"]))
    return path


@pytest.fixture
def asked(monkeypatch):
    """The names of the files of which GDAL made out the CRS; nothing is known before."""
    monkeypatch.setattr(opening, "_CRS_OF", {})
    names, read_crs = [], DatasetReader.read_crs

    def counted(self):
        names.append(self.name.rpartition("/")[2])
        return read_crs(self)

    monkeypatch.setattr(DatasetReader, "read_crs", counted)
    return names


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"tiled": True, "blockxsize": 16,
                                     "blockysize": 16, "compress": "deflate"}], ids=str)  # fmt: skip
def test_every_file_has_the_crs_that_gdal_gives_it(tmp_path, asked, options):
    files = [write(tmp_path / f"{turn}-{number}.tif", crs, (3e5 + turn, 5e6), **options)
             for turn in range(3) for number, crs in enumerate(SYSTEMS)]  # fmt: skip
    for file in files:
        with open_raster(file, alone=True) as source, rasterio.open(file) as plain:
            asked.clear()
            assert (source.crs, source.transform) == (plain.crs, plain.transform), file.name
            assert asked == ([file.name] if file.name.startswith("0-") else []), "made out once for equal files"
    assert len({geo_keys(file.read_bytes()) for file in files}) == len(SYSTEMS)


def test_a_crs_of_control_points_is_not_that_of_pixels(tmp_path, asked):
    for name, points in (("placed", 0), ("points", 3), ("again", 0)):
        file = write(tmp_path / f"{name}.tif", "EPSG:32633", points=points)
        with open_raster(file, alone=True) as source:
            assert source.crs == (None if points else CRS.from_epsg(32633))


def test_what_lies_beside_a_file_counts(tmp_path, asked):
    file = write(tmp_path / "chip.tif", "EPSG:32633")
    with open_raster(file, alone=True) as source:
        assert source.crs == CRS.from_epsg(32633)
    (tmp_path / "chip.tif.aux.xml").write_text(
        f"<PAMDataset><SRS>{CRS.from_epsg(32635).to_wkt()}</SRS></PAMDataset>".replace('"', "&quot;")
    )
    with rasterio.open(file) as plain, open_raster(file) as source:
        assert source.crs == plain.crs == CRS.from_epsg(32635)


def test_a_directory_that_begins_later_says_nothing(tmp_path, asked):
    head = write(tmp_path / "chip.tif", "EPSG:32633").read_bytes()
    known = [length for length in range(len(head)) if geo_keys(head[:length]) is not None]
    assert known, "the head of a whole file is enough"
    assert known == list(range(known[0], len(head))), "and a shorter one is not"
    assert {geo_keys(head[:length]) for length in known} == {geo_keys(head)}
    assert geo_keys(b"") is None
    assert geo_keys(b"II*\0" + b"\xff" * 200) is None


def test_reading_pixels_asks_for_no_crs(tmp_path, asked):
    file = write(tmp_path / "chip.tif", LOCAL)
    with opening.open_again(file, "GTiff", True) as source:
        assert source.read().shape == (2, 4, 5)
    assert not asked

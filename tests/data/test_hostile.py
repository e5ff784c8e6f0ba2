"""Data that somebody else made to reach further than their folder, or to fill the machine: refused, nothing read."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import rasterio
from reading import read_raw
from vrts import source, three, vrt

from spectral_tl_bench.data import stamps
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.opening import open_raster
from spectral_tl_bench.data.vrt import vrt_sources
from spectral_tl_bench.errors import DataError

CHIP = "e0_0"


class Server(http.server.BaseHTTPRequestHandler):
    """Notes what is asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of a raster on a server of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret.tif"
    server.shutdown()


@pytest.fixture(autouse=True)
def quiet_server(served: str) -> Iterator[None]:
    """No test of this file may send a request."""
    Server.asked.clear()
    yield
    assert Server.asked == []


@pytest.fixture
def outside(tmp_path: Path, own) -> Path:
    """A raster beside the data root, as right as any chip."""
    path = tmp_path / "elsewhere" / "secret.tif"
    own.write_raster(path, own.pixels(CHIP), CHIP)
    return path


def refusal(own, trusted: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        build_index(own.benchmark(), own.root, trusted=trusted)
    return str(caught.value)


# ------------------------------------------------------------------------------------- what a VRT names

ELSEWHERE: dict[str, Callable[[Path], str]] = {
    "password file": lambda _: three("/etc/passwd"),
    "absolute": three,
    "upwards": lambda _: three("../../elsewhere/secret.tif", 1),
    "from the working folder": lambda path: three(os.path.relpath(path)),
    "mask": lambda path: vrt(
        source("copy.tif", 1), top=f"<MaskBand><VRTRasterBand dataType='Byte'>{source(path)}</VRTRasterBand></MaskBand>"
    ),
    "overview": lambda path: vrt(
        source("copy.tif", 1)
        + f"<Overview><SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></Overview>"
    ),
    "capitals": lambda path: three(path).replace("SourceFilename", "sOURCEfILENAME"),
    "entities": lambda path: three("".join(f"&#{ord(letter)};" for letter in str(path))),
    "warped": lambda path: vrt(top=f"<GDALWarpOptions><SourceDataset>{path}</SourceDataset></GDALWarpOptions>").replace(
        "<VRTDataset", '<VRTDataset subClass="VRTWarpedDataset"', 1
    ),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_vrt_does_not_lead_out_of_the_data_root(own, outside, what):
    own.image(CHIP).write_text(ELSEWHERE[what](outside))
    own.write_raster(own.root / "image" / "copy.tif", np.ones((3, 16, 16), "uint16"), CHIP)
    message = refusal(own)
    assert "1 of 10 chips are not read" in message and f"{CHIP}: a file leads outside the data root" in message
    assert "--trust-data" in message and str(own.root) in message


def test_a_vrt_below_a_vrt_does_not_lead_out_either(own, outside):
    own.image(CHIP).write_text(three("parts/inner.vrt", 1))
    inner = own.root / "image" / "parts" / "inner.vrt"
    inner.parent.mkdir()
    inner.write_text(three(outside))
    assert "leads outside the data root" in refusal(own)
    inner.write_text(three(inner.with_name("link.tif")))
    inner.with_name("link.tif").symlink_to(outside)
    assert "leads outside the data root" in refusal(own)


ADDRESSES = ["/vsicurl/{url}", "{url}", "/vsis3/bucket/x.tif", "/vsigs/bucket/x.tif", "/vsiaz/c/x.tif", "/vsistdin/",
             "/vsimem/x.tif", "/vsizip//vsicurl/{url}", "/vsigzip//etc/hosts", "/vsitar/a.tar/x.tif",
             "/vsicurl?url={url}", "vrt:///etc/passwd", "GTIFF_DIR:1:copy.tif", 'NETCDF:"copy.nc":x',
             "WMTS:{url}", "WCS:{url}", "STACTA:{url}", "MVT:{url}", "copy.tif&#10;", " /vsicurl/{url} ",
             "&lt;VRTDataset rasterXSize='1' rasterYSize='1'/&gt;", "link/../../secret.tif", ""]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_vrt_names_plain_files_only(own, served, address):
    own.write_raster(own.root / "image" / "copy.tif", np.ones((3, 16, 16), "uint16"), CHIP)
    (own.root / "image" / "link").symlink_to(own.root)
    for relative in (0, 1):
        own.image(CHIP).write_text(three(address.format(url=served), relative))
        assert "is no plain file" in refusal(own, trusted=True)


PROGRAMS = {
    "python": (
        vrt(
            "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
            "<PixelFunctionCode><![CDATA[open('x', 'w')]]></PixelFunctionCode>" + source("copy.tif", 1),
            kind=' subClass="VRTDerivedRasterBand"',
        ),
        "program code",
    ),
    "raw": (
        vrt("<SourceFilename relativeToVRT='1'>copy.tif</SourceFilename>", kind=' subClass="VRTRawRasterBand"'),
        "VRTRawRasterBand",
    ),
    "open options": (
        vrt(source("copy.tif", 1, '<OpenOptions><OOI key="SOURCE">/etc/passwd</OOI></OpenOptions>')),
        "options for opening",
    ),
    "attribute": (vrt("<SimpleSource SourceFilename='/etc/passwd'/>"), "a file in an attribute"),
    "kind as an element": (vrt("<subClass>VRTRawRasterBand</subClass>" + source("copy.tif", 1)), "a kind of its own"),
    "place as an element": (
        vrt("<SimpleSource><SourceFilename>copy.tif<relativeToVRT>1</relativeToVRT></SourceFilename></SimpleSource>"),
        "within the name of a file",
    ),
    "a comment in a name": (vrt(source("copy.tif<!-- -->/x")), "within the name of a file"),
    "characters in a name": (vrt(source("<![CDATA[copy.tif]]>")), "within the name of a file"),
    "an instruction in a name": (vrt(source("copy.tif<?x?>/x")), "within the name of a file"),
    "nested": (vrt("<a>" * 70 + "</a>" * 70), "nested 64 deep"),
    "place of no kind": (vrt(source("copy.tif", 2)), "relativeToVRT='2'"),
    "steps": (
        vrt(top="<ProcessingSteps><Step/></ProcessingSteps>").replace("<VRT", '<VRT', 1),
        "processing steps",
    ),
    "processed": (
        vrt().replace("<VRTDataset", '<VRTDataset subClass="VRTProcessedDataset"', 1), "VRTProcessedDataset"
    ),
    "terrain": (vrt(top="<RPCTransformer><DEMPath>/etc/passwd</DEMPath></RPCTransformer>"), "a terrain model"),
    "reference system from a server": (
        vrt(source("copy.tif", 1)).replace("EPSG:32633", "http://127.0.0.1:9/x"), "the address"
    ),
    "arrays": (vrt(top='<Group name="/"/>'), "multidimensional"),
    "laughs": (
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>' + vrt(source("&b;")), "DOCTYPE"
    ),
    "entity of a file": ('<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/passwd">]>' + vrt(source("&a;")), "DOCTYPE"),
    "something around": (f"<a>{vrt(source('copy.tif', 1))}</a>", "outermost"),
    "two at once": (vrt(source("copy.tif", 1)) + vrt(source("/etc/passwd")), "no valid XML"),
    "cut off": (vrt(source("copy.tif", 1))[:-20], "no valid XML"),
    "not quoted": (vrt(source("copy.tif", 1)).replace('band="1"', "band=1"), "no valid XML"),
    "nul": (vrt(source("copy.tif", 1)) + "\0", "no valid XML"),
}  # fmt: skip


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_vrt_does_nothing_but_to_put_files_together(own, monkeypatch, what):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    own.write_raster(own.root / "image" / "copy.tif", np.ones((3, 16, 16), "uint16"), CHIP)
    text, words = PROGRAMS[what]
    own.image(CHIP).write_text(text)
    message = refusal(own, trusted=True)
    assert words in message and CHIP in message
    with pytest.raises(DataError, match=words[:9]), open_raster(own.image(CHIP)):
        pass


def test_a_vrt_is_read_up_to_a_size(own):
    own.image(CHIP).write_text(vrt() + " " * 17 * 1024**2)
    assert "more than 16 MiB of XML" in refusal(own)


def test_vrts_that_name_each_other_end(own):
    first, second = own.root / "image" / "a.vrt", own.root / "image" / "b.vrt"
    own.image(CHIP).write_text(three("a.vrt", 1))
    first.write_text(three("b.vrt", 1))
    second.write_text(three("a.vrt", 1))
    assert "a VRT reads itself" in refusal(own)


def test_vrts_are_followed_to_a_depth(own):
    names = [CHIP + ".tif", *(f"{number}.vrt" for number in range(9))]
    for name, inner in zip(names, [*names[1:], "copy.tif"], strict=True):
        (own.root / "image" / name).write_text(three(inner, 1))
    own.write_raster(own.root / "image" / "copy.tif", np.ones((3, 16, 16), "uint16"), CHIP)
    assert "VRTs lie within VRTs" in refusal(own)


def test_many_vrts_that_name_many_are_each_read_once(own, monkeypatch):
    folder = own.root / "image"
    for level in range(6):
        for number in range(8):
            inner = [source(f"{level + 1}_{other}.vrt", 1) for other in range(8)] if level < 5 else [source("c.tif", 1)]
            (folder / f"{level}_{number}.vrt").write_text(vrt("".join(inner)))
    read: list[Path] = []
    monkeypatch.setattr(stamps, "vrt_sources", lambda path: read.append(path) or vrt_sources(path))
    stamps.Walk([own.root]).files(folder / "0_0.vrt")
    assert len(read) == 1 + 5 * 8


# ------------------------------------------------------------------------------------- links, and files beside


def link_image(own, outside: Path) -> None:
    own.image(CHIP).unlink()
    own.image(CHIP).symlink_to(outside)


def link_label(own, outside: Path) -> None:
    own.label(CHIP).unlink()
    own.label(CHIP).symlink_to("/etc/passwd")


def link_folder(own, outside: Path) -> None:
    (own.root / "image").rename(outside.parent / "image")
    (own.root / "image").symlink_to(outside.parent / "image")


def link_over_a_link(own, outside: Path) -> None:
    (own.root / "step.tif").symlink_to(outside)
    own.image(CHIP).unlink()
    own.image(CHIP).symlink_to(own.root / "step.tif")


def beside(ending: str) -> Callable[[object, Path], None]:
    def link(own, outside: Path) -> None:
        Path(f"{own.image(CHIP)}{ending}").symlink_to(outside)

    return link


LINKS = {
    "image": link_image, "label": link_label, "folder": link_folder, "chain": link_over_a_link,
    "mask": beside(".msk"), "overview": beside(".ovr"), "metadata": beside(".aux.xml"),
}  # fmt: skip


@pytest.mark.parametrize("what", LINKS)
def test_a_link_does_not_lead_out_of_the_data_root(own, outside, what):
    LINKS[what](own, outside)
    message = refusal(own)
    assert "leads outside the data root" in message and "--trust-data" in message


@pytest.mark.parametrize("ending", [".msk", ".ovr"])
def test_what_stands_beside_a_raster_is_no_vrt(own, served, ending):
    Path(f"{own.image(CHIP)}{ending}").write_text(three(f"/vsicurl/{served}"))
    assert "mask or overview beside a raster is no GeoTIFF" in refusal(own, trusted=True)


def test_metadata_beside_a_raster_name_no_overviews(own, served):
    Path(f"{own.image(CHIP)}.aux.xml").write_text(
        f'<PAMDataset><SRS>{served}</SRS><Metadata domain="OVERVIEWS">'
        f'<MDI key="OVERVIEW_FILE">/vsicurl/{served}</MDI></Metadata></PAMDataset>'
    )
    assert "names a file of overviews" in refusal(own)


def test_a_reference_system_beside_a_raster_is_not_looked_up(own, served):
    Path(f"{own.image(CHIP)}.aux.xml").write_text(f"<PAMDataset><SRS>{served}</SRS></PAMDataset>")
    assert len(build_index(own.benchmark(), own.root).frame) == 10


@pytest.mark.parametrize("text", ["<GDAL_WMS><Service name='TMS'><ServerUrl>{url}</ServerUrl></Service></GDAL_WMS>",
                                  "<WCS_GDAL><ServiceURL>{url}</ServiceURL></WCS_GDAL>",
                                  '{{"type": "Feature", "assets": {{"a": {{"href": "{url}"}}}}}}',
                                  "<GDALTileIndexDataset><IndexDataset>{url}</IndexDataset></GDALTileIndexDataset>",
                                  ])  # fmt: skip
def test_descriptions_of_servers_are_no_rasters(own, served, text):
    own.image(CHIP).write_text(text.format(url=served))
    assert "this file is text" in refusal(own, trusted=True)


@pytest.mark.parametrize("which", ["image", "label", "matlab"])
def test_a_pipe_is_not_waited_for(own, tmp_path, which):
    path = tmp_path / "pipe.mat" if which == "matlab" else getattr(own, which)(CHIP)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(DataError, match="no plain file"):
        read_raw(path)
    if which != "matlab":
        assert "no plain file" in refusal(own)


def test_a_device_is_not_read(own):
    own.image(CHIP).unlink()
    own.image(CHIP).symlink_to("/dev/zero")
    assert "no plain file" in refusal(own, trusted=True)


# ------------------------------------------------------------------------------------- what may be followed


def test_links_within_and_a_data_root_that_is_a_link_are_followed(own, tmp_path):
    manifest = build_index(own.benchmark(), own.root).manifest
    (own.root / "store").mkdir()
    own.image(CHIP).rename(own.root / "store" / "1234.tif")
    own.image(CHIP).symlink_to("../store/1234.tif")
    (tmp_path / "data").symlink_to(own.root)
    assert build_index(own.benchmark(), tmp_path / "data").manifest == manifest


def test_a_vrt_within_the_root_gives_the_pixels_of_its_files(own):
    manifest = build_index(own.benchmark(), own.root).manifest
    own.image(CHIP).rename(own.root / "copy.tif")
    (own.root / "nested.vrt").write_text(three("copy.tif", 1))
    own.image(CHIP).write_text(three("../nested.vrt", 1))
    assert build_index(own.benchmark(), own.root).manifest == manifest
    own.image(CHIP).write_text(three(own.root / "copy.tif"))
    assert build_index(own.benchmark(), own.root).manifest == manifest


def test_what_gdal_writes_as_a_vrt_is_read(own, tmp_path):
    manifest = build_index(own.benchmark(), own.root).manifest
    own.image(CHIP).rename(own.root / "copy.tif")
    with rasterio.open(own.root / "copy.tif") as file, rasterio.open(own.image(CHIP), "w", driver="VRT", **{
        key: file.profile[key] for key in ("width", "height", "count", "dtype", "crs", "transform")
    }):  # fmt: skip
        pass
    from rasterio.shutil import copy

    copy(str(own.root / "copy.tif"), str(own.image(CHIP)), driver="VRT")
    assert build_index(own.benchmark(), own.root).manifest == manifest


@pytest.mark.parametrize("what", ["vrt", "image", "folder"])
def test_trusted_data_may_lead_out_and_the_record_says_so(own, outside, what):
    before = build_index(own.benchmark(), own.root)
    assert not before.notes
    if what == "vrt":
        own.image(CHIP).write_text(three(outside))
    else:
        LINKS[what](own, outside)
    index = build_index(own.benchmark(), own.root, trusted=True)
    assert index.manifest == before.manifest
    assert [note for note in index.notes if "--trust-data" in note]
    assert "leads outside" in refusal(own), "the index of trusted data is none for others"


@pytest.mark.parametrize("flags", [[], ["--trust-data"]])
def test_the_command_line_asks_and_is_told(own, outside, monkeypatch, flags):
    from tiny import quiet, run_main

    from spectral_tl_bench.cli import run as command
    from spectral_tl_bench.runner.run import plan

    requests = []
    monkeypatch.setattr(command, "_run", lambda request, *_: requests.extend(request))
    link_image(own, outside)
    assert run_main(monkeypatch, ["run", "-m", "majority", "-b", own.yaml, "--window", 16, *flags]) == 0
    cells, broken = plan(requests[0], quiet)
    if flags:
        assert not broken and any("--trust-data" in note for note in cells[0].opened.notes)
    else:
        assert not cells and "leads outside the data root" in str(broken[0][1])


# ------------------------------------------------------------------------------------- tables

CELLS = {
    "../../etc/passwd": "leads outside", "/etc/passwd": "missing", "//server/share": "missing", "C:/data/x": "missing",
    "C:\\data\\x": "leads outside", "/vsicurl/{url}": "missing", "{url}": "missing", "x.tif,other": "missing",
    "GTIFF_DIR:2:x": "missing", 'HDF5:"x"://y': "missing", "NETCDF:x": "missing", "..": "missing", "-rf": "missing",
    "=1+1": "missing", "@SUM(A1)": "missing", "x" * 10_000: "a text of 10", "x" * 300: "cannot be read",
    "a\x1b]0;title\x07": "control characters", "a\nb": "control characters", "a\rb": "control characters",
    "%s%n": "missing", "$(id)": "missing", "`id`": "missing", "{name}": "missing",
}  # fmt: skip


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: repr(cell[:20]))
def test_a_hostile_cell_of_a_table(own, served, cell):
    own.rows[0]["name"] = cell.replace("{url}", served)
    own.write_table()
    message = refusal(own)
    assert CELLS[cell] in message and "root:x:" not in message
    assert all(letter.isprintable() or letter == "\n" for letter in message) and len(message) < 5_000


@pytest.mark.parametrize("cell", ["/etc/passwd", "//server/share/x", "C:/data/x.tif", "/vsicurl/{url}", "{url}",
                                  "file:///etc/passwd", "s3://bucket/x.tif", "../x.tif", "a\\..\\x"])  # fmt: skip
def test_a_whole_path_from_a_table(own, served, cell):
    own.definition["layout"]["image"] = "{name}"
    own.rows[0]["name"] = cell.replace("{url}", served)
    own.write_table()
    assert "leads outside the data root" in refusal(own)

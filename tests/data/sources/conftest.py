"""A hub with the repository of the data sets on this machine, and the verbs on a data root of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from packing import DFC, MTS12, REPO, WHU, pack
from servers import Site, serving
from tiny import run_main

from spectral_tl_bench.data.sources import asking, listing


@pytest.fixture(scope="module")
def real(trees) -> dict[str, bytes]:
    """The repository of the authors as it could be: each data set packed and arranged in another way."""
    return {
        MTS12: pack(trees, ["MTS12"]),
        DFC: pack(trees / "DFC2020", kind="gz", below="some/where/"),
        WHU: pack(trees / "WHU-OHS", ["transfer-STall"]),
    }


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    """MTS12 in the names of its files alone: three chips of noise, nothing that could be opened."""
    root = tmp_path_factory.mktemp("names")
    for fold, stem in (("train", "eopatch_id_0_col_8_row_14"), ("val", "eopatch_id_1_col_9_row_14"),
                       ("test", "eopatch_id_2_col_8_row_3")):  # fmt: skip
        for file in (f"image/{fold}/{stem}.tif", f"label/{fold}/{stem}_label.mat"):
            (root / "MTS12" / file).parent.mkdir(parents=True, exist_ok=True)
            (root / "MTS12" / file).write_bytes(os.urandom(60_000))
    return root


@pytest.fixture(scope="module")
def published(names) -> dict[str, bytes]:
    """A repository with that, and what else is in repositories."""
    return {MTS12: pack(names), "README.md": b"# hello", ".gitattributes": b"*.zip filter=lfs"}


@pytest.fixture(scope="module")
def server():
    with serving(Site()) as site:
        yield site


@pytest.fixture
def site(server, published, monkeypatch):
    fresh = Site(repos={REPO: dict(published)}, small={"README.md", ".gitattributes"}, address=server.address)
    server.__dict__.update(fresh.__dict__)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(listing, "ZENODO", server.address)
    monkeypatch.setattr(asking, "SLEEP", lambda _: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and nothing here survives a crash of the machine
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def stbench(root, monkeypatch, capsys):
    """Runs ``stbench data VERB ...`` on the data root, and gives exit code and what was printed."""

    def run(verb: str, *arguments: object) -> tuple[int, str]:
        code = run_main(monkeypatch, ["data", verb, *map(str, arguments), "--data-root", str(root)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out + printed.err

    return run

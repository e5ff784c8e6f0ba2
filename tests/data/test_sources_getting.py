"""``stbench data list`` and ``get``: from an empty folder to a tree that ``data check`` accepts, from local servers."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from packing import pack, tarred, zipped
from servers import Site, answers, breaks_after, serving, sum_of
from tiny import run_main

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.data.sources import asking, getting, listing
from spectral_tl_bench.data.sources.catalogue import datasets

REPO, COPERNICUS = "YuxiangZhang-BIT/SpectralX_datasets", "wangyi111/Copernicus-Bench"
MTS12, DFC, WHU = "MTS12.zip", "DFC_2020/dfc.tar.gz", "data/WHU-OHS/transfer-STall.zip"


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


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def whole_tree(root: Path, trees: Path, name: str, part: str = "") -> bool:
    """Whether a data set, or a folder of it, is byte for byte what was packed."""
    names = files_of(trees / name / part)
    here, there = root / name / part, trees / name / part
    return bool(names) and all((here / file).read_bytes() == (there / file).read_bytes() for file in names)


@pytest.mark.parametrize(
    ("name", "folder", "benchmark"),
    [("mts12", "MTS12", "mts12-n2s"), ("dfc2020", "DFC2020", "dfc2020-winter"), ("whu-ohs", "WHU-OHS", "whuohs-t2s")],
)
def test_from_an_empty_folder_to_data_that_are_accepted(site, stbench, real, trees, root, name, folder, benchmark):
    site.repos[REPO] = real
    code, said = stbench("get", name, "--accept-terms")
    assert code == 0, said
    part = "transfer-STall" if name == "whu-ohs" else ""
    assert whole_tree(root, trees, folder, part) and "can read it" not in said
    assert "next: stbench data check" in said and benchmark in said
    left = files_of(root / getting.WORK)
    assert all(file.endswith(("receipt.json", "lock")) for file in left), "the archive is gone"
    code, said = stbench("check", benchmark)
    assert code == 0 and "track: partial" in said, said

    before = len(site.asked)
    code, said = stbench("get", name, "--accept-terms")
    assert code == 0 and "nothing to do" in said
    assert all(path.startswith("/api/") for _, path, _ in site.asked[before:]), "no byte of the data again"


def test_terms_come_before_the_first_byte(site, stbench, root):
    code, said = stbench("get", "mts12")
    assert code == 2 and "--accept-terms" in said and "cite: Zhao" in said and "No licence is known" in said
    assert "dataset12.html" in said and MTS12 in said and not root.exists()
    assert not site.fetched("cdn") and not any("/cdn/" in path for _, path, _ in site.asked)
    code, said = stbench("get", "mts12", "--dry-run")
    assert code == 0 and "cite: Zhao" in said and "sha256" in said and not root.exists()


def test_list_says_what_is_here(site, stbench, names, root, monkeypatch, capsys):
    shutil.copytree(names / "MTS12", root / "MTS12")
    code, said = stbench("list")
    assert code == 0 and "3 of 936 chips" in said and said.count("on disk") == 4 and "8.75 GB" in said
    assert "irsip.whu.edu.cn" in said and REPO in said and "copernicus-bench" in said
    code, said = stbench("list", "--json")
    facts = json.loads(said)["datasets"]
    assert facts["mts12"]["on_disk"][0]["chips"] == 3 and not facts["mts12"]["on_disk"][0]["complete"]
    on_disk = {one["layout"]: one["published"] for facts in facts.values() for one in facts["on_disk"]}
    assert on_disk == {"whu-ohs-transfer": 2914, "whu-ohs-official": 7795, "dfc2020": 6114, "mts12": 936}
    (root / "MTS12/image/train/odd.tif").write_bytes(b"")
    assert "cannot be read: the file name 'odd.tif'" in stbench("list")[1]
    assert run_main(monkeypatch, ["data", "list"]) == 0
    assert "STBENCH_DATA says where to look" in capsys.readouterr().out
    assert not site.asked, "nothing is asked of anybody"


def test_every_benchmark_has_a_data_set_and_facts_agree_with_torchgeo():
    known = {one.dataset for one in datasets().values()}
    assert {benchmark.dataset for benchmark in builtin_benchmarks().values()} == known
    torchgeo = pytest.importorskip("torchgeo.datasets").CopernicusBenchDFC2020S2
    source = datasets()["dfc2020"].sources["copernicus-bench"]
    ((name, checksum),) = source.files.items()
    assert checksum == f"md5:{torchgeo.md5}"
    assert torchgeo.url.endswith(f"datasets/{source.repo}/resolve/{source.revision}/{name}")


def test_a_broken_line_and_a_second_start(site, stbench, names, root, published, monkeypatch):
    content = published[MTS12]
    site.trouble = [("/cdn/", breaks_after(content, len(content) // 2)), *[("/cdn/", answers(503))] * 20]
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "are kept" in said and not (root / "MTS12").exists()
    site.trouble, site.asked = [], []
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "goes on after" in said and whole_tree(root, names, "MTS12")
    (only,) = [part for _, path, part in site.asked if "/cdn/" in path]
    assert only.startswith("bytes=") and only != "bytes=0-"


def test_a_busy_hub_is_waited_for(site, stbench, names, root):
    site.trouble = [
        ("/api/datasets", answers(429, Retry_After="1")), ("/tree/", answers(503)),
        ("/resolve/", answers(429, Retry_After="1")), ("/cdn/", answers(502)),
    ]  # fmt: skip
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12") and site.trouble == []
    assert "429" in said and "(502)" in said


def test_ctrl_c_says_that_it_can_go_on(site, stbench, names, root, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getting, "unpack", stop)
        code, said = stbench("get", "mts12", "--accept-terms")
    assert code != 0 and "the same command goes on from there" in said
    site.asked = []
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12")
    assert not any("/cdn/" in path for _, path, _ in site.asked), "the archive was there already"


def test_an_interruption_while_it_is_put_into_place(site, stbench, names, root, monkeypatch):
    real, moved = Path.rename, []

    def rename(self, target):
        if "MTS12" in str(target) and getting.WORK not in str(target):
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        assert stbench("get", "mts12", "--accept-terms")[0] != 0
    site.asked = []
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert not any("/cdn/" in path for _, path, _ in site.asked)


def test_a_changed_revision_starts_anew(site, stbench, names, root, published):
    content = published[MTS12]
    site.trouble = [("/cdn/", breaks_after(content, len(content) // 2)), *[("/cdn/", answers(503))] * 20]
    assert stbench("get", "mts12", "--accept-terms")[0] == 2
    site.trouble = []
    site.repos[REPO][MTS12] = pack(names, ["MTS12"], below="v2/")
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "has changed at the source since it was begun: starts anew" in said
    assert whole_tree(root, names, "MTS12")

    site.repos[REPO]["README.md"] = b"# another commit, the same data"
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "nothing to do" in said
    site.repos[REPO][MTS12] = content
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "the source has other files now" in said and whole_tree(root, names, "MTS12")
    shutil.rmtree(root / "MTS12")
    assert stbench("get", "mts12", "--accept-terms")[0] == 0 and whole_tree(root, names, "MTS12")


def test_unknown_revisions_repositories_and_names(site, stbench, root):
    for arguments, words in (
        (("mts12", "--revision", "gone"), "no such file or repository on the server (404)"),
        (("mts12", "--from", "hf:nobody/nothing"), "no such file or repository on the server (404)"),
        (("mts12", "--from", "zenodo:99"), "(404)"),
        (("mts12", "--from", f"{site.address}/gone.zip"), "(404)"),
        (("mts-12",), "did you mean mts12?"),
        (("mts12", "--source", "spectral"), "did you mean spectralx"),
        (("mts12", "--from", "ftp://x/y.zip"), "http and https"),
        (("mts12", "--from", root / "nothing"), "nothing that is here"),
        (("dfc2020", "--from", "hf:GFM-Bench/DFC2020"), "96 px"),
        (("dfc2020", "--from", "https://huggingface.co/datasets/GFM-Bench/DFC2020"), "96 px"),
        (("dfc2020", "--source", "ieee-dataport"), "ieee-dataport.org"),
        (("whu-ohs", "--source", "zenodo"), "zenodo:NUMBER"),
        (("whu-ohs", "--from", "zenodo:1", "--revision", "x"), "--revision goes with"),
    ):
        code, said = stbench("get", *arguments, "--accept-terms")
        assert code == 2 and words in said and not root.exists(), said


def test_a_hub_that_must_not_be_asked(site, stbench, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "HF_HUB_OFFLINE forbids" in said and site.asked == []


def test_a_hub_that_wants_an_account(site, stbench, monkeypatch):
    site.trouble = [("/cdn/", answers(403))]
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "HF_TOKEN" in said
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and "hf_secret" not in said
    (resolve,) = [path for path in site.headers if path.endswith(f"/{MTS12}")]
    assert site.headers[resolve]["Authorization"] == "Bearer hf_secret"


def test_names_of_the_repository_are_not_assumed(site, stbench, names, root, published):
    site.repos[REPO] = {"all.zip": published[MTS12], "other.zip": b""}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "no file of the source has MTS12 in its path" in said and "all.zip" in said
    code, said = stbench("get", "mts12", "--accept-terms", "--files", "all*")
    assert code == 0 and whole_tree(root, names, "MTS12")


def test_a_repository_of_single_files_in_pages(site, stbench, names, root):
    files = files_of(names / "MTS12")
    site.repos[REPO] = {f"mts12/{name}": (names / "MTS12" / name).read_bytes() for name in files}
    site.small, site.page = {name for name in site.repos[REPO] if name.endswith(".mat")}, 5
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and whole_tree(root, names, "MTS12"), said


def test_image_and_label_in_archives_of_their_own(site, stbench, names, root):
    site.repos[REPO] = {
        f"MTS12/{part}.zip": pack(names / "MTS12" / part, below=f"{part}/") for part in ("image", "label")
    }
    code, said = stbench("get", "mts12", "--accept-terms", "--keep-archives")
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert {file.rpartition("/")[2] for file in files_of(root / getting.WORK)} >= {"image.zip", "label.zip"}


def test_two_archives_with_one_file(site, stbench, names, root):
    site.repos[REPO] = {f"MTS12-{number}.zip": pack(names, ["MTS12"]) for number in (1, 2)}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "two files for one place" in said and not (root / "MTS12").exists()


@pytest.mark.parametrize("name", ["MTS12.zip.001", "MTS12.tar.gz.part-aa", "MTS12.z01", "MTS12.rar", "MTS12.7z"])
def test_what_cannot_be_unpacked_is_not_downloaded(site, stbench, name, root):
    site.repos[REPO] = {name: b"x"}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and f"{name} cannot be unpacked" in said and not root.exists()


def test_a_hostile_hub(site, stbench, root, tmp_path):
    site.repos[REPO] = {"MTS12/../../../evil.tif": b"x"}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "leads out of the folder" in said
    site.repos[REPO] = {"MTS12.zip": zipped({"../../../../evil": b"x"})}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "not safe to unpack" in said
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name or path.suffix == ".zip"]


def test_zenodo_by_number(site, stbench, real, trees, root):
    site.repos[REPO] = real
    official = {f"{fold}.zip": pack(trees / "WHU-OHS", [fold]) for fold in ("tr", "ts")}
    site.records["8123"] = official | {"a list.txt": b"names"}
    assert stbench("get", "whu-ohs", "--accept-terms")[0] == 0
    code, said = stbench("get", "whu-ohs", "--from", "zenodo:8123", "--accept-terms")
    assert code == 0 and "licence of the record: cc-by-4.0" in said and "md5" in said, said
    for part in ("transfer-STall", "tr", "ts"):
        assert whole_tree(root, trees, "WHU-OHS", part)
    assert stbench("check", "whuohs-id")[0] == 0
    site.records["8123"]["tr.zip"] = site.records["8123"]["tr.zip"][:-1]
    page = "https://zenodo.org/records/8123"
    code, said = stbench("get", "whu-ohs", "--from", page, "--accept-terms")
    assert code == 2 and "the source has other files now" in said, "a record's page is the record"


def test_a_mirror_is_held_to_the_checksum_of_the_source(site, stbench, root, monkeypatch):
    content = zipped({"dfc2020_s1s2/s2/ROIs0000_test_s2_0_p609.tif": b"x", "dfc2020_s1s2/dfc-val-new.csv": b"y"})
    site.plain = {"/mirror/dfc2020.zip": content}
    address = site.address.replace("//", "//me:secret@") + "/mirror/dfc2020.zip?sig=hidden"
    code, said = stbench("get", "dfc2020", "--source", "copernicus-bench", "--from", address, "--accept-terms")
    assert code == 2 and "wrong md5 checksum" in said and "f10ba017dab6f38b7a6857b169ea924b" in said
    assert "secret" not in said and "hidden" not in said and not any(root.rglob("*.zip*.part"))
    code, said = stbench("get", "dfc2020", "--from", address, "--accept-terms")
    assert code == 0 and "no benchmark can read it as it is" in said and "next:" not in said
    assert "secret" not in said and "hidden" not in said
    kept = "".join(path.read_text() for path in (root / getting.WORK).rglob("*") if path.is_file())
    assert "secret" not in kept and "hidden" not in kept and "/mirror/dfc2020.zip" in kept
    assert files_of(root / "DFC2020/dfc2020_s1s2") == {"s2/ROIs0000_test_s2_0_p609.tif", "dfc-val-new.csv"}


def test_copernicus_bench_is_asked_at_its_revision(site, stbench, root):
    source = datasets()["dfc2020"].sources["copernicus-bench"]
    site.repos[COPERNICUS] = {"l2_dfc2020_s1s2/dfc2020.zip": b"not it", "l1_other/other.zip": b""}
    site.commits[COPERNICUS] = source.revision or ""
    code, said = stbench("get", "dfc2020", "--source", "copernicus-bench", "--accept-terms")
    assert code == 2 and "wrong md5 checksum" in said and "arXiv 2503.11849" in said and "other.zip" not in said
    assert any(path.endswith(f"/revision/{source.revision}") for _, path, _ in site.asked)


def test_from_this_machine(site, stbench, names, root, published, tmp_path):
    away = tmp_path / "away"
    (away / "sub").mkdir(parents=True)
    (away / "sub/MTS12.zip").write_bytes(published[MTS12])
    code, said = stbench("get", "mts12", "--from", away)
    assert code == 0 and whole_tree(root, names, "MTS12"), said
    assert (away / "sub/MTS12.zip").read_bytes() == published[MTS12], "the user's own archive stays"
    assert "nothing to do" in stbench("get", "mts12", "--from", away)[1]
    (away / "bare").write_bytes(tarred({"spring/image/s2_A/a.tif": b"x"}, "gz"))
    assert stbench("get", "dfc2020", "--from", away / "bare")[0] == 0
    assert (root / "DFC2020/spring/image/s2_A/a.tif").read_bytes() == b"x"
    code, said = stbench("get", "mts12", "--from", names / "MTS12")
    assert code == 2 and "no archive in this folder" in said and "--data-root" in said


def test_a_page_instead_of_an_archive(site, stbench, root):
    site.trouble = [("/login.zip", answers(200, Content_Type="text/html; charset=utf-8"))]
    code, said = stbench("get", "mts12", "--from", f"{site.address}/login.zip", "--accept-terms")
    assert code == 2 and "leads to a web page" in said and not root.exists()
    site.plain["/login.zip"] = b"<html>"
    code, said = stbench("get", "mts12", "--from", f"{site.address}/login.zip", "--accept-terms")
    assert code == 2 and "neither a zip nor a tar" in said and not (root / "MTS12").exists()


def test_free_space_is_looked_at_first(site, stbench, root, monkeypatch, published):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(1.9 * len(published[MTS12]))))
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "there is no room: at least" in said and not root.exists()
    assert not any("/cdn/" in path for _, path, _ in site.asked)


def test_what_is_there_is_never_replaced(site, stbench, names, root):
    (root / "MTS12/image/train").mkdir(parents=True)
    (root / "MTS12/image/train/mine.tif").write_bytes(b"mine")
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 2 and "there is something already" in said and "move it away" in said
    assert files_of(root / "MTS12") == {"image/train/mine.tif"}
    (root / "MTS12").rename(root / "away")
    site.asked = []
    assert stbench("get", "mts12", "--accept-terms")[0] == 0 and whole_tree(root, names, "MTS12")
    assert not any("/cdn/" in path for _, path, _ in site.asked), "nothing is downloaded again"


def test_places_that_cannot_be(site, stbench, root, monkeypatch, capsys):
    root.mkdir()
    (root / "MTS12").write_text("a file")
    assert "it is not a folder" in stbench("get", "mts12", "--accept-terms")[1]
    assert run_main(monkeypatch, ["data", "get", "mts12"]) == 2
    assert "no folder to put the data in" in capsys.readouterr().err
    if os.geteuid() != 0:
        (root / "MTS12").unlink()
        root.chmod(0o500)
        code, said = stbench("get", "mts12", "--accept-terms")
        root.chmod(0o700)
        assert code == 2 and "cannot be put here" in said


def test_two_starts_at_once(site, stbench, root, monkeypatch):
    inner = []

    def fetch(*_: object) -> None:
        with monkeypatch.context() as patch:
            patch.undo()
            inner.append(stbench("get", "mts12", "--accept-terms"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(getting, "fetch", fetch)
        stbench("get", "mts12", "--accept-terms")
    assert inner[0][0] == 2 and "another start is getting the same here" in inner[0][1]


def test_tar_without_compression_and_sums(site, stbench, root):
    site.repos[REPO] = {"x/MTS12.tar": tarred({"a/b.txt": b"hello"})}
    code, said = stbench("get", "mts12", "--accept-terms")
    receipt = json.loads(next(root.rglob("receipt.json")).read_text())
    assert code == 0 and receipt["files"] == {"x/MTS12.tar": f"sha256:{sum_of(site.repos[REPO]['x/MTS12.tar'])}"}
    assert (root / "MTS12/x/a/b.txt").read_text() == "hello" and "no benchmark can read it" in said

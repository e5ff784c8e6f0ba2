"""Where ``stbench data get`` gets data from, and what may be wrong there: hub, Zenodo, mirrors, archives here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packing import COPERNICUS, MTS12, REPO, files_of, pack, tarred, whole_tree, zipped
from servers import answers, sum_of

from spectral_tl_bench.benchmarks import builtin_benchmarks, further_benchmarks
from spectral_tl_bench.data.sources import getting
from spectral_tl_bench.data.sources.catalogue import datasets


def test_every_benchmark_has_a_data_set_and_facts_agree_with_torchgeo():
    known = {one.dataset for one in datasets().values()}
    benchmarks = (*builtin_benchmarks().values(), *further_benchmarks().values())
    assert {benchmark.dataset for benchmark in benchmarks} == known
    torchgeo = pytest.importorskip("torchgeo.datasets").CopernicusBenchDFC2020S2
    source = datasets()["dfc2020"].sources["copernicus-bench"]
    ((name, checksum),) = source.files.items()
    if hasattr(torchgeo, "md5"):  # TorchGeo 0.10 gives SHA-256 alone
        assert checksum == f"md5:{torchgeo.md5}"
    assert torchgeo.url.endswith(f"datasets/{source.repo}/resolve/{source.revision}/{name}")


def test_loveda_is_held_to_the_checksums_of_torchgeo():
    archives = pytest.importorskip("torchgeo.datasets").LoveDA.info_dict
    known = datasets()["loveda"].sources["zenodo"]
    assert set(known.files) == {"Train.zip", "Val.zip"}, "labels of the test part are not published"
    for name, facts in archives.items():
        assert f"/records/{known.about.split()[1].rstrip(',')}/files/{facts['filename']}?" in facts["url"], name
        if "md5" in facts and name != "test":
            assert known.files[facts["filename"]] == f"md5:{facts['md5']}"


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


def test_tar_without_compression_and_sums(site, stbench, root):
    site.repos[REPO] = {"x/MTS12.tar": tarred({"a/b.txt": b"hello"})}
    code, said = stbench("get", "mts12", "--accept-terms")
    receipt = json.loads(next(root.rglob("receipt.json")).read_text())
    assert code == 0 and receipt["files"] == {"x/MTS12.tar": f"sha256:{sum_of(site.repos[REPO]['x/MTS12.tar'])}"}
    assert (root / "MTS12/x/a/b.txt").read_text() == "hello" and "no benchmark can read it" in said


def test_folders_of_one_layout_within_another(site, stbench, trees, root):
    """``transfer-STall/source/image/tr`` is not the official ``tr/image``."""
    nested = {
        f"top/transfer-STall/{side}/{kind}/tr/{file.name}": file.read_bytes()
        for side in ("source", "target")
        for kind in ("image", "label")
        for file in (trees / "WHU-OHS/transfer-STall" / side / kind).iterdir()
    }
    site.repos[REPO] = {"WHU-OHS.zip": zipped(nested | {"readme.txt": b"hello"})}
    code, said = stbench("get", "whu-ohs", "--accept-terms")
    assert code == 0 and files_of(root / "WHU-OHS") == {name.partition("/")[2] for name in nested}
    assert "1 files beside the data set are not kept, such as readme.txt" in said
    assert "whu-ohs-transfer: 64 of 2914" in said and "whu-ohs-official: no" in said


def test_an_archive_of_all_data_sets(site, stbench, trees, root):
    site.repos[REPO] = {"everything.tar": pack(trees, kind="tar", below="SpectralX_datasets/")}
    code, said = stbench("get", "dfc2020", "--accept-terms", "--files", "*.tar")
    assert code == 0 and "MTS12 was in it as well" in said and "WHU-OHS was in it as well" in said
    for name in ("DFC2020", "MTS12", "WHU-OHS"):
        assert files_of(root / name) == files_of(trees / name)


def test_half_of_a_data_set_is_left_to_data_check(site, stbench, names, root):
    site.repos[REPO] = {"MTS12/image.zip": pack(names / "MTS12/image", below="image/")}
    code, said = stbench("get", "mts12", "--accept-terms")
    assert code == 0 and files_of(root / "MTS12/image") == files_of(names / "MTS12/image")
    assert "cannot be read: 3 of 3 images have no label" in said


def test_copernicus_bench_from_a_local_copy_of_its_archive(site, stbench, trees, root, tmp_path):
    members = {}
    for number, image in enumerate(sorted((trees / "DFC2020").glob("*/image/s2_*/*.tif"))):
        label = Path(str(image).replace("/image/s2_", "/label/dfc_").replace("_s2_", "_dfc_"))
        for kind, path in (("s2", image), ("dfc", label)):
            members[f"dfc2020_s1s2/{kind}/ROIs0000_test_{kind}_0_p{number}.tif"] = path.read_bytes()
    members["dfc2020_s1s2/dfc-test-new.csv"] = b"ROIs0000_test_dfc_0_p0.tif\n"
    (tmp_path / "dfc2020.zip").write_bytes(zipped(members))
    code, said = stbench("get", "dfc2020", "--from", tmp_path / "dfc2020.zip")
    assert code == 0 and "dfc2020: 56 of 6114 chips" in said and "next: stbench data verify" in said
    code, said = stbench("verify", "dfc2020-spring")
    assert code == 2 and "found by their footprints" in said and "Mumbai has 8 chips, published are 900" in said

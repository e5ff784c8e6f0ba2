"""The site as files: what stands on which page, links, escaping, names, determinism."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from site_records import EVIL, METHODS, reported_numbers

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.generated import LIST
from spectral_tl_bench.leaderboard.site import write_site
from spectral_tl_bench.leaderboard.site.names import signed
from spectral_tl_bench.results.store import read_records

TRACKS = ("demonstration", "reproduced", "reproduced-unlabelled-target", "sample")


class Parsed(HTMLParser):
    """Elements with their attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, *names: str) -> set[str]:
        return {value for _, found in self.elements for name, value in found.items() if name in names and value}


@pytest.fixture(scope="module")
def pages(site):
    """Every page, parsed."""
    return {
        path.relative_to(site.root).as_posix(): Parsed(path.read_text(encoding="utf-8"))
        for path in site.paths
        if path.suffix == ".html"
    }


def test_every_internal_link_resolves(site, pages):
    ids = {path: page.values("id") for path, page in pages.items()}
    checked = 0
    for path, page in pages.items():
        for link in page.values("href", "src"):
            target, _, fragment = unquote(link).partition("#")
            file = (site.root / path).parent / target if target else site.root / path
            assert file.resolve().is_file(), (path, link)
            if fragment and file.suffix == ".html" and "=" not in fragment:
                assert fragment in ids[file.resolve().relative_to(site.root.resolve()).as_posix()], (path, link)
            checked += 1
    assert checked > 500


def test_nothing_of_a_record_becomes_markup(pages):
    seen = 0
    for path, page in pages.items():
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")], path
            assert "style" not in attributes, path
            assert tag != "script" or set(attributes) <= {"src", "defer"}, path
            assert tag != "img" or (attributes["src"] or "").endswith(".png"), path
        assert sum(tag == "script" for tag, _ in page.elements) == len(
            [1 for tag, attributes in page.elements if tag == "script" and attributes.get("src")]
        )
        seen += "document.title='bitten'" in page.text
    assert seen > 5, "the text itself is shown"


def test_scripts_hold_no_markup_either(site):
    for path in site.paths:
        if path.suffix == ".js" and path.parent.name != "static":
            text = path.read_text(encoding="utf-8")
            assert re.fullmatch(r'stbench\.put\("[a-z0-9:-]+",\{.*\}\);\n', text)
            assert not set(text) & set("<>&") and text.isascii()


def test_file_names_are_safe(site):
    names = [path.relative_to(site.root).as_posix() for path in site.paths]
    assert all(
        re.fullmatch(r"([a-z0-9][a-z0-9-]*/){0,2}[a-z0-9][a-z0-9-]*\.(html|js|css|svg|png)", name) for name in names
    )
    assert len({name.lower() for name in names}) == len(names)


def test_a_strict_policy_stands_on_every_page(pages):
    for page in pages.values():
        policy = [
            found["content"] for tag, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"
        ]
        assert len(policy) == 1 and policy[0].startswith("default-src 'none'") and "unsafe" not in policy[0]


def test_the_same_records_give_the_same_bytes(site, store, tmp_path):
    boards = make_boards(reversed(read_records([store])))
    analyses = {name: analyse(boards[name]) for name in reversed(boards)}
    paths = write_site(analyses, reported_numbers(), tmp_path / "again")
    assert [path.relative_to(tmp_path / "again") for path in paths] == [
        path.relative_to(site.root) for path in site.paths
    ]
    for path, other in zip(site.paths, paths, strict=True):
        assert path.read_bytes() == other.read_bytes(), path


def test_pages_that_are_no_longer_made_go_and_strange_files_stay(site, tmp_path):
    out = tmp_path / "site"
    shutil.copytree(site.root, out)
    (out / "mine.txt").write_text("mine")
    write_site({"sample": site.analyses["sample"]}, None, out)
    assert not (out / "reproduced").exists() and (out / "sample/index.html").is_file()
    assert (out / "mine.txt").read_text() == "mine" and (out / LIST).is_file()


def test_a_strange_file_is_not_overwritten(site, tmp_path):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match="in the way"):
        write_site(site.analyses, None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="neither a record nor"):
        write_site({}, reported_numbers().iloc[:0], tmp_path)


def test_tracks_are_never_mixed(site, pages):
    assert set(site.analyses) == set(TRACKS)
    for track in TRACKS:
        own = set(site.analyses[track].rows["row"])
        links = {
            link.partition("#r-")[2]
            for path, page in pages.items()
            if path.startswith(f"{track}/")
            for link in page.values("href")
            if "#r-" in link
        }
        assert links and links <= own
        assert f'aria-current="true">{_title(track)}<' in site.text(f"{track}/index.html")


def _title(track):
    return {
        "demonstration": "Own benchmarks",
        "reproduced": "Reproduced",
        "reproduced-unlabelled-target": "Reproduced, target images seen",
        "sample": "Synthetic sample",
    }[track]


def test_each_track_says_what_it_is(pages):
    assert "not a result on real data" in pages["sample/index.html"].text
    assert "under its own protocol, not checked here" in pages["reported/index.html"].text
    assert "given the target's images" in pages["reproduced-unlabelled-target/index.html"].text
    assert "not a result" not in pages["reproduced/index.html"].text


def test_the_rule_stands_beside_our_numbers_and_not_beside_those_of_papers(pages):
    for path, page in pages.items():
        assert (" ".join(MIOU_RULE.split()) in page.text) == (not path.startswith("reported/")), path


def test_the_overview_has_the_numbers_of_the_analysis(site, pages):
    analysis = site.analyses["reproduced"]
    wanted = {f"{value:.6f}" for value in analysis.entries["miou"].dropna()} | {
        f"{v:.6f}" for v in analysis.rows["mean"].dropna()
    }
    assert wanted <= pages["reproduced/index.html"].values("data-v")


def test_missing_failed_and_fewer_seeds_are_visible_and_not_ranked(site, pages):
    text = site.text("reproduced/index.html")
    lines = {name: re.search(rf"<tr(?:(?!</tr>).)*>{name}</a>(?:(?!</tr>).)*</tr>", text, re.DOTALL).group() for name in
             ("unet", "broken", "frozen", "spectralx")}  # fmt: skip
    assert 'data-state="missing"' in lines["unet"] and "mts12-n2s missing" in lines["unet"]
    assert 'data-state="failed">failed</td>' in lines["broken"] and "mts12-n2s failed" in lines["broken"]
    assert '<span class="part">seeds 0</span>' in lines["frozen"] and "seeds 0</span>" in lines["broken"]
    assert 'class="incomplete"' in lines["unet"] and 'class="incomplete"' in lines["broken"]
    assert '<td data-v="1">1</td>' in lines["spectralx"]
    assert not re.search(r'<td data-v="\d+">\d+</td>\s*<th', lines["unet"])
    assert "CUDA <b>out</b> of memory" in pages["reproduced/methods/broken.html"].text


def test_a_method_has_every_number_with_its_interval(site, pages):
    analysis, text = site.analyses["reproduced"], pages["reproduced/methods/lora.html"].text
    rows = analysis.rows[analysis.rows["method"] == "lora"]["row"]
    cells = analysis.entries[analysis.entries["row"].isin(rows)]
    assert len(cells) == 6
    for cell in cells.to_dict("records"):
        for name in ("miou", "last", "oracle", "worst_miou", "release", "oa", "mean_f1"):
            assert f"{100 * cell[name]:.2f}" in text, name
        assert f"{100 * cell['low']:.2f}–{100 * cell['high']:.2f}" in text
        if cell["benchmark"] == "mts12-n2s":
            assert f"{signed(cell['drop'])} {signed(cell['drop_low'])} to {signed(cell['drop_high'])}" in text
        assert f"+{100 * cell['inflation']:.2f}" in text and cell["inflation"] > 0.005
    assert "Low-rank adaptation" in text and "rank 16" in text and "rank 4" in text


def test_a_benchmark_has_map_pictures_classes_and_heat(site, pages):
    page = pages["reproduced/benchmarks/dfc2020-spring.html"]
    assert sum(found.get("class", "").startswith("place") for tag, found in page.elements if tag == "g") == 7
    images = [found for tag, found in page.elements if tag == "img"]
    assert [found["alt"].split(" (")[0] for found in images[:2]] == ["True colour", "False colour"]
    assert images[2]["alt"].startswith("Label of") and len(images) == 5
    predictions = [found for tag, found in page.elements if tag == "option" and "pictures/" in (found["value"] or "")]
    assert len(predictions) == 2 * (len(METHODS) + 3), "image in two compositions and label can be chosen, too"
    classes = site.analyses["reproduced"].classes
    here = classes[(classes["benchmark"] == "dfc2020-spring") & classes["iou"].notna()]
    assert {f"{value:.5f}" for value in here["iou"]} <= page.values("data-v")
    assert "area target" in pages["reproduced/benchmarks/mts12-n2s.html"].values("class")


def test_pictures_are_those_of_the_records_or_not_there(store, tmp_path):
    store = Path(shutil.copytree(store, tmp_path / "store"))
    records = [one for one in read_records([store]) if one.board == "reproduced" and one.benchmark == "mts12-n2s"]
    kept, changed, gone = (one for one in records if one.pictures and one.seed == 0 and one.method != "frozen")
    whole = (kept.path.parent / kept.pictures.file).read_bytes()
    (changed.path.parent / changed.pictures.file).write_bytes(whole)
    (gone.path.parent / gone.pictures.file).unlink()
    paths = write_site({"reproduced": analyse(make_boards(records)["reproduced"])}, None, tmp_path / "site")
    pictures = {path.read_bytes() for path in paths if path.suffix == ".png"}
    originals = {path.read_bytes() for path in (store / "mts12-n2s").rglob("*.png")}
    assert whole in pictures and pictures <= originals
    page = Parsed((tmp_path / "site/reproduced/benchmarks/mts12-n2s.html").read_text(encoding="utf-8"))
    options = [found["value"] or "" for tag, found in page.elements if tag == "option"]
    shown = [value for value in options if "pictures/" in value]
    assert len(shown) == 2 * (2 + 3), "two rows are left, and images and label, to be chosen in two places"


def test_a_picture_that_is_none_is_left_out(store, tmp_path):
    store = Path(shutil.copytree(store, tmp_path / "store"))
    for path in store.rglob("label.png"):
        path.write_bytes(b"<svg onload=alert(1)>")
    boards = make_boards(one for one in read_records([store]) if one.board == "reproduced")
    write_site({"reproduced": analyse(boards["reproduced"])}, None, tmp_path / "site")
    assert "Sample chips" not in (tmp_path / "site/reproduced/benchmarks/mts12-n2s.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", ["references", "failures"])
def test_a_track_with_little_on_it(store, tmp_path, kept):
    """In-domain references alone, or nothing that was completed: pages that would be empty are left out everywhere."""
    records = [one for one in read_records([store]) if one.board == "reproduced"]
    chosen = [one for one in records if (one.gap == "none" if kept == "references" else one.status == "failed")]
    paths = write_site({"reproduced": analyse(make_boards(chosen)["reproduced"])}, None, tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in paths}
    assert "reproduced/compare.html" not in names
    assert ("reproduced/gaps.html" in names) == (kept == "references")
    for name in (name for name in names if name.endswith(".html")):
        for link in Parsed((tmp_path / name).read_text(encoding="utf-8")).values("href", "src"):
            target = unquote(link).partition("#")[0]
            assert not target or ((tmp_path / name).parent / target).is_file(), (name, link)


def test_row_data_have_the_confusion_matrix(site):
    analysis = site.analyses["reproduced"]
    row = analysis.rows["row"].iloc[0]
    text = site.text(f"reproduced/rows/{row}.js")
    data = json.loads(text[text.index(",") + 1 : -3])
    matrix = data["benchmarks"]["mts12-n2s"]["matrix"]
    classes = analysis.classes
    here = classes[(classes["row"] == row) & (classes["benchmark"] == "mts12-n2s")].set_index("index")
    for index, counts in enumerate(matrix):
        assert sum(counts) == 2 * here.loc[index, "truth_pixels"]
        assert sum(line[index] for line in matrix) == pytest.approx(2 * here.loc[index, "predicted_pixels"], abs=1)


def test_doubts_of_reported_numbers_are_shown(pages):
    page = pages["reported/index.html"]
    assert "the classes average 61.0" in page.text and "Table I" in page.text
    assert any((found.get("href") or "") == "#doubt-0" for tag, found in page.elements if tag == "a")
    assert EVIL.split()[0] in page.text


def test_what_a_package_leaves_out_would_be_missed(site):
    folder = Path(__file__).resolve().parents[3] / "spectral_tl_bench/leaderboard/site/static"
    assert {path.name for path in folder.iterdir()} == {path.name for path in (site.root / "static").iterdir()}

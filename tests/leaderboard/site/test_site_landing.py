"""The first page, and what all pages say of classes, columns and the majority class."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from site_records import EVIL, METHODS, reported_numbers
from test_site_files import Parsed

from spectral_tl_bench.benchmarks import builtin_benchmarks, read_benchmark
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.identity import benchmark_digest
from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.definitions import read_definitions
from spectral_tl_bench.leaderboard.site import names, write_site
from spectral_tl_bench.leaderboard.site.landing import group
from spectral_tl_bench.leaderboard.site.pages import place_table, telling
from spectral_tl_bench.leaderboard.site.scales import Scale, scale_of
from spectral_tl_bench.leaderboard.site.view import View, benchmark_views
from spectral_tl_bench.leaderboard.site.writer import code
from spectral_tl_bench.results.store import read_records

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs/examples/hls-worldcover-m2w.yaml"


@pytest.fixture(scope="module")
def first(site):
    return Parsed(site.text("index.html"))


@pytest.fixture(scope="module")
def view(site):
    return View("reproduced", site.analyses["reproduced"])


def test_real_chips_come_first_and_synthetic_scenes_are_called_so(site, first):
    sections = re.findall(r'<section class="board[^"]*" id="([^"]+)">\s*<h2><span class="badge[^"]*">([^<]+)</span>',
                          site.text("index.html"))  # fmt: skip
    assert [name for name, _ in sections] == ["reproduced", "reproduced-unlabelled-target", "demonstration", "sample"]
    assert dict(sections)["reproduced"] == "Real chips" and dict(sections)["sample"] == "Synthetic scenes"
    assert "not a result on real data" in first.text


def test_printed_numbers_are_a_tab_and_not_the_opening(site, first, tmp_path):
    assert "reported/index.html" in first.values("href") and "Table" not in first.text
    write_site({}, reported_numbers(), tmp_path)
    alone = Parsed((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "no run is stored" in alone.text and "reported/index.html" in alone.values("href")


def test_the_figure_has_the_numbers_of_the_analysis(site, first, view):
    analysis = site.analyses["reproduced"]
    season = [one for one in view.benchmarks if one.dataset == "DFC2020"]
    found = group(view, season, 20)
    cells = analysis.entries[(analysis.entries["benchmark"] == "dfc2020-spring")].set_index("row")
    done = cells[(cells["state"] == "completed") & (cells.index != view.rows[-1]["row"])]
    assert [line["row"]["row"] for line in found["lines"]] == list(done.sort_values("miou", ascending=False).index)
    for line in found["lines"]:
        cell = cells.loc[line["row"]["row"]]
        assert line["miou"] == pytest.approx(cell["miou"]) and (line["low"], line["high"]) == pytest.approx(
            (cell["low"], cell["high"]), nan_ok=True
        )
        assert f"{100 * cell['miou']:.1f}" in first.text
    assert found["lacking"] == len(METHODS) - len(done) and "seeds per row: 2" in first.text


def test_a_row_of_one_seed_does_not_lead(view, monkeypatch):
    season = [one for one in view.benchmarks if one.dataset == "DFC2020"]
    before = group(view, season, 20)
    assert not before["single"] and len(before["lines"]) > 1
    monkeypatch.setitem(before["lines"][0]["row"], "seeds", "0")
    after = group(view, season, 20)
    names = [line["row"]["row"] for line in before["lines"]]
    assert [line["row"]["row"] for line in after["lines"]] == [*names[1:], names[0]] and after["single"]


def test_the_drop_stands_beside_the_target(site, first, view):
    (gap, inside) = [one for one in view.benchmarks if one.dataset == "MTS12"]
    cells = site.analyses["reproduced"].entries.query("benchmark == 'mts12-n2s'").set_index("row")
    lines = group(view, [gap, inside], 20)["lines"]
    assert lines and all(line["drop"] == pytest.approx(cells.loc[line["row"]["row"], "drop"]) for line in lines)
    assert all(f"{100 * line['in_domain']:.1f}" in first.text for line in lines)


def test_rows_that_do_not_fit_are_counted(view):
    season = [one for one in view.benchmarks if one.dataset == "DFC2020"]
    found = group(view, season, 2)
    assert len(found["lines"]) == 2 < found["all"]


def test_pages_are_light(site):
    heavy = {path.name: path.stat().st_size for path in site.paths if path.suffix == ".html"}
    assert max(heavy.values()) < 300_000


def test_scales_are_as_long_as_what_they_show():
    assert scale_of([0.42, None, 0.58]) == Scale(0.4, 0.6) and scale_of([]) == Scale(0.0, 1.0)
    assert scale_of([0.5, 0.5]) == pytest.approx((0.45, 0.5)) and scale_of([0.0]) == Scale(0.0, 0.05)
    scale = Scale(0.4, 0.6)
    assert [scale.at(value) for value in (0.3, 0.4, 0.5, 0.9)] == pytest.approx([0, 0, 0.5, 1])
    assert scale.ticks[0] == 0.4 and scale.ticks[-1] == 0.6 and len(scale.ticks) <= 8


def test_columns_that_never_differ_become_a_sentence():
    rows = [{"mean": value, "inflation": 0.0, "variants": 1, "seeds": "0", "in_domain": None} for value in (0.3, 0.4)]
    has, same = telling(rows)
    assert has == set() and "same numbers" in same[0] and "seed 0" in same[1]
    rows[1] |= {"inflation": 0.02, "variants": 2, "seeds": "0, 1", "in_domain": 0.5}
    assert telling(rows) == ({"release", "variants", "seeds", "in_domain"}, [])


def test_settings_are_no_json_and_backticks_are_code():
    assert names.setting({"patience": 2, "gain": 0.002, "on": True}) == "gain 0.002, on yes, patience 2"
    assert names.setting([1, [2, 3]]) == "1, 2, 3" and names.setting(None) == "none"
    assert code("as `lora` and ``x``, <b>") == "as <code>lora</code> and <code>x</code>, &lt;b&gt;"
    assert "<script" not in code(f"`{EVIL}`")


def test_a_users_classes_have_the_colours_of_the_kept_pictures(site, store):
    (own,) = benchmark_views(site.analyses["demonstration"])
    wanted = tuple(cover.colour.lower() for cover in builtin_benchmarks()["mts12-n2s"].labels.classes)
    assert own.definition is None and own.colours == wanted[: len(own.classes)]


def test_without_any_colours_classes_can_still_be_told_apart(site):
    (own,) = benchmark_views(site.analyses["demonstration"])
    bare = own.__class__(*[getattr(own, name) for name in own.__dataclass_fields__ if name != "palette"])
    assert len(set(bare.colours)) == len(bare.classes) and not any(c[1:3] == c[3:5] == c[5:7] for c in bare.colours[:6])


def test_a_definition_counts_for_its_own_records_only(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "benchmarks")
    (definition,) = read_definitions([tmp_path])
    stored = [one for one in read_records([ROOT / "leaderboard/results/demonstration"]) if one.method == "majority"]
    analysis = analyse(make_boards(stored)["demonstration"])
    views = {one.id: one for one in benchmark_views(analysis, [definition])}
    assert views[definition.id].title == definition.title
    assert views[definition.id].colours == tuple(cover.colour for cover in definition.labels.classes)
    assert views["hls-worldcover-w2m"].definition is None
    text = (tmp_path / "benchmarks" / "hls-worldcover-m2w.yaml").read_text()
    (tmp_path / "benchmarks" / "hls-worldcover-m2w.yaml").write_text(text.replace("raw: [5]", "raw: [6]"))
    other = read_definitions([tmp_path])
    assert benchmark_digest(other[0].model_dump(mode="json")) != benchmark_digest(definition.model_dump(mode="json"))
    assert all(one.definition is None for one in benchmark_views(analysis, other))


def test_a_file_that_is_no_definition_is_named(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mine.yaml").write_text("id: mine\n")
    with pytest.raises(UserError, match=r"mine\.yaml"):
        read_definitions([tmp_path])


@pytest.mark.parametrize("name", ["id", "m2w", "w2m"])
def test_the_definitions_beside_the_results_are_those_of_the_docs(name):
    ours = read_benchmark(ROOT / f"leaderboard/benchmarks/hls-worldcover-{name}.yaml")
    assert ours == read_benchmark(ROOT / f"docs/examples/hls-worldcover-{name}.yaml")


def test_places_have_their_own_numbers(site, view):
    (benchmark,) = [one for one in view.benchmarks if one.id == "dfc2020-spring"]
    order = view.best_first(benchmark.id)
    table = place_table(view, benchmark, order)
    entry = site.analyses["reproduced"].scores[order[0]["row"]][benchmark.id]
    assert len(table) == entry.places and sum(line["share"] for line in table) == pytest.approx(1)
    first, counts = table[0], entry.counts[0]
    iou = [counts.right[0, k] / counts.union[0, k] for k in range(counts.right.shape[1]) if counts.union[0, k]]
    other = entry.counts[1]
    again = [other.right[0, k] / other.union[0, k] for k in range(other.right.shape[1]) if other.union[0, k]]
    assert first["best"] == pytest.approx((np.mean(iou) + np.mean(again)) / 2)
    assert first["low"] <= first["median"] <= first["high"]


def test_a_link_to_a_row_shows_it(open_page, site):
    row = site.analyses["reproduced"].rows["row"].iloc[2]
    page = open_page(site.url("reproduced/index.html") + f"#row-{row}")
    assert page.locator(f"#row-{row}").is_visible()
    page = open_page("reproduced/methods/lora.html")
    page.get_by_role("link", name="Back to the table of all rows").first.click()
    assert page.url.partition("#")[0].endswith("reproduced/index.html") and "#row-" in page.url


def test_columns_can_be_asked_for(open_page):
    page = open_page("reproduced/index.html")
    head = page.locator("#overview thead th", has_text="IQM")
    assert not head.is_visible()
    page.get_by_label("Columns").select_option("all")
    assert head.is_visible()


def test_two_predictions_are_swiped_by_keyboard(open_page):
    page = open_page("reproduced/benchmarks/dfc2020-spring.html")
    slider = page.get_by_label("Border")
    slider.focus()
    before = page.locator("#prediction-1").evaluate("image => getComputedStyle(image).clipPath")
    page.keyboard.press("ArrowRight")
    assert page.locator("#prediction-1").evaluate("image => getComputedStyle(image).clipPath") != before
    still = open_page("reproduced/benchmarks/dfc2020-spring.html", java_script_enabled=False)
    assert still.locator("#prediction-0").is_visible() and still.locator("#prediction-1").is_visible()


def test_the_first_page_on_a_phone(open_page):
    page = open_page("index.html", viewport={"width": 390, "height": 844})
    top = page.locator("header.top").bounding_box()
    assert top["height"] < 110, "one line of tabs, whatever their number"
    line = page.locator(".ladder tbody tr").first
    assert line.locator(".strip svg").bounding_box()["width"] > 300

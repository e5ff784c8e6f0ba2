"""The site in a real browser, opened from disk."""

from __future__ import annotations

import pytest
from shared import slow_but
from site_records import METHODS

from spectral_tl_bench.leaderboard.statistics.comparison import compare

PAGES = (
    "index.html", "reproduced/index.html", "reproduced/benchmarks/dfc2020-spring.html",
    "reproduced/benchmarks/mts12-n2s.html", "reproduced/methods/lora.html", "reproduced/cost.html",
    "reproduced/gaps.html", "reproduced/compare.html", "reproduced/methods/index.html",
    "reproduced/benchmarks/index.html", "reported/index.html", "sample/index.html", "sample/methods/evil.html",
    "demonstration/index.html",
)  # fmt: skip
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [.2126, .7152, .0722][n], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *:not(script):not(option)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest("svg, [hidden], .hidden, .skip, :disabled") || !element.checkVisibility()) continue;
    const a = light(rgb(getComputedStyle(element).color)), b = light(ground(element));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const name = `${element.tagName}.${element.className} ${element.textContent.slice(0, 20)}`;
    if (ratio < 4.5) poor.push(`${name} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def methods(page, table="overview"):
    """Names in the first column with a row heading, from the top."""
    return page.locator(f"#{table} tbody tr").evaluate_all(
        "rows => rows.map(r => r.querySelector('th').firstChild.textContent)"
    )


def column(page, name, table="overview"):
    """The numbers of a column, from the top; None where there is none."""
    return page.evaluate(
        """([table, name]) => {
          const t = document.getElementById(table);
          const n = [...t.tHead.rows[0].cells].findIndex((c) => c.textContent.replace(/\\W/g, "") === name);
          return [...t.tBodies[0].rows].map((r) => r.cells[n].dataset.v ? Number(r.cells[n].dataset.v) : null);
        }""",
        [table, name],
    )


def head(page, name, table="overview"):
    return page.locator(f"#{table} thead button", has_text=name).first


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", slow_but("dark".__eq__, ["light", "dark"]))
def test_pages_work_on_a_phone_in_both_schemes(open_page, path, scheme):
    page = open_page(path, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate(CONTRASTS) == []
    assert page.title().endswith("Spectral TL Bench") and page.title() != "bitten"


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_built_for_a_screen_reader(open_page, path):
    page = open_page(path)
    assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang") == "en"
    assert page.locator("main").count() == 1
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())"
    )
    assert page.evaluate("[...document.querySelectorAll('th')].every(t => ['col', 'row'].includes(t.scope))")
    assert page.evaluate("[...document.querySelectorAll('img')].every(i => i.alt)")
    assert page.evaluate("[...document.querySelectorAll('select, input')].every(f => f.labels.length)")
    assert page.evaluate(
        "[...document.querySelectorAll('a, button')].every(e => (e.getAttribute('aria-label') || e.textContent).trim())"
    )
    assert page.evaluate(
        "() => { const ids = [...document.querySelectorAll('[id]')].map(e => e.id);"
        " return new Set(ids).size === ids.length }"
    )


def test_sorting_by_mouse(open_page):
    page = open_page("reproduced/index.html")
    best_first = methods(page)
    assert best_first[0] == METHODS[0][0] and best_first[-1] == "majority class"
    head(page, "Mean").click()
    values = column(page, "Mean")
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True) and None in values and None not in values[: len(known)]
    head(page, "Mean").click()
    values = column(page, "Mean")
    assert values[: len(known)] == sorted(known), "rows without a number stay last"
    assert page.locator("#overview th[aria-sort=ascending]").count() == 1
    head(page, "Trainable").click()
    known = [value for value in column(page, "Trainable") if value is not None]
    assert known == sorted(known)
    head(page, "Method").click()
    assert methods(page) == sorted(methods(page))
    assert page.locator("#overview th[aria-sort]:not([aria-sort=none])").inner_text().startswith("Method")


def test_sorting_by_keyboard(open_page):
    page = open_page("reproduced/index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#overview thead button')"):
            break
    assert page.evaluate("document.activeElement.textContent") == "Rank"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert page.locator("#overview th[aria-sort=descending]").inner_text().startswith("Rank")
    ranks = [rank for rank in column(page, "Rank") if rank is not None]
    assert ranks == sorted(ranks, reverse=True)


def test_the_skip_link_leads_to_the_content(open_page):
    page = open_page("reproduced/index.html")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_filters(open_page):
    page = open_page("reproduced/index.html")
    everything = len(methods(page))
    page.get_by_label("Family").select_option("peft")
    assert set(methods(page)) == {"lora", "broken"}
    assert page.locator(".foot [role=status]").inner_text() == f"3 of {everything} rows"
    page.get_by_label("Search").fill("LORA rank 4")
    assert methods(page) == ["lora"]
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function(f"() => document.querySelectorAll('#overview tbody tr').length === {everything}")
    page.get_by_label("Trainable at most").fill("1")
    assert sorted(methods(page)) == ["broken", "frozen", "lora", "majority class"]
    page.get_by_label("Trainable at most").fill("")
    page.get_by_label("Backbone").select_option("vit-large")
    assert methods(page) == ["spectralx", "lora"]


def test_filters_of_columns_and_the_mean_of_what_is_shown(open_page, site):
    page = open_page("reproduced/index.html")
    assert page.locator("#overview thead th:visible", has_text="Mean of shown").count() == 0
    page.get_by_label("Dataset").select_option("MTS12")
    heads = page.locator("#overview thead th:visible").all_inner_texts()
    assert any("n2s" in text for text in heads) and not any("spring" in text for text in heads)
    cells = site.analyses["reproduced"].entries
    here = cells[(cells["benchmark"] == "mts12-n2s") & (cells["state"] == "completed")]
    shown = [value for value in column(page, "Meanofshown") if value is not None]
    assert sorted(shown) == pytest.approx(sorted(here["miou"]), abs=1e-6)
    page.get_by_label("Dataset").select_option("DFC2020")
    here = cells[(cells["benchmark"] == "dfc2020-spring") & (cells["state"] == "completed")]
    shown = [value for value in column(page, "Meanofshown") if value is not None]
    assert sorted(shown) == pytest.approx(sorted(here["miou"]), abs=1e-6), "a cell with fewer seeds does not count"
    page.get_by_label("Dataset").select_option("")
    page.get_by_label("Gap").select_option("season")
    assert not any("n2s" in text for text in page.locator("#overview thead th:visible").all_inner_texts())


def test_the_view_is_in_the_address(open_page, site):
    page = open_page("reproduced/index.html")
    page.get_by_label("Family").select_option("peft")
    head(page, "Trainable").click()
    page.wait_for_function("() => location.hash.includes('sort')")
    other = open_page(page.url)
    assert methods(other) == methods(page) and len(methods(other)) == 3
    assert other.locator("#overview th[aria-sort=ascending]").inner_text().startswith("Trainable")
    strange = open_page(site.url("reproduced/index.html") + "#family=%3Cimg%20src%3Dx%3E&sort=999d&q=%00&nothing=1")
    assert strange.title() != "bitten"


def test_what_stands_beside_the_numbers(open_page):
    page = open_page("reproduced/index.html")
    interval, spread = (
        page.locator("#overview td .ci:not(.none)").first,
        page.locator("#overview td .sd:not(.none)").first,
    )
    assert interval.is_visible() and not spread.is_visible()
    page.get_by_label("Beside the numbers").select_option("sd")
    assert spread.is_visible() and not interval.is_visible()
    page.get_by_label("Beside the numbers").select_option("no")
    assert not spread.is_visible() and not interval.is_visible()


NUMBERS = {
    "difference": "difference", "low": "low", "high": "high", "p": "p", "holm": "p_holm", "runsLow": "runs_low",
    "runsHigh": "runs_high", "runsP": "runs_p", "runsHolm": "runs_p_holm",
}  # fmt: skip
"""What the page computes, and what the command calls it."""


def test_the_comparison_has_the_numbers_of_the_command(open_page, site):
    for track in ("reproduced", "sample"):
        analysis = site.analyses[track]
        rows = list(analysis.rows["row"])
        page = open_page(f"{track}/compare.html")
        for first, second in [(a, b) for a in range(len(rows)) for b in range(a, len(rows))]:
            page.evaluate("for (const r of document.querySelectorAll('#t-compare tr')) delete r.dataset.places")
            page.evaluate("hash => { location.hash = hash }", f"a={rows[first]}&b={rows[second]}")
            page.wait_for_function("() => document.querySelector('#t-compare tfoot tr').dataset.places")
            found = page.locator("#t-compare tbody tr, #t-compare tfoot tr").evaluate_all(
                "rows => rows.map(r => ({...r.dataset}))"
            )
            wanted = compare(analysis, rows[first], rows[second]).to_dict("records")
            assert [line["benchmark"] or "all" for line in found] == [line["benchmark"] for line in wanted]
            for here, there in zip(found, wanted, strict=True):
                for name, key in NUMBERS.items():
                    assert float(here[name]) == pytest.approx(there[key], rel=1e-4, abs=1e-7, nan_ok=True), (
                        name,
                        there,
                    )
                assert int(here["places"]) == there["places"]
        assert page.locator("#compare-status").inner_text() in ("", "the same row twice")


def test_the_comparison_is_estimable_where_it_should_be(site):
    """The test above would pass with nothing but unknown numbers, or with none that a correction changes."""
    analysis = site.analyses["reproduced"]
    rows = list(analysis.rows["row"])
    lines = compare(analysis, rows[2], rows[3])
    assert lines["estimable"].all() and (lines["p"] > 1e-6).all()
    found = [compare(analysis, a, b)["runs_p"].notna() for a in rows for b in rows if a != b]
    assert any(each.all() for each in found) and any(not each.any() for each in found)  # two seeds in common, or one
    assert (lines["p_holm"] > lines["p"]).any() and (lines["p_holm"] == lines["p"]).any()
    seeds = {tuple(sorted(found["dfc2020-spring"].seeds)) for found in analysis.scores.values()}
    assert seeds == {(0,), (0, 1)}


def test_a_comparison_by_hand(open_page):
    page = open_page("reproduced/compare.html")
    page.locator("#row-b").select_option(label="lora, vit-base (random weights), rank 4")
    page.wait_for_function("() => location.hash.includes('b=')")
    page.wait_for_function("() => document.querySelector('#t-compare tfoot td').textContent")
    before = page.locator("#t-compare tfoot td").nth(2).inner_text()
    assert before.startswith("+")
    page.get_by_role("button", name="Swap A and B").click()
    page.wait_for_function(
        "() => document.querySelectorAll('#t-compare tfoot td')[2].textContent.startsWith('\\u2212')"
    )
    assert page.locator("#t-compare tfoot td").nth(2).inner_text()[1:] == before[1:]
    assert page.locator("#t-compare .range circle").count() == 3


def test_student_t_is_that_of_scipy(open_page):
    from scipy.stats import t

    page = open_page("reproduced/compare.html")
    for freedom, value in ((4.0, 0.3), (11.0, 2.2), (3.7, 40.0), (180.5, 1.96), (11.0, 8.0)):
        p = page.evaluate("([f, v]) => stbench.stats.twoSided(f, v)", [freedom, value])
        assert p == pytest.approx(2 * t.sf(value, freedom), rel=1e-9)
    for freedom in (4.0, 5.3, 60.0, 1000.0):
        assert page.evaluate("f => stbench.stats.quantile(f)", freedom) == pytest.approx(
            t.ppf(0.975, freedom), rel=1e-9
        )


def test_the_confusion_matrix_of_another_row(open_page, site):
    page = open_page("reproduced/benchmarks/mts12-n2s.html")
    before = page.locator("#t-confusion tbody").inner_text()
    choice = page.locator("#confused")
    first = choice.input_value()
    choice.select_option(index=2)
    page.wait_for_function("before => document.querySelector('#t-confusion tbody').innerText !== before", arg=before)
    shares = page.locator("#t-confusion tbody tr").first.locator("td").all_inner_texts()
    assert sum(map(int, shares)) == pytest.approx(100, abs=4)
    choice.select_option(first)
    page.wait_for_function("before => document.querySelector('#t-confusion tbody').innerText === before", arg=before)


def test_pictures_are_there_and_change(open_page):
    page = open_page("reproduced/benchmarks/dfc2020-spring.html")
    page.locator("#chips").scroll_into_view_if_needed()
    page.wait_for_function("() => [...document.images].every(i => i.complete && i.naturalWidth === 48)")
    source = page.locator("#prediction-0").get_attribute("src")
    page.locator("select[data-picture=prediction-0]").select_option(index=6)
    assert page.locator("#prediction-0").get_attribute("src") != source
    page.wait_for_function("() => document.getElementById('prediction-0').naturalWidth === 48")
    assert "frozen" in page.locator("#prediction-0").get_attribute("alt")


def test_the_matrix_of_source_and_target_follows_the_row(open_page, site):
    page = open_page("reproduced/gaps.html")
    analysis = site.analyses["reproduced"]
    row = analysis.rows["row"].iloc[2]
    page.locator("#gap-row").select_option(row)
    wanted = analysis.domains[(analysis.domains["row"] == row) & (analysis.domains["benchmark"] == "dfc2020-spring")]
    first = f"{100 * wanted['miou'].iloc[0]:.1f}"
    cell = f'tr[data-benchmark="dfc2020-spring"] [data-domain="{wanted["domain"].iloc[0]}"]'
    page.wait_for_function("([cell, text]) => document.querySelector(cell).textContent === text", arg=[cell, first])
    for domain, value in zip(wanted["domain"], wanted["miou"], strict=True):
        assert (
            page.locator(f'tr[data-benchmark="dfc2020-spring"] [data-domain="{domain}"]').inner_text()
            == f"{100 * value:.1f}"
        )


def test_points_tell_what_they_are(open_page):
    page = open_page("reproduced/cost.html")
    mark = page.locator("#parameters svg a").first
    mark.focus()
    told = page.locator("#parameters .told").inner_text()
    assert told == mark.get_attribute("aria-label") and "mean mIoU" in told
    assert page.locator("#parameters svg a").count() == page.locator("#time svg a").count() == 4


def test_the_theme_can_be_chosen_and_is_remembered(open_page, site):
    page = open_page("reproduced/index.html", color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.goto(site.url("reproduced/cost.html"))
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(ground) == light


def test_text_of_a_record_does_not_act(open_page):
    page = open_page("sample/methods/evil.html")
    for details in page.locator("details").all():
        details.locator("summary").click()
    assert page.title() != "bitten" and page.locator("main img").count() == 0
    assert "onerror" in page.locator("main").inner_text()
    page = open_page("sample/index.html")
    page.get_by_label("Family").select_option(index=1)
    page.get_by_label("Search").fill("<img")
    assert page.title() != "bitten"


def test_the_page_works_without_scripts(open_page):
    page = open_page("reproduced/index.html", java_script_enabled=False)
    assert page.locator("#overview tbody tr").count() == len(METHODS) + 1

"""Names, numbers as text, colour steps, labels, maps and plots."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.leaderboard.site import names
from spectral_tl_bench.leaderboard.site.charts import scatter
from spectral_tl_bench.leaderboard.site.labels import LETTER, Labels
from spectral_tl_bench.leaderboard.site.maps import draw_map
from spectral_tl_bench.leaderboard.site.method import summary
from spectral_tl_bench.leaderboard.site.pages import packed, shares
from spectral_tl_bench.leaderboard.site.scales import heat, top_of
from spectral_tl_bench.leaderboard.site.variants import variants
from spectral_tl_bench.leaderboard.site.view import BenchmarkView, View


def test_safe_names_stay_and_all_others_differ():
    assert names.slug("mts12-n2s") == "mts12-n2s"
    assert names.slug("con") != "con" and names.slug("index") != "index", "not a file name everywhere, or ours"
    texts = [
        "LoRA",
        "Lora",
        "lora@x",
        "lora+x",
        "lora.x",
        "lora_x",
        "con",
        "index",
        "..",
        "../x",
        "",
        "a" * 60,
        "<b>",
        "é",
    ]
    found = [names.slug(text) for text in texts]
    assert len({*found, "lora", "mts12-n2s"}) == len(texts) + 2
    assert all(name.strip("abcdefghijklmnopqrstuvwxyz0123456789-") == "" and name[0] != "-" for name in found)


def test_json_in_a_script_is_json_and_no_markup():
    value = {"</script>": ["<!--", "&amp;", "\u2028\u2029", "é", 0.1, None]}
    text = names.script_json(value)
    assert json.loads(text) == value
    assert text.isascii() and not set(text) & set("<>&")
    with pytest.raises(ValueError):
        names.script_json(float("nan"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (940, "940"),
        (1_000, "1 k"),
        (12_345, "12.3 k"),
        (999_499, "999 k"),
        (999_600, "1 M"),
        (4_560_000, "4.56 M"),
        (None, "–"),
    ],
)
def test_counts(value, text):
    assert names.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(4.21, "4.21 s"), (59, "59 s"), (60, "1 min"), (754, "12.6 min"), (7200, "2 h"), (None, "–")]
)
def test_times(value, text):
    assert names.seconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.1234, "+12.34"), (-0.1234, "−12.34"), (-0.00001, "0.00"), (None, "–")])
def test_differences(value, text):
    assert names.signed(value) == text


@pytest.mark.parametrize(("value", "text"), [(54.0, "54.0"), (12.36, "12.36"), (-36.9, "−36.9")])
def test_printed_numbers_keep_their_digits(value, text):
    assert names.printed(value) == text


def test_tracks_have_an_order_and_unknown_ones_are_named():
    found = ["sample", "reported", "demonstration", "reproduced-unlabelled-target", "strange", "reproduced"]
    ordered = sorted(map(names.track_of, found), key=lambda track: (track.order, track.name))
    assert [track.name for track in ordered] == [
        "reproduced",
        "reproduced-unlabelled-target",
        "demonstration",
        "sample",
        "reported",
        "strange",
    ]
    assert ordered[-1].title == "Strange" and ordered[-1].warning


def test_colour_steps_cover_the_scale():
    assert [heat(value, 0.5) for value in (None, 0.0, 0.049, 0.05, 0.5, 0.9)] == ["", "h0", "h0", "h1", "h9", "h9"]
    assert top_of([0.61, None]) == pytest.approx(0.65) and top_of([]) == 1.0 and top_of([0.0]) == 0.05


def test_labels_do_not_cover_each_other_or_leave_the_frame():
    labels = Labels((0, 0, 200, 100), [(100, 50)] * 3)
    boxes = []
    for text in ("first", "second", "third"):
        x, y, anchor = labels.place(100, 50, text)
        width = LETTER * len(text)
        left = x if anchor == "start" else x - width
        boxes.append((left, y - 10, left + width, y))
    assert all(box[0] >= 0 and box[2] <= 200 for box in boxes)
    for first in range(3):
        for second in range(first):
            a, b = boxes[first], boxes[second]
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]
    assert Labels((0, 0, 20, 10), []).place(10, 5, "too long for it", must=False) is None


def view_of(name: str) -> BenchmarkView:
    one = builtin_benchmarks()[name]
    return BenchmarkView(one.id, one.version, one.dataset, one.gap, one.labels.names, one.source, one.target, one)


@pytest.mark.parametrize("name", sorted(builtin_benchmarks()))
def test_domains_lie_on_the_map_where_they_are(name):
    benchmark = view_of(name)
    found = draw_map(benchmark)
    if name == "whuohs-id":  # its one domain is all cities, which has no geometry
        assert found is None
        return
    x, y, width, height = found["frame"]
    assert {place["domain"] for place in found["places"]} == {*benchmark.source, *benchmark.target}
    assert all(x <= place["x"] <= x + width and y <= place["y"] <= y + height for place in found["places"])
    assert 2 <= len(found["meridians"]) <= 8 and 2 <= len(found["parallels"]) <= 6
    assert found["height"] <= 520
    known = {domain.id: domain.lon_lat for domain in benchmark.definition.domains}
    if all(not place["path"] for place in found["places"]):
        for axis, sign, ordered in ((0, 1, lambda p: p["x"]), (1, -1, lambda p: p["y"])):
            places = sorted(found["places"], key=ordered)
            values = [sign * known[place["domain"]][axis] for place in places]
            assert values == sorted(values)
    sides = {place["domain"]: place["side"] for place in found["places"]}
    assert set(sides.values()) == ({"both"} if benchmark.reference else {"source", "target"})


def test_labels_of_domains_are_short():
    assert "Mumbai" in {place["label"] for place in draw_map(view_of("dfc2020-spring"))["places"]}
    assert {"S1 Changchun", "T8 Tangshan"} <= {place["label"] for place in draw_map(view_of("whuohs-s2t"))["places"]}


def test_graticule_is_where_the_degrees_say():
    found = draw_map(view_of("whuohs-s2t"))
    (x0, first), (x1, second) = found["meridians"][:2]
    per_degree = (x1 - x0) / (float(second.split("°")[0]) - float(first.split("°")[0]))
    city = next(place for place in found["places"] if place["domain"] == "S1")
    assert x0 + per_degree * (125.32 - float(first.split("°")[0])) == pytest.approx(city["x"], abs=0.2)


def test_shares_are_of_the_true_class():
    assert shares(np.array([[3, 1], [0, 0]])) == [[0.75, 0.25], [None, None]]


def test_packed_numbers_come_back():
    values = np.array([0.25, np.nan, -1e-3])
    back = np.frombuffer(base64.b64decode(packed(values)), dtype="<f4")
    np.testing.assert_allclose(back, values, rtol=1e-7)


def test_a_method_of_the_suite_is_described_and_a_stranger_is_not():
    assert "adaptation" in summary("lora+vrex") and summary("spectralx@hypert")
    assert summary("no-such-method") == "" and summary("<b>") == ""


def test_points_stand_where_their_numbers_are(analyses):
    view = View("reproduced", analyses["reproduced"])
    found = scatter(view, "trainable_max", "parameters", names.count)
    drawn = {point["row"]["label"]: point for point in found["points"]}
    assert len(drawn) == 4  # of six rows two are not complete
    by_cost = sorted((point["row"]["trainable_max"], point["x"]) for point in drawn.values())
    assert by_cost[0] == (0, found["zero"]) and [x for _, x in by_cost] == sorted(x for _, x in by_cost)
    by_mean = sorted((point["row"]["mean"], -point["y"]) for point in drawn.values())
    assert [y for _, y in by_mean] == sorted(y for _, y in by_mean)
    decades = {text: x for x, text in found["x_ticks"]}
    assert drawn["lora, vit-base (random weights), rank 4"]["x"] == pytest.approx(
        decades["1 M"] - (decades["10 M"] - decades["1 M"]) * 0.0969, abs=0.3
    )
    assert all(point["low"] >= point["y"] >= point["high"] for point in found["points"] if point["low"] is not None)
    for point in found["points"]:  # the words give the whisker's interval, not that over seeds
        low, high = (point["row"][f"mean_places_{end}"] for end in ("low", "high"))
        told = f"({100 * low:.2f} to {100 * high:.2f} over places)" if low is not None else "(no"
        assert (told in point["words"]) == (low is not None)
    assert any(point["low"] is not None for point in found["points"])


def test_rows_of_one_method_are_told_apart(analyses):
    view = View("reproduced", analyses["reproduced"])
    labels = [row["label"] for row in view.rows]
    assert len(set(labels)) == len(labels)
    loras = {"lora, vit-large (random weights)", "lora, vit-base (random weights), rank 4"}
    assert loras | {"unet"} <= set(labels)


def _like(**facts):
    settings = {"budget": {"steps": 600}, "window": 64}
    common = {"method": "own", "backbone": "vit-base", "pretrained": "mae", "patch_embedding": "rgb, input scale 1.75"}
    return common | {"protocol": "strict", "options": {}, "settings": settings} | facts


def test_a_row_is_named_by_what_is_unusual_about_it():
    whole = {"adapter": True, "rank": 16, "scale": None}
    rows = [
        _like(options=whole),
        _like(options=whole | {"adapter": False}),
        _like(options=whole | {"scale": 0.1}),
        _like(options=whole, patch_embedding="wavelength, input scale 1.75"),
        _like(options=whole, pretrained="none"),
        _like(options=whole, backbone="galileo", pretrained="galileo", patch_embedding="own-groups, input scale 2.0"),
    ]
    assert variants(rows) == ["", "adapter no", "scale 0.1", "patch embedding wavelength", "", ""]


def test_what_tells_a_row_from_its_like_comes_first_and_is_never_cut_off():
    usual = {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}
    rows = [*[_like(options=usual)] * 3, _like(options=dict.fromkeys("abcde", 2)),
            _like(options=dict.fromkeys("abcd", 2) | {"e": 3})]  # fmt: skip
    assert variants(rows)[3:] == ["e 2, a 2, b 2, …", "e 3, a 2, b 2, …"]
    pairs = [_like(options=usual | dict.fromkeys(names, 2)) for names in ("", "ab", "ac", "bc", "abc")]
    assert len(set(variants(pairs))) == 5
    assert variants([_like(options={"a": 1}), _like(options={"a": 2})]) == ["a 1", "a 2"], "neither is usual"


def test_rows_of_which_one_lacks_a_property_are_told_apart():
    plateau = {"plateau": {"gain": 0.002, "patience": 2}}
    rows = [_like(settings={"budget": {"steps": 600, **more}}) for more in ({}, plateau, {"plateau": None})]
    assert variants(rows) == ["", "plateau gain 0.002, plateau patience 2", "plateau none"]
    assert variants(rows[:2]) == ["no plateau gain, no plateau patience", "plateau gain 0.002, plateau patience 2"]
    usual = _like(options={"rank": 4})
    assert variants([usual, usual, _like()]) == ["", "", "no rank"]

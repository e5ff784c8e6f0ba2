"""Showing one record: found by path or fingerprint, verified first, its text printed as it stands."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from spectral_tl_bench.errors import RecordError
from spectral_tl_bench.evaluation.metrics import released_from_strict
from spectral_tl_bench.leaderboard.show import show
from spectral_tl_bench.results.finding import find_record
from spectral_tl_bench.results.store import load_evidence, read_record


def shown(record, width=200):
    stream = io.StringIO()
    show(record, Console(file=stream, width=width, force_terminal=True, markup=False, highlight=False, emoji=False))
    return stream.getvalue()


def words(text):
    """Printed lines without the codes of the terminal's own styles."""
    lines = text.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()
    return [" ".join(line.split()) for line in lines]


def test_it_says_everything(store):
    record = store(environment={"torch": "2.4", "python": "3.11"})
    lines = words(shown(record))
    scores = record.scores.selected
    assert f"fingerprint {record.fingerprint}" in lines and "seed 0" in lines
    assert any(line.startswith(f"selected {100 * scores.miou:.2f} {100 * scores.oa:.2f}") for line in lines)
    for domain, value in scores.per_domain.items():
        assert any(line.startswith(f"{domain} {100 * value:.2f}") for line in lines)
    for name, value in zip(record.classes, scores.iou, strict=True):
        assert any(line.startswith(f"{name} {100 * value:.2f}") for line in lines)
    assert "5 50.00 selected" in lines and "10 –" in lines  # the trace
    assert "parameters 100 of 1,000 trained" in lines and "torch 2.4" in lines
    assert "segment 10 1.5 100 {}" in lines
    assert any("computed again from evidence-" in line and "3 places" in line for line in lines)


def test_the_decoder_is_told_apart_where_it_was_counted(store):
    record = store(parameters={"total": 1000, "trainable": 100, "decoder": 64})
    assert "parameters 100 of 1,000 trained, 64 of them in the decoder" in words(shown(record))


def test_both_metrics_stand_side_by_side_with_their_difference(store):
    record = store()
    lines = words(shown(record))
    matrix = load_evidence(record).matrices["selected"].sum(axis=0)
    ours, release = record.scores.selected, released_from_strict(matrix)
    assert release.miou > ours.miou and release.oa > ours.oa
    for name, strict, theirs in (("mIoU", ours.miou, release.miou), ("OA", ours.oa, release.oa)):
        wanted = f"selected {name}, % {100 * strict:.2f} {100 * theirs:.2f} {100 * (theirs - strict):+.2f}"
        assert wanted in lines
    difference = f"{release.kappa - ours.kappa:+.3f}"
    assert f"selected kappa {ours.kappa:.3f} {release.kappa:.3f} {difference}" in lines
    assert "never below the mIoU here" in " ".join(lines)


def test_the_trace_of_the_release_is_explained_and_that_of_others_is_not(store):
    trace = {"step": 10, "value": 0.6, "metric": "target mIoU as the release prints it", "trace": [[5, 0.4], [10, 0.6]]}
    lines = words(shown(store(protocol="as-published", selection=trace, fingerprint="ab" * 32)))
    text = " ".join(lines)
    assert "never reset" in text and "Not comparable with the strict boards" in text
    assert "step printed by the release, %" in lines and "10 60.00 selected" in lines
    other = words(shown(store(method="full")))
    assert "step validation mIoU, %" in other and "never reset" not in " ".join(other)


def test_nothing_is_shown_of_a_record_whose_evidence_says_otherwise(store):
    record = store()
    value = json.loads(record.path.read_text())
    value["scores"]["selected"]["miou"] = 0.99
    record.path.write_text(json.dumps(value))
    stream = io.StringIO()
    with pytest.raises(RecordError, match=r"scores\.selected\.miou"):
        show(read_record(record.path), Console(file=stream))
    assert stream.getvalue() == ""


def test_text_is_neither_markup_nor_terminal_code(store, fail):
    evil = "[bold red]x[/] :smile: \x1b[31mred\x07 \u202eback [link=http://e]y[/link]"
    for record in (store(environment={evil: evil}, device=evil), fail(message=evil, method="full")):
        text = shown(record)
        assert "[bold red]x[/] :smile: " in text and "[link=http://e]y[/link]" in text
        assert "\x1b[31m" not in text and "\x07" not in text and "\u202e" not in text


def test_failed_records_show_why(fail):
    lines = words(shown(fail(message="out of memory")))
    assert "message out of memory" in lines and "status failed" in lines


def test_synthetic_scenes_and_target_images_are_said(store):
    record = store(track="sample", target_images=True, backbone=None)
    text = " ".join(words(shown(record)))
    assert "Synthetic scenes" in text and "not a result on real data" in text and "given the target's images" in text
    assert "backbone none" in text


def test_long_values_are_folded_not_cut(store):
    record = store(options={"note": "w" * 500})
    assert "".join(words(shown(record, width=60))).count("w") >= 500


def test_found_by_path_folder_and_fingerprint(store, tmp_path):
    record, other = store(), store(method="full")
    root = tmp_path / "store"
    for name in (str(record.path), str(record.path.parent), record.fingerprint, record.fingerprint[:12]):
        assert find_record(name, [root]) == record
    assert find_record(other.fingerprint[:16], [root]) == other
    with pytest.raises(RecordError, match="no fingerprint begins with"):
        find_record(record.fingerprint[:16] + ("0" if record.fingerprint[16] != "0" else "1"), [root])
    for name in ("abc", "*", "../*", "zzzz", "nowhere/record.json"):
        with pytest.raises(RecordError, match="there is no record"):
            find_record(name, [root])


def test_a_prefix_of_several(store, tmp_path):
    records = [store(method=name, fingerprint=f"abcd{number}" + "0" * 59) for number, name in enumerate("xy")]
    with pytest.raises(RecordError, match="2 records") as caught:
        find_record("abcd", [tmp_path / "store"])
    assert all(str(record.path) in str(caught.value) for record in records)

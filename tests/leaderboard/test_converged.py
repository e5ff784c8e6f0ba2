"""Rows whose runs ran out of steps before source validation stopped gaining: every format says so."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.latex import latex
from spectral_tl_bench.leaderboard.markdown import markdown
from spectral_tl_bench.leaderboard.show import show
from spectral_tl_bench.leaderboard.site import write_site
from spectral_tl_bench.results.schema import Selection

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}


def ended(converged: bool) -> dict[str, object]:
    ending = {"converged": converged, "step": 30, "plateaus": [20, 30] if converged else [20]}
    trace = [[10, 0.4], [20, 0.4], [30, 0.4]]
    return {"selection": {"step": 10, "value": 0.4, "trace": trace, "convergence": ending}}


@pytest.fixture
def board(store):
    """One method of whose four runs one did not converge, one of which all did, and one with a number of steps."""
    records = [
        store(quality, method=method, seed=seed, **benchmark, **selection)
        for seed in (0, 1)
        for benchmark in ({}, SPRING)
        for method, quality, selection in (
            ("short", 0.8, ended(converged=bool(seed or benchmark))),
            ("long", 0.6, ended(converged=True)),
            ("fixed", 0.4, {}),
        )
    ]
    return make_boards(records)["reproduced"]


def test_rows_that_did_not_converge_are_marked_in_all_formats(board, tmp_path):
    marks = dict(zip(board.rows["method"], board.rows["unconverged"], strict=True))
    assert marks["short"] == "1 of 4 not converged"
    assert {mark for method, mark in marks.items() if method != "short"} == {""}
    analysis = analyse(board)
    text = markdown(analysis)
    assert "short (1 of 4 not converged)" in text and text.count("not converged") == 1
    table = latex(analysis)
    assert table.count(r"\textsuperscript{$\dagger$}") == 1 and r"short\textsuperscript{$\dagger$}" in table
    assert "Dagger: some runs" in table
    write_site({"reproduced": analysis}, None, tmp_path / "site")
    overview = (tmp_path / "site" / "reproduced" / "index.html").read_text()
    assert overview.count("1 of 4 not converged</abbr>") == 1


def test_show_says_whether_it_converged(store, capsys):
    for seed, converged in enumerate((True, False)):
        show(store(seed=seed, **ended(converged)))
        shown = " ".join(capsys.readouterr().out.split())
        assert f"converged {'yes' if converged else 'no, out of steps'}, after step 30" in shown
        assert f"plateaus at step 20{', 30' if converged else ''} " in shown
    show(store(seed=2))
    assert "converged" not in capsys.readouterr().out


def test_a_record_of_a_number_of_steps_has_the_bytes_it_had(store):
    record = store()
    assert "convergence" not in json.loads(record.path.read_text())["selection"]
    with pytest.raises(ValidationError, match="plateaus"):
        Selection.model_validate(
            {"step": 1, "value": 0.5, "convergence": {"converged": True, "step": 1, "plateaus": [-1]}}
        )

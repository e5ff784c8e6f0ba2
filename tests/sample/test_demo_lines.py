"""The closing lines of `make demo` say what the table says."""

from __future__ import annotations

import runpy
from pathlib import Path

LINES = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "demo_lines.py"))["lines"]
HEAD = "benchmark,method,status,selected_miou,selected_value"


def test_methods_come_in_their_order_with_what_the_best_has_at_home(tmp_path):
    table = tmp_path / "board.csv"
    rows = ["a,floor,completed,.1,.2", "b,floor,completed,.2,.2", "a,net,completed,.3,.5", "b,net,completed,.5,.7"]
    rows += ["a,majority class,completed,.9,", "b,majority class,completed,.9,"]
    table.write_text("\n".join([HEAD, *rows, "b,broken,failed,,"]))
    first, second = LINES(table)
    assert "over 2 benchmarks" in first and first.endswith("net 40.00 %, floor 15.00 %.")
    assert "net has 60.00 %" in second and "Invented" in second


def test_nothing_finished_is_said(tmp_path):
    table = tmp_path / "board.csv"
    table.write_text(HEAD + "\na,net,failed,,\n")
    assert "no finished run" in LINES(table)[0]

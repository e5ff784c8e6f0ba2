"""LaTeX tables: they have the form that LaTeX asks for, whatever the records say, and mark the right numbers."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from spectral_tl_bench.leaderboard.analysis import analyse
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.latex import escape, latex, reported_latex
from spectral_tl_bench.leaderboard.reported import read_reported, reported_folder

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}
EVIL = "a&b\\\\[2em] {x}_y^z #1 $m$ ~100% \\input{/etc/passwd} <|> \"q\" 'r' `s` -- --- ß Ω 水 😀 [*"


def tex_of(records):
    return latex(analyse(make_boards(records)["reproduced"]))


def body(text):
    """The rows of every table of a file, as lists of cells, head first."""
    found = []
    for match in re.finditer(r"\\toprule\n(.*?)\n\\bottomrule", text, re.DOTALL):
        lines = [line for line in match[1].splitlines() if line != r"\midrule"]
        assert all(line.endswith(r" \\") for line in lines)
        found.append([re.split(r"(?<!\\)&", line.removesuffix(r" \\")) for line in lines])
    return found


def check_syntax(text):
    """Braces and environments are balanced, rows fit the columns, nothing special is left bare."""
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[\\{}$&#%_]", "", code)
    depth = 0
    for mark in bare:
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0
    assert depth == 0 and bare.count("$") % 2 == 0
    assert not re.search(r"[#%~]", bare)
    assert "_" not in bare and "^" not in re.sub(r"\$[^$]*\$", "", bare)
    opened = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", code):
        if what == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    columns = re.findall(r"\\begin\{tabular\}\{([lrc]+)\}", code)
    tables = body(text)
    assert len(columns) == len(tables) > 0
    for wanted, rows in zip(columns, tables, strict=True):
        assert {len(row) for row in rows} == {len(wanted)}
    allowed = {
        "begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "textbf", "underline",
        "textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar", "char",
        "textendash", "textemdash", "ldots", "pm", "to", "times", "ge", "le", "mu", "circ", "textsuperscript",
    }  # fmt: skip
    assert set(re.findall(r"(?<!\\)(?:\\\\)*\\([A-Za-z]+)", code)) <= allowed


def test_syntax_of_a_board_with_everything(store, fail):
    records = [
        *[store(q, method=m, seed=s, **b) for m, q in (("a", 0.8), ("b", 0.4)) for s in (0, 1) for b in ({}, SPRING)],
        *[store(method="c", seed=s) for s in (0, 1)],
        store(method="c", seed=0, **SPRING),
        fail(method="d", message=EVIL),
        store(method="e"),
        store(method="a", seed=0, benchmark="mts12-id", gap="none"),
    ]
    text = tex_of(records)
    check_syntax(text)
    (rows,) = body(text)
    cells = {row[1].strip(): [cell.strip() for cell in row] for row in rows}
    assert "failed" in cells["d"] and any("textsuperscript{i}" in cell for cell in cells["c"])
    assert cells["e"][0] == "--" and "Protocol: strict." in text
    assert "track: reproduced" in text and "mIoU in per cent" in text


def test_best_is_bold_and_second_underlined_among_ranked_rows_only(store):
    records = [
        store(quality, method=method, **benchmark)
        for method, quality in (("first", 0.8), ("second", 0.5), ("third", 0.3))
        for benchmark in ({}, SPRING)
    ]
    (rows,) = body(tex_of([*records, store(0.95, method="unranked")]))
    cells = {row[1].strip(): [cell.strip() for cell in row] for row in rows}
    numbers = slice(4, 7)
    assert all(re.fullmatch(r"\\textbf\{\d+\.\d\d\}", cell) for cell in cells["first"][numbers])
    assert all(re.fullmatch(r"\\underline\{\d+\.\d\d\}", cell) for cell in cells["second"][numbers])
    assert all(re.fullmatch(r"\d+\.\d\d", cell) for cell in cells["third"][numbers])
    assert cells["unranked"][0] == "--" and not any("text" in cell or "under" in cell for cell in cells["unranked"][4:])
    best = max(float(re.search(r"\d+\.\d\d", cells[name][5])[0]) for name in ("first", "second", "third"))
    assert float(re.search(r"\d+\.\d\d", cells["unranked"][5])[0]) > best  # better than the best, and still not marked


def test_the_marks_follow_the_numbers_of_a_column_not_the_rank(store):
    one = {"first": (0.9, 0.4), "second": (0.3, 0.8)}
    records = [
        store(quality, method=method, **benchmark)
        for method, both in one.items()
        for quality, benchmark in zip(both, ({}, SPRING), strict=True)
    ]
    (rows,) = body(tex_of(records))
    cells = {row[1].strip(): row for row in rows}
    assert "textbf" in cells["second"][4] and "underline" in cells["first"][4]  # dfc2020-spring
    assert "textbf" in cells["first"][5] and "underline" in cells["second"][5]  # mts12-n2s


def test_equal_numbers_are_all_best(store, frame):
    given = frame(3)
    (rows,) = body(tex_of([store(evidence=given, method=method) for method in ("a", "b")] + [store(0.0, method="c")]))
    marks = {row[1].strip(): "textbf" in row[4] for row in rows[1:4]}
    assert marks == {"a": True, "b": True, "c": False}


def test_escape():
    assert escape("50 % & a_b {c}") == r"50 \% \& a\_b \{c\}"
    assert escape("\\x\n~^") == r"\textbackslash{}x \textasciitilde{}\textasciicircum{}"
    assert escape("a--b---c") == "a-{-}b-{-}-c"  # neither becomes a dash
    assert escape("Größe, µm ±1, Ω, 水") == r"Größe, $\mu$m $\pm$1, ?, ?"
    assert escape("[1em]*") == "{[}1em{]}{*}"


def test_whatever_a_record_is_called(store):
    records = [store(dataset=EVIL), store(method="other", track="sample", statement=EVIL)]
    check_syntax(tex_of(records))
    check_syntax("\\begin{tabular}{l}\n\\toprule\n" + escape(EVIL) + " \\\\\n\\bottomrule\n\\end{tabular}")


def test_reported_tables():
    check_syntax(reported_latex(read_reported(reported_folder())))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(store, tmp_path):
    (tmp_path / "a.tex").write_text(
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}\\begin{document}\n"
        + tex_of([store(), store(method="full")]) + escape(EVIL) + "\n\\end{document}\n"
    )  # fmt: skip
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"], cwd=tmp_path, check=False
    )
    assert done.returncode == 0


def test_rows_that_look_alike_are_told_apart(store):
    short = [store(0.8, method=method, seed=0) for method in "ab"]
    (head, *_), *_ = body(tex_of(short))
    assert "Configuration" not in "".join(head) and "Seeds" not in "".join(head) and "Seeds: 0." in tex_of(short)
    settings = {"window": 64, "stride": 32, "steps": 45_000}
    long = [store(0.9, method="a", seed=s, settings=settings, fingerprint=f"{s}" * 32) for s in (0, 1)]
    text = tex_of([*short, *long])
    check_syntax(text)
    assert "steps is 10 or 45000" in text
    (rows,) = body(text)
    names = [cell.strip() for cell in rows[0]]
    same = [dict(zip(names, map(str.strip, row), strict=True)) for row in rows[1:] if row[1].strip() == "a"]
    assert {row["Seeds"] for row in same} == {"0", "0, 1"} and len({row["Configuration"] for row in same}) == 2

"""Numbers of papers: as printed, every doubt found by counting again, never on a board with measured ones."""

from __future__ import annotations

import csv
import math
from typing import Any

import pandas as pd
import pytest

from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.leaderboard.latex import reported_latex
from spectral_tl_bench.leaderboard.markdown import reported_markdown
from spectral_tl_bench.leaderboard.reported import COLUMNS, DROP, IOU, MEAN, MIOU, read_reported, reported_folder

LINE = {
    "dataset": "MTS12",
    "setting": "N->S",
    "benchmark": "mts12-n2s",
    "reference": "A paper",
    "method": "m",
    "backbone": "b",
    "trainable_params_m": "1.5",
    "metric": MIOU,
    "class": MEAN,
    "value": "40.0",
    "source_table": "Table 1",
    "doubt": "",
}


ROUNDING = 0.05  # half of the last digit of numbers that are printed with one decimal
SLACK = 1e-6


def recomputed_doubts(frame: pd.DataFrame) -> list[str]:
    """Find what contradicts itself in print, beyond the rounding of the printed digits.

    Three checks: a printed mIoU against the mean of the class IoUs printed with it; a printed drop against the two
    printed mIoUs it is the difference of; the same quantity in two tables of one reference.
    """
    printed: dict[Any, dict[str, float]] = {}  # mIoU of a method on a benchmark by table
    for line in frame[frame["metric"] == MIOU].to_dict("records"):
        printed.setdefault((*_method(line), line["benchmark"]), {})[line["source_table"]] = line["value"]
    iou = frame[frame["metric"] == IOU].groupby(["reference", "method", "backbone", "benchmark", "source_table"])
    classes = {key: (math.fsum(values) / len(values), len(values)) for key, values in iou["value"]}
    return [_doubt(line, classes, printed) for line in frame.to_dict("records")]


def _doubt(line: dict[Any, Any], classes: dict[Any, Any], printed: dict[Any, dict[str, float]]) -> str:
    value, table, doubts = line["value"], line["source_table"], []
    place = (*_method(line), line["benchmark"])
    mine = printed.get(place, {})
    if line["metric"] == MIOU:
        average, count = classes.get((*place, table), (value, 0))
        if abs(average - value) > 2 * ROUNDING + SLACK:
            doubts.append(f"printed {value:g}; the {count} class IoUs printed with it average {average:.1f}")
        doubts += [
            f"printed {value:g}; {other} prints {same:g} for the same"
            for other, same in mine.items()
            if other != table and abs(same - value) > 2 * ROUNDING + SLACK
        ]
    source = printed.get((*_method(line), f"{line['benchmark'].split('-', maxsplit=1)[0]}-id"), {})
    if line["metric"] == DROP and table in mine and table in source:
        difference = mine[table] - source[table]
        if abs(difference - value) > ROUNDING + 2 * ROUNDING / 10 + SLACK:  # two decimals in the mIoUs
            doubts.append(f"printed {value:g}; the printed mIoUs differ by {difference:.2f}")
    return "; ".join(doubts)


def _method(line: dict[Any, Any]) -> tuple[str, str, str]:
    return line["reference"], line["method"], line["backbone"]


@pytest.fixture
def write(tmp_path):
    """Writes lines that differ from LINE as told and gives the folder."""

    def to_folder(*changes, columns=COLUMNS):
        with (tmp_path / "paper.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({**LINE, **change} for change in changes)
        return tmp_path

    return to_folder


@pytest.fixture(scope="module")
def paper():
    return read_reported(reported_folder())


def test_the_doubts_are_exactly_those_that_counting_again_finds(paper):
    assert paper["doubt"].tolist() == recomputed_doubts(paper)
    doubtful = paper[paper["doubt"] != ""]
    known = {(line["source_table"], line["method"], line["backbone"], line["benchmark"])
             for line in doubtful.to_dict("records")}  # fmt: skip
    assert ("Table V", "DSTC", "PVTv2-B1", "whuohs-id") in known
    assert ("Table VI", "Full fine-tuning", "ViT-L SpectralGPT+", "dfc2020-id") in known
    assert ("Table I", "Full fine-tuning", "ViT-L HyperSIGMA", "whuohs-t2s") in known


def test_every_number_belongs_to_a_benchmark_of_ours_and_its_classes(paper):
    ours = builtin_benchmarks()
    for (benchmark, dataset), part in paper.groupby(["benchmark", "dataset"]):
        assert ours[benchmark].dataset == dataset
        names = {cover.name for cover in ours[benchmark].labels.classes}
        classes = set(part.loc[part["metric"] == IOU, "class"])
        assert not classes or classes == names
    assert set(paper["benchmark"]) == set(ours)


def test_directions(paper):
    settings = dict(zip(paper["setting"] + " " + paper["dataset"], paper["benchmark"], strict=True))
    assert settings["WS->WD WHU-OHS"] == "whuohs-s2t" and settings["WD->WS WHU-OHS"] == "whuohs-t2s"
    assert settings["N->S MTS12"] == "mts12-n2s" and settings["S->N MTS12"] == "mts12-s2n"
    assert settings["Aut->S,S,W DFC2020"] == "dfc2020-autumn"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "much"}, "value 'much'"),
        ({"value": "nan"}, "value 'nan'"),
        ({"value": "101"}, "value 101"),
        ({"value": "-1"}, "value -1"),
        ({"metric": "OA"}, "metric 'OA'"),
        ({"metric": IOU}, "class 'mean'"),
        ({"class": "Forest"}, "class 'Forest'"),
        ({"benchmark": " "}, "benchmark is empty"),
        ({"trainable_params_m": "-2"}, "trainable_params_m -2"),
        ({"trainable_params_m": "1,5"}, "trainable_params_m '1,5'"),
    ],
)
def test_wrong_lines_are_named(write, change, message):
    with pytest.raises(UserError, match=message) as caught:
        read_reported(write({"setting": "first"}, change))
    assert "paper.csv, line 3" in str(caught.value)


def test_repeated_lines_and_other_columns_are_refused(write):
    with pytest.raises(UserError, match="given twice, first in line 2"):
        read_reported(write({}, {"value": "41"}))
    with pytest.raises(UserError, match="the columns are dataset, value"):
        read_reported(write({}, columns=("dataset", "value")))


def test_an_empty_folder_has_no_lines(tmp_path):
    frame = read_reported(tmp_path)
    assert len(frame) == 0 and list(frame.columns) == list(COLUMNS)


def test_markdown_shows_every_printed_miou_and_every_doubt(paper):
    text = reported_markdown(paper)
    assert "never ranked" in " ".join(text.split()) and "Rank" not in text
    assert text.count("\n### ") == paper["dataset"].nunique()
    for doubt in set(paper.loc[paper["doubt"] != "", "doubt"]):
        assert doubt in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for line in paper[paper["metric"] == MIOU].to_dict("records"):
        wanted = [row for row in rows if f"| {line['method']} | {line['backbone']} |" in row
                  and f"| {line['source_table']} |" in row]  # fmt: skip
        assert any(float(cell.split(" (")[0]) == line["value"] for row in wanted for cell in row.split("|")[5:-1]
                   if cell.strip() != "–")  # fmt: skip


def test_text_of_a_paper_is_no_markup(write):
    evil = "<b>|x\\end{tabular}_&%$"
    frame = read_reported(write({"method": evil, "reference": evil, "doubt": evil}))
    assert "<b>" not in reported_markdown(frame)
    latex = reported_latex(frame)
    assert latex.count(r"\end{tabular}") == 1 and r"\textbackslash{}end\{tabular\}\_\&\%\$" in latex


def test_latex_ranks_nothing(paper):
    text = reported_latex(paper)
    assert r"\textbf" not in text and r"\underline" not in text
    assert text.count(r"\begin{table}") == text.count("track: reported") == 3 + 3

"""Mistakes on the command line: a plain message, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import run_main

# Short, so that a mistake that is no longer refused fails its test rather than trains for hours.
RUN = ["run", "--method", "frozen", "--steps", "1", "--pretrain-steps", "0", "--accelerator", "cpu"]


class Outcome:
    """Exit code, output and error output of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def refuses(self, *fragments: str) -> None:
        """A message for people: exit code 2, all fragments in it, no sign of a crash."""
        text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.err).split())  # typer draws a box and breaks lines
        assert self.code == 2, self.out + self.err
        for fragment in fragments:
            assert fragment in text
        assert "Traceback" not in self.out + self.err and 'File "' not in self.out + self.err
        assert text.strip()


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def stbench(monkeypatch, capsys, out):
    """Runs the command in this process, through its entry point; checks that nothing is left below --out."""

    def run(*arguments: object) -> Outcome:
        given = [str(argument) for argument in arguments]
        given += ["--out", str(out)] if given[0] == "run" else []
        code = run_main(monkeypatch, given)
        printed = capsys.readouterr()
        assert not out.exists(), "nothing is written for a command that cannot run"
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def process(tmp_path, out):
    """Runs the command in a process of its own, as a user does."""

    def run(*arguments: object) -> Outcome:
        given = [str(argument) for argument in arguments]
        given += ["--out", str(out)] if given[0] == "run" else []
        done = subprocess.run(
            [sys.executable, "-m", "spectral_tl_bench.cli.main", *given], cwd=tmp_path, env=dict(os.environ),
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert not out.exists()
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


# ------------------------------------------------------------------------------------------- in a process of its own


def test_process_unknown_benchmark(process):
    process(*RUN, "-b", "mts12-n2").refuses("error: there is no benchmark 'mts12-n2'", "did you mean mts12-n2s")


def test_process_bad_yaml(process, tmp_path):
    (tmp_path / "bad.yaml").write_text("id: [unclosed\n")
    process(*RUN, "-b", "bad.yaml").refuses("error: this is not valid YAML", "bad.yaml", "line 2")


@pytest.mark.slow
def test_process_missing_label(process, own):
    own.label("e1_0").unlink()
    process(*RUN, "-b", own.yaml).refuses("missing", str(own.label("e1_0")), "1 of 10 chips")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["-m", "frozen", "--data-root", "gone", "-b", "mts12-n2s"], ["the data root does not exist", "gone"]),
        (["-m", "lora", "-o", "rnak=4", "-b", "mts12-n2s"], ["no option 'rnak'", "rank"]),
    ],
)
def test_process_mistakes_found_after_the_heavy_imports(process, arguments, fragments):
    process("run", *arguments).refuses(*fragments)


# ------------------------------------------------------------------------------------------- names and options


def test_unknown_benchmark(stbench):
    stbench(*RUN, "-b", "mts12-n2s,dfc2020-sprung").refuses("no benchmark 'dfc2020-sprung'", "dfc2020-spring")
    stbench("benchmarks", "show", "mts12").refuses("no benchmark 'mts12'")


def test_naming_no_benchmark(stbench):
    stbench(*RUN, "-b", ",").refuses("no benchmark is named")
    stbench("benchmarks", "show", ",").refuses("no benchmark is named")


def test_unknown_method(stbench):
    stbench("run", "-m", "spectralxx", "-b", "all").refuses("no method 'spectralxx'", "did you mean spectralx?")


@pytest.mark.parametrize(
    ("option", "fragments"),
    [
        (["-m", "lora", "-o", "rnak=4"], ["method 'lora' has no option 'rnak'", "did you mean rank?"]),
        (["-m", "lora", "-o", "rank=many"], ["option 'rank' of method 'lora'", "'many'"]),
        (["-m", "lora", "-o", "rank"], ["--option 'rank' is not of the form name=value"]),
        (["-m", "frozen", "--backbone", "resnet"], ["resnet"]),
        (["-m", "frozen", "--backbone-size", "width=wide"], ["--backbone-size width=wide", "whole number"]),
        (["-m", "frozen", "--backbone-size", "widht=64"], ["widht"]),
        (["-m", "frozen", "--accelerator", "tpu"], ["--accelerator is 'tpu'", "auto, cpu, gpu"]),
        (["-m", "frozen", "--precision", "8"], ["--precision", "bf16-mixed"]),
        (["-m", "frozen", "--steps", "0"], ["--steps", "greater than or equal to 1"]),
        (["-m", "frozen", "--budget", "huge"], ["--budget", "'huge'"]),
        (["-m", "frozen", "--learning-rate", "-1"], ["--learning-rate", "greater than 0"]),
        (["-m", "frozen", "--seed", "-1"], ["--seed"]),
        (["-m", "frozen", "--seed", "one"], ["--seed", "integer"]),
        (["-m", "frozen", "--sedd", "1"], ["--sedd"]),
    ],
)
def test_unknown_and_impossible_options(stbench, own, option, fragments):
    stbench("run", "-b", own.yaml, *option).refuses(*fragments)


def test_missing_arguments_and_verbs(stbench):
    stbench("run", "-b", "all").refuses("--method")
    stbench("train").refuses("train")


@pytest.mark.parametrize("window", [12, 24, 4])
def test_a_window_that_does_not_fit(stbench, own, window):
    stbench(*RUN, "-b", own.yaml, "--window", window).refuses("window")


def test_a_report_without_records(stbench, tmp_path):
    stbench("report", "--records", tmp_path).refuses("there are no records", str(tmp_path))


# ------------------------------------------------------------------------------------------- definitions and data


def test_bad_definition(stbench, own):
    own.definition["layout"]["tabel"] = own.definition["layout"].pop("table")
    own.write_definition()
    stbench(*RUN, "-b", own.yaml).refuses("2 mistakes", "layout.table", "layout.tabel", str(own.yaml))
    own.yaml.write_text("? [a]\n: b\n")
    stbench(*RUN, "-b", own.yaml).refuses("not valid YAML")
    own.yaml.unlink()
    stbench(*RUN, "-b", own.yaml).refuses("cannot be read")


def test_an_id_that_belongs_to_the_suite(stbench, own):
    own.definition["id"] = "mts12-n2s"
    own.write_definition()
    stbench(*RUN, "-b", own.yaml).refuses("the id 'mts12-n2s' belongs to the suite")


def test_missing_data_root(stbench, tmp_path, monkeypatch):
    stbench(*RUN, "-b", "mts12-n2s", "--data-root", tmp_path / "gone").refuses("the data root does not exist")
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "gone"))
    stbench(*RUN, "-b", "mts12-n2s").refuses("mts12-n2s cannot run", "the data root does not exist", "STBENCH_DATA")


def test_a_root_without_the_dataset(stbench, tmp_path):
    (tmp_path / "photos").mkdir()
    found = stbench(*RUN, "-b", "cross-region", "--data-root", tmp_path)
    found.refuses("mts12-n2s cannot run", "whuohs-t2s cannot run", "transfer-STall/source", "photos")


def test_part_of_a_published_dataset(stbench, tmp_path):
    import numpy as np

    from spectral_tl_bench.sample.rasters import write_mat, write_tif

    for fold, number, row in (("train", 3, 14), ("val", 4, 20), ("test", 1, 5)):
        stem = f"eopatch_id_{number}_col_9_row_{row}"
        image = np.ones((24, 500, 500), dtype="uint16")
        corner = (415_000.0, 5_030_000.0 + 5_000.0 * row)
        write_tif(tmp_path / "data" / "image" / fold / f"{stem}.tif", image, crs="EPSG:32633", corner=corner)
        write_mat(tmp_path / "data" / "label" / fold / f"{stem}_label.mat", np.ones((500, 500), dtype="uint8"))
    found = stbench(*RUN, "-b", "mts12-n2s", "--data-root", tmp_path / "data")
    found.refuses("2 source chips, published are 639", "1 target chips, published are 297", "--allow-partial")


def test_bad_chips(stbench, own):
    import numpy as np

    label = own.labels("w0_0")
    own.write_raster(own.label("w0_0"), np.full((1, 16, 16), 99, dtype="uint8"), "w0_0")
    stbench(*RUN, "-b", own.yaml).refuses("outside the label map", "w0_0: value 99")
    own.write_raster(own.label("w0_0"), label[None], "w0_0")
    own.image("e0_0").write_bytes(own.image("e0_0").read_bytes()[:-200])
    stbench(*RUN, "-b", own.yaml).refuses("1 of 10 chips cannot be used", "e0_0")


def test_a_source_of_a_single_site(stbench, own):
    for row in own.rows[:6]:
        row["place"] = "only"
    own.write_table()
    stbench(*RUN, "-b", own.yaml).refuses("all 6 source chips are of one site")


def test_a_table_that_leads_outside(stbench, own):
    own.rows[0]["name"] = "../../secret"
    own.write_table()
    stbench(*RUN, "-b", own.yaml).refuses("leads outside the data root")


def test_what_is_right_is_not_refused(stbench, own):
    shown = stbench("benchmarks", "show", own.yaml, "--yaml")
    assert shown.code == 0 and not shown.err
    assert yaml.safe_load(shown.out)["layout"]["table"] == "chips.csv"
    listed = stbench("benchmarks")
    assert listed.code == 0 and "mts12-n2s" in listed.out and "group cross-season" in listed.out

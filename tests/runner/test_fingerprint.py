"""A fingerprint changes with everything that can change a result, and with nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio
from tiny import SIZES, install, make_request, open_tree

import spectral_tl_bench
from spectral_tl_bench.identity import RESULT_PARTS, _bare_source, benchmark_facts, package_code, suite_code
from spectral_tl_bench.runner.cell import Cell
from spectral_tl_bench.runner.run import plan


def cell_of(tree: Path, method: str = "lora", **more) -> Cell:
    (cell,), broken = plan(make_request(tree, method, **more), lambda _: None)
    assert broken == []
    return cell


def print_of(cell: Cell) -> str:
    return cell.fingerprint(cell.split())


@pytest.fixture(scope="module")
def base(tree) -> Cell:
    return cell_of(tree)


CHANGES = {
    "steps": {"steps": 3},
    "pretrain steps": {"pretrain_steps": 2},
    "learning rate": {"learning_rate": 0.5},
    "schedule": {"schedule": "constant"},
    "batch": {"batch_size": 3},
    "window": {"window": 24},
    "stride": {"stride": 8},
    "validations": {"validations": 1},
    "budget": {"budget": "paper"},
    "seed": {"seeds": (1,)},
    "options": {"options": {"rank": 3}},
    "method": {"method": "frozen"},
    "backbone": {"backbone": "vit-tiny", "backbone_sizes": SIZES},
    "width": {"backbone_sizes": SIZES | {"width": 64}},
    "depth": {"backbone_sizes": SIZES | {"depth": 3}},
    "heads": {"backbone_sizes": SIZES | {"heads": 4}},
    "patch": {"backbone_sizes": SIZES | {"patch": 4}},
    "benchmark": {"benchmarks": ("mts12-s2n",)},
}


def test_every_option_acts(tree, base):
    prints = {"base": print_of(base)} | {name: print_of(cell_of(tree, **change)) for name, change in CHANGES.items()}
    assert len(set(prints.values())) == len(CHANGES) + 1, "two different runs share a fingerprint"
    assert print_of(cell_of(tree)) == prints["base"]


def with_benchmark(cell: Cell, **update) -> Cell:
    benchmark = cell.opened.benchmark.model_copy(update=update)
    return replace(cell, opened=replace(cell.opened, benchmark=benchmark))


def test_the_benchmark_s_facts_count_and_its_texts_do_not(base):
    benchmark, same = base.opened.benchmark, print_of(base)
    texts = {
        "title": "x",
        "notes": ("y",),
        "citation": "z",
        "groups": (),
        "expected": {},
        "labels": benchmark.labels.model_copy(
            update={"classes": tuple(c.model_copy(update={"colour": "#000000"}) for c in benchmark.labels.classes)}
        ),
        "domains": tuple(
            d.model_copy(update={"name": "n", "chips": 1, "lon_lat": (0.0, 0.0)}) for d in benchmark.domains
        ),
    }
    for key, value in texts.items():
        assert print_of(with_benchmark(base, **{key: value})) == same, key
    bands = benchmark.sensor.bands
    facts = {
        "version": "1.1",
        "id": "other",
        "labels": benchmark.labels.model_copy(update={"classes": benchmark.labels.classes[::-1]}),
        "sensor": benchmark.sensor.model_copy(
            update={"bands": (bands[0].model_copy(update={"wavelength": 0.5}), *bands[1:])}
        ),
        "nodata": "error",
    }
    changed = {key: print_of(with_benchmark(base, **{key: value})) for key, value in facts.items()}
    assert len({same, *changed.values()}) == len(facts) + 1
    assert "title" not in benchmark_facts(benchmark.model_dump(mode="json"))


def test_what_only_says_where_things_are_or_who_computes_does_not_count(tree, base, tmp_path):
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(tree / "MTS12", moved / "mts12")  # another folder, other file dates, another accepted name
    assert print_of(cell_of(moved)) == print_of(base)
    assert print_of(cell_of(moved / "mts12")) == print_of(base)
    assert print_of(replace(base, oracle=True)) == print_of(base)
    assert print_of(replace(base, opened=replace(base.opened, notes=("a note",)))) == print_of(base)


@pytest.mark.parametrize("side", ["train", "target"])
def test_one_pixel_counts(tree, base, tmp_path, side):
    shutil.copytree(tree / "MTS12", tmp_path / "MTS12")
    chip = base.split().chips(side)[0]
    row = base.opened.index.frame.loc[chip]
    with rasterio.open(tmp_path / "MTS12" / row["image"], "r+") as file:
        image = file.read()
        image[3, 5, 7] += 1
        file.write(image)
    assert print_of(cell_of(tmp_path)) != print_of(base)


def test_a_missing_chip_counts(tree, base, tmp_path):
    shutil.copytree(tree / "MTS12", tmp_path / "MTS12")
    row = base.opened.index.frame.loc[base.split().chips("target")[0]]
    for name in (row["image"], row["label"]):
        (tmp_path / "MTS12" / name).unlink()
    assert print_of(cell_of(tmp_path)) != print_of(base)


def test_the_split_counts(base):
    split = base.split()
    assert replace(base, seed=1).fingerprint(split) != base.fingerprint(split), "the seed counts by itself, too"
    role = split.role.copy()
    chips = split.chips("train")
    role[chips[0]] = "buffer"
    assert base.fingerprint(replace(split, role=role)) != base.fingerprint(split)
    assert base.fingerprint(replace(split, notes=("said otherwise",))) == base.fingerprint(split)


# ---------------------------------------------------------------------------------------------- code

PLAIN = "x = 1\nclass A:\n    y: int = 2\n\n    def f(self):\n        return self.y\n"
DRESSED = (
    '"""Module."""\n# a comment\nx = (1)  # another\n\n\nclass A:\n    """Class."""\n    y: int = 2\n'
    '    """Of an attribute."""\n'
    '\n    def f(self):\n        """Method."""\n        return (\n            self.y\n        )\n'
)


def test_comments_docstrings_and_layout_are_no_code(tmp_path):
    def bare(text):
        path = tmp_path / "some.py"
        path.write_text(text)
        return _bare_source(path)

    assert bare(PLAIN) == bare(DRESSED)
    assert bare(PLAIN) != bare(PLAIN.replace("y: int = 2", "y: int = 3"))
    assert bare(PLAIN) != bare(PLAIN.replace("self.y", "-self.y"))
    assert bare("def f():\n    '''Only text.'''\n") == bare("def f():\n    pass\n")
    assert bare("x = 'text'") != bare("x = 'other'"), "text that is used is code"
    assert bare("def f():\n    return 'a'\n") != bare("def f():\n    return 'b'\n")


@pytest.fixture
def copied_suite(tmp_path, monkeypatch):
    """A copy of the suite's code that may be changed; gives its folder and a function that hashes it."""
    folder = tmp_path / "spectral_tl_bench"
    shutil.copytree(Path(spectral_tl_bench.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(spectral_tl_bench, "__file__", str(folder / "__init__.py"))
    return folder, suite_code.__wrapped__


def test_the_suite_s_code_counts_where_it_can_change_a_number(copied_suite):
    folder, code = copied_suite
    start = code()
    assert start == suite_code()

    def add(file, text):
        with file.open("a") as stream:
            stream.write(text)

    for name in ("leaderboard/board.py", "cli.py", "runner/run.py", "data/sample/mts12.py"):
        add(folder / name, "\nADDED = 1\n")
    files = [
        folder / part if part.endswith(".py") else next((folder / part).glob("[a-z]*.py")) for part in RESULT_PARTS
    ]
    for file in files:
        add(file, "\n# only a remark\n")
    assert code() == start, "boards, the command line, the generator and remarks cannot change a result"
    for file in files:
        add(file, "\nADDED = 1\n")
        assert code() != start, f"{file.name} can change a result"
        start = code()


METHOD = """
from torch import nn
from spectral_tl_bench.methods.base import Method

class One(Method):
    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

class Two(Method):
    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 3, padding=1)
"""


def test_a_plugin_s_code_counts(tree, tmp_path, monkeypatch):
    module = install(tmp_path, "tiny_hashed", METHOD, {"one": "tiny_hashed:One"}, monkeypatch)
    hashed = package_code.__wrapped__
    start = hashed("tiny_hashed")
    module.write_text("# remark\n" + METHOD)
    assert hashed("tiny_hashed") == start
    module.write_text(METHOD.replace("padding=1", "padding=1, bias=False"))
    assert hashed("tiny_hashed") != start
    assert hashed("spectral_tl_bench.methods.baselines") == "", "our own code is counted once, by suite_code"
    assert hashed("spectralx.method") == hashed("spectralx") != start


def test_two_classes_of_one_module_differ(tree, tmp_path, monkeypatch):
    install(tmp_path, "tiny_classes", METHOD, {"one": "tiny_classes:One"}, monkeypatch)
    one = cell_of(tree, "one")
    from tiny_classes import Two

    assert print_of(replace(one, method=Two())) != print_of(one)


def test_an_index_says_where_it_is_but_its_manifest_does_not(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "copy")
    one, other = open_tree(tree), open_tree(tmp_path / "copy")
    assert one.index.root != other.index.root and one.index.manifest == other.index.manifest

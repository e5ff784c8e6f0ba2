"""Names on the command line: paths with commas, blanks and any letters, and what is no path at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny import run_main

from spectral_tl_bench.benchmarks import groups, resolve
from spectral_tl_bench.console import split_names
from spectral_tl_bench.errors import BenchmarkError

ODD = (
    "Zürich, 2019 data",
    'a "quoted", b',
    "it's, that",
    "line\nbreak, x",
    "日本 → Ōsaka",
    ",",
    "#1; rm, $HOME",
    "a,b,c",
)


@pytest.mark.parametrize("folder", ODD)
@pytest.mark.parametrize("file", ["my.yaml", "my, own.YAML", "x,y.yml"])
def test_the_path_of_a_file_is_not_taken_apart(own, tmp_path, monkeypatch, folder, file):
    place = tmp_path / folder
    place.mkdir()
    own.yaml.rename(place / file)
    monkeypatch.chdir(tmp_path)
    for entry in (str(place / file), f"{folder}/{file}", f"mts12-n2s,{folder}/{file}", f"{folder}/{file}, mts12-n2s"):
        chosen = {benchmark.id: own_folder for benchmark, own_folder in resolve([entry])}
        assert chosen["mine"] == place and set(chosen) <= {"mine", "mts12-n2s"}


def test_names_are_divided_as_ever():
    assert split_names("a, b,,c ,") == ["a", "b", "c"]
    ids = [benchmark.id for benchmark, _ in resolve(["cross-region,mts12-n2s", "mts12-n2s"])]
    assert ids == groups()["cross-region"]


def test_two_files_with_commas_in_one_entry(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a, 1.yaml", "b, 2.yaml"):
        (tmp_path / name).write_text(own.yaml.read_text().replace("id: mine", f"id: m{name[0]}"))
    assert [benchmark.id for benchmark, _ in resolve(["a, 1.yaml,b, 2.yaml"])] == ["ma", "mb"]


def test_one_file_by_several_names_is_one_benchmark(own, tmp_path, monkeypatch):
    (tmp_path / "link, x.yaml").symlink_to(own.yaml)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(own.root))
    (chosen,) = resolve(["link, x.yaml", str(own.yaml), f"{own.root}/../own/mine.yaml", "~/mine.yaml"])
    assert chosen[0].id == "mine" and chosen[1] == own.root
    (tmp_path / "copy.yaml").write_text(own.yaml.read_text())
    with pytest.raises(BenchmarkError, match="two benchmarks have the id"):
        resolve([str(own.yaml), "copy.yaml"])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("no, such/b.yaml", r"No such file[\s\S]*no, such/b.yaml"),
        ("x" * 300 + ".yaml", "File name too long"),
        ("x" * 300, "there is no benchmark"),
        ("chips.csv", "does not end in .yaml"),
        ("odd, name", "does not end in .yaml"),
        ("image", r"is a folder[\s\S]*the YAML file in it"),
        ("mts12-n2x,mine.yaml", "did you mean mts12-n2s"),
        ("gone.yaml", "No such file"),
        ("dangling.yaml", "No such file"),
        ("below.csv/mine.yaml", "Not a directory|No such file"),
    ],
)
def test_what_is_no_benchmark_is_said_as_it_was_given(own, monkeypatch, entry, said):
    monkeypatch.chdir(own.root)
    (own.root / "odd, name").write_text("")
    (own.root / "below.csv").write_text("")
    (own.root / "dangling.yaml").symlink_to("nowhere")
    with pytest.raises(BenchmarkError, match=said):
        resolve([entry])


def test_a_run_with_odd_names_everywhere(own, tmp_path, monkeypatch, capsys):
    from spectral_tl_bench.results.store import read_records

    place = tmp_path / "Zürich, 2019\n'data'"
    own.root.rename(place)
    small = ("--steps", "1", "--window", "16", "--stride", "16", "--accelerator", "cpu", "--jobs", "1")
    arguments = ("run", "-m", "nearest-mean", "-b", place / "mine.yaml", "--data-root", place, "--out", place / "o, 1")
    assert run_main(monkeypatch, (*arguments, "--backbone", "compact", *small)) == 0, capsys.readouterr().err
    (record,) = read_records([place / "o, 1"])
    assert record.status == "completed" and record.benchmark == "mine"


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
@pytest.mark.parametrize("option", [("-b",), ("-b", "mine.yaml", "--out"), ("-b", "mine.yaml", "--data-root")])
def test_names_that_are_no_text_are_refused(own, monkeypatch, capsys, option):
    monkeypatch.chdir(own.root)
    name = os.fsdecode(b"l\xe4nder.yaml")
    assert run_main(monkeypatch, ("run", "-m", "lora", *option, name)) == 2
    assert "is not valid UTF-8" in capsys.readouterr().err and not (own.root / "runs").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are UTF-8 there")
def test_data_in_a_folder_whose_name_is_no_text(own, tmp_path, monkeypatch, capsys):
    odd = tmp_path / os.fsdecode(b"l\xe4nder")
    own.root.rename(odd)
    (tmp_path / "mine.yaml").symlink_to(odd / "mine.yaml")
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, ("run", "-m", "nearest-mean", "-b", "mine.yaml", "--steps", "1")) == 2
    error = capsys.readouterr().err
    assert "is not valid UTF-8" in error and r"l\udce4nder" in error and "Traceback" not in error


# ---------------------------------------------------------------------------------------------- terminals

ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("encoding", ["ascii", None, "latin-1"])
def test_a_terminal_that_cannot_show_everything(own, tmp_path, encoding):
    """The file is found by its name, and what cannot be shown is written with backslashes."""
    place = tmp_path / "Zürich, →"
    own.definition["title"] = "Côte d’Azur → Ōsaka"
    own.write_definition()
    own.root.rename(place)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"} | ASCII
    environment |= {"PYTHONIOENCODING": encoding} if encoding else {}
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "benchmarks", "show", str(place / "mine.yaml")]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0 and not done.stderr
    shown = done.stdout.decode(encoding or "ascii")
    assert r"d\u2019Azur \u2192 \u014csaka" in shown and ("Côte" if encoding == "latin-1" else r"C\xf4te") in shown


@pytest.mark.slow
def test_a_run_warns_of_nothing(own, tmp_path):
    command = [sys.executable, "-W", "error", "-m", "spectral_tl_bench.cli.main", "run", "-m", "lora", "-b", own.yaml]
    command += ["--data-root", own.root, "--backbone", "compact", "--steps", "1", "--window", "16", "--jobs", "1"]
    done = subprocess.run(
        [str(part) for part in command], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_on_a_terminal_that_cannot_show_everything(own, tmp_path):
    place = tmp_path / "Zürich, 2019 → data"
    own.root.rename(place)
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", "-m", "nearest-mean,majority"]
    command += ["-b", f"{place}/mine.yaml", "--data-root", str(place), "--out", f"{place}/ō", "--jobs", "2"]
    done = subprocess.run(
        [*command, "--backbone", "compact", "--window", "16", "--steps", "1"],
        env={**os.environ, **ASCII, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert r"Z\xfcrich, 2019 \u2192 data/\u014d" in done.stdout.decode("ascii")

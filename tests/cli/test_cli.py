"""The command: quick where it can be, plain where something is wrong."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest
from tiny import install, run_main

from spectral_tl_bench import __version__
from spectral_tl_bench.benchmarks import builtin_benchmarks, groups, read_benchmark
from spectral_tl_bench.cli.main import program
from spectral_tl_bench.sample import build

HEAVY = ("torch", "pandas", "lightning", "torchgeo", "timm", "rasterio", "kornia", "peft")

PROBE = """
import io, json, sys, contextlib
from spectral_tl_bench.cli.main import main
found = {}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["stbench", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = ending.code
    imported = {name.partition(".")[0] for name in sys.modules}
    found[" ".join(arguments)] = [code, sorted(imported & set(HEAVY))]
print(json.dumps(found))
""".replace("HEAVY", repr(HEAVY))


@pytest.fixture
def stbench(monkeypatch, capsys):
    """Runs the command in this process; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_main(monkeypatch, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_nothing_heavy_is_imported_before_it_is_needed():
    quick = [
        (["--help"], 0), (["--version"], 0), (["benchmarks"], 0), (["benchmarks", "show", "mts12-n2s"], 0),
        (["benchmarks", "show", "whuohs-s2t", "--yaml"], 0), (["methods"], 0), (["run", "--help"], 0),
        (["report", "--help"], 0), (["plot", "--help"], 0), (["show", "--help"], 0),
        (["run", "-m", "fulll", "-b", "all"], 2), (["run", "-m", "full", "-b", "none"], 2),
        (["cache"], 0),
        (["methods", "show", "--help"], 0), (["methods", "probe", "--help"], 0), (["methods", "show", "ful"], 2),
        (["methods", "show", "full", "--backbone", "vit-larg"], 2), (["methods", "probe", "ful"], 2),
    ]  # fmt: skip
    arguments = json.dumps([command for command, _ in quick])
    done = subprocess.run(
        [sys.executable, "-c", PROBE, arguments], capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {" ".join(command): [code, []] for command, code in quick}


@pytest.mark.parametrize(
    "verb",
    [
        (),
        ("run",),
        ("report",),
        ("plot",),
        ("show",),
        ("methods",),
        ("methods", "show"),
        ("methods", "probe"),
        ("benchmarks",),
        ("benchmarks", "show"),
        ("sample",),
    ],
)
def test_every_verb_explains_itself(stbench, verb):
    code, out, err = stbench(*verb, "--help")
    assert code == 0 and "Usage" in out and len(out.splitlines()) > 5 and err == ""


def test_version_and_entry_point(stbench):
    assert stbench("--version") == (0, f"stbench {__version__}\n", "")
    scripts = {entry.name: entry for entry in importlib.metadata.entry_points(group="console_scripts")}
    assert scripts["stbench"].load() is program


def test_the_list_of_benchmarks_is_complete(stbench):
    code, out, _ = stbench("benchmarks")
    lines = out.splitlines()
    assert code == 0 and {line.split()[0] for line in lines[1 : 1 + len(builtin_benchmarks())]} == set(
        builtin_benchmarks()
    )
    for group, members in groups().items():
        assert f"group {group}: {', '.join(members)}" in lines


@pytest.mark.parametrize("name", ["mts12-n2s", "whuohs-s2t", "dfc2020-id"])
def test_a_benchmark_shows_itself(stbench, tmp_path, name):
    benchmark = builtin_benchmarks()[name]
    _, out, _ = stbench("benchmarks", "show", name)
    for text in (benchmark.title, benchmark.version, *benchmark.labels.names, *benchmark.notes, benchmark.citation):
        assert text in out
    code, out, _ = stbench("benchmarks", "show", name, "--yaml")
    (tmp_path / "copy.yaml").write_text(out)
    assert code == 0 and read_benchmark(tmp_path / "copy.yaml") == benchmark, "what is shown can be used as a start"


def test_methods_are_listed_with_what_they_are_and_whose(stbench, tmp_path, monkeypatch):
    code = "from spectral_tl_bench.methods.floors import PixelMLP as Mine\n"
    install(tmp_path, "foreign", code, {"mine": "foreign:Mine"}, monkeypatch)
    code, out, _ = stbench("methods")
    rows = {line.split()[0]: line for line in out.splitlines()[1:] if line}
    assert code == 0 and set(rows) >= {"full", "frozen", "lora", "spectralx", "mine"}
    assert "2022" in rows["lora"] and "Hu et al., LoRA, ICLR 2022" in rows["lora"] and "peft" in rows["lora"]
    assert rows["lora"].count("Low-rank adaptation of the linear layers") == 1
    assert "floor" in rows["mine"] and "(of foreign 1.2)" in rows["mine"], "of other packages it is said"
    assert "spectralx.method:" not in out and "spectral-tl-bench" not in out, "no places in Python"
    assert "-m family:peft" in out


RUN = ("run", "-m", "full", "-b", "mts12-n2s")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "-m", "ful", "-b", "mts12-n2s"), "did you mean full?"),
        (("run", "-m", "full", "-b", "mts12"), "there is no benchmark 'mts12'"),
        (("run", "-m", "full", "-b", "missing.yaml"), "No such file"),
        ((*RUN, "-o", "rank"), "is not of the form name=value"),
        ((*RUN, "--backbone-size", "depth=two"), "a whole number"),
        ((*RUN, "--backbone-size", "name=2"), "has no size 'name'"),
        ((*RUN, "--steps", "0"), "--steps"),
        ((*RUN, "--learning-rate", "-1"), "--learning-rate"),
        ((*RUN, "--batch-size", "0"), "--batch-size"),
        ((*RUN, "--schedule", "linear"), "--schedule"),
        ((*RUN, "--budget", "huge"), "--budget"),
        ((*RUN, "--accelerator", "tpu"), "one of auto, cpu, gpu"),
        ((*RUN, "--precision", "8"), "32-true"),
        ((*RUN, "--seed", "-1"), "--seed"),
        ((*RUN, "--steps", "many"), "--steps"),
        ((*RUN, "--no-such-option"), "--no-such-option"),
        ((*RUN, "--data-root", "no/such/folder"), "the data root does not exist"),
        (("run", "-m", "full"), "--benchmark"),
        (("report", "--records", "no/such/folder"), "no such folder of records"),
        (("benchmarks", "show", "mts12-n2z"), "did you mean"),
    ],
)
def test_a_mistake_ends_with_a_message_and_2(stbench, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = stbench(*arguments)
    assert code == 2 and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == [], "a mistake leaves nothing behind"


def test_a_report_on_nothing(stbench, tmp_path):
    code, _, err = stbench("report", "--records", tmp_path)
    assert code == 2 and "there are no records yet" in err and "stbench run" in err


def test_sample_says_where_it_is(stbench, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "PARAMETERS", {"mts12": {"chip": 32, "north": 1, "south": 1}})
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path))
    first, again = stbench("sample"), stbench("sample")
    assert first == again and first[0] == 0 and first[1].strip().startswith(str(tmp_path))


@pytest.mark.parametrize(("seeds", "kept"), [((), [0]), ((0,), [0]), ((3, 0, 3), [3, 0])])
def test_seeds_are_what_was_asked_for(stbench, monkeypatch, seeds, kept):
    from spectral_tl_bench.runner import run as run_module

    asked = []
    monkeypatch.setattr(run_module, "plan", lambda requests, say: asked.extend(requests) or ([], []))
    code, _, _ = stbench(*RUN, "-o", "a-b=c=d", *(part for seed in seeds for part in ("--seed", seed)))
    assert code == 0 and asked[0].seeds == kept and asked[0].options == {"a_b": "c=d"}
    assert asked[0].overrides.model_dump(exclude_defaults=True) == {}

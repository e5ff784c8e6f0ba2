"""Plans on the command line: many of everything in one call or one file, and what a dry run shows."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tiny import SIZES, make_tree, run_main

from spectral_tl_bench.cli.plan import plan as plan_verb
from spectral_tl_bench.cli.run import run as run_verb
from spectral_tl_bench.errors import UserError
from spectral_tl_bench.plugins import installed
from spectral_tl_bench.runner import cell as cell_module
from spectral_tl_bench.runner import processes

SMALL = ["--steps", 2, "--pretrain-steps", 1, "--batch-size", 2, "--validations", 1, "--backbone", "compact",
         *(part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}"))]  # fmt: skip
ONE = ["-b", "mts12-n2s", "-m", "nearest-mean"]


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    return ["--data-root", make_tree(tmp_path_factory.mktemp("plan-cli")), "--allow-partial"]


@pytest.fixture
def stbench(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder and gives code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_main(monkeypatch, arguments)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


@pytest.fixture
def asked(monkeypatch):
    """The requests that a verb comes to, in place of their cells."""
    from spectral_tl_bench.runner import run as run_module

    seen: list[object] = []
    monkeypatch.setattr(run_module, "plan", lambda requests, say: seen.extend(requests) or ([], []))
    return seen


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_many_of_everything_in_one_call(stbench, asked):
    code, _, _ = stbench(
        "run", "-b", "cross-region", "-b", "mts12-id", "-m", "lora,dora", "-m", "full", "-s", "0-2", "-s", "9",
        "--backbone", "compact", "--backbone", "vit-tiny,vit-small", "--grid", "learning-rate=1e-4,5e-4",
        "--grid", "rank=4,8", "-o", "alpha=4", "--steps", 3,
    )  # fmt: skip
    assert code == 0 and len(asked) == 3 * 2 * 2
    assert {(r.backbone, r.overrides.learning_rate, r.options["rank"]) for r in asked} == {
        (name, rate, rank) for name in ("compact", "vit-tiny", "vit-small") for rate in (1e-4, 5e-4)
        for rank in ("4", "8")
    }  # fmt: skip
    for request in asked:
        assert request.methods == ["lora", "dora", "full"] and request.seeds == [0, 1, 2, 9]
        assert request.benchmarks == ["cross-region", "mts12-id"] and request.overrides.steps == 3
        assert request.options["alpha"] == "4" and request.backbone in request.variant


def test_seeds_are_counted_or_named(stbench, asked):
    for given, meant in (
        ("--seeds 3", [0, 1, 2]),
        ("--seeds 1", [0]),
        ("--seed 3", [3]),
        ("-s 3", [3]),
        ("-s 0-1", [0, 1]),
    ):
        asked.clear()
        assert stbench("run", *ONE, *given.split())[0] == 0 and asked[0].seeds == meant
    for text, note in (("seeds: 5", True), ("seeds: 0", False), ("seeds: 0-4", False), ("seeds: [0, 5]", False)):
        Path("p.yaml").write_text(f"blocks:\n- {{benchmarks: mts12-n2s, methods: lora, {text}}}\n")
        code, _, err = stbench("run", "--plan", "p.yaml")
        assert code == 0 and ("seed 5 alone; 5 seeds would be `seeds: 0-4`" in err) is note


def test_groups_of_methods(stbench, asked):
    assert stbench("run", "-b", "mts12-n2s", "-m", "family:floor,lora", "-m", "majority")[0] == 0
    assert asked[0].methods == ["majority", "nearest-mean", "pixel-mlp", "lora"]
    Path("p.yaml").write_text("blocks:\n- {benchmarks: mts12-n2s, methods: ['family:frozen+swad', full]}\n")
    assert stbench("run", "--plan", "p.yaml")[0] == 0
    assert asked[1].methods == ["frozen+swad", "linear-probe+swad", "full"]
    Path("p.yaml").write_text("blocks:\n- {benchmarks: mts12-n2s, methods: 'family:pefd'}\n")
    code, _, err = stbench("run", "--plan", "p.yaml")
    assert code == 2 and "line 2" in err and "did you mean peft" in err


def test_the_defaults_are_what_they_were(stbench, asked):
    assert stbench("run", "-b", "mts12-n2s", "-m", "lora")[0] == 0
    (request,) = asked
    assert (request.backbone, request.seeds, request.protocol, request.variant) == ("rgb-mini", [0], "strict", "")
    assert request.overrides.model_dump(exclude_defaults=True) == {} and not request.oracle


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", *ONE, "-o", "rank=4", "-o", "rank=8"), ["rank is given twice", "--grid rank=4,8"]),
        (("run", *ONE, "-o", "rank=4", "--grid", "rank=4,8"), ["rank is given by -o and by --grid"]),
        (("run", *ONE, "--steps", "4", "--grid", "steps=4,8"), ["steps is given by --steps and by --grid"]),
        (("run", *ONE, "--compile", "--grid", "compile=true,false"), ["compile is given by --compile and by --grid"]),
        (("run", *ONE, "--grid", "rank=4,8", "--grid", "rank=16"), ["--grid rank is given twice"]),
        (("run", *ONE, "--grid", "rank=4,4"), ["'4' twice"]),
        (("run", *ONE, "--grid", "rank=4,,8"), ["empty value"]),
        (("run", *ONE, "--grid", "rank"), ["not of the form name=value"]),
        (("run", *ONE, "--grid", "steps=4,many"), ["--grid steps", "'many'"]),
        (("run", *ONE, "--seed", "4-0"), ["--seed '4-0' is no seed"]),
        (("run", *ONE, "--fresh", "--dry-run"), ["--dry-run", "--fresh"]),
        (("run", "-m", "lora"), ["--benchmark names no benchmark"]),
        (("run", "-b", "all"), ["--method names no method"]),
        (("plan", "-b", "all"), ["--method names no method"]),
        (("run", "--plan", "none.yaml"), ["none.yaml", "cannot be read"]),
        (("run", "--plan", "a.yaml", "--plan", "b.yaml"), ["--plan is given twice"]),
        (("run", "--plan", "x.yaml", "-m", "lora", "--steps", "3"), ["so do --method, --steps", "x.yaml"]),
        (("run", "--plan", "x.yaml", "--oracle", "--compile"), ["so do --compile, --oracle"]),
        (("plan", "--plan", "x.yaml", "--seed", "0"), ["so do --seed"]),
        (("run", *ONE, "-m", "lora", "-m", "nonsense"), ["no method 'nonsense'"]),
        (("run", *ONE, "-m", "family:pefd"), ["no family of methods 'pefd'", "did you mean peft"]),
        (("run", *ONE, "--seeds", "0-4"), ["--seeds 0-4 is no number of seeds", "--seed 0-4"]),
        (("run", *ONE, "--seeds", "0"), ["--seeds 0 is no number of seeds"]),
        (("run", *ONE, "--seeds", "3", "--seed", "1"), ["counts seeds", "one of the two"]),
        (("plan", "--plan", "x.yaml", "--seeds", "2"), ["so do --seeds"]),
    ],
)
def test_a_mistake_is_said_before_anything_starts(stbench, tmp_path, arguments, said):
    code, _, err = stbench(*arguments)
    assert code == 2 and all(fragment in err for fragment in said), err
    assert left_in(tmp_path) == []


def test_what_says_where_may_stand_beside_a_plan(stbench, asked, tmp_path):
    (tmp_path / "p.yaml").write_text("blocks:\n- {benchmarks: mts12-n2s, methods: lora, settings: {steps: 7}}\n")
    code, _, err = stbench("run", "--plan", "p.yaml", "--data-root", "data", "--jobs", 2, "--accelerator", "cpu",
                           "--workers", 1, "--out", "here", "--allow-partial")  # fmt: skip
    assert code == 0, err
    assert asked[0].data_root == Path("data") and asked[0].overrides.steps == 7 and asked[0].allow_partial


OPTIONS = ["-b", "cross-region", "-m", "lora+spectralaug", "-m", "dora", "-s", "0-3", "--grid", "rank=4,8", "-o",
           "alpha=4", "--learning-rate", "0.01", "--backbone", "compact", "--backbone", "vit-tiny", "--compile",
           "--weights", "none", "--oracle", "--backbone-size", "width=96", "--precision", "bf16-mixed"]  # fmt: skip


def test_a_written_plan_asks_for_the_same(stbench, asked, tmp_path):
    code, out, _ = stbench("plan", *OPTIONS, "--write", "sub/plan.yaml")
    assert code == 0 and "stbench run --plan sub/plan.yaml" in out and left_in(tmp_path) == ["sub", "sub/plan.yaml"]
    assert stbench("run", *OPTIONS)[0] == 0
    by_options = list(asked)
    asked.clear()
    assert stbench("run", "--plan", "sub/plan.yaml")[0] == 0
    assert asked == by_options and len(asked) == 4
    text = (tmp_path / "sub/plan.yaml").read_text()
    assert stbench("plan", *OPTIONS, "--write", "-")[1].strip() == text.strip(), "the same on the output"
    assert stbench("plan", "--plan", "sub/plan.yaml", "--write", "-")[1].strip() == text.strip()


def test_a_plan_does_not_take_the_place_of_another(stbench, tmp_path):
    (tmp_path / "plan.yaml").write_text("mine")
    code, _, err = stbench("plan", *ONE, "--write", "plan.yaml")
    assert code == 2 and "is there already" in err and (tmp_path / "plan.yaml").read_text() == "mine"
    code, _, err = stbench("plan", *ONE, "--write", tmp_path)
    assert code == 2 and "is a folder" in err


def test_dry_run_run_and_run_again(stbench, tmp_path, where, monkeypatch):
    both = [*ONE, "-s", "0-1", *SMALL, *where, "--out", "runs"]
    code, out, _ = stbench("run", *both, "--dry-run")
    assert code == 0 and "2 cells: 0 done, 2 left (2 new)" in out and "time: unknown for 2 cells" in out
    assert left_in(tmp_path) == [], "a dry run leaves nothing"
    assert stbench("plan", *both) == (code, out, ""), "stbench plan shows the same"

    assert stbench("run", *ONE, "-s", "0", *SMALL, *where, "--out", "runs")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, out, _ = stbench("run", *both, "--dry-run", "--jobs", 2)
    assert code == 0 and "2 cells: 1 done, 1 left (1 new)" in out
    assert "for 1 of them, with 2 at a time, from 1 finished one of" in out and "room: about" in out
    rows = [line.split() for line in out.splitlines() if line.split()[1:3] == ["mts12-n2s", "nearest-mean"]]
    (record,) = tmp_path.rglob("record.json")
    assert [row[5] for row in rows] == ["done", "new"] and rows[0][0] == record.parent.name
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    code, out, _ = stbench("run", *both, "--accelerator", "cpu", "--jobs", 1)
    assert code == 0 and "[1/2] " in out and "1 of 2 cells are finished" in out
    assert "finished before" in out and "[2/2] mts12-n2s | nearest-mean | seed 1 | target mIoU" in out

    for module, name in ((processes, "execute_in_processes"), (cell_module, "build"), (cell_module, "common_fields")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("nothing is left to do"))
    monkeypatch.setattr(processes, "start_server", lambda *_: pytest.fail("a process for nothing"))
    code, out, err = stbench("run", *both, "--jobs", 2)
    assert code == 0 and out.count("finished before") == 2, err
    assert out.count("found") == 2


def test_a_failed_cell_is_shown_with_its_reason(stbench, tmp_path, where):
    assert stbench("run", *ONE, *SMALL, *where)[0] == 0
    (path,) = tmp_path.rglob("record.json")
    record = json.loads(path.read_text())
    failed = {"status": "failed", "scores": None, "evidence": None, "error": {"kind": "Hung", "message": "no sign"}}
    path.write_text(json.dumps(record | failed))
    code, out, _ = stbench("run", *ONE, *SMALL, *where, "--dry-run")
    assert code == 0 and "failed before" in out and "Hung: no sign" in out and "1 left (1 failed before)" in out
    code, out, _ = stbench("plan", *ONE, *where, *[one if one != 2 else 3 for one in SMALL])
    assert code == 0 and "1 left (1 new)" in out, "a failed record of something else says nothing"


def test_what_cannot_run_is_said_by_a_dry_run_too(stbench, where):
    code, out, err = stbench("run", "-b", "mts12-n2s", "-m", "full", "-m", "full+vrex", *SMALL, *where, "--dry-run")
    assert code == 2 and "full+vrex on mts12-n2s cannot run" in err and "1 cell: 0 done, 1 left" in out


def test_the_verbs_can_be_called_from_python(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"method": ["lora"], "benchmark": ["mts12-n2s"], "seed": ["0-1"], "out": tmp_path / "runs", "jobs": 1}
    run_verb(**values)
    assert asked[0].methods == ["lora"] and asked[0].seeds == [0, 1]
    assert {"method", "plan", "grid", "dry_run", "out", "jobs"} <= set(inspect.signature(run_verb).parameters)
    with pytest.raises(TypeError):
        run_verb(methods=["lora"])
    with pytest.raises(UserError, match="names no method"):
        plan_verb(benchmark=["mts12-n2s"])


def test_the_plan_of_a_published_table_is_written_to_a_new_file(stbench, tmp_path):
    code, out, _ = stbench("plan", "published", "--table", "IV", "--seed", "0-1", "--write", "iv.yaml")
    assert code == 0 and "stbench run --plan iv.yaml" in out and left_in(tmp_path) == ["iv.yaml"]
    assert "spectralx@hypert-no-stage1" in (tmp_path / "iv.yaml").read_text()
    code, _, err = stbench("plan", "published", "--table", "IV", "--out", "iv.yaml")
    assert code == 2 and "is there already" in err
    code, out, _ = stbench("plan", "published", "--table", "VI", "--out", "vi.yaml")
    assert code == 0 and "# DAEN" in (tmp_path / "vi.yaml").read_text()


def test_the_miniature_of_a_published_table_can_be_listed(stbench, where):
    """By the strict protocol, so that it says nothing about others."""
    code, out, _ = stbench("plan", "published", "--table", "I", "--miniature")
    assert code == 0
    plan = yaml.safe_load(out)
    known = [block for block in plan["blocks"] if "backbone_sizes" in block]
    assert {"scalemae-large", "satmaepp-large"} <= {name for block in known for name in block["backbones"]}
    for block in known:
        block["benchmarks"] = [name for name in block["benchmarks"] if name.startswith("mts12-n")]
    defaults = {**plan["defaults"], "protocol": "strict"}
    Path("small.yaml").write_text(yaml.safe_dump({"defaults": defaults, "blocks": known}))
    code, out, _ = stbench("plan", "small.yaml", *where)
    assert code == 0 and f"{len(known)} cells: 0 done" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("published",), "which table of the paper?"),
        (("published", "--table", "II"), "hold no Table II"),
        (("published", "--table", "I", "-m", "lora", "--steps", 3), "so do --method, --steps"),
        (("published", "--table", "I", "--miniature", "--weights", "hub"), "--miniature has random weights"),
        (("published", "--table", "I", "-s", "x"), "is no seed"),
        (("--table", "I"), "belongs to a table of the paper"),
        (("--miniature", *ONE), "belongs to a table of the paper"),
        (("nowhere.yaml",), "there is no plan 'nowhere.yaml'"),
        ((".", "--plan", "."), "two plans"),
    ],
)
def test_mistakes_about_published_tables(stbench, tmp_path, arguments, words):
    code, _, err = stbench("plan", *arguments)
    assert code == 2 and words in err and left_in(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif("published" not in installed("spectral_tl_bench.protocols"), reason="the protocol is not there")
@pytest.mark.parametrize("leak", [False, True], ids=["published", "as-published"])
def test_every_family_of_table_1_runs_as_a_miniature_and_stands_beside_print(stbench, leak):
    """On the synthetic sample: mts12-n2s, all backbones of the table."""
    flags = ["--as-published"] if leak else []
    code, out, _ = stbench("plan", "published", "--table", "I", "--miniature", *flags)
    assert code == 0
    plan = yaml.safe_load(out)
    for block in plan["blocks"]:
        block["benchmarks"] = ["mts12-n2s"]
    Path("small.yaml").write_text(yaml.safe_dump(plan))
    assert len({name for block in plan["blocks"] for name in block["backbones"]}) == 4
    code, out, err = stbench("run", "--plan", "small.yaml", "--accelerator", "cpu")
    assert code == 0, err
    assert stbench("report", "-r", "runs", "--out", "report", "-f", "md", "-f", "csv")[0] == 0
    lines = pd.read_csv("report/tables/published-beside-sample.csv")
    assert len(lines) == 4 and set(lines["protocol"]) == {"as-published" if leak else "published"}
    assert lines["marks"].str.contains("synthetic scenes").all() and lines["marks"].str.contains("random weights").all()

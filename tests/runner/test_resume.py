"""A cell that is cut off goes on from its last checkpoint, and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killing import left_by
from tiny import CHIP, CPU, SIZES, install, make_request, quiet

from spectral_tl_bench import pause
from spectral_tl_bench.benchmarks import builtin_benchmarks
from spectral_tl_bench.console import read_duration
from spectral_tl_bench.data.index import build_index
from spectral_tl_bench.data.packed import VARIABLE
from spectral_tl_bench.data.packing import pack
from spectral_tl_bench.data.readers import Readers
from spectral_tl_bench.endings import how_ended
from spectral_tl_bench.errors import DataError, UserError
from spectral_tl_bench.runner.definitions import Cell, Outcome
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.sample import write_dfc2020
from spectral_tl_bench.storage import STAGES
from spectral_tl_bench.training import checkpoints
from spectral_tl_bench.training.checkpoints import CheckpointStore, Rhythm
from spectral_tl_bench.training.plain import CannotTellError, plain
from spectral_tl_bench.training.task import StageTask

DFC = "dfc2020-autumn"  # of several source domains
OFTEN = replace(CPU, checkpoint_steps=2)
KEPT = {"options": {"cache": True, "cache_copies": 8, "train_patch_embed": False}}
slow = pytest.mark.slow


def cells_of(tree: Path, *methods: str, **settings) -> list[Cell]:
    settings = {"steps": 9, "validations": 3, "pretrain_steps": 5, **settings}
    return plan(make_request(tree, *methods, **settings), quiet)[0]


def run(cells: list[Cell], out: Path, hardware=OFTEN, workers: int = 0, say=quiet, fresh: bool = False) -> Outcome:
    (outcome,) = execute(cells, out, hardware, workers, say, fresh)
    return outcome


def ended(outcome: Outcome) -> dict:
    """What a cell that is done has left."""
    assert outcome.state == "done", outcome.message
    return left_by(outcome.record)


def environment(outcome: Outcome) -> dict[str, str]:
    return json.loads(outcome.record.read_text())["environment"]


def last(out: Path) -> Path:
    (path,) = out.glob(".resume/*/last.ckpt")
    return path


@pytest.fixture(scope="module")
def cities(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cities")
    write_dfc2020(root / "DFC2020", chip=CHIP, chips_per_city=4)
    return root


@pytest.fixture(scope="module")
def straight(tree, tmp_path_factory) -> dict:
    """What a run leaves that nothing happens to."""
    return ended(run(cells_of(tree, "pixel-mlp"), tmp_path_factory.mktemp("peace"), CPU))


@pytest.fixture
def cut(monkeypatch) -> Iterator:
    """Has a run end in its n-th training step, of all stages together, as if it were killed there; notes the steps."""
    true_step = StageTask.training_step
    seen: list[int] = []

    def cut_at(number: int | None) -> list[int]:
        seen.clear()

        def step(self, batch, batch_idx):
            seen.append(batch_idx)
            if len(seen) == number:
                raise pause.Paused
            return true_step(self, batch, batch_idx)

        monkeypatch.setattr(StageTask, "training_step", step)
        return seen

    yield cut_at
    pause.clear()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("adalora", {"schedule": "cosine"}),
        ("spectralx", {"oracle": True}),
        pytest.param("slr", {}, marks=slow),
        pytest.param("full+groupdro+mixstyle+swad", {"benchmarks": (DFC,), "validations": 9}, marks=slow),
        pytest.param("full", {}, marks=slow),
        pytest.param("lora", {"options": {"dropout": 0.2}}, marks=slow),
        pytest.param("full+vrex+coral+spectralaug", {"benchmarks": (DFC,)}, marks=slow),
        pytest.param("frozen", KEPT, marks=slow),
        pytest.param("self-training", {}, marks=slow),
        pytest.param("adabn@small", {}, marks=slow),
        pytest.param("spectralx@paper", {}, marks=slow),
    ],
)
def test_a_run_that_is_cut_off_ends_as_if_nothing_had_happened(tree, cities, tmp_path, cut, method, settings):
    cells = cells_of(cities if "benchmarks" in settings else tree, method, **settings)
    seen = cut(None)
    quietly = ended(run(cells, tmp_path / "peace", CPU))
    total, out, parts = len(seen), tmp_path / "cut", 0
    shutil.rmtree(STAGES.folder, ignore_errors=True)
    for number in (4, 6):
        cut(number)
        assert run(cells, out).state == "paused"
        parts += not list(out.glob(".resume/stage-*"))  # a first stage that is cut off counts for itself
    seen = cut(None)
    outcome = run(cells, out)
    assert ended(outcome) == quietly
    assert 0 < len(seen) < total
    assert not (out / ".resume").exists()
    assert environment(outcome)["resumed"] == str(parts)


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_readers_that_run_ahead_do_not_matter(tree, tmp_path, cut, straight, monkeypatch, kind):
    if kind == "threads":
        benchmark = builtin_benchmarks()["mts12-n2s"]
        pack(benchmark, build_index(benchmark, tree, packed="off"), tmp_path / "packs", 1, quiet)
        monkeypatch.setenv(VARIABLE, str(tmp_path / "packs"))
    threads, true_init = [], Readers.__init__

    def init(self, *given, **more):
        true_init(self, *given, **more)
        threads.append((self.threads, self.num_workers))

    monkeypatch.setattr(Readers, "__init__", init)
    cells, out = cells_of(tree, "pixel-mlp"), tmp_path / "runs"
    cut(6)
    assert run(cells, out, workers=2).state == "paused"
    seen = cut(None)
    assert ended(run(cells, out, workers=2)) == straight
    assert seen == [4, 5, 6, 7, 8]
    assert set(threads) == {(0, 2) if kind == "processes" else (2, 0)}


def test_no_step_and_no_validation_is_done_twice(tree, tmp_path, cut, straight, monkeypatch):
    """Cut off right after a validation whose checkpoint was written: the next step is the next thing that happens."""
    validated: list[int] = []
    true_start = StageTask.on_validation_epoch_start

    def note(self):
        validated.append(self.global_step)
        true_start(self)

    monkeypatch.setattr(StageTask, "on_validation_epoch_start", note)
    cells = cells_of(tree, "pixel-mlp")
    seen = cut(7)
    assert run(cells, tmp_path, replace(CPU, checkpoint_steps=3)).state == "paused"
    assert seen == [0, 1, 2, 3, 4, 5, 6] and validated == [3, 6]
    seen = cut(None)
    outcome = run(cells, tmp_path, replace(CPU, checkpoint_steps=3))
    assert seen == [6, 7, 8] and validated == [3, 6, 9]
    assert ended(outcome) == straight


def test_what_is_trained_is_tested_and_not_trained_again(tree, tmp_path, cut, straight, monkeypatch):
    from spectral_tl_bench.runner import cell

    cells, seen = cells_of(tree, "pixel-mlp"), cut(None)
    true_test = cell.test

    def stop(*_):
        raise pause.Paused

    monkeypatch.setattr(cell, "test", stop)
    assert run(cells, tmp_path).state == "paused"
    monkeypatch.setattr(cell, "test", true_test)
    assert len(seen) == 9
    said: list[str] = []
    outcome = run(cells, tmp_path, say=said.append)
    assert len(seen) == 9 and any("trained before" in line for line in said)
    assert ended(outcome) == straight


def test_a_short_run_writes_no_checkpoint(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.CheckpointStore, "save", lambda *_: pytest.fail("a checkpoint was written"))
    outcome = run(cells_of(tree, "pixel-mlp"), tmp_path, CPU)
    assert outcome.state == "done" and "resumed" not in environment(outcome)
    assert run(cells_of(tree, "pixel-mlp"), tmp_path / "never", replace(OFTEN, checkpoint_every=0)).state == "done"


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def unsafe(path: Path) -> None:
    torch.save({"stbench": pause.Paused}, path)


def older(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["stbench"]["work"]["checkpoint format"] = "0"
    torch.save(content, path)


def of_another_torch(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["stbench"]["work"]["torch"] = "1.0"
    torch.save(content, path)


def of_another_cell(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["stbench"]["work"]["cell"] = "0" * 64
    torch.save(content, path)


def of_another_module(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["stbench"]["weights"] = {f"other.{name}": value for name, value in content["stbench"]["weights"].items()}
    torch.save(content, path)


def without_its_files(path: Path) -> None:
    shutil.rmtree(path.parent / "files")


def with_a_damaged_file(path: Path) -> None:
    for file in (path.parent / "files").iterdir():
        torn(file)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (torn, "cannot be read"),
        (foreign, "cannot be read"),
        (unsafe, "cannot be read"),
        (older, "checkpoint format is 1, there it was 0"),
        (of_another_torch, "torch is"),
        (of_another_cell, "cell is"),
        (of_another_module, "do not fit"),
        (without_its_files, "cannot be read"),
        (with_a_damaged_file, "cannot be read"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_set_aside(tree, tmp_path, cut, straight, spoil, words):
    cells = cells_of(tree, "pixel-mlp")
    cut(6)
    run(cells, tmp_path)
    spoil(last(tmp_path))
    seen, said = cut(None), list[str]()
    outcome = run(cells, tmp_path, say=said.append)
    assert len(seen) == 9 and ended(outcome) == straight
    (line,) = [line for line in said if "set aside" in line]
    assert words in line and "starts again" in line and "set-aside.ckpt" in line


def test_fresh_begins_at_the_start(tree, tmp_path, cut, straight):
    cells = cells_of(tree, "pixel-mlp")
    cut(6)
    run(cells, tmp_path)
    seen = cut(None)
    assert ended(run(cells, tmp_path, fresh=True)) == straight
    assert len(seen) == 9


def test_where_no_checkpoint_can_be_written_training_goes_on(tree, tmp_path, straight):
    (tmp_path / ".resume").write_text("a file where a folder should be")
    said: list[str] = []
    assert ended(run(cells_of(tree, "pixel-mlp"), tmp_path, say=said.append)) == straight
    assert sum("no checkpoint could be written" in line for line in said) == 1


def test_frozen_weights_and_paths_are_not_in_a_checkpoint(tree, tmp_path, cut):
    cells = cells_of(tree, "lora")
    cut(6)
    run(cells, tmp_path)
    content = torch.load(last(tmp_path), weights_only=True)
    kept = content["stbench"]["weights"]
    assert kept and not any("base_layer" in name for name in kept) and content["state_dict"] == {}
    assert str(tmp_path).encode() not in last(tmp_path).read_bytes()
    assert b"/tmp" not in last(tmp_path).read_bytes()


FOREIGN = '''
from torch import nn
from spectral_tl_bench.methods.base import Memory, Method, Stage

class Counts(nn.Conv2d):
    steps = 0

class Decays(Method):
    """Changes its frozen weights after each step, by what it remembers outside the module's tensors."""
    tells: bool = True
    fails: int = 99

    def build(self, task):
        body, head = Counts(task.num_bands, 8, 1), nn.Conv2d(8, task.num_classes, 1)
        body.requires_grad_(False)
        return nn.Sequential(body, head)

    def stages(self, task):
        def after_step(module, step, steps):
            if step == self.fails:
                raise RuntimeError("the method's own mistake")
            module[0].steps += 1
            module[0].weight.data.mul_(1 - 0.01 * module[0].steps)

        def put(module, steps):
            module[0].steps = steps

        memory = Memory(lambda module: module[0].steps, put) if self.tells else None
        return [Stage("segment", task.budget.steps, after_step=after_step, memory=memory)]
'''


@pytest.fixture
def decays(tmp_path, monkeypatch) -> None:
    install(tmp_path / "site", "tiny_decays", FOREIGN, {"decays": "tiny_decays:Decays"}, monkeypatch)


@pytest.mark.parametrize("tells", [True, False])
def test_a_method_tells_what_it_remembers_or_begins_again(tree, tmp_path, cut, decays, tells):
    cells = cells_of(tree, "decays", options={"tells": tells})
    quietly = ended(run(cells, tmp_path / "peace", CPU))
    said: list[str] = []
    cut(6)
    run(cells, tmp_path / "cut", say=said.append)
    seen = cut(None)
    outcome = run(cells, tmp_path / "cut")
    assert ended(outcome) == quietly
    assert len(seen) == (5 if tells else 9)
    assert any("no `memory`" in line and "starts again" in line for line in said) != tells


def test_a_method_that_fails_begins_again(tree, tmp_path, decays):
    cells = cells_of(tree, "decays", options={"fails": 7})
    assert run(cells, tmp_path).state == "failed"
    assert not (tmp_path / ".resume").exists()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "failed"),
        (DataError(f"a process that reads batches was {how_ended(-9)}"), "refused"),
    ],
)
def test_a_cell_without_memory_left_goes_on(tree, tmp_path, cut, monkeypatch, straight, error, state):
    cells = cells_of(tree, "pixel-mlp")
    true_step = StageTask.training_step

    def step(self, batch, batch_idx):
        if batch_idx == 5:
            raise error
        return true_step(self, batch, batch_idx)

    monkeypatch.setattr(StageTask, "training_step", step)
    assert run(cells, tmp_path).state == state and last(tmp_path).is_file()
    monkeypatch.setattr(StageTask, "training_step", true_step)
    seen = cut(None)
    assert ended(run(cells, tmp_path)) == straight
    assert seen == [4, 5, 6, 7, 8]


def test_only_plain_values_are_kept():
    assert plain({"a": [1, (2.0, "x", None)], "b": torch.__version__}, "it")["a"] == [1, (2.0, "x", None)]
    assert type(plain(torch.__version__, "it")) is str
    with pytest.raises(CannotTellError, match="it remembers a object"):
        plain({"deep": [object()]}, "it")


# ---------------------------------------------------------------------------------------------- pauses


def test_a_pause_is_granted_between_two_steps_and_kept(tree, tmp_path, cut, straight, monkeypatch):
    cells = cells_of(tree, "pixel-mlp") + cells_of(tree, "pixel-mlp", seeds=(1,))
    seen = cut(None)
    true_step = StageTask.training_step

    def ask(self, batch, batch_idx):
        if batch_idx == 3:
            pause.ask()
        return true_step(self, batch, batch_idx)

    monkeypatch.setattr(StageTask, "training_step", ask)
    outcomes = execute(cells, tmp_path, CPU, 0, quiet)
    assert [outcome.state for outcome in outcomes] == ["paused", "paused"]
    assert seen == [0, 1, 2, 3], "the second cell is not begun"
    assert torch.load(last(tmp_path), weights_only=True)["stbench"]["done"] == 4
    pause.clear()
    seen = cut(None)
    outcomes = execute(cells, tmp_path, CPU, 0, quiet)
    assert ended(outcomes[0]) == straight and len(seen) == 5 + 9


def test_finished_cells_are_found_in_a_pause(tree, tmp_path, straight):
    cells = cells_of(tree, "pixel-mlp")
    run(cells, tmp_path)
    pause.ask()
    try:
        assert run(cells, tmp_path).state == "found"
        assert run(cells, tmp_path / "other").state == "paused"
        assert not (tmp_path / ".resume").exists()
    finally:
        pause.clear()


@pytest.mark.parametrize("value", ["10", "m", "1d", "-5m", "", "5 5m", "nan"])
def test_a_rhythm_that_is_none_is_a_mistake(stbench, small, tmp_path, value, capsys):
    assert stbench("run", "-m", "pixel-mlp", "-b", "mts12-n2s", "--out", tmp_path, "--checkpoint-every", value) == 2
    assert "30s, 10m or 1h" in capsys.readouterr().err


def test_times_are_read():
    wanted = {"30s": 30, "10m": 600, "1h": 3600, "1.5h": 5400, ".5s": 0.5, "0": 0, " 2M ": 120}
    assert {text: read_duration(text, "--x") for text in wanted} == wanted
    with pytest.raises(UserError):
        read_duration("0d", "--x")


SLOWLY = '''
import os
import time
from pathlib import Path
from torch import nn
from spectral_tl_bench.methods.base import Method, Stage

class Slowly(Method):
    """Steps of a tenth of a second; says when it has begun."""
    sign: str

    def build(self, task):
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

    def stages(self, task):
        def loss(module, batch):
            time.sleep(0.1)
            with open(self.sign, "a") as file:
                file.write(f"{os.getpid()}\\n")
            return nn.functional.cross_entropy(module(batch["image"]), batch["mask"], ignore_index=255)
        return [Stage("segment", task.budget.steps, loss=loss)]
'''


@slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_sigusr1_pauses_the_command_and_its_processes(tree, tmp_path, small, monkeypatch, jobs):
    """Code of other packages runs in processes of its own, whatever the number of jobs."""
    install(tmp_path / "site", "tiny_slowly", SLOWLY, {"slowly": "tiny_slowly:Slowly"}, monkeypatch)
    sign, out = tmp_path / "sign", tmp_path / "runs"
    command = [sys.executable, "-m", "spectral_tl_bench.cli.main", "run", "-m", "slowly", "-b", "mts12-n2s"]
    command += [
        "--data-root",
        str(tree),
        "--allow-partial",
        "--out",
        str(out),
        "--jobs",
        str(jobs),
        "-s",
        "0",
        "-s",
        "1",
    ]
    command += [*small[2:], "--steps", "40", "-o", f"sign={sign}"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not sign.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGUSR1)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 75, output + errors
    assert "same command" in errors and output.count("paused") >= 2
    kept = [torch.load(path, weights_only=True)["stbench"] for path in out.glob(".resume/*/last.ckpt")]
    assert len(kept) == jobs and all(0 < one["done"] < 40 for one in kept)
    before = len(sign.read_text().split())
    again = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(sign.read_text().split()) == 2 * 40, f"{before} steps were done before, and none is done twice"


KILLS = 20
"""Of runs of each method, spread over training, validation, testing, checkpoints and writing."""


@slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "lora"),
        ("-m", "spectralx"),
        ("-m", "adalora"),
        ("-m", "full+swad"),
        ("-m", "frozen", "-o", "cache=true", "-o", "train_patch_embed=false"),
        ("-m", "lora", "--workers", "2"),
    ],
    ids=" ".join,
)
def test_runs_that_are_killed_end_as_if_nothing_had_happened(tree, tmp_path, arguments):
    """About a quarter of an hour each on a busy machine."""
    folder = tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), str(folder), str(KILLS), *arguments]
    command += ["-b", "mts12-n2s", "--data-root", str(tree), "--allow-partial", "--accelerator", "cpu", "--jobs", "1"]
    command += ["--backbone", "compact", "--steps", "30", "--pretrain-steps", "20", "--batch-size", "2"]
    command += [part for name, size in SIZES.items() for part in ("--backbone-size", f"{name}={size}")]
    environ = {**os.environ, "STBENCH_CACHE": str(folder / "cache"), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--validations", "6"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    verdicts = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert verdicts == ["the same"] * KILLS, done.stdout


def test_a_checkpoint_puts_no_file_outside_its_folders(tmp_path):
    store = CheckpointStore(tmp_path / "kept", {"cell": "one"}, Rhythm(), quiet, "a cell")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.ckpt").write_bytes(b"weights")
    places = {"work": tmp_path / "work"}
    store.save({}, places, lambda path, content: torch.save(content, path))
    assert store.read(places) is not None
    content = torch.load(store.path, weights_only=True)
    content["stbench"]["files"]["work"] = {"../outside.ckpt": content["stbench"]["files"]["work"]["a.ckpt"]}
    torch.save(content, store.path)
    assert store.read(places) is None and not (tmp_path / "outside.ckpt").exists()

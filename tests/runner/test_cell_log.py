"""The log in a cell's folder: what it says, also in a process of its own; and no run ends because of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import CPU, install, make_request, quiet

from spectral_tl_bench.leaderboard.submit.intake import find_records
from spectral_tl_bench.results.store import read_records
from spectral_tl_bench.runner import cell_log
from spectral_tl_bench.runner.cell_log import EARLIER_LOG_FILE, LOG_FILE, add_to_log, logged
from spectral_tl_bench.runner.processes import execute_in_processes
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.runner.write import clear_unfinished

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ")

TALKS = """
import sys, warnings
from torch import nn
from spectral_tl_bench.methods.base import Method, Stage

class Talks(Method):
    uses_backbone = False

    def build(self, task):
        print("a printed line")
        print("a line of an error", file=sys.stderr)
        return nn.Conv2d(task.num_bands, task.num_classes, 1)

    def stages(self, task):
        def loss(module, batch):
            raise RuntimeError("its own mistake")
        return [Stage("segment", task.budget.steps, loss=loss)]
"""


def lines(path: Path) -> list[str]:
    """The lines of a log without their times, each of which has one."""
    text = path.read_text().splitlines()
    assert all(TIME.match(line) for line in text)
    return [TIME.sub("", line) for line in text]


def test_every_line_of_a_cell_is_in_its_log(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-mine")
    cells, _ = plan(make_request(tree, "full", "majority"), quiet)
    said: list[str] = []
    outcomes = execute(cells, tmp_path / "runs", CPU, 0, said.append)
    for outcome in outcomes:
        log = outcome.record.parent / LOG_FILE
        own = [line for line in said if line.startswith(outcome.cell.title)]
        assert own and lines(log)[1:-1] == own
        assert outcome.record.parent.name in lines(log)[0] and " on " in lines(log)[0]
        assert lines(log)[-1] == f"target mIoU {100 * outcome.miou:.2f} %"
        assert "a-secret-of-mine" not in log.read_text()


def test_a_cell_in_a_process_of_its_own_logs_what_it_prints_too(tree, tmp_path, monkeypatch, capsys):
    install(tmp_path / "site", "tiny_talks", TALKS, {"talks": "tiny_talks:Talks"}, monkeypatch)
    cells, _ = plan(make_request(tree, "talks"), quiet)
    said: list[str] = []
    (outcome,) = execute_in_processes(cells, tmp_path / "runs", CPU, 0, said.append, False, 1)
    log = lines(outcome.record.parent / LOG_FILE)
    assert outcome.state == "failed"
    assert log.count("a printed line") == log.count("a line of an error") == said.count("a printed line") == 1
    assert any(line.startswith("failed: RuntimeError: its own mistake") for line in log)
    assert "Traceback" in (outcome.record.parent / "error.txt").read_text()


def test_a_rerun_begins_a_new_log_and_keeps_one(tree, tmp_path):
    (cell,) = plan(make_request(tree, "majority"), quiet)[0]
    (outcome,) = execute([cell], tmp_path / "runs", CPU, 0, quiet)
    folder = outcome.record.parent
    first = (folder / LOG_FILE).read_text()
    execute([cell], tmp_path / "runs", CPU, 0, quiet)  # found: nothing is said, nothing changes
    assert (folder / LOG_FILE).read_text() == first and not (folder / EARLIER_LOG_FILE).exists()
    for _ in range(2):
        before = (folder / LOG_FILE).read_text()
        execute([cell], tmp_path / "runs", CPU, 0, quiet, fresh=True)
        assert (folder / EARLIER_LOG_FILE).read_text() == before
    assert lines(folder / LOG_FILE)[-1].startswith("target mIoU")


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_log, "LIMIT", 20_000)
    with logged(tmp_path / "cell", quiet) as say:
        for number in range(3000):
            say(f"line {number}")
            assert (tmp_path / "cell" / LOG_FILE).stat().st_size <= 20_000
    text = (tmp_path / "cell" / LOG_FILE).read_text().splitlines()
    assert text[0].endswith(" line 0") and text[-1].endswith(" line 2999")
    assert [line for line in text if "left out" in line] == ["[... lines are left out here: the log was too long ...]"]
    assert all(re.fullmatch(TIME.pattern + r"line \d+", line) for line in text if "left out" not in line)
    assert [path.name for path in (tmp_path / "cell").iterdir()] == [LOG_FILE]


def test_lines_within_a_text_have_the_time_each_and_long_ones_are_cut(tmp_path):
    add_to_log(tmp_path, "one\ntwo\n" + "x" * 100_000)
    one, two, three = lines(tmp_path / LOG_FILE)
    assert (one, two, len(three)) == ("one", "two", cell_log.LONGEST)
    add_to_log(tmp_path, "lone \udcff surrogate")
    assert lines(tmp_path / LOG_FILE)[-1] == "lone \\udcff surrogate"


@pytest.mark.parametrize("number", [28, 13, 30])
def test_a_log_that_cannot_be_written_ends_nothing(tree, tmp_path, monkeypatch, number):
    real = Path.open

    def refuse(self, *arguments, **more):
        if self.name == LOG_FILE:
            raise OSError(number, "no")
        return real(self, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    cells, _ = plan(make_request(tree, "majority"), quiet)
    said: list[str] = []
    (outcome,) = execute(cells, tmp_path / "runs", CPU, 0, said.append)
    assert outcome.state == "done" and any("testing" in line for line in said)
    assert not (outcome.record.parent / LOG_FILE).exists()


def test_logs_and_hidden_folders_are_no_results(tree, tmp_path):
    out = tmp_path / "runs"
    (outcome,) = execute(plan(make_request(tree, "majority"), quiet)[0], out, CPU, 0, quiet)
    decoy = out / ".resume" / "0123456789abcdef"
    decoy.mkdir(parents=True)
    (decoy / "record.json").write_text("{ this is no record")
    (out / ".resume" / "a-link").symlink_to(tmp_path)
    assert [record.path for record in read_records([out])] == [outcome.record]
    assert list(find_records(out)) == [outcome.record]
    (outcome.record.parent / "record.json").unlink()
    clear_unfinished(outcome.record.parent)
    assert [path.name for path in outcome.record.parent.iterdir()] == [LOG_FILE]

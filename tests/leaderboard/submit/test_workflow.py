"""The check of pull requests: it runs the base branch's code, with no right to write, on what would be merged."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from submitting import cells_of, write_cell
from tiny import run_main

from spectral_tl_bench.leaderboard.submit.truth import write_truth

FILE = Path(__file__).parents[3] / ".github" / "workflows" / "check-submission.yml"


@pytest.fixture
def workflow():
    if not FILE.is_file():
        pytest.skip("not in a checkout of the whole repository")
    return yaml.load(FILE.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - the plainest of all: `on` stays a word


def steps(workflow):
    (job,) = workflow["jobs"].values()
    return job["steps"]


def test_a_pull_request_gets_no_rights(workflow):
    assert list(workflow["on"]) == ["pull_request"] and workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    text = FILE.read_text()
    assert "secrets." not in text and "GITHUB_TOKEN" not in text
    for step in steps(workflow):
        assert "${{" not in step.get("run", ""), "text of a pull request would become part of a command"
        if "uses" in step:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"].split(" ")[0]), "a tag can be moved"
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] == "false"


def test_only_the_base_branch_is_installed(workflow):
    installed = [step["run"] for step in steps(workflow) if "pip install" in step.get("run", "")]
    assert installed == ["python -m pip install ./base"]


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda p: None, 0, "nothing has to be refused"),
        (lambda p: p.write_text(re.sub('"oa": [0-9.]+', '"oa": 1.0', p.read_text())), 1, "scores.selected.oa"),
        (lambda p: p.write_text("".join(p.read_text().splitlines(True)[1:])), 1, "is changed or removed"),
    ],
)
def test_its_check_on_a_merge_commit(workflow, world, tmp_path, monkeypatch, capsys, spoil, code, said):
    assert world.submit().ok
    write_truth(world.checker().samples.get("mts12-n2s"), world.truths)
    repository = tmp_path / "pull-request"
    shutil.copytree(world.root / "checkout", repository)
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "base")
    for cell in cells_of("pixel-mlp", seeds=(1, 2)):
        write_cell(world.root / "more", cell)
    monkeypatch.chdir(repository)
    assert run_main(monkeypatch, ["submit", world.root / "more"]) == 0
    spoil(repository / "leaderboard" / "results" / "sample" / "pixel-mlp.jsonl")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "merged")
    monkeypatch.chdir(tmp_path)
    run = {step.get("name"): step.get("run", "") for step in steps(workflow)}
    subprocess.run(["bash", "-ec", run["Lay out the base branch beside it"]], check=True, capture_output=True)
    subprocess.run(["bash", "-ec", run["No links below leaderboard/"]], check=True, capture_output=True)
    command = shlex.split(run["Check the records"])
    capsys.readouterr()
    assert command[0] == "stbench" and run_main(monkeypatch, command[1:]) == code
    assert said in capsys.readouterr().out

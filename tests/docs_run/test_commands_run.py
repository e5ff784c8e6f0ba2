"""Every command of the documentation is run, page by page, in the order and the words in which it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import new_environment
from needs import NEEDS
from pages import FENCE, PAGES, Command, commands, content
from server import CLIENT
from world import PROGRAMS, Place, write_trees

from tests.data.sources.packing import MTS12, REPO, pack
from tests.data.sources.servers import Site, serving

RUN_ELSEWHERE = {"docs/tutorial.md": "tests/test_docs.py, whole and with its own number of steps"}
COMMANDS = {page: list(commands(page)) for page in PAGES if page not in RUN_ELSEWHERE}
HERE = Path(__file__).parent
TABLE: dict[str, Any] = yaml.safe_load((HERE / "commands.yaml").read_text(encoding="utf-8"))
LINES = {part: {entry["command"]: entry["run"] for entry in TABLE[part]} for part in ("instead", "before")}
PRINTS = {entry["command"]: entry["text"] for entry in TABLE["prints"]}
PIP = """#!{python} -I
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from environments import install_in_place
if sys.argv[1:3] != ["install", "-e"]: sys.exit("no network here")
install_in_place(Path(sys.executable), Path(sys.argv[3]))
"""


@dataclass(frozen=True)
class World:
    """What all pages share: programs, small data, kept results, and environment variables."""

    programs: Path
    trees: Path
    store: Path
    environment: dict[str, str]

    def call(self, place: Place, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the shell; what it exports stays for the next."""
        kept = place.folder.parent / "environment"
        done = subprocess.run(
            ["sh", "-c", f"{line}\ncode=$?; env -0 > '{kept}'; exit $code"], cwd=place.folder, env=place.environment,
            capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        pairs = (pair.partition("=") for pair in kept.read_text().split("\0") if pair)
        place.environment = {name: value for name, _, value in pairs if name not in ("_", "PWD", "OLDPWD", "SHLVL")}
        return done

    def forget_packages(self) -> None:
        """Remove what a page has installed."""
        (site,) = self.programs.parent.glob("lib/python*/site-packages")
        for path in site.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "here.pth":
                path.unlink()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One process that has imported the suite, and a hub with MTS12."""
    base = tmp_path_factory.mktemp("docs")
    trees = write_trees(base / "trees")
    python = new_environment(base / "venv")
    address = str(base / "socket")
    programs = {"stbench": CLIENT.format(python=python, address=address)}
    programs |= {"pip": PIP.format(python=python, tests=str(HERE.parent))}
    programs |= {name: f"#!/bin/sh\n{text}\n" for name, text in PROGRAMS.items()}
    for name, text in programs.items():
        (python.parent / name).write_text(text)
        (python.parent / name).chmod(0o755)
    site = Site(repos={REPO: {MTS12: pack(trees, ["MTS12"])}})
    with serving(site) as hub:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("STBENCH_", "PYTHON"))}
        environment |= {
            "PATH": f"{python.parent}{os.pathsep}{environment['PATH']}", "HF_ENDPOINT": hub.address,
            "STBENCH_CACHE": str(base / "cache"), "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(base / "hub"),
            "PYTHONPATH": str(HERE), "COLUMNS": "200", "GIT_CONFIG_GLOBAL": str(base / "gitconfig"),
        }  # fmt: skip
        (base / "gitconfig").write_text("[user]\nname = n\nemail = e@example.org\n")
        server = subprocess.Popen(
            [python, HERE / "server.py", address], env=environment, cwd=base, stdout=subprocess.PIPE
        )  # fmt: skip
        try:
            assert server.stdout is not None and server.stdout.readline(), "it has ended, and said why"
            yield World(python.parent, trees, base / "store", environment)
        finally:
            server.terminate()
            server.wait()


def bound(line: str, place: Place) -> str:
    """A line with what stands for something of the reader's own in place."""
    for word, thing in TABLE["bound"].items():
        line = line.replace(word, thing)
    line = re.sub(r"(?<![\w.])/(data|shared|scratch)/", f"{place.folder}/\\1/", line)
    here = [
        record.parent.name for runs in ("shared/me/runs", "runs")
        for record in sorted(place.folder.glob(f"{runs}/*/*/*/record.json"))
    ]  # fmt: skip
    for path in sorted(place.folder.glob("leaderboard/results/sample/*.jsonl")):
        here += [json.loads(row)["fingerprint"] for row in path.read_text(encoding="utf-8").splitlines()]
    named = zip(("FINGERPRINT", "CELL", "3f2a9c71", "b8dfc9f0"), (*here[:1] * 2, *here[:2]), strict=False)
    for name, fingerprint in named:
        line = line.replace(name, fingerprint[:8])
    return line


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, lines in COMMANDS.items() if lines])
def test_the_commands_of_a_page(page: str, world: World, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    settings = {"HOME": str(folder), "XDG_CONFIG_HOME": str(tmp_path / "settings")}

    def call(line: str) -> str:
        began = time.monotonic()
        done = world.call(place, bound(line, place))
        said = done.stdout + done.stderr
        sys.stdout.write(f"$ {line}  # {done.returncode}, {time.monotonic() - began:.1f} s\n{said}\n")
        if done.returncode:
            raise AssertionError(f"$ {line}\nends with {done.returncode}:\n{said[-4000:]}")
        return said

    place = Place(folder, world.trees, call, {**world.environment, **settings})
    if world.store.is_dir() and page not in TABLE["fresh"]:
        shutil.copytree(world.store, folder / "runs", copy_function=os.link)
    for make in NEEDS.get(page, []):
        make(place)
    wrong = []
    for command in COMMANDS[page]:
        try:
            run(command, call)
        except AssertionError as error:
            wrong.append(f"{page}:{command.line}: {command.text}\n{error}")
    world.forget_packages()
    if (folder / "runs").is_dir() and page not in TABLE["fresh"]:
        shutil.copytree(folder / "runs", world.store, copy_function=_link, dirs_exist_ok=True)
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)


def _link(source: str, target: str) -> None:
    if not Path(target).exists():
        os.link(source, target)


def run(command: Command, call: Callable[..., str]) -> None:
    """Run a command, or what stands for it, and hold what it prints against the page and the table."""
    for line in LINES["before"].get(command.text, ()):
        call(line)
    said = "\n".join(call(line) for line in LINES["instead"].get(command.text, [command.text]))
    printed = {" ".join(line.split()) for line in said.splitlines()}
    missing = [line for line in command.shown if " ".join(line.split()) not in {*printed, ""}]
    assert not missing, f"the page shows what is not printed: {missing}\n{said}"
    wanted = PRINTS.get(command.text, "")
    assert re.search(wanted, said), f"{wanted!r} is not printed\n{said}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_commands_stand_in_blocks_of_the_shell(page: str) -> None:
    words = ("stbench ", "python ", "make ", "pip ", "sh ")
    for kind, block in FENCE.findall(content(page)):
        loose = [line for line in block.splitlines() if line.startswith(words)]
        assert kind in ("sh", "bash") or not loose, f"in a block that nothing runs: {loose}"


def test_the_table_is_of_the_pages() -> None:
    shown = {command.text for lines in COMMANDS.values() for command in lines}
    for part in ("instead", "before", "prints"):
        named = [entry["command"] for entry in TABLE[part]]
        assert len(set(named)) == len(named)
        assert set(named) <= shown, f"{part} has commands that no page has: {sorted(set(named) - shown)}"
    assert all(entry["reason"] and entry["run"] for entry in TABLE["instead"])
    text = "\n".join(shown)
    assert not [word for word in TABLE["bound"] if word not in text]
    assert {*NEEDS, *TABLE["fresh"]} <= set(COMMANDS) and set(RUN_ELSEWHERE) <= set(PAGES)

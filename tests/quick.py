"""``make quick``: lint, types, and the tests of what was touched, within a minute on two cores.

Touched is what differs from where the branch left ``main``, or from the last commit. The nearest tests come first: test
files that were changed themselves, those named after a changed module, those that import one, and those of its
package. At the end it says what the minute was too short for; `make test-all` runs everything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
LIMIT = 55.0
"""Seconds for everything; starting and ending takes the rest of the minute."""
LAST_START = 45.0
"""Seconds after which no further test begins."""
WORKERS = 2
ALWAYS = (TESTS / "test_imports.py",)
FAR = 4
UNTOUCHED = (TESTS / "test_benchmarks.py", TESTS / "data" / "test_layouts.py")
"""What runs where nothing was touched, after ``ALWAYS``."""


def git(*arguments: str) -> list[str]:
    """The lines that a git command prints; none where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


def touched() -> list[Path]:
    """Python files that differ from the merge base with ``main``, whether committed or not."""
    base = next((found[0] for name in ("origin/main", "main") if (found := git("merge-base", "HEAD", name))), "HEAD")
    names = [*git("diff", "--name-only", base), *git("ls-files", "--others", "--exclude-standard")]
    return sorted({ROOT / name for name in names if name.endswith(".py") and (ROOT / name).is_file()})


def relevant(files: Iterable[Path]) -> list[Path]:
    """Test files for changed files, the nearest first."""
    from test_imports import MODULES, imports

    changed = set(files)
    modules = {name for name, path in MODULES.items() if path in changed}
    parts = [name.split(".")[1:] for name in modules if "." in name]
    stems = {f"test_{part}" for names in parts for part in names[1:] or names}
    folders = {TESTS.joinpath(*names[:depth]) for names in parts for depth in range(1, len(names))}

    def distance(test: Path) -> int:
        if test in changed:
            return 0
        if test.stem in stems:
            return 1
        if any(name in modules for name, _ in imports(test)):
            return 2
        return 3 if test.parent in folders else FAR

    tests = [test for test in sorted(TESTS.rglob("test_*.py")) if test not in ALWAYS]
    near = sorted((test for test in tests if distance(test) < FAR), key=distance)
    return [*ALWAYS, *(near or UNTOUCHED)]


class Watch:
    """A pytest plugin that writes down what is collected and what is done, and begins nothing after a time.

    Args:
        log: File for both.
        last_start: When, as ``time.time`` has it.
    """

    def __init__(self, log: Path, last_start: float) -> None:
        self.log, self.last_start = log, last_start

    def write(self, **event: Any) -> None:
        """Add a line."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(event) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Name all tests."""
        self.write(collected=[item.nodeid for item in session.items])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Name a test that has ended."""
        self.write(done=nodeid)

    def pytest_runtest_protocol(self) -> bool | None:
        """Pass over a test that would begin too late."""
        return True if time.time() > self.last_start else None


def work(log: str, last_start: str, files: list[str]) -> int:
    """Run test files in this process, one after the other, so that the first begins before the last is imported."""
    watch = Watch(Path(log), float(last_start))
    options = ["-q", "--no-header", "-p", "no:cacheprovider"]
    codes = [int(pytest.main([*options, file], plugins=[watch])) for file in files if time.time() < watch.last_start]
    return max((code for code in codes if code != pytest.ExitCode.NO_TESTS_COLLECTED), default=0)


def left_out(logs: Iterable[Path], files: Iterable[Path]) -> list[str]:
    """A line for each test file of which something did not run."""
    events = [json.loads(line) for log in logs if log.is_file() for line in log.read_text("utf-8").splitlines()]
    collected = [name for event in events for name in event.get("collected", ())]
    done = {event["done"] for event in events if "done" in event}
    waiting = Counter(name.partition("::")[0] for name in collected if name not in done)
    opened = {name.partition("::")[0] for name in collected}
    lines = [f"{file}: {count} tests" for file, count in waiting.items()]
    names = [file.relative_to(ROOT).as_posix() for file in files]
    return sorted([*lines, *(f"{name}: all" for name in names if name not in opened)])


@dataclass
class Running:
    """A command whose output goes into a file."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path

    @classmethod
    def start(cls, folder: Path, name: str, *command: object) -> Running:
        """Begin a Python program."""
        output = folder / f"{name}.txt"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, env=environment
            )
        return cls(name, process, output)

    def end(self, deadline: float) -> int | None:
        """The exit code; None if it had to be stopped."""
        try:
            return self.process.wait(max(0.1, deadline - time.time()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def main() -> int:
    """Run all three; the exit code is 0 if nothing that ran has failed."""
    begin = time.time()
    files = relevant(touched())
    with tempfile.TemporaryDirectory(prefix="stbench-quick-") as place:
        folder = Path(place)
        logs = [folder / f"{number}.jsonl" for number in range(WORKERS)]
        commands = [
            Running.start(folder, "ruff check", "-m", "ruff", "check", "--quiet", "."),
            Running.start(folder, "ruff format", "-m", "ruff", "format", "--quiet", "--check", "."),
            *(
                Running.start(folder, f"tests, part {number + 1}", __file__, log, begin + LAST_START, *share)
                for number, log in enumerate(logs)
                if (share := files[number::WORKERS])
            ),
            Running.start(folder, "mypy", "-m", "mypy"),
        ]
        failed, late = [], []
        for command in commands:
            code, output = command.end(begin + LIMIT), command.output.read_text("utf-8", "replace")
            if code is None:
                late.append(command.name)
            if code or (code is None and "FAILED" in output):
                failed.append(command.name)
                sys.stdout.write(f"== {command.name}\n{output}\n")
        waiting = left_out(logs, files)
    done = f"{len(files)} test files, {time.time() - begin:.0f} s"
    lines = [f"failed: {', '.join(failed)} ({done})" if failed else f"nothing failed ({done})"]
    lines += [f"not ready in time: {', '.join(late)}"] if late else []
    lines += ["left out, for `make test`:", *(f"  {line}" for line in waiting)] if waiting else []
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(work(sys.argv[1], sys.argv[2], sys.argv[3:]) if sys.argv[1:] else main())

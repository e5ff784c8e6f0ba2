"""What `stbench cache` says and removes, and what it leaves alone."""

from __future__ import annotations

import io
import json
import os
import time

import pytest
from tiny import run_main

from spectral_tl_bench.storage import FEATURES, STAGES, WEIGHTS, hold

DAY = 24 * 3600


@pytest.fixture
def stbench(monkeypatch, capsys):
    """Runs the command in this process; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_main(monkeypatch, arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """A cache with two stages, features and weights; the features are the oldest."""
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STBENCH_CACHE_LIMIT", raising=False)
    paths = {}
    for kind, name, age in ((STAGES, "s1", 40), (STAGES, "s2", 1), (FEATURES, "f", 50), (WEIGHTS, "w", 10)):
        path = paths[name] = kind.path(name)
        path.mkdir(parents=True)
        (path / "data").write_bytes(b"x" * 1024)
        os.utime(path, (time.time() - age * DAY,) * 2)
    return paths


def test_an_empty_cache_is_listed_and_not_made(stbench, tmp_path, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    code, out, _ = stbench("cache")
    assert code == 0 and f"folder  {tmp_path / 'cache'} (STBENCH_CACHE moves it)" in out
    rows = {line.split()[0]: line.split()[1:5] for line in out.splitlines()[1:9]}
    assert rows.keys() == {"index", "splits", "sample", "stages", "features", "packs", "boards", "weights"}
    assert all(row[:4] == ["0", "0", "B", "-"] for row in rows.values())
    assert stbench("cache", "clear")[1] == "nothing to remove\n" and not (tmp_path / "cache").exists()


def test_the_list(stbench, filled, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", "2GiB")
    _, out, _ = stbench("cache")
    oldest = time.strftime("%Y-%m-%d", time.localtime(time.time() - 40 * DAY))
    (line,) = (line for line in out.splitlines() if line.startswith("stages"))
    assert line.split()[1:5] == ["2", "2.0", "KiB", oldest] and "trained first stages" in line
    assert "limit   2.0 GiB (STBENCH_CACHE_LIMIT sets it)" in out
    facts = json.loads(stbench("cache", "--json")[1])
    assert facts["kinds"]["stages"] == {"entries": 2, "size": 2048, "oldest_use": oldest}
    assert facts["limit"] == 2 * 2**30 and facts["kinds"]["index"]["oldest_use"] is None


def left(filled) -> set[str]:
    return {name for name, path in filled.items() if path.exists()}


def test_clearing_by_kind_and_by_age(stbench, filled):
    code, out, _ = stbench("cache", "clear", "--older-than", "30d", "stages", "--yes")
    assert code == 0 and left(filled) == {"s2", "f", "w"}
    assert str(filled["s1"]) in out and str(filled["s2"]) not in out and "removed 1 entries" in out
    assert stbench("cache", "clear", "--older-than", "5d", "--yes")[0] == 0 and left(filled) == {"s2"}
    assert stbench("cache", "clear", "features", "weights", "--yes")[1] == "nothing to remove\n"
    assert stbench("cache", "clear", "--yes")[0] == 0 and left(filled) == set()


def test_it_asks(stbench, filled, monkeypatch):
    code, out, err = stbench("cache", "clear")
    assert code == 2 and "no terminal" in err and "--yes" in err and "remove 4 of them, 4.0 KiB?" in err
    assert str(filled["f"]) in out and len(left(filled)) == 4, "what would go is shown"
    for answer, code, names in (("n\n", 1, {"s1", "s2", "f", "w"}), ("y\n", 0, {"s1", "s2", "w"})):
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        assert stbench("cache", "clear", "features")[0] == code and left(filled) == names


def test_what_is_in_work_or_in_use_stays(stbench, filled):
    (filled["s1"].parent / ".s1.claim").write_text("elsewhere~1~abc")
    user = type("User", (), {})()
    hold(filled["f"], user)
    _, out, _ = stbench("cache", "clear", "--yes")
    assert left(filled) == {"s1", "f"} and f"stays   {filled['s1']}" in out and f"stays   {filled['f']}" in out
    del user
    os.utime(filled["s1"].parent / ".s1.claim", (1, 1))
    assert stbench("cache", "clear", "--yes")[0] == 0 and left(filled) == set()
    assert not list(filled["s1"].parent.iterdir()), "what a killed process has left goes, too"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("stage",), "did you mean stages"), (("--older-than", "soon"), "days as 30d"), (("--older-than", "2w"), "30d")],
)
def test_a_mistake_ends_with_a_message(stbench, filled, arguments, message):
    code, _, err = stbench("cache", "clear", "--yes", *arguments)
    assert code == 2 and message in err and "Traceback" not in err and len(left(filled)) == 4


def test_a_limit_that_is_none_is_said(stbench, filled, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE_LIMIT", "a lot")
    code, _, err = stbench("cache")
    assert code == 2 and "STBENCH_CACHE_LIMIT is 'a lot'" in err

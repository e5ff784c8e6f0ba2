"""``make quick``: which tests are near to what was touched, and that it stops in time and says what it left out."""

from __future__ import annotations

import subprocess
import sys
import time

from quick import ALWAYS, LAST_START, LIMIT, ROOT, TESTS, UNTOUCHED, Watch, left_out, relevant


def near(*names: str) -> list[str]:
    """Test files for changed files, by their paths in the repository."""
    return [path.relative_to(ROOT).as_posix() for path in relevant([ROOT / name for name in names])]


def test_the_nearest_tests_come_first():
    found = near("spectral_tl_bench/data/layouts/mts12.py")
    assert found[:2] == ["tests/test_imports.py", "tests/data/test_layouts.py"]
    assert "tests/data/test_index.py" in found and "tests/methods/test_contract.py" not in found
    found = near("spectral_tl_bench/plugins.py", "tests/methods/test_presets.py")
    assert found[1] == "tests/methods/test_presets.py", "a test that was changed itself"
    importing = near("spectral_tl_bench/benchmarks/__init__.py")
    assert importing[1] == "tests/test_benchmarks.py" and "tests/data/test_source.py" in importing


def test_untouched_gives_a_small_fixed_set():
    assert relevant([]) == [*ALWAYS, *UNTOUCHED] and all(path.is_file() for path in (*ALWAYS, *UNTOUCHED))
    assert near("README.md") == near()


def test_it_is_over_within_a_minute_and_says_what_is_left(tmp_path):
    assert LAST_START < LIMIT < 60
    test = tmp_path / "test_slow.py"
    test.write_text("import time\ndef test_a(): time.sleep(2)\ndef test_b(): pass\ndef test_c(): pass\n")
    log = tmp_path / "log.jsonl"
    command = [sys.executable, TESTS / "quick.py", log, time.time() + 60, test]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
    assert left_out([log], []) == []
    log.unlink()
    watch = Watch(log, time.time() - 1)
    assert watch.pytest_runtest_protocol() is True, "too late for another"
    watch.write(collected=["tests/a.py::one", "tests/a.py::two", "tests/b.py::one"])
    watch.pytest_runtest_logfinish("tests/a.py::one")
    assert left_out([log], [TESTS / "a.py", TESTS / "c.py"]) == [
        "tests/a.py: 1 tests",
        "tests/b.py: 1 tests",
        "tests/c.py: all",
    ]


def test_a_failure_is_the_exit_code(tmp_path):
    (tmp_path / "test_bad.py").write_text("def test_bad(): assert False\n")
    (tmp_path / "test_good.py").write_text("def test_good(): pass\n")
    files = [tmp_path / "test_bad.py", tmp_path / "test_good.py"]
    command = [sys.executable, TESTS / "quick.py", tmp_path / "log", time.time() + 60, *files]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "FAILED" in done.stdout and "1 passed" in done.stdout

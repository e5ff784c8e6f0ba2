"""The verbs report, plot and show, from the command line."""

from __future__ import annotations

import shutil

import pytest
from tiny import run_main

from spectral_tl_bench.leaderboard.reported import reported_folder
from spectral_tl_bench.results.store import read_records

SPRING = {"benchmark": "dfc2020-spring", "dataset": "DFC2020", "gap": "season"}


@pytest.fixture
def stbench(monkeypatch, capsys):
    """Runs the command and gives exit code, output, errors."""

    def run(*arguments):
        code = run_main(monkeypatch, arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def root(store, tmp_path):
    """A store with two boards."""
    for method, quality in (("lora", 0.8), ("full", 0.5)):
        for benchmark in ({}, SPRING):
            store(quality, method=method, **benchmark)
    store(method="lora", track="sample")
    return tmp_path / "store"


def made(folder):
    return {path.name for path in folder.iterdir()} - {".generated.json"}


def test_report_beside_the_records(stbench, root):
    code, out, err = stbench("report", "--records", root, "-f", "md", "-f", "latex")
    assert (code, err) == (0, "")
    names = {f"{name}.{end}" for name in ("board", "board-sample", "board-reported") for end in ("md", "tex")}
    assert made(root / "tables") == names and not (root / "figures").exists() and not (root / "site").exists()
    assert set(out.splitlines()) == {str(root / "tables" / name) for name in names}


def test_default_formats_and_all(stbench, root, tmp_path):
    code, out, _ = stbench("report", "--records", root, "--out", tmp_path / "a")
    assert code == 0 and made(tmp_path / "a") == {"tables", "site"}
    assert {name.rpartition(".")[2] for name in made(tmp_path / "a" / "tables")} == {"md", "csv"}
    files = sum(path.is_file() and path.name != ".generated.json" for path in (tmp_path / "a" / "site").rglob("*"))
    assert f"{tmp_path / 'a' / 'site'} ({files} files)" in out.splitlines()


def test_one_folder_is_the_default_whatever_else_is_there(stbench, root, tmp_path, monkeypatch):
    work = tmp_path / "work"
    (work / "leaderboard").mkdir(parents=True)
    monkeypatch.chdir(work)
    shutil.copytree(root, "runs")
    shutil.copytree(root / "mts12-n2s", "leaderboard/results/reproduced/mts12-n2s")
    assert stbench("report", "-f", "md")[0] == 0
    assert made(work / "runs" / "tables") == {"board.md", "board-sample.md", "board-reported.md"}
    assert made(work / "leaderboard") == {"results"}
    published = ("report", "--records", "leaderboard/results", "-f", "md")
    assert stbench(*published)[0] == 0, "nothing but records may lie among published ones"
    assert "dfc2020-spring" not in (work / "leaderboard" / "tables" / "board.md").read_text()
    assert made(work / "leaderboard") == {"results", "tables"}
    shutil.copytree(root / "dfc2020-spring", "elsewhere/dfc2020-spring")
    monkeypatch.setenv("STBENCH_RESULTS", "elsewhere")
    assert stbench("report", "-f", "md")[0] == 0
    assert "mts12-n2s" not in (work / "elsewhere" / "tables" / "board.md").read_text()


def test_papers_beside_the_records_replace_those_that_come_along(stbench, tmp_path, monkeypatch):
    folder = tmp_path / "leaderboard" / "results" / "reported"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    code, out, err = stbench("report")
    assert code == 2 and "no records" in err and "Traceback" not in err
    (source,) = reported_folder().glob("*.csv")
    lines = source.read_text().splitlines()
    (folder / "one.csv").write_text("\n".join(lines[:2]) + "\n")
    where = ("--records", "leaderboard/results")
    code, out, err = stbench("report", "-f", "csv", *where)  # the first day: nothing measured yet
    assert (code, out.splitlines()) == (0, ["leaderboard/tables/board-reported.csv"])
    assert (tmp_path / "leaderboard" / "tables" / "board-reported.csv").read_text().count("\n") == 2
    (folder / "one.csv").write_text("\n".join([lines[0], lines[1].replace("mIoU", "mIuO")]))
    code, _, err = stbench("report", "-f", "csv", *where)
    assert code == 2 and "one.csv, line 2" in err and "Traceback" not in err


def test_show_without_a_name_lists_what_there_is(stbench, root):
    code, out, _ = stbench("show", "--records", root)
    records = read_records([root])
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(records) + 2 and "stbench show RECORD" in lines[-1]
    for record in records:
        (line,) = [line for line in lines if line.startswith(record.fingerprint[:8])]
        assert [record.benchmark, record.method] == line.split()[1:3] and line.endswith(record.board)
        assert (f"{100 * record.scores.selected.miou:.2f} %" if record.scores else record.status) in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "-f", "markdown"), "no format 'markdown'"),
        (("report", "--records", "nowhere"), "no such folder"),
        (("plot", "pie", "--out", "a.pdf", "--track", "sample"), "no figure called 'pie'"),
        (("plot", "time", "--out", "a.gif"), "'.gif'"),
        (("plot", "time", "--out", "a.pdf", "--track", "real"), "--track, one of reproduced, sample"),
        (("plot", "time", "--out", "a.pdf", "-m", "lorra"), "did you mean lora"),
        (("show", "nothing-like-it"), "there is no record"),
        (("show", "ffff0000ffff"), "no fingerprint begins with"),
    ],
)
def test_mistakes_are_answered_without_a_traceback(stbench, root, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    where = () if "--records" in arguments else ("--records", root)
    code, out, err = stbench(*arguments, *where)
    assert code == 2 and out == "" and message in err and "Traceback" not in err
    assert not list(tmp_path.glob("a.*"))


def test_no_records_at_all(stbench, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments in (("report",), ("plot", "time", "--out", tmp_path / "a.pdf")):
        code, _, err = stbench(*arguments, "--records", tmp_path / "empty")
        assert code == 2 and "no records yet" in err


def test_plot_writes_one_figure(stbench, root, tmp_path):
    for kind, name in (("forest", "a.svg"), ("parameters", "deep/b.pdf"), ("classes", "c.png")):
        more = () if kind == "parameters" else ("--benchmark", "mts12-n2s")
        code, out, err = stbench("plot", kind, "--records", root, "--out", tmp_path / name, *more)
        assert (code, out, err) == (0, f"{tmp_path / name}\n", "")
        assert (tmp_path / name).stat().st_size > 1000
    svg = (tmp_path / "a.svg").read_bytes()
    stbench("plot", "forest", "--records", root, "--out", tmp_path / "a.svg", "-b", "mts12-n2s")
    assert (tmp_path / "a.svg").read_bytes() == svg
    stbench("plot", "forest", "--records", root, "--out", tmp_path / "a.svg", "-b", "mts12-n2s", "-m", "lora")
    assert (tmp_path / "a.svg").read_bytes() != svg
    code, out, _ = stbench("plot", "forest", "--records", root, "--out", tmp_path / "d.svg", "--track", "sample")
    assert code == 0 and (tmp_path / "d.svg").is_file()


def test_show_by_path_and_fingerprint(stbench, root, store):
    record = store(0.8, method="shown")
    by_path = stbench("show", record.path)
    assert by_path[0] == 0 and record.fingerprint in by_path[1] and "\x1b" not in by_path[1]
    assert stbench("show", record.fingerprint[:16], "--records", root) == by_path
    (record.path.parent / record.evidence.file).unlink()
    code, out, err = stbench("show", record.path)
    assert code == 2 and out == "" and "evidence cannot be read" in err

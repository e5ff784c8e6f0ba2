"""What goes wrong stays where it is: in its own cell, its own benchmark, with a message."""

from __future__ import annotations

import shutil
import signal

import pytest
from tiny import make_request, make_tree

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.results.store import read_records, verify
from spectral_tl_bench.runner import apart, planning
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

CPU = Hardware("cpu")


def quiet(_: str) -> None:
    pass


def test_a_method_that_raises_ends_its_own_cell_only(tree, tmp_path, order, capsys, stbench, small):
    out = tmp_path / "runs"
    order.write_text("raise")
    arguments = (
        "run",
        "-m",
        "full",
        "-m",
        "spectralx",
        "-b",
        "mts12-n2s",
        "--data-root",
        tree,
        "--allow-partial",
        "--out",
        out,
    )
    assert stbench(*arguments, *small) == 0
    breaks = (
        "run",
        "-m",
        "breaks",
        "-b",
        "mts12-n2s,mts12-s2n",
        "-o",
        f"order={order}",
        "--data-root",
        tree,
        "--allow-partial",
    )
    assert stbench(*breaks, "--out", out, *small) == 1
    text = capsys.readouterr().out
    assert "failed: RuntimeError: the method's own mistake" in text and "error.txt" in text
    by_status = {status: [r for r in read_records([out]) if r.status == status] for status in ("completed", "failed")}
    assert len(by_status["completed"]) == 2 and len(by_status["failed"]) == 2
    for record in by_status["failed"]:
        assert record.error.kind == "RuntimeError" and record.error.message == "the method's own mistake"
        log = (record.path.parent / "error.txt").read_text()
        assert log.startswith("Traceback") and "tiny_breaks.py" in log

    order.write_text("work")  # mended: a failed cell is not taken for finished
    assert stbench(*breaks, "--out", out, *small) == 0
    records = read_records([out])
    assert len(records) == 4 and all(record.status == "completed" for record in records)
    assert not list(out.rglob("error.txt")), "the old traceback is gone"


def test_other_cells_go_on_after_a_failure(tree, tmp_path, order):
    order.write_text("raise")
    cells = [
        *plan(make_request(tree, "breaks", options={"order": str(order)}), quiet)[0],
        *plan(make_request(tree, "full"), quiet)[0],
    ]
    said: list[str] = []
    outcomes = execute(cells, tmp_path / "runs", CPU, 0, said.append)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert outcomes[0].miou is None and "RuntimeError" in outcomes[0].message
    assert said[0].startswith("[1/2]") and said[-1].startswith("[2/2]") and "target mIoU" in said[-1]


def test_a_benchmark_without_data_is_reported_and_the_others_run(tree, tmp_path, capsys, stbench, small):
    out = tmp_path / "runs"
    request = make_request(tree, "full", benchmarks=("dfc2020-spring", "mts12-n2s"))
    cells, broken = plan(request, quiet)
    assert [cell.opened.benchmark.id for cell in cells] == ["mts12-n2s"]
    assert [name for name, _ in broken] == ["dfc2020-spring"] and isinstance(broken[0][1], UserError)
    arguments = ("-m", "full", "-b", "dfc2020-spring,mts12-n2s", "--data-root", tree, "--allow-partial", "--out", out)
    assert stbench("run", *arguments, *small) == 2
    captured = capsys.readouterr()
    assert "dfc2020-spring cannot run: no DFC2020 data" in captured.err and "Traceback" not in captured.err
    assert [record.benchmark for record in read_records([out])] == ["mts12-n2s"]


def test_a_source_that_cannot_be_cut_is_found_before_anything_trains(tmp_path):
    root = make_tree(tmp_path / "data", north=1, south=3)
    cells, broken = plan(make_request(root, "full", benchmarks=("mts12-n2s", "mts12-s2n")), quiet)
    assert [cell.opened.benchmark.id for cell in cells] == ["mts12-s2n"]
    assert [name for name, _ in broken] == ["mts12-n2s"] and "1 usable chip" in str(broken[0][1])


def test_damaged_pixels_end_with_a_message(tree, tmp_path, capsys, stbench, small):
    shutil.copytree(tree, tmp_path / "data")
    chip = next((tmp_path / "data" / "MTS12" / "image" / "test").glob("*.tif"))
    chip.write_bytes(chip.read_bytes()[:200])
    arguments = (
        "-m",
        "full",
        "-b",
        "mts12-n2s",
        "--data-root",
        tmp_path / "data",
        "--allow-partial",
        "--out",
        tmp_path / "runs",
    )
    assert stbench("run", *arguments, *small) == 2
    error = capsys.readouterr().err
    assert "1 of 12 chips cannot be used" in error and chip.stem in error and "Traceback" not in error
    assert read_records([tmp_path]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"benchmarks": ("mts12-n2x",)}, "did you mean mts12-n2s"),
        ({"options": {"rank": 3}}, "has no option 'rank'"),
        ({"backbone": "vit-hug"}, "there is no backbone 'vit-hug'"),
        ({"window": 20}, "a window of 20 px does not suit mts12-n2s"),
    ],
)
def test_mistakes_in_a_request_come_before_training(tree, wrong, message):
    with pytest.raises(UserError, match=message):
        plan(make_request(tree, "full", **wrong), quiet)


def test_without_permission_an_incomplete_copy_is_refused(tree, monkeypatch):
    (benchmark, own_folder), *_ = planning.resolve(["mts12-n2s"])
    as_published = benchmark.model_copy(update={"chip_size": 32})
    monkeypatch.setattr(planning, "resolve", lambda names: [(as_published, own_folder)])
    cells, broken = plan(make_request(tree, "full", allow_partial=False), quiet)
    assert cells == [] and "--allow-partial" in str(broken[0][1])
    (cell,), broken = plan(make_request(tree, "full", allow_partial=True), quiet)
    assert broken == [] and cell.opened.track == "partial"


# ---------------------------------------------------------------------------------------------- interruptions


def test_an_interruption_keeps_what_was_finished_and_nothing_else(
    tree, tmp_path, order, capsys, stbench, small, monkeypatch
):
    monkeypatch.setattr(apart, "_end_server", lambda: None)  # other tests go on with it
    out = tmp_path / "runs"
    order.write_text("interrupt")
    request = make_request(tree, "breaks", options={"order": str(order)})
    cells = [
        *plan(make_request(tree, "full"), quiet)[0],
        *plan(request, quiet)[0],
        *plan(make_request(tree, "frozen"), quiet)[0],
    ]
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        execute(cells, out, CPU, 0, quiet)
    (record,) = read_records([out])
    verify(record)
    left = [path.name for path in (out / "mts12-n2s" / "breaks").rglob("*") if path.is_file()]
    assert record.method == "full" and left == ["log.txt"]
    assert signal.getsignal(signal.SIGINT) is handler

    arguments = (
        "-m",
        "breaks",
        "-b",
        "mts12-n2s",
        "-o",
        f"order={order}",
        "--data-root",
        tree,
        "--allow-partial",
        "--out",
        out,
    )
    assert stbench("run", *arguments, *small) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert len(read_records([out])) == 1

    order.write_text("work")
    assert [outcome.state for outcome in execute(cells, out, CPU, 0, quiet)] == ["found", "done", "done"]

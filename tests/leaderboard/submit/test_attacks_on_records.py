"""Records that were tampered with, one way each: refused with the reason, and nothing is copied."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from submitting import edit, reasons

from spectral_tl_bench.results.store import read_record


def put(*keys, value, seal=True):
    """A change of one key of the record's JSON; the fingerprint is made to follow unless ``seal`` is false."""

    def change(record):
        place = record
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return lambda path: edit(path, change, seal)


def text(write):
    """A change of the record's text."""
    return lambda path: path.write_text(write(path.read_text()))


def option(json_text: str):
    """One more option, written out."""
    return text(lambda found: found.replace('"options": {', f'"options": {{"x": {json_text}, '))


def files_on(track: str):
    """Synthetic scenes that are said to be files of the user's."""

    def change(record):
        record.update(track=track, statement=None)
        record["data"]["kind"] = "files"

    return lambda path: edit(path, change)


def sparse(name: str, size: int = 2 * 2**30):
    """A file of 2 GB that takes no room."""

    def change(path):
        (target,) = path.parent.glob(name)
        os.truncate(target, size)

    return change


def linked(name: str):
    def change(path):
        (target,) = path.parent.glob(name)
        elsewhere = target.rename(path.parents[4] / target.name)
        target.symlink_to(elsewhere)

    return change


def pipe(path):
    (target,) = path.parent.glob("*.parquet")
    target.unlink()
    os.mkfifo(target)


ATTACKS = {
    # numbers
    "edited score": (put("scores", "selected", "miou", value=0.99), "'scores.selected.miou' is 0.99"),
    "edited class score": (put("scores", "last", "iou", value=[1.0] * 8), "'scores.last.iou'"),
    "best domain called the worst": (put("scores", "selected", "worst_domain", value="north"), "worst_domain"),
    "an oracle out of nowhere": (
        lambda path: edit(path, lambda r: r["scores"].update(oracle=r["scores"]["last"])),
        "its evidence last, selected",
    ),
    "NaN": (text(lambda t: t.replace('"seed": 0', '"seed": NaN')), "NaN is not JSON"),
    "infinity by overflow": (put("seconds", "total", value=10**400), "seconds"),
    "more parameters than a table can hold": (
        put("parameters", value={"total": 10**30, "trainable": 5}), "'parameters.total' is 1",
    ),
    "more trainable parameters than there are": (
        put("parameters", "trainable", value=901), "more trainable parameters",
    ),
    "more in the decoder than trains": (put("parameters", "decoder", value=901), "more parameters in the decoder"),
    "a count that is none": (put("parameters", "decoder", value=-1), "'parameters.decoder'"),
    "times whose mean overflows": (put("seconds", "total", value=1.7e308), "'seconds.total' is 1.7e"),
    "memory without end": (put("peak_memory_mb", value=1e300), "'peak_memory_mb' is 1e"),
    "negative seed": (put("seed", value=-1), "'seed'"),
    "giant seed": (put("seed", value=2**40), "allowed is 0 to"),
    # what was run
    "another seed": (put("seed", value=1), "split_hash"),
    "a cheaper budget": (put("settings", "budget", "steps", value=1), "stage 'segment' has 2 steps"),
    "another learning rate": (
        put("settings", "budget", "learning_rate", value=0.5, seal=False),
        "edited after the run",
    ),
    "another method": (put("method", value="lora"), "its options are not those of the installed method"),
    "the name of a method of the suite": (
        put("environment", value=dict.fromkeys(
            ("python", "platform", "spectral-tl-bench", "suite code", "torch", "method package other"), "1.0")),
        "belongs to the suite",
    ),
    "another family": (put("family", value="peft"), "key 'family'"),
    "other options": (put("options", "hidden", value=9, seal=False), "edited after the run"),
    "true for one": (put("settings", "validations", value=True), "another kind than a run writes"),
    "a backbone that was not used": (
        put("backbone", value={"name": "vit", "width": 8, "depth": 1, "heads": 1, "patch": 8}), "key 'backbone'",
    ),
    "the target's images without saying so": (put("target_images", value=True), "key 'target_images'"),
    "another split": (put("data", "split_hash", value="ab" * 32), "data.split_hash"),
    "fewer training chips": (put("data", "chips", "train", value=1), "data.chips.train"),
    "another majority class": (put("majority_class", value=7), "majority_class"),
    "another fingerprint": (
        put("fingerprint", value="0123456789abcdef" * 4, seal=False),
        "it was edited after the run",
    ),
    "no code version": (put("environment", value={"torch": "2"}), "key 'environment' lacks"),
    "made tomorrow": (put("created", value="2199-01-01T00:00:00+00:00"), "yet to come"),
    "validation better than right": (put("selection", "value", value=1.5), "outside 0 to 1"),
    "selected after the end": (put("selection", "step", value=99), "not those of the training"),
    # the protocol
    "windows that do not overlap": (
        lambda path: edit(path, lambda r: r["settings"].update(window=16, stride=16), seal=True),
        "windows that overlap",
    ),
    "windows that skip pixels": (put("settings", "stride", value=90), "settings"),
    "a window larger than the chip": (put("settings", "window", value=64), "the chips have 32 px"),
    "a budget beyond the paper's": (put("settings", "budget", "steps", value=90_000), "no method trains longer"),
    "a hidden budget in the batch": (
        lambda path: edit(path, lambda r: r["settings"]["budget"].update(steps=45_000, batch_size=128), seal=True),
        "windows, the",
    ),
    "selection at every step": (put("settings", "validations", value=5_000), "a chance to select"),
    "an unknown protocol": (put("settings", "protocol", value="mine"), "settings.protocol"),
    "an unknown precision": (put("settings", "precision", value="8-true"), "settings.precision"),
    # the benchmark
    "another version": (put("benchmark_version", value="9.9"), "'benchmark_version' is '9.9'"),
    "an unknown benchmark": (put("benchmark", value="mts12-n2z"), "the suite has no benchmark"),
    "another benchmark": (put("benchmark", value="mts12-s2n"), "source_domains"),
    "easier classes": (put("classes", 0, value="anything"), "key 'classes'"),
    "no gap": (put("gap", value="none"), "key 'gap'"),
    "another domain": (put("target_domains", value=["north"]), "target_domains"),
    "synthetic scenes as published data": (
        files_on("reproduced"),
        "no ground truth of its data is known",
    ),
    "a suite's benchmark as one's own": (
        files_on("demonstration"),
        "belongs to the suite",
    ),
    # text
    "script in a text": (put("family", value="<script>alert(1)</script>"), "markup or script"),
    "a picture in the options": (put("options", "note", value="<img src=x onerror=alert(1)>"), "markup or script"),
    "script as a key": (put("options", "<svg onload=x>", value=1), "markup or script"),
    "a link in Markdown": (put("device", value="[click](javascript:alert(1))"), "markup or script"),
    "a statement of one's own": (put("statement", value="real data, honestly"), "not the sentence"),
    "text that turns around": (put("device", value="CPU \u202egnp.exe"), "U\\+202E"),
    "an invisible letter": (put("options", "a\u200bb", value=1), "U\\+200B"),
    "a terminal's escape": (put("device", value="\x1b[2J\x1b[31mall good"), "U\\+001B"),
    "a log command": (put("device", value="x\n::set-output name=ok::1"), "U\\+000A"),
    "a null byte": (put("device", value="CPU\x00.exe"), "U\\+0000"),
    "half a character": (text(lambda t: t.replace('"device": "', '"device": "\\ud800')), "half of a character"),
    "a formula for spreadsheets": (put("device", value='=HYPERLINK("http://x")'), "spreadsheet formula"),
    "an endless text": (put("error", value={"kind": "x", "message": "x" * 5_000}), "holds 5000 characters"),
    "an unknown key": (put("comment", value="hello"), "comment"),
    # JSON
    "quotes without end": (lambda path: path.write_text('"' + '\\"' * 500_000), "not JSON"),
    "a key given twice": (text(lambda t: t.replace('"seed": 0', '"seed": 1, "seed": 0')), "given twice"),
    "nested beyond reason": (option("[" * 9_000 + "]" * 9_000), "levels deep"),
    "too many values": (option("[" + "0," * 50_000 + "0]"), "values"),
    "no JSON": (text(lambda t: t[:-20]), "not JSON"),
    "a list": (text(lambda t: "[" + t + "]"), "JSON object"),
    "another encoding": (lambda path: path.write_bytes(path.read_text().encode("utf-16")), "UTF-8"),
    # names
    "a path as benchmark": (put("benchmark", value="../../../etc"), "'benchmark'"),
    "an absolute path as method": (put("method", value="/etc/passwd"), "'method'"),
    "a path as evidence": (put("evidence", "file", value="../../other.parquet"), "'evidence.file'"),
    "a path as picture": (put("pictures", "file", value="../pictures-0123456789abcdef.png"), "'pictures.file'"),
    "a path as fingerprint": (put("fingerprint", value="../../../../../../x", seal=False), "'fingerprint'"),
    "letters that look alike": (put("method", value="pixel-ml\u0440"), "'method'"),
    "a name that Windows reserves": (put("method", value="CON"), "reserved on Windows"),
    "a reserved name with a suffix": (put("benchmark", value="nul.txt"), "reserved on Windows"),
    "a name that ends in a dot": (put("method", value="pixel-mlp."), "dots that file systems treat differently"),
    "a name beyond all length": (put("method", value="a" * 64 + "@" + "b" * 64 + "+" + "c" * 64), "at most 150"),
    # files
    "a record of 2 GB": (sparse("record.json"), "2,147,483,648 bytes"),
    "evidence of 2 GB": (sparse("*.parquet"), "2,147,483,648 bytes"),
    "a picture of 2 GB": (sparse("*.png"), "2,147,483,648 bytes"),
    "a record that is a link": (linked("record.json"), "symbolic link"),
    "evidence that is a link": (linked("*.parquet"), "symbolic link"),
    "evidence that is a pipe": (pipe, "not a plain file"),
    "no evidence": (lambda path: next(path.parent.glob("*.parquet")).unlink(), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_refused(world, record, name):
    attack, reason = ATTACKS[name]
    attack(record.path)
    done = world.submit()
    assert not done.ok
    assert re.search(reason, reasons(done)), reasons(done)
    assert done.placed == () and world.files() == [] and list(world.results.iterdir()) == []
    for finding in done.findings:
        assert str(finding).isprintable() and len(str(finding)) < 1_500, "a log or a terminal acts on it"


def test_a_linked_folder_of_runs_is_refused(world, record, tmp_path):
    shutil.move(world.runs / "mts12-n2s", tmp_path / "elsewhere")
    (world.runs / "mts12-n2s").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="symbolic link"):
        world.submit()
    assert world.files() == []


@pytest.mark.parametrize("change", ["result of another method", "result of another seed"])
def test_a_copied_result_is_refused(world, record, change):
    """A forged copy is consistent in itself: only the other record gives it away."""
    from submitting import cells_of, write_cell

    from spectral_tl_bench.results.store import evidence, write_record

    assert world.submit().ok
    method, seed = ("frozen", 0) if change == "result of another method" else ("pixel-mlp", 1)
    (cell,) = cells_of(method, seeds=(seed,))
    path = write_cell(world.root / "copy", cell)
    copied = read_record(path)
    value = copied.model_dump(mode="json", exclude={"scores", "evidence"})
    write_record(world.root / "copy", value, evidence(record))
    before = world.files()
    done = world.submit(world.root / "copy")
    assert "its confusion matrices are those of sample/pixel-mlp.jsonl (mts12-n2s, seed 0" in reasons(done)
    assert world.files() == before


def test_a_constant_prediction_proves_no_copy(world, record):
    """Two networks that have learned nothing yet agree with each other, and that is no fraud."""
    import numpy as np
    from submitting import cells_of, forge, write_cell

    def constant(frame):
        for number, flat in enumerate(frame["matrix"]):
            matrix = np.zeros((8, 8), dtype=np.int64)
            matrix[:, 3] = flat.reshape(8, 8).sum(axis=1)
            frame.at[number, "matrix"] = matrix.reshape(-1)
        return frame

    forge(record, constant)
    (cell,) = cells_of("frozen")
    forge(read_record(write_cell(world.runs, cell)), constant)
    done = world.submit()
    assert done.ok, reasons(done)


def test_the_same_row_and_seed_twice_is_refused(world, record):
    path = shutil.copytree(record.path.parent, record.path.parent.parent / "other") / "record.json"
    edit(path, lambda value: value["numerics"].update(training="0"), seal=True)
    assert "seed 0 of this row on mts12-n2s is already there" in reasons(world.submit())
    assert world.files() == []


def test_seeds_that_are_missing_on_one_benchmark_are_refused(world, record):
    from submitting import cells_of, write_cell

    for cell in cells_of("pixel-mlp", seeds=(0, 1), benchmarks=("mts12-s2n",)):
        write_cell(world.runs, cell)
    assert "lacks seed 1 on mts12-n2s" in reasons(world.submit())
    assert world.files() == []


def test_names_that_differ_in_case_alone_are_refused(world, record):
    from submitting import cells_of, write_cell

    (cell,) = cells_of("pixel-mlp")
    path = write_cell(world.runs, cell, method="Pixel-MLP", created="2026-01-01T00:00:00+00:00")
    value = json.loads(path.read_text())
    assert value["method"] == "Pixel-MLP"
    assert "differs from" in reasons(world.submit()) and "nothing but case" in reasons(world.submit())
    assert world.files() == []

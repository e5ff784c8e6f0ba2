"""What is right goes onto the leaderboard, as a whole and nothing beside it."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from submitting import World, cells_of, edit, fields_of, forge, reasons, truth_of, write_cell

from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.leaderboard.submit import place
from spectral_tl_bench.leaderboard.submit.truth import read_truths, write_truth
from spectral_tl_bench.results.bring_over import KNOWN_CODE
from spectral_tl_bench.results.store import load_evidence, read_record, read_records, target_digest, verify


def test_a_right_record_is_copied_and_passes_the_check(world, record):
    (record.path.parent / "selected.safetensors").write_bytes(b"weights")
    (record.path.parent / "error.txt").write_text("of an earlier run")
    done = world.submit()
    assert done.ok, reasons(done)
    shared = f"sample/chips/mts12-n2s-{target_digest(record, load_evidence(record))}"
    assert world.files() == sorted([
        "sample/pixel-mlp.jsonl", "sample/pixel-mlp.parquet",
        *[f"{shared}/{name}" for name in ("chips.json", "label.png", "true.png", "false.png")],
    ])  # fmt: skip
    (published,) = read_records([world.results])
    assert (
        published.model_dump() == record.model_dump() and published.path == world.results / "sample" / "pixel-mlp.jsonl"
    )
    assert verify(published)["selected"] == record.scores.selected
    assert published.location.picture(published) == (record.path.parent / record.pictures.file).read_bytes()
    assert [finding.level for finding in done.findings] == ["warning"]  # one seed
    checked = world.check()
    assert checked.ok, reasons(checked)


@pytest.mark.parametrize("level", [0, 2, 3])
def test_a_run_is_a_record_its_folder_or_a_store(world, record, level):
    given = [record.path, *record.path.parents][level]
    assert world.submit(given, record.path).ok, "the same record named twice is one record"


def test_all_or_nothing(world, record):
    (other,) = cells_of("pixel-mlp", seeds=(1,))
    bad = write_cell(world.runs, other)
    edit(bad, lambda value: value["scores"]["selected"].update(miou=0.99))
    done = world.submit()
    assert not done.ok and done.placed == () and world.files() == []
    assert "scores.selected.miou" in reasons(done)
    assert world.submit(record.path).ok


@pytest.mark.parametrize("moves", [1, 2, 5, 6])
def test_what_cannot_be_put_in_place_leaves_everything_as_it_was(world, record, monkeypatch, moves):
    (other,) = cells_of("pixel-mlp", seeds=(1,))
    write_cell(world.runs, other)
    real, calls = place._move, []

    def fails(source, target):
        calls.append(source)
        if len(calls) == moves:
            raise OSError(28, "no space left", str(target))
        real(source, target)

    monkeypatch.setattr(place, "_move", fails)
    with pytest.raises(Exception, match="nothing was submitted"):
        world.submit()
    assert world.files() == [] and list(world.results.iterdir()) == []


def test_replace_puts_the_new_record_in_the_place_of_the_old(world, record):
    assert world.submit().ok
    edit(record.path, lambda value: value.update(device="another CPU"))
    assert "same fingerprint" in reasons(world.submit())
    assert world.submit(replace=True).ok
    (published,) = read_records([world.results])
    assert published.device == "another CPU" and world.check().ok


def test_the_copy_is_checked_and_not_the_original(world, record, monkeypatch):
    """What is put in place is what was checked, even if the runs change in between."""
    from spectral_tl_bench.leaderboard.submit import submit as module

    real = module.check_together

    def swaps(*arguments):
        edit(record.path, lambda value: value["scores"]["selected"].update(miou=0.99))
        return real(*arguments)

    monkeypatch.setattr(module, "check_together", swaps)
    assert world.submit().ok
    (published,) = read_records([world.results])
    assert verify(published)["selected"] == record.scores.selected


def test_a_failed_cell_stays_visible(world, record):
    edit(
        record.path,
        lambda value: (
            value.update(status="failed", error={"kind": "RuntimeError", "message": "CUDA <out of memory>\n  here"}),
            [value.pop(key) for key in ("scores", "evidence", "pictures")],
        ),
    )
    done = world.submit()
    assert done.ok, reasons(done)
    assert world.files() == ["sample/pixel-mlp.jsonl", "sample/pixel-mlp.parquet"] and world.check().ok
    assert [one.status for one in read_records([world.results])] == ["failed"]


@pytest.fixture
def published(world: World, tmp_path):
    """Three seeds of a method on a small published dataset whose truth is kept."""
    from tiny import make_tree

    shutil.rmtree(world.runs)
    cells = cells_of("pixel-mlp", seeds=(0, 1, 2), root=make_tree(tmp_path / "data"), window=16)
    for cell in cells:
        write_cell(world.runs, cell, track="reproduced", pictures=True)
    return cells


def test_published_data_need_a_kept_truth(world, published):
    done = world.submit()
    assert "no ground truth of its data is known" in reasons(done) and "--write-truth mts12-n2s" in reasons(done)
    assert world.files() == []
    folder = write_truth(truth_of(published[0]), world.truths)
    assert sorted(path.name for path in folder.iterdir()) == ["about.json", "chips.csv"]
    assert list(read_truths(world.truths).values()) == [truth_of(published[0])]
    done = world.submit()
    assert done.ok and done.findings == (), reasons(done)
    assert not [name for name in world.files() if name.endswith(".png")], "these pictures are not ours to publish"
    assert world.check().ok


def test_the_sample_s_kept_truth_does_not_make_its_scenes_published_data(world):
    shutil.rmtree(world.runs)
    cells = cells_of("pixel-mlp", seeds=(0, 1, 2))
    write_truth(truth_of(cells[0]), world.truths)
    for cell in cells:
        data = {**fields_of(cell)["data"], "kind": "files"}
        write_cell(world.runs, cell, track="reproduced", statement=None, data=data)
    done = world.submit()
    assert "its data are synthetic scenes" in reasons(done) and world.files() == []


def test_published_data_need_three_seeds(world, published):
    write_truth(truth_of(published[0]), world.truths)
    for path in list(world.runs.rglob("record.json")):
        if read_record(path).seed == 1:
            shutil.rmtree(path.parent)
    assert "lacks seed 1; the track reproduced needs 0, 1, 2" in reasons(world.submit())
    assert world.files() == []


def test_a_changed_truth_is_noticed(world, published):
    folder = write_truth(truth_of(published[0]), world.truths)
    text = (folder / "chips.csv").read_text()
    line = text.splitlines()[1]
    (folder / "chips.csv").write_text(text.replace(line, line[:-1] + str((int(line[-1]) + 1) % 10)))
    with pytest.raises(Exception, match="is not the one that"):
        world.submit()


def test_a_benchmark_of_ones_own(world, own, record):
    shutil.rmtree(world.runs)
    (cell,) = cells_of("pixel-mlp", benchmarks=(str(own.yaml),))
    write_cell(world.runs, cell)
    done = world.submit()
    assert "no definition of the benchmark 'mine'" in reasons(done)
    shutil.copy(own.yaml, world.examples)
    assert "no ground truth of its data is known" in reasons(world.submit())
    write_truth(truth_of(cell), world.truths)
    done = world.submit()
    assert done.ok, reasons(done)
    assert world.check().ok and world.files()[0] == "demonstration/pixel-mlp.jsonl"


def test_other_pixels_of_the_sample_with_the_same_truth_are_a_warning(world, record):
    forge(record, data={**record.data.model_dump(), "manifest_hash": "0" * 64})
    done = world.submit()
    found = [finding.reason for finding in done.findings if finding.level == "warning"]
    assert any("pixels of its sample differ" in reason for reason in found)


def test_a_record_of_other_numerics_is_taken_with_a_warning(world, record):
    edit(record.path, lambda value: value["numerics"].update(training="0"), seal=True)
    done = world.submit()
    assert done.ok and any("made by other numerics versions: training '0'" in one.reason for one in done.findings)


def test_other_source_text_is_no_finding(world, record):
    """Where the numerics versions are the same, moving and renaming code changes nothing about a result."""
    edit(record.path, lambda value: value["environment"].update({"suite code": "0123456789abcdef"}))
    done = world.submit()
    assert done.ok and [finding.reason for finding in done.findings] == ["pixel-mlp has 1 of the 3 usual seeds"]


def test_components_that_do_not_take_part_are_refused(world, record):
    edit(record.path, lambda value: value["numerics"].pop("training"), seal=True)
    assert "names other components than take part: 'training'" in reasons(world.submit())


def test_other_code_does_not_hide_what_a_method_of_the_suite_always_is(world, record):
    environment = {**record.environment, "suite code": "0123456789abcdef"}
    edit(record.path, lambda value: value.update(environment=environment, family="peft", target_images=True))
    done = world.submit()
    assert not done.ok and "key 'family'" in reasons(done) and "key 'target_images'" in reasons(done)
    assert world.files() == []


def test_a_seed_whose_division_is_not_kept_is_refused(world, record):
    forge(record, seed=10, data={**record.data.model_dump(), "split_hash": "invented"})
    done = world.submit()
    assert not done.ok and "no division is kept for seed 10; those of seeds 0 to 9" in reasons(done)
    assert world.files() == []


def test_a_path_of_somebody_s_machine_is_pointed_out(world, record):
    forge(record, device="GPU of /home/somebody", pictures=None)
    done = world.submit()
    assert done.ok and any("holds a path of a machine" in finding.reason for finding in done.findings)


def test_depth_and_commas_are_counted_outside_texts_alone():
    from spectral_tl_bench.leaderboard.submit.intake import _shape

    assert _shape(rb'{"a,[{": ["\"]],,", {}, 1], "b": "\\", "c": 2}') == (3, 4)


def test_seeds_that_may_have_been_chosen_are_pointed_out(world, record):
    for cell in cells_of("pixel-mlp", seeds=(3, 9)):
        write_cell(world.runs, cell)
    done = world.submit()
    assert done.ok and any("has the seeds 0, 3, 9" in finding.reason for finding in done.findings)


def test_a_benchmark_that_takes_the_rank_from_others_is_pointed_out(world, record):
    assert world.submit().ok
    shutil.rmtree(world.runs)
    (cell,) = cells_of("pixel-mlp", benchmarks=("mts12-s2n",))
    write_cell(world.runs, cell)
    done = world.submit()
    assert any("rows without it lose their rank" in str(finding) for finding in done.findings), reasons(done)


def test_published_files_are_runs_like_others(world, record):
    assert world.submit().ok
    elsewhere = World(world.root / "elsewhere")
    for given in (world.results, world.results / "sample" / "pixel-mlp.jsonl"):
        shutil.rmtree(elsewhere.root, ignore_errors=True)
        done = elsewhere.submit(given)
        assert done.ok, reasons(done)
        assert elsewhere.files() == world.files() and elsewhere.check().ok
        for name in world.files():
            assert (elsewhere.results / name).read_bytes() == (world.results / name).read_bytes(), name


def test_a_submission_touches_its_own_files_alone(world, record):
    assert world.submit().ok
    before = {name: (world.results / name).stat().st_mtime_ns for name in world.files()}
    (cell,) = cells_of("frozen")
    done = world.submit(write_cell(world.root / "more", cell))
    assert done.ok and sorted(map(str, done.placed)) == ["sample/frozen.jsonl", "sample/frozen.parquet"]
    assert {name: (world.results / name).stat().st_mtime_ns for name in before} == before
    assert world.check().ok, reasons(world.check())


def schema_1(record, code):
    """Make a run's record one of schema 1."""
    content = (record.path.parent / record.evidence.file).read_bytes()
    known = {"file": record.evidence.file, "sha256": hashlib.sha256(content).hexdigest()}

    def change(value):
        for key in ("definition", "numerics", "given_stage", "earlier_fingerprint"):
            del value[key]
        value["environment"]["suite code"] = code
        value.update(schema_version=1, fingerprint="ab" * 32, evidence=known)

    edit(record.path, change)


def test_a_run_of_schema_1_is_brought_over(world, record):
    schema_1(record, next(iter(KNOWN_CODE)))
    done = world.submit()
    assert done.ok, reasons(done)
    (published,) = read_records([world.results])
    assert published.fingerprint == record.fingerprint and published.earlier_fingerprint == "ab" * 32
    assert published.identity() == record.identity() and published.scores == record.scores
    assert world.check().ok and "has the same fingerprint" in reasons(world.submit())


def test_a_run_whose_identity_cannot_be_rebuilt_is_shown_and_not_dropped(world, record):
    schema_1(record, "0" * 16)
    done = world.submit()
    assert done.ok and any("its identity is not known" in finding.reason for finding in done.findings)
    (published,) = read_records([world.results])
    assert published.identity() is None and published.fingerprint == "ab" * 32
    assert world.check().ok
    board = make_boards([published])["sample"]
    assert "Of 1 of 1 results it is not known which code they belong to." in board.notes


def test_changed_evidence_of_schema_1_is_refused(world, record):
    schema_1(record, next(iter(KNOWN_CODE)))
    path = record.path.parent / record.evidence.file
    path.write_bytes(path.read_bytes() + b" ")
    assert not world.submit().ok and world.files() == []


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("after", [1, 2])
def test_a_machine_that_stops_in_between_leaves_no_line_without_rows(world, record, monkeypatch, replace, after):
    """Submitting again puts it right."""
    assert world.submit().ok
    (other,) = cells_of("pixel-mlp", seeds=(0 if replace else 1,))
    more = write_cell(world.root / "more", other, quality=0.7, pictures=True)
    real, calls = place._move, []

    def stops(source, target):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(target)
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, "_move", stops)
        world.submit(more, replace=replace)
        raise KeyboardInterrupt  # where there was no move as late as that
    for published in read_records([world.results]) if list(world.results.rglob("*.jsonl")) else []:
        assert verify(published)
    assert world.submit(more, replace=True).ok
    assert world.check().ok, reasons(world.check())


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("pixel-mlp", {"until_plateau": True, "steps": 100, "validations": None}),
        ("frozen", {"backbone": "rgb-mini", "backbone_sizes": {}, "input_scale": "2", "level_norm": "plain"}),
    ],
)
def test_what_takes_part_only_sometimes_is_known(world, method, more):
    """Training until a plateau, and a backbone that reads images otherwise, have numerics versions of their own."""
    (cell,) = cells_of(method, **more)
    write_cell(world.runs, cell)
    done = world.submit()
    assert done.ok, reasons(done)
    assert set(cell.numerics()) & {"plateau", "backbone reading"}

"""Plans of many cells: grids and files, what is done and what is left and why, and how often anything is computed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import CHIP, SIZES, make_request, make_tree, quiet

from spectral_tl_bench import plugins
from spectral_tl_bench.data import kept_splits
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.errors import MethodError, UserError
from spectral_tl_bench.runner import definitions
from spectral_tl_bench.runner import planning as planner
from spectral_tl_bench.runner.blocks import Block, check_names, read_seeds, requests
from spectral_tl_bench.runner.estimate import estimate
from spectral_tl_bench.runner.plan_file import plan_text, read_plan
from spectral_tl_bench.runner.room import check_places
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.runner.survey import confirmed, survey
from spectral_tl_bench.storage import SPLITS, output
from spectral_tl_bench.training.hardware import Hardware

SETTINGS = {"steps": 2, "pretrain_steps": 1, "batch_size": 2, "validations": 1}


def block(*methods: str, **more) -> Block:
    settings = {**SETTINGS, **more.pop("settings", {})}
    facts = {"benchmarks": "mts12-n2s", "backbones": "compact", "backbone_sizes": SIZES, **more}
    return Block(methods=methods or ("lora",), settings=settings, **facts)


def cells_of(tree: Path, *blocks: Block, say=quiet):
    where = {"data_root": tree, "allow_partial": True}
    cells, broken = plan([request for one in blocks for request in requests(one, where)], say)
    assert broken == []
    return cells


@pytest.mark.parametrize(("window", "stride", "warned"), [(16, 16, True), (16, 8, False), (CHIP, CHIP, False)])
def test_windows_that_do_not_overlap_are_warned_of_before_anything_trains(tree, window, stride, warned):
    said: list[str] = []
    cells_of(tree, block(settings={"window": window, "stride": stride}), say=said.append)
    assert any("do not overlap" in line and "--stride 8" in line for line in said) == warned


@pytest.mark.parametrize(("methods", "told"), [(("majority", "pixel-mlp"), False), (("majority", "frozen"), True)])
def test_weights_are_told_of_where_a_method_reads_them(tree, methods, told):
    said: list[str] = []
    cells_of(tree, block(*methods, backbones="rgb-mini", backbone_sizes={}), say=said.append)
    assert any(line.startswith("weights of rgb-mini") for line in said) == told


# ---------------------------------------------------------------------------------------------- grids


def test_a_grid_is_every_combination(tree):
    cells = cells_of(
        tree,
        block("lora", "dora", backbones=("compact", "vit-tiny"), seeds="0-1", grid={"rank": [2, 4], "steps": [1, 3]}),
    )
    assert len(cells) == 2 * 2 * 2 * 2 * 2 == len({cell.fingerprint() for cell in cells})
    seen = {(cell.method_name, cell.backbone.name, cell.seed, cell.method.rank, cell.settings.budget.steps)
            for cell in cells}  # fmt: skip
    assert len(seen) == len(cells), "each differs in what was asked for"
    assert len({cell.title for cell in cells}) == len(cells), "two cells cannot be told apart in a log"
    assert "lora (vit-tiny, rank=4, steps=3) | seed 1" in cells_of(
        tree, block(backbones=("compact", "vit-tiny"), seeds=1, grid={"rank": [2, 4], "steps": [1, 3]})
    )[-1].title  # fmt: skip


def test_a_plain_run_is_called_what_it_was(tree):
    (cell,) = cells_of(tree, block(grid={"rank": [4]}))
    assert cell.title == "mts12-n2s | lora | seed 0" and cell.method.rank == 4


def test_a_grid_over_settings_objectives_and_embeddings(tree):
    cells = cells_of(
        tree,
        block("lora+spectralaug", grid={"learning_rate": ["1e-3", 0.01], "patch_embedding": ["random", "mean"]},
              weights="none"),
    )  # fmt: skip
    assert {(c.settings.budget.learning_rate, c.backbone.patch_embedding) for c in cells} == {
        (rate, name) for rate in (0.001, 0.01) for name in ("random", "mean")
    }
    option = next(iter(cells[0].objectives["spectralaug"].model_dump()))
    value = getattr(cells[0].objectives["spectralaug"], option)
    again = cells_of(tree, block("lora+spectralaug", grid={f"spectralaug.{option}": [value]}))
    assert getattr(again[0].objectives["spectralaug"], option) == value


def test_an_option_with_a_dot_is_the_method_s(tree):
    cells = cells_of(tree, block("peft", options={"tuner": "lora"}, grid={"config.r": [2, 4]}))
    assert len({cell.fingerprint() for cell in cells}) == 2 and "config.r=4" in cells[1].title


@pytest.mark.parametrize(
    ("one", "fragments"),
    [
        (block(options={"rank": 4}, grid={"rank": [4, 8]}), ["rank is given by -o and by --grid"]),
        (block(grid={"steps": [4, 8]}), ["steps is given by --steps and by --grid"]),
        (block(grid={"rank": [4, "4"]}), ["--grid rank has", "twice"]),
        (block(settings={"steps": 3}, grid={"window": [4]}), ["--grid window", "greater than or equal to 8"]),
        (block(grid={"vrex.weight": [1, 2]}), ["no method of this run has the objective 'vrex'"]),
        (block("lroa"), ["no method 'lroa'", "did you mean", "lora"]),
        (block(benchmarks="mts12-n2z"), ["no benchmark 'mts12-n2z'"]),
        (block(backbones="compcat"), ["compcat", "compact"]),
        (block(protocol="strikt"), ["strikt"]),
        (block(patch_embedding="wavelenth"), ["wavelenth"]),
        (block(grid={"patch_embedding": ["wavelenth"]}), ["wavelenth"]),
        (block(seeds="0-999999", grid={"rank": [1, 2]}), ["2000000 cells"]),
        (block(weights=__file__, backbones=("compact", "vit-tiny")), ["compact and vit-tiny", "block of its own"]),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_imported(one, fragments):
    with pytest.raises(UserError) as caught:
        check_names(one)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


def test_an_option_that_only_some_methods_have_names_method_and_option(tree, monkeypatch):
    monkeypatch.setattr(planner, "open_benchmark", lambda *_: pytest.fail("data were opened first"))
    with pytest.raises(MethodError, match="method 'full' has no option 'rank'"):
        cells_of(tree, block("lora", "full", grid={"rank": [2, 4]}))
    with pytest.raises(MethodError, match="option 'rank' of method 'lora'"):
        cells_of(tree, block("lora", grid={"rank": [2, "many"]}))


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), (["0,2", "7-8"], (0, 2, 7, 8)), ([3, 0, 3], (3, 0)), (5, (5,))],
)
def test_seeds(text, seeds):
    assert read_seeds(text) == seeds == Block(benchmarks="all", methods="lora", seeds=text).seeds


@pytest.mark.parametrize("text", ["-1", "4-0", "one", "", "0-", "1.5", "0-1-2", "0--1", "0-99999999999", "1e3", "²"])
def test_no_seeds(text):
    with pytest.raises(UserError, match="is no seed"):
        read_seeds([text])


def test_the_same_cell_is_planned_once_with_a_line(tree):
    said: list[str] = []
    cells = cells_of(tree, block(seeds="0-1"), block("lora", "full", oracle=True), block("full"), say=said.append)
    assert [(cell.method_name, cell.seed, cell.oracle) for cell in cells] == [
        ("lora", 0, True), ("lora", 1, False), ("full", 0, True),
    ]  # fmt: skip
    (line,) = [line for line in said if "more than once" in line]
    assert line.startswith("2 cells ") and "mts12-n2s | lora | seed 0" in line
    floor = cells_of(tree, block("majority", backbones=("compact", "vit-tiny")))
    assert len(floor) == 1, "a method without a backbone is the same on all"


# ---------------------------------------------------------------------------------------------- plans in files

BLOCKS = [
    block("lora", "spectralx@hypert", seeds="0-2,7", options={"rank": "4"}, name="first"),
    block("lora+vrex", benchmarks=("cross-region", "mts12-id"), grid={"vrex.weight": (1, 2.5), "rank": ("4", "8")},
          settings={"learning_rate": 0.5, "schedule": "cosine", "compile": True}),
    block("full", from_stage=Path("some/stage"), oracle=True, weights="hub", patch_embedding="mean",
          objective_options={"vrex": {"weight": 2}}, backbones=("compact", "timm:vit_tiny_patch16_224")),
    Block(benchmarks="all", methods="lora, full"),
]  # fmt: skip


@pytest.mark.parametrize("blocks", [*([one] for one in BLOCKS), BLOCKS])
def test_a_plan_comes_back_as_it_was_written(blocks, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(plan_text(blocks))
    assert read_plan(file) == blocks
    assert [list(requests(one, {})) for one in read_plan(file)] == [list(requests(one, {})) for one in blocks]


def test_a_plan_by_hand_with_defaults(tmp_path, tree):
    file = tmp_path / "plan.yaml"
    file.write_text("""
defaults:
  benchmarks: mts12-n2s
  backbones: [compact]
  backbone_sizes: {width: 32, depth: 2, heads: 2, patch: 8}
  seeds: 0-1
  settings: {steps: 2, batch_size: 2}
blocks:
  - methods: lora, dora
    grid: {rank: [2, 4]}
  - methods: [full]
    seeds: [5]
    settings: {steps: 3}
""")
    blocks = read_plan(file)
    assert blocks[1].settings.steps == 3 and blocks[1].settings.batch_size == 2, "merged key by key"
    assert len(cells_of(tree, *blocks)) == 2 * 2 * 2 + 1


WRONG = {
    "unknown key": ("blocks:\n  - benchmarks: all\n    metods: [lora]\n    methods: [lora]", ["block 1 (line 3)",
                    "'metods' is not known", "did you mean methods"]),
    "unknown setting": ("blocks:\n- benchmarks: all\n  methods: [lora]\n  settings: {stepz: 1}",
                        ["line 4", "settings.stepz", "did you mean steps"]),
    "in the defaults": ("defaults:\n  seeds: 1.5\nblocks:\n- benchmarks: all\n  methods: lora", ["line 2", "seeds"]),
    "missing": ("blocks:\n  - benchmarks: all", ["block 1 (line 2)", "'methods' is missing"]),
    "top": ("bloks:\n  - benchmarks: all", ["'bloks' is not known", "did you mean blocks", "line 1"]),
    "twice": ("blocks:\n  - methods: lora\n    methods: full\n    benchmarks: all", ["given twice", "line 3"]),
    "value": ("blocks:\n  - {methods: lora, benchmarks: all, settings: {learning_rate: -1}}", ["learning_rate",
              "greater than 0"]),
    "empty grid": ("blocks:\n  - {methods: lora, benchmarks: all, grid: {rank: []}}", ["grid.rank"]),
    "a scalar": ("just text", ["no mapping"]),
    "no list": ("blocks: {methods: lora}", ["'blocks' is no list"]),
    "nothing": ("", ["no mapping"]),
    "no YAML": ("blocks: [", ["not valid YAML", "line"]),
    "an object": ("blocks: !!python/object/apply:os.getcwd []", ["not valid YAML"]),
    "an alias": ("a: &x [1]\nblocks: [*x, *x]", ["alias", "defaults"]),
    "deep": ("blocks: " + "[" * 500_000, ["nest"]),
    "deep blocks": ("".join(" " * n + "a:\n" for n in range(900)), ["nested more than 20 deep"]),
    "large": ("# " + "x" * 2**20 + "\nblocks: []", ["more than 1048576 bytes"]),
    "latin": (b"blocks: \xe9", ["cannot be read"]),
    "a file for several": (f"blocks:\n- {{methods: lora, benchmarks: all, seeds: [true]}}\n# {__file__}", ["seeds"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_plan_with_a_mistake_names_file_key_and_line(name, tmp_path):
    content, fragments = WRONG[name]
    file = tmp_path / "plan.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_plan(file)
    text = str(caught.value)
    assert str(file) in text and all(fragment in text for fragment in fragments), text


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_plan_that_is_no_file(what, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_plan(tmp_path if what == "folder" else tmp_path / "none.yaml")


# ---------------------------------------------------------------------------------------------- how often


@pytest.fixture
def counted(monkeypatch):
    """How often the slow parts of planning are called."""
    calls: Counter[str] = Counter()

    def count(module, name: str) -> None:
        original = getattr(module, name)

        def counting(*arguments, **options):
            calls[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    for module, name in (
        (definitions, "benchmark_digest"), (definitions, "numerics_of"), (definitions, "backbone_inputs"),
        (planner, "open_index"), (planner, "make_method"), (planner, "get_backbone"), (plugins, "_sift"),
        (kept_splits, "make_split"), (output.tempfile, "TemporaryFile"),
    ):  # fmt: skip
        count(module, name)
    return calls


def test_what_cells_share_is_computed_once(tmp_path, counted):
    tree = make_tree(tmp_path / "tree", north=6)  # chips of its own, hence splits that nobody has cut before
    chosen = block(
        "lora", "dora", "full", benchmarks=("mts12-n2s", "mts12-s2n"), seeds="0-4", grid={"learning_rate": [0.1, 0.2]}
    )
    cells = cells_of(tree, chosen)
    assert len(cells) == 2 * 3 * 5 * 2
    assert counted["benchmark_digest"] == counted["open_index"] == 2
    assert counted["numerics_of"] == counted["make_method"] == 3, "by method, not by cell"
    assert counted["get_backbone"] == counted["backbone_inputs"] == 1
    assert counted["make_split"] == 2 * 5, "once for a benchmark and seed"
    assert counted["_sift"] <= 6, "each group of entry points is read once"
    before = counted.copy()
    found = survey(cells, tmp_path / "out")
    assert len(found.left) == len(cells) and counted == before, "a look at the records computes no identity again"
    check_places(cells, tmp_path / "out")
    assert counted["TemporaryFile"] <= 2, "a folder that is there is tried once"
    again = cells_of(tree, chosen)
    assert counted["make_split"] == 2 * 5, "splits are found again"
    assert [cell.fingerprint() for cell in again] == [cell.fingerprint() for cell in cells]


EVERY = ("lora", "frozen", "full", "majority", "nearest-mean", "pixel-mlp", "unet@small", "vpt-deep", "adalora",
         "spectralx", "spectralx@hypert", "lora+spectralaug", "full+swad+spectralaug")  # fmt: skip


def test_the_quick_fingerprint_is_that_of_the_identity(tree):
    cells = cells_of(tree, block(*EVERY, seeds="0-1"), block("linear-probe", options={"cache": "true"}))
    assert len(cells) == 2 * len(EVERY) + 1
    for cell in cells:
        assert cell.fingerprint() == cell.identity(cell.split()).fingerprint, cell.title


def test_a_changed_copy_of_a_cell_has_a_fingerprint_of_its_own(tree):
    (cell,) = cells_of(tree, block())
    other = replace(cell, seed=1)
    assert other.fingerprint() == other.identity(other.split()).fingerprint != cell.fingerprint()


def test_kept_splits_are_what_would_be_cut(tree):
    (cell,) = cells_of(tree, block(seeds=3))
    fresh = make_split(cell.opened.benchmark, cell.opened.index, 3)
    assert cell.split().role.equals(fresh.role) and cell.split().hash == fresh.hash
    assert (cell.split().notes, cell.split().distances) == (fresh.notes, fresh.distances)
    found = kept_splits.kept_split(cell.opened.benchmark, cell.opened.index, 3)
    assert found.role.equals(fresh.role) and list(found.role.index) == list(fresh.role.index)
    assert (found.notes, found.distances) == (fresh.notes, fresh.distances)


@pytest.mark.parametrize("damage", ["", "{}", "[]", "roles"])
def test_a_damaged_split_is_cut_again(tree, damage, tmp_path, monkeypatch):
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path))
    (cell,) = cells_of(tree, block())
    (file,) = SPLITS.folder.glob("*.json")
    kept = json.loads(file.read_text())
    flipped = ["target" if role == "train" else role for role in kept["roles"]]
    file.write_text(json.dumps({**kept, "roles": flipped}) if damage == "roles" else damage)
    again = kept_splits.kept_split(cell.opened.benchmark, cell.opened.index, 0)
    assert again.hash == cell.split().hash and json.loads(file.read_text()) == kept


def test_a_moved_chip_is_another_split(tree):
    (cell,) = cells_of(tree, block())
    frame = cell.opened.index.frame.copy()
    assert replace(cell.opened.index).places == cell.opened.index.places
    for column in ("xmin", "site", "domain", "crs"):
        moved = frame.copy()
        moved.loc[moved.index[0], column] = 1.5 if column == "xmin" else "other"
        assert replace(cell.opened.index, frame=moved).places != cell.opened.index.places, column


# ---------------------------------------------------------------------------------------------- what is left


@pytest.fixture(scope="module")
def ran(tree, tmp_path_factory):
    """A block that has been run, and its records."""
    out, chosen = tmp_path_factory.mktemp("planned"), block("nearest-mean", "pixel-mlp", seeds="0-1")
    outcomes = execute(cells_of(tree, chosen), out, Hardware("cpu"), 0, quiet)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    return chosen, out


@pytest.fixture
def copied(ran, tmp_path):
    shutil.copytree(ran[1], tmp_path / "runs")
    return ran[0], tmp_path / "runs"


def states(found):
    return [look.state for look in found.looks]


def test_what_is_finished_is_done(tree, ran):
    chosen, out = ran
    found = survey(cells_of(tree, chosen), out)
    assert states(found) == ["done"] * 4 and found.left == [] and estimate(found).known == 0
    assert all(look.reason == "" and look.path.is_file() for look in found.looks)
    outcomes = confirmed(found, quiet)
    assert [outcomes[number].state for number in range(4)] == ["found"] * 4
    assert all(outcome.miou == found.looks[n].record["scores"]["selected"]["miou"] for n, outcome in outcomes.items())


def test_a_changed_identity_names_record_and_field(tree, ran):
    _, out = ran
    changed = block("nearest-mean", "pixel-mlp", "lora", seeds="0,5", settings={"steps": 3}, options={})
    found = survey(cells_of(tree, changed), out)
    assert states(found) == ["changed", "new", "changed", "new", "new", "new"]
    near = next(iter(sorted((out / "mts12-n2s" / "nearest-mean").iterdir()))).parent
    look = found.looks[0]
    assert "settings.budget.steps: 2 -> 3" in look.reason and "seed" not in look.reason
    assert look.reason.split()[0] in {folder.name for folder in near.iterdir()}
    hidden = survey(cells_of(tree, block("pixel-mlp", options={"hidden": 8})), out).looks[0]
    assert "options.hidden: 64 -> 8" in hidden.reason


def test_a_record_of_the_plan_itself_is_no_change(tree, ran):
    _, out = ran
    found = survey(cells_of(tree, block("pixel-mlp", seeds="0-1", grid={"hidden": [64, 8]})), out)
    assert states(found) == ["done", "done", "new", "new"], "the other half of a grid"


@pytest.mark.parametrize("what", ["failed", "cut short", "gone", "begun", "edited", "list", "hidden"])
def test_what_is_not_done_and_why(tree, copied, what):
    chosen, out = copied
    cells = cells_of(tree, chosen)
    path = survey(cells, out).looks[0].path
    record = json.loads(path.read_text())
    if what == "failed":
        record |= {"status": "failed", "scores": None, "error": {"kind": "OutOfMemoryError", "message": "no\nroom"}}
    if what == "edited":
        record["fingerprint"] = "0" * 64
    if what == "gone":
        shutil.rmtree(path.parent)
    elif what == "begun":
        path.unlink()
    elif what == "hidden":
        path.parent.rename(path.parent.parent / f".{path.parent.name}")
    else:
        path.write_text({"cut short": json.dumps(record)[:-9], "list": "[]"}.get(what, json.dumps(record)))
    found = survey(cells, out)
    assert states(found)[1:] == ["done"] * 3
    reason = {"failed": ("failed", "OutOfMemoryError: no"), "gone": ("new", ""), "hidden": ("new", ""),
              "begun": ("new", "begun, and not finished yet")}  # fmt: skip
    expected = reason.get(what, ("new", "its record cannot be read"))
    assert (found.looks[0].state, found.looks[0].reason) == expected


def test_a_damaged_evidence_is_found_out_by_a_run(tree, copied):
    chosen, out = copied
    found = survey(cells_of(tree, chosen), out)
    (evidence,) = found.looks[1].path.parent.glob("evidence-*")
    evidence.write_bytes(evidence.read_bytes()[:-20])
    said: list[str] = []
    assert sorted(confirmed(found, said.append)) == [0, 2, 3]
    assert len(said) == 1 and "made again" in said[0]


def test_an_oracle_that_is_missing(tree, ran):
    chosen, out = ran
    found = survey(cells_of(tree, chosen.model_copy(update={"oracle": True})), out)
    assert {(look.state, look.reason) for look in found.looks} == {("new", "its record has no oracle")}


def test_the_estimate_is_from_finished_cells_and_scaled(tree, copied):
    _, out = copied
    for path in out.rglob("record.json"):
        record = json.loads(path.read_text())
        record["seconds"] = {"train": 20.0, "evaluate": 3.0, "total": 23.0}
        path.write_text(json.dumps(record))
    more = survey(cells_of(tree, block("pixel-mlp", "lora", seeds="0-2", settings={"steps": 20})), out)
    judged = estimate(more)
    assert judged.seconds == pytest.approx(3 * (200 + 3)), "ten times the steps, and the same evaluation"
    assert (judged.known, judged.unknown, judged.finished) == (3, 3, 2) and judged.devices == ("x86_64 CPU",)
    one = sum(path.stat().st_size for path in next(iter((out / "mts12-n2s" / "pixel-mlp").iterdir())).iterdir())
    assert judged.room > 3 * 0.9 * one


def test_records_that_say_nothing_about_time(tree, copied):
    _, out = copied
    for path in out.rglob("record.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": None}))
    judged = estimate(survey(cells_of(tree, block("pixel-mlp", seeds="0-4")), out))
    assert (judged.known, judged.unknown, judged.seconds) == (0, 3, 0.0)


def test_one_request_is_a_plan(tree):
    cells, broken = plan(make_request(tree, "full", seeds=(0, 1, 0)), quiet)
    assert len(cells) == 2 and broken == [] and cells[0].settings.window == CHIP


# ---------------------------------------------------------------------------------------------- rates by recipe


def test_each_method_has_the_rates_of_its_recipe(tree):
    """Random weights of a backbone need the whole rate; what a user gives is for all."""
    cells, _ = plan(make_request(tree, "full", "lora", "pixel-mlp", steps=60), quiet)
    rates = {cell.method_name: cell.settings.budget for cell in cells}
    assert {name: budget.learning_rate for name, budget in rates.items()} == {
        "full": 2e-3, "lora": 2e-3, "pixel-mlp": 4e-3,
    }  # fmt: skip
    assert rates["full"].weight_decay == 0.05 and rates["full"].pretrained_rate == 1.0
    assert cells[0].identity(cells[0].split()).settings["budget"]["learning_rate"] == 2e-3
    same, _ = plan(make_request(tree, "full", "lora", "pixel-mlp", steps=60, learning_rate=3e-3), quiet)
    assert {cell.settings.budget.learning_rate for cell in same} == {3e-3}


def test_pretrained_weights_that_train_have_a_share_of_the_rate(tree):
    request = make_request(tree, "full", "lora", steps=60, backbone="rgb-mini", backbone_sizes={})
    cells, _ = plan(request, quiet)
    shares = {
        cell.method_name: cell.settings.model_dump(mode="json")["budget"].get("pretrained_rate") for cell in cells
    }
    assert shares == {"full": 0.1, "lora": None}, "what is one for all is not written, as before"

"""The wall: from nothing that training or a method holds does a way lead to a chip or label of the target."""

from __future__ import annotations

import gc
import pickle
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from tiny import Pixelwise, open_tree

from spectral_tl_bench.data.loaders import EvaluationData, LoaderSettings, SourceData
from spectral_tl_bench.data.splits import make_split
from spectral_tl_bench.methods.base import Budget, Stage
from spectral_tl_bench.methods.losses import segmentation_loss
from spectral_tl_bench.training import fit as fit_module

DEAD_ENDS = (
    types.ModuleType,
    types.CodeType,
    types.FrameType,
    types.BuiltinFunctionType,
    types.GetSetDescriptorType,
)


def children(thing: Any) -> Iterator[Any]:
    """What a thing refers to; arrays and Arrow columns are opened, since the garbage collector does not see inside."""
    if isinstance(thing, type):  # what our own classes hold counts; of others it leads everywhere
        yield from vars(thing).values() if thing.__module__.startswith("spectral_tl_bench") else ()
    elif isinstance(thing, types.FunctionType):  # its globals are its module's, not what was given to it
        yield from (thing.__closure__ or (), thing.__defaults__ or (), thing.__kwdefaults__ or ())
    elif isinstance(thing, np.ndarray):
        yield None if isinstance(thing.base, torch.Tensor) else thing.base  # a view of a tensor that was seen
        if thing.dtype.kind in "OUS":
            yield from thing.ravel().tolist()
    elif isinstance(thing, pa.ChunkedArray):
        yield from thing.chunks
    elif isinstance(thing, pa.Array):  # the whole buffers: a slice keeps all that it was cut from
        yield from (buffer.to_pybytes() for buffer in thing.buffers() if buffer is not None)
    elif isinstance(thing, pd.DataFrame):
        yield from (thing.index.to_list(), *(thing[column].to_list() for column in thing))
        yield from gc.get_referents(thing)
    elif isinstance(thing, torch.Tensor):
        yield from (thing.detach().cpu().numpy() if thing.dtype != torch.bfloat16 else None, *gc.get_referents(thing))
    else:
        yield from gc.get_referents(thing)


def reachable(*roots: Any) -> Iterator[Any]:
    """Everything that can be reached from the roots."""
    seen: dict[int, Any] = {}
    todo = list(roots)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, DEAD_ENDS):
            continue
        seen[id(thing)] = thing  # kept, so that no id is used twice
        yield thing
        todo.extend(children(thing))


class Target:
    """What must not be found: names, paths, labels and pixels of the target."""

    def __init__(self, one: Any, split: Any, data: EvaluationData) -> None:
        chips = split.chips("target")
        frame = one.index.frame.loc[chips]
        self.texts = [*chips, *frame["image"], *frame["label"]]
        self.labels = {data.truth(chip).astype(kind).tobytes() for chip in chips for kind in (np.uint8, np.int64)}
        self.data = data

    def found_in(self, *roots: Any) -> list[str]:
        hits = []
        for thing in reachable(*roots):
            if isinstance(thing, str | bytes):
                text = thing if isinstance(thing, str) else thing.decode("latin-1")
                hits += [f"text {name}" for name in self.texts if name in text]
            elif isinstance(thing, np.ndarray) and thing.size and thing.dtype.kind in "iu":
                hits += ["labels"] * (np.ascontiguousarray(thing).tobytes() in self.labels)
        return hits


@pytest.fixture(scope="module", params=["mts12-n2s", "mts12-id"])
def world(request, tree):
    one = open_tree(tree, request.param)
    split = make_split(one.benchmark, one.index, 0)
    settings = LoaderSettings(16, 8, 2)
    source = SourceData(one.benchmark, one.index, split, settings, 0)
    target = Target(
        one, split, EvaluationData(one.benchmark, one.index, split.chips("target"), settings, source.statistics)
    )
    return one, split, source, target


def test_the_walk_sees_what_it_looks_for(world):
    one, split, _, target = world
    for holder in (one.index, split, target.data.rows, [target.data], {"deep": (lambda: target.data,)}):
        assert any(hit.startswith("text") for hit in target.found_in(holder))
    chip = split.chips("target")[0]
    assert target.found_in([{"mask": torch.from_numpy(target.data.truth(chip))}]) == ["labels"]
    assert target.found_in(target.data.collection.datasets[0].index["chip"])
    assert not target.found_in(one.benchmark, Budget(), np.arange(5), "south", split.chips("train"))


def test_no_way_leads_from_training_to_the_target(world, tmp_path, monkeypatch):
    _, split, source, target = world
    tasks, batches = [], []

    class Caught(fit_module.StageTask):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            tasks.append(self)

    def loss(module, batch):
        batches.append(batch)
        return segmentation_loss(module, batch)

    monkeypatch.setattr(fit_module, "StageTask", Caught)
    stages = [
        Stage("first", 1, labelled=False, loss=lambda m, b: batches.append(b) or m(b["image"]).mean()),
        Stage("segment", 2, loss=loss),
    ]
    fitted = fit_module.fit(
        Pixelwise(), stages, source, Budget(batch_size=2), 8, folder=tmp_path, validations=1, weight_seed=0,
        hardware=fit_module.Hardware("cpu"), say=lambda _: None, title="wall",
    )  # fmt: skip
    assert len(tasks) == 2 and len(batches) == 3 and tasks[-1].trainer is not None
    assert sum(1 for _ in reachable(*tasks)) > 1_000, "the walk must not stop at the surface"
    assert target.found_in(source, fitted, stages, batches, *tasks) == []
    # What training did load is on this side of the wall, and it did load something.
    loaded = set(source.collection.datasets[0].chip_cache._kept)
    assert loaded and loaded <= {*split.chips("train"), *split.chips("validation")}
    assert [set(batch) for batch in batches] == [{"image", "domain"}, *[{"image", "domain", "mask"}] * 2]
    assert all(isinstance(value, torch.Tensor) for batch in batches for value in batch.values())


def test_a_stage_in_closed_form_reaches_the_target_no_more(world, tmp_path):
    _, split, source, target = world
    given = []

    def solve(module, batches):
        given.extend((module, batches, *batches))

    stage = Stage("segment", 1, fit=solve)
    fitted = fit_module.fit(
        Pixelwise(), [stage], source, Budget(batch_size=2), 8, folder=tmp_path, validations=1, weight_seed=0,
        hardware=fit_module.Hardware("cpu"), say=lambda _: None, title="wall",
    )  # fmt: skip
    assert sum(1 for _ in reachable(*given)) > 1_000, "the walk must not stop at the surface"
    assert target.found_in(source, fitted, stage, *given) == []
    names = {text for text in reachable(*given) if isinstance(text, str)}
    assert set(split.chips("train")) <= names, "the walk sees the chips that are there"


def test_no_target_name_is_in_the_bytes_either(world):
    _, split, source, target = world
    content = pickle.dumps(source)
    assert any(chip.encode() in content for chip in split.chips("train"))
    assert not [name for name in target.texts if name.encode() in content]
    assert any(name.encode() in pickle.dumps(target.data) for name in target.texts)


def test_validation_batches_hold_no_label(world):
    batch = next(iter(world[2].validation.loader()))
    assert set(batch) == {"image", "chip", "line", "column"}
    assert set(batch["chip"]) <= set(world[1].chips("validation"))


def test_training_pixels_are_those_of_training_chips_only(world):
    one, split, source, _ = world
    held = {row["chip"] for _, _, row in source.collection.chips()}
    assert held == set(split.chips("train")) and not held & set(split.chips("target"))
    frame = one.index.frame.loc[split.chips("train")]
    expected = np.sum(frame["band_sum"].tolist(), axis=0) / frame["valid_pixels"].sum()
    np.testing.assert_allclose(source.statistics.mean, expected)

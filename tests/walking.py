"""Walks through everything that can be reached from an object, and looks for the target in it."""

from __future__ import annotations

import gc
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from spectral_tl_bench.data.loaders import EvaluationData

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

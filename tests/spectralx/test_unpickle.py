"""Files of torch.save with anything in them: read without running any of it."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pickle
import posix
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spectralx.released.convert import open_converted
from spectralx.released.files import open_file, read_file
from spectralx.released.unpickle import Name, NotReadError, Stored, Stub, open_torch_file

RAN: list[str] = []


def note(*arguments: Any) -> None:
    """What must never be called."""
    RAN.append(str(arguments))


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path: Path):
    RAN.clear()
    yield
    assert not RAN and not (tmp_path / "ran").exists()


class Calls:
    """Pickled as the call of a function, mostly with a state to set on what it gives."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None, items: Any = None, pairs: Any = None):
        self.parts = (function, arguments, state, items, pairs)

    def __reduce__(self) -> Any:
        return self.parts

    def __call__(self) -> None:
        """The pickler wants what is called to be callable; this is never called."""


class WithState:
    """A class of ours that acts when it is made, and when its state comes."""

    def __new__(cls, *_: Any) -> WithState:
        note("new")
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        note("setstate", state)

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


class LoudDict(dict):
    def __setitem__(self, key: Any, value: Any) -> None:
        note("setitem", key)

    def __reduce__(self) -> Any:
        return (LoudDict, (), None, None, iter([("a", 1)]))


class LoudList(list):
    def extend(self, values: Any) -> None:
        note("extend", values)

    def append(self, value: Any) -> None:
        note("append", value)


HOSTILE = {
    "os.system": lambda path: Calls(os.system, f"touch {path}"),
    "posix.system": lambda path: Calls(posix.system, f"touch {path}"),
    "subprocess": lambda path: Calls(subprocess.check_output, ["touch", str(path)]),
    "eval": lambda path: Calls(eval, f"open({str(path)!r}, 'w')"),
    "exec": lambda path: Calls(exec, f"open({str(path)!r}, 'w')"),
    "import": lambda _: Calls(__import__, "antigravity"),
    "getattr": lambda path: Calls(Calls(getattr, Calls(__import__, "os"), "system"), f"touch {path}"),
    "partial": lambda path: Calls(functools.partial, os.system, f"touch {path}"),
    "partial, called": lambda path: Calls(Calls(functools.partial, os.system), f"touch {path}"),
    "reduce of functools": lambda path: Calls(functools.reduce, os.system, [f"touch {path}"], 0),
    "map": lambda path: Calls(list, Calls(map, os.system, [f"touch {path}"])),
    "torch.load": lambda path: Calls(torch.load, str(path)),
    "torch.hub": lambda path: Calls(torch.hub.load, str(path), "entry"),
    "pickle.loads": lambda path: Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {path}"))),
    "open": lambda path: Calls(open, str(path), "w"),
    "our function": lambda _: Calls(note, "called"),
    "new and setstate": lambda _: WithState(),
    "state on a class of ours": lambda _: Calls(Stub, "kind", state=(None, {"__class__": dict, "kind": note})),
    "state on a function": lambda _: Calls(argparse.Namespace, state={"__dict__": note, "__class__": note}),
    "items on a dict of ours": lambda _: LoudDict(),
    "items on a list of ours": lambda _: LoudList([1, 2]),
    "type": lambda _: Calls(type, "Made", (), {}),
    "setattr": lambda _: Calls(setattr, Calls(__import__, "sys"), "flags", 3),
    "open_converted": lambda path: Calls(open_converted, str(path)),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_of_a_hostile_file_is_run(tmp_path: Path, kind: str, legacy: bool, monkeypatch):
    monkeypatch.setattr(pickle, "Pickler", pickle._Pickler)  # type: ignore[attr-defined]
    hostile = HOSTILE[kind](tmp_path / "ran")
    content = {"state_dict": {"a": torch.arange(3.0)}, "hook": hostile, "hooks": [(hostile,)]}
    for protocol in (2, 4):
        path = tmp_path / f"{protocol}.ckpt"
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
        RAN.clear()  # what making it ran
        (tmp_path / "ran").unlink(missing_ok=True)
        before = set(sys.modules)
        assert read_file(path)["a"].tolist() == [0, 1, 2]
        assert "antigravity" not in set(sys.modules) - before
        held = open_torch_file(path).content["hook"]
        assert isinstance(held, Stub | Name | list | set) and not callable(held)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_object_alone_is_refused(tmp_path: Path, kind: str, monkeypatch):
    monkeypatch.setattr(pickle, "Pickler", pickle._Pickler)  # type: ignore[attr-defined]
    torch.save(HOSTILE[kind](tmp_path / "ran"), tmp_path / "alone.ckpt")
    RAN.clear()
    with pytest.raises(ValueError, match="expected a state_dict"):
        read_file(tmp_path / "alone.ckpt")


def test_a_pickled_module_is_no_state_dict(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"an object of torch\.nn\.modules\.linear\.Linear, expected a state_dict"):
        read_file(tmp_path / "module.pt")


ARGUMENTS = {
    "beyond its numbers": (0, (1000,), (1,)),
    "beyond by its start": (3, (4,), (1,)),
    "absurd": (0, (2**40, 2**40), (1, 1)),
    "stride 0": (0, (2**45,), (0,)),
    "negative": (0, (-1,), (1,)),
    "start before": (-1, (1,), (1,)),
    "no numbers": (0, ("x",), (1,)),
    "fewer strides": (0, (2, 2), (1,)),
    "true": (0, (True,), (1,)),
    "a float": (0, (2.0,), (1,)),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ARGUMENTS)
def test_tensors_stay_within_their_numbers(tmp_path: Path, kind: str, legacy: bool):
    storage = torch.arange(4.0).storage()
    offset, shape, stride = ARGUMENTS[kind]
    bad = Calls(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, collections.OrderedDict())
    torch.save({"state_dict": {"a": bad}}, tmp_path / "bad.ckpt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"bad\.ckpt: .*tensor"):
        read_file(tmp_path / "bad.ckpt")


def test_all_that_pytorch_saves_in_a_state_dict(tmp_path: Path):
    base = torch.randn(6, 4)
    state = collections.OrderedDict(
        plain=base, view=base[1:3, ::2], transposed=base.t(), parameter=nn.Parameter(torch.ones(2)),
        half=torch.ones(3, dtype=torch.bfloat16), wide=torch.ones(3, dtype=torch.float64), one=torch.tensor(3),
        flag=torch.tensor([True, False]), empty=torch.empty(0, 3), complex=torch.ones(2, dtype=torch.complex64),
        unsigned=torch.ones(2, dtype=torch.uint16), eight=torch.ones(2).to(torch.float8_e5m2),
    )  # fmt: skip
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pt"
        for protocol in (2, 3, 4, 5):
            torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
            tensors = read_file(path)
            assert list(tensors) == list(state)
            for name, value in state.items():
                found = tensors[name]
                assert found.dtype == value.dtype and found.shape == value.shape
                assert bytes_of(found) == bytes_of(value), name


def bytes_of(value: torch.Tensor) -> bytes:
    return bytes(value.detach().contiguous().view(-1).view(torch.uint8).tolist()) if value.numel() else b""


def test_what_is_changed_in_memory_never_reaches_the_file(tmp_path: Path):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    read_file(tmp_path / "a.pt")["a"].zero_()
    assert (tmp_path / "a.pt").read_bytes() == before and read_file(tmp_path / "a.pt")["a"].sum() == 4


def test_plain_facts_are_read_and_live_objects_are_not(tmp_path: Path):
    settings = {"in_channels": 4, "wavelength": [0.4, 0.5], "model": "x", "callbacks": (WithState(),), "none": None,
                "args": argparse.Namespace(lr=1), "folder": tmp_path, "device": torch.device("cpu")}  # fmt: skip
    torch.save({"state_dict": {"a": torch.ones(1)}, "hyper_parameters": settings, "epoch": 3}, tmp_path / "f.ckpt")
    RAN.clear()
    file = open_file(tmp_path / "f.ckpt")
    assert file.facts == {"in_channels": 4, "wavelength": [0.4, 0.5], "model": "x", "none": None}
    assert file.beside == ("epoch",)


def rewritten(path: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive with other members; None takes one away."""
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        members = {name.partition("/")[2]: old.read(name) for name in old.namelist()} | change
        for name, content in members.items():
            if content is not None:
                new.writestr(f"archive/{name}", content)
    return target


def test_damaged_and_strange_archives_are_explained(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(1000)}, path)
    cases = {
        "before its tensors do": rewritten(path, {"data/0": b"1234"}).read_bytes(),
        "before its tensors": rewritten(path, {"data/0": None}).read_bytes(),
        "torch.save did not write": rewritten(path, {"data.pkl": None}).read_bytes(),
        "TorchScript": rewritten(path, {"constants.pkl": b""}).read_bytes(),
        "compressed": rewritten(path, {}, zipfile.ZIP_DEFLATED).read_bytes(),
        "byte order": rewritten(path, {"byteorder": b"big"}).read_bytes(),
        "or damaged: ": path.read_bytes()[:-500],
        "or damaged:": rewritten(path, {"data.pkl": b"\x80\x02}q\x00X\xff\xff"}).read_bytes(),
        "file is empty": b"",
        "not a file of torch.save": b"<!DOCTYPE html>",
        "extension 7": rewritten(path, {"data.pkl": b"\x80\x02\x82\x07."}).read_bytes(),
        "not known": rewritten(path, {"data.pkl": b"\x80\x02X\x03\x00\x00\x00abcQ."}).read_bytes(),
        "damaged": rewritten(path, {"data.pkl": b"\x80\x05\x96" + b"\xff" * 7 + b"\x00."}).read_bytes(),
    }
    for number, (reason, content) in enumerate(cases.items()):
        bad = tmp_path / f"{number}.pt"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            read_file(bad)


def test_a_legacy_file_that_is_cut_off_is_explained(tmp_path: Path):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in (3, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.pt: "):
            read_file(path)


def test_tensors_stay_on_disk_until_they_are_asked_for(tmp_path: Path):
    torch.save({"state_dict": {"a": torch.ones(10)}, "optimizer": [torch.ones(10)] * 3}, tmp_path / "a.pt")
    file = open_torch_file(tmp_path / "a.pt")
    assert isinstance(file.content["optimizer"][0], Stored)
    with pytest.raises(NotReadError):
        file.tensor(Stored(file.content["optimizer"][0].storage._replace(key="9"), 0, (10,), (1,)))


def resident() -> float:
    """Memory of this process in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_that_of_the_weights_not_of_the_file(tmp_path: Path):
    weights = {f"layer{i}": torch.ones(1024, 1024) for i in range(8)}  # 32 MiB
    moment = torch.ones(1024, 1024)
    states = {i: {"exp_avg": moment + i} for i in range(32)}  # 128 MiB
    torch.save({"state_dict": weights, "optimizer_states": states}, tmp_path / "big.ckpt")
    before = resident()
    tensors = read_file(tmp_path / "big.ckpt")
    opened = resident() - before
    total = sum(float(value.sum()) for value in tensors.values())
    used = resident() - before
    assert total == 8 * 1024**2
    assert opened < 8, f"{opened:.0f} MiB before a number was looked at"
    assert used < 32 + 24, f"{used:.0f} MiB for weights of 32 MiB beside an optimiser of 128 MiB"

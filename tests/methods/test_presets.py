"""Presets: a method with options, under a name of its own from the command to the board."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError
from tiny import install, make_request, make_tree

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.leaderboard.board import make_boards
from spectral_tl_bench.methods.listing import listing_of
from spectral_tl_bench.methods.registry import (
    check_known,
    distribution_of,
    load_method,
    make_method,
    method_entries,
)
from spectral_tl_bench.results.schema import MethodName
from spectral_tl_bench.results.store import read_records
from spectral_tl_bench.runner.run import execute, plan
from spectral_tl_bench.training.hardware import Hardware

WITH_PRESETS = '''
from torch import nn
from spectral_tl_bench.methods.base import Method

class Net(Method):
    """One convolution and another."""
    presets = {"wide": {"hidden": 16}, "wrong": {"hiden": 3}, "a/b": {}}
    hidden: int = 4

    def build(self, task):
        return nn.Sequential(
            nn.Conv2d(task.num_bands, self.hidden, 1), nn.GELU(), nn.Conv2d(self.hidden, task.num_classes, 1)
        )
'''


@pytest.fixture
def net(tmp_path, monkeypatch):
    install(tmp_path / "site", "tiny_preset_net", WITH_PRESETS, {"net": "tiny_preset_net:Net"}, monkeypatch)


def test_a_preset_gives_options_and_explicit_ones_win(net):
    assert (make_method("net").hidden, make_method("net@wide").hidden) == (4, 16)
    assert make_method("net@wide", {"hidden": "7"}).hidden == 7
    assert load_method("net@wide") is load_method("net") and distribution_of("net@wide") == ("tiny_preset_net", "1.2")
    check_known(["net@anything"])  # nothing is imported here, so that presets cannot be known yet


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net@wid", r"method 'net' has no preset 'wid'[\s\S]*did you mean wide"),
        ("net@", r"has no preset ''[\s\S]*known: a/b, wide, wrong"),
        ("net@wide@wide", r"has no preset 'wide@wide'"),
        ("ned@wide", r"there is no method 'ned'[\s\S]*did you mean"),
        ("full@wide", r"method 'full' has no presets"),
        ("net@wrong", r"method 'net@wrong' has no option 'hiden'[\s\S]*did you mean hidden"),
        ("net@a/b", r"cannot be part of a folder name"),
        ("../net@wide", r"there is no method '../net'"),
    ],
)
def test_a_wrong_preset_is_a_users_mistake(net, name, message):
    with pytest.raises(MethodError, match=message):
        make_method(name)


def test_presets_are_listed_as_they_are(net):
    for name, entry in method_entries().items():
        assert listing_of(entry).presets == tuple(load_method(name).presets), name
    assert listing_of(method_entries()["net"]).presets == ("wide", "wrong", "a/b")


def test_every_preset_of_an_installed_method_can_be_made():
    for name in method_entries():
        for preset, options in load_method(name).presets.items():
            made = make_method(f"{name}@{preset}")
            assert {key: getattr(made, key) for key in options} == dict(options)


def test_rows_with_and_without_preset_stand_apart(net, tmp_path):
    request = make_request(make_tree(tmp_path / "data"), "net", "net@wide")
    cells, broken = plan(request, lambda _: None)
    outcomes = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert not broken and [outcome.state for outcome in outcomes] == ["done", "done"], outcomes[-1].message
    records = {record.method: record for record in read_records([tmp_path / "runs"])}
    assert {name: record.options["hidden"] for name, record in records.items()} == {"net": 4, "net@wide": 16}
    assert records["net@wide"].path.parent.parent.name == "net@wide"
    again = execute(cells, tmp_path / "runs", Hardware("cpu"), 0, lambda _: None)
    assert [outcome.state for outcome in again] == ["found", "found"]
    (board,) = make_boards(records.values()).values()
    assert {"net", "net@wide"} <= set(board.rows["method"])


@pytest.mark.parametrize(
    ("name", "fits"),
    [("net", True), ("net@wide", True), ("net@", False), ("@wide", False), ("a@b@c", False), ("net@../x", False)],
)
def test_a_record_holds_names_that_are_folder_names(name, fits):
    adapter = TypeAdapter(MethodName)
    if fits:
        assert adapter.validate_python(name) == name
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(name)

"""The numbers of every component are the committed ones, or its numerics version says that they are not."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest
import write as write_script
from cases import CASES
from golden import Case, RefusedError, complaint, components, kinds, owner_of

from spectral_tl_bench.methods.registry import make_method
from spectral_tl_bench.models.backbones.registry import load_backbone
from spectral_tl_bench.objectives.registry import make_objectives
from spectral_tl_bench.protocol.numerics import numerics_of
from spectral_tl_bench.protocol.registry import get_protocol


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_the_committed_ones(name):
    assert complaint(CASES[name]) is None, complaint(CASES[name])


def test_every_component_has_a_case():
    assert not set(components()) - CASES.keys(), "components without a golden case"
    assert {one for case in CASES.values() for one in case.speaks} <= set(components())
    files = {path.name for path in golden.VALUES.iterdir()}
    assert files == {case.path.name for case in CASES.values()}, "values of components that are no more"


def test_whatever_a_result_depends_on_is_a_component():
    protocol = get_protocol()
    objectives = make_objectives("full")
    for name in kinds("objective"):
        objectives |= make_objectives(f"full+{name}")
    backbones = [load_backbone(names[0]) for names in golden.families().values()]
    for name in kinds("method"):
        probe = name == "linear-probe"
        method = make_method(name, {"cache": True} if probe else {})
        for backbone in backbones if probe else backbones[-1:]:
            versions = numerics_of(protocol, name, method, objectives if probe else {}, backbone)
            assert versions == {key: str(getattr(*owner_of(key))) for key in versions}


# ---------------------------------------------------------------------------------------------- the rule itself


class Owner:
    numerics_version = 1


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, list[float]]:
    """A component ``invented`` whose numbers and version can be set."""
    numbers: dict[str, list[float]] = {"counts": [1, 2], "loss": [0.5, 1.0]}
    case = Case("invented", lambda: iter(numbers.items()), ("invented",))
    monkeypatch.setattr(golden, "VALUES", tmp_path)
    monkeypatch.setattr(golden, "owner_of", lambda _: (Owner, "numerics_version"))
    monkeypatch.setattr(Owner, "numerics_version", 1)
    monkeypatch.setitem(CASES, "invented", case)
    return numbers


def test_a_component_without_values_is_refused(invented):
    assert complaint(CASES["invented"]) == (
        "invented has no golden values: write them with `make golden COMPONENT='invented'` and commit invented.json"
    )


def test_numbers_that_move_need_another_version_before_they_are_written(invented, monkeypatch, capsys):
    case = CASES["invented"]
    assert write_script.main(["invented"]) == 0 and complaint(case) is None
    assert capsys.readouterr().out == "written: invented.json\n"
    assert write_script.main(["invented"]) == 0 and capsys.readouterr().out == "", "nothing to write"
    before = case.path.read_text()

    invented["loss"] = [0.5, 1.01]
    found = complaint(case)
    assert found is not None
    assert found.splitlines()[:2] == [
        "the numbers of invented moved: raise its numerics version, or take the change back",
        "  loss: expected [0.5, 1], found [0.5, 1.01]",
    ]
    assert write_script.main(["invented"]) == 1 and case.path.read_text() == before
    assert capsys.readouterr().err.startswith("refused: the numbers of invented moved")

    monkeypatch.setattr(Owner, "numerics_version", 2)
    found = complaint(case)
    assert found is not None and found.startswith("the numerics version of invented was raised (1 -> 2): write")
    assert write_script.main(["invented"]) == 0 and complaint(case) is None

    monkeypatch.setattr(Owner, "numerics_version", 1)
    found = complaint(case)
    assert found is not None and "was lowered (2 -> 1)" in found
    assert write_script.main(["invented"]) == 1 and "only goes up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"loss": [0.5 + 4e-5, 1.0]}, False), ({"loss": [0.5, 1.0 + 9e-5]}, False), ({"loss": [0.5 + 2e-4, 1.0]}, True),
        ({"loss": [0.5]}, True), ({"loss": [0.5, float("nan")]}, True), ({"counts": [1, 3]}, True),
        ({"counts": [1.0, 2.0]}, False), ({"more": [1]}, True),
    ],
)  # fmt: skip
def test_what_counts_as_moved(invented, changes, moved):
    golden.write(CASES["invented"])
    invented |= changes
    assert (complaint(CASES["invented"]) is not None) is moved


def test_a_value_that_is_gone_has_moved(invented):
    golden.write(CASES["invented"])
    del invented["counts"]
    found = complaint(CASES["invented"])
    assert found is not None and "counts: expected [1, 2], found nothing" in found


def test_what_has_no_version_can_never_be_written_anew(invented, monkeypatch):
    case = Case("invented", CASES["invented"].numbers, ())
    golden.write(case)
    invented["counts"] = [1, 3]
    found = complaint(case)
    assert found is not None and found.startswith("the numbers of invented moved: they must never, take the change")
    with pytest.raises(RefusedError):
        golden.write(case)


def test_an_unknown_component_is_named(capsys):
    assert write_script.main(["lora"]) == 2
    assert "there is no component 'lora'" in capsys.readouterr().err

"""What methods are, read from their source; and groups of them."""

from __future__ import annotations

import pytest
from tiny import install

from spectral_tl_bench.errors import MethodError
from spectral_tl_bench.methods.listing import listing_of, methods_named
from spectral_tl_bench.methods.registry import load_method, method_entries
from spectral_tl_bench.objectives.registry import load_objective, objective_entries
from spectral_tl_bench.plugins import is_ours

OTHERS = '''
from typing import ClassVar
from spectral_tl_bench.methods.floors import PixelMLP
from spectral_tl_bench.methods.base import Method as Base

family_of_mine = "own"

class Plain(PixelMLP):
    reference = "Nobody, arXiv 2508.01731, 2031"

class Own(Base):
    """Does ``nothing``.

    And more.
    """
    family: ClassVar[str] = "own"
    def build(self, task): ...

class Computed(PixelMLP):
    family = "".join(["own"])
'''


def test_what_is_read_is_what_the_class_says():
    for entries, load in ((method_entries(), load_method), (objective_entries(), load_objective)):
        ours = {name: entry for name, entry in entries.items() if is_ours(entry)}
        assert len(ours) > 5
        for name, entry in ours.items():
            listing, kind = listing_of(entry), load(name)
            assert listing.reference == kind.reference and listing.family == getattr(kind, "family", ""), name
            assert listing.presets == tuple(getattr(kind, "presets", ())), name
            assert listing.summary and (kind.__doc__ or "").replace("``", "").startswith(listing.summary), name


def test_a_year_is_that_of_the_source(tmp_path, monkeypatch):
    entries = method_entries()
    assert listing_of(entries["lora"]).year == "2022" and listing_of(entries["full"]).year == ""
    assert listing_of(entries["spectralx"]).year == "2026"
    install(tmp_path, "others", OTHERS, {"plain": "others:Plain", "own": "others:Own"}, monkeypatch)
    plain, own = (listing_of(method_entries()[name]) for name in ("plain", "own"))
    assert (plain.year, plain.family, plain.summary) == ("2031", "floor", "")
    assert (own.year, own.family, own.summary) == ("", "own", "Does nothing.")


def test_groups_stand_for_their_members(tmp_path, monkeypatch):
    every = methods_named(["all"])
    assert set(every) == set(method_entries()) and len(every) == len(set(every))
    peft = methods_named(["family:peft"])
    assert "lora" in peft and "full" not in peft and {load_method(name).family for name in peft} == {"peft"}
    assert methods_named(["lora", "family:peft", "lora"])[0] == "lora"
    assert sorted(methods_named(["lora", "family:peft"])) == sorted(peft), "nobody runs twice"
    assert methods_named(["family:frozen+vrex+swad"]) == ("frozen+vrex+swad", "linear-probe+vrex+swad")
    assert methods_named(["lora@small", "nonsense"]) == ("lora@small", "nonsense"), "names are looked up elsewhere"
    install(tmp_path, "others", OTHERS, {"computed": "others:Computed", "all": "others:Plain"}, monkeypatch)
    assert methods_named(["family:own"]) == ("computed",), "where its source does not say, the class does"
    assert methods_named(["all"]) == ("all",), "a method that is called so goes first"


@pytest.mark.parametrize(("name", "said"), [("family:pefd", "did you mean peft"), ("family:", "known: ")])
def test_an_unknown_family_is_said(name, said):
    with pytest.raises(MethodError, match=said):
        methods_named([name])

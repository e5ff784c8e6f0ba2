"""What objectives and methods of adaptation say about their sources stands on their pages, word for word."""

from __future__ import annotations

import pytest
from shared import REPOSITORY

from spectral_tl_bench.methods.registry import load_method, method_entries
from spectral_tl_bench.objectives.registry import load_objective, objective_entries

OURS = "spectral_tl_bench."


def described() -> list[tuple[str, type, str]]:
    objectives = [(name, load_objective(name), "objectives.md") for name in objective_entries()]
    methods = [(name, load_method(name), "target-images.md") for name in method_entries()]
    return [
        one for one in (*objectives, *(m for m in methods if m[1].target_images)) if one[1].__module__.startswith(OURS)
    ]


@pytest.mark.parametrize(("name", "kind", "page"), [pytest.param(*one, id=one[0]) for one in described()])
def test_a_page_says_what_the_class_says(name, kind, page):
    text = " ".join((REPOSITORY / "docs" / page).read_text(encoding="utf-8").split())
    assert kind.reference and kind.differs, "every one of them differs in something"
    assert f"`{name}`" in text
    for sentence in kind.differs:
        assert sentence.endswith(".") and sentence in text, sentence
    assert kind.source_code.partition(",")[0] in text

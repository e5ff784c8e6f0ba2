"""docs/peft.md says of every method what its code says, and the code says it of every such method."""

from __future__ import annotations

import pytest
from peft_page import METHODS, PAGE, SHARED, whole
from tiny import make_task

from spectral_tl_bench.methods.registry import load_method, method_entries


def test_the_page_is_what_the_code_says():
    text = PAGE.read_text(encoding="utf-8")
    assert text == whole(text), "write it anew: .venv/bin/python tests/methods/peft_page.py"


def test_every_such_method_is_on_the_page():
    ours = {name for name in method_entries() if load_method(name).family == "peft"}
    assert set(METHODS) == ours | {"linear-probe"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_where_it_comes_from_and_what_differs(name):
    kind = load_method(name)
    assert kind.reference and kind.places and kind.starts and kind.differs
    assert all(sentence.endswith(".") for sentence in kind.differs)
    for option, field in kind.model_fields.items():
        assert option in SHARED or field.description, f"{option} is not described"
    assert all(stage.learning_rate is None for stage in kind().stages(make_task())), "the page says: the suite's"


TRAINED = {"lora", "lora-biased", "slr", "houlsby"}
"""Methods whose sources train the LayerNorms beside them."""


@pytest.mark.parametrize("name", sorted({*METHODS} - {"ln-tuning", "linear-probe"}))
def test_train_norms_is_one_option_with_the_default_of_the_source(name):
    field = load_method(name).model_fields["train_norms"]
    assert field.default is (name in TRAINED)
    assert "train the LayerNorms of the backbone" in (field.description or "")

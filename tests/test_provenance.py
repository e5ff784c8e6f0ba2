"""Hashes of code: remarks do not count, code does."""

from __future__ import annotations

from tiny import install

from spectral_tl_bench.provenance import _bare_source, _code_of, environment, package_code

PLAIN = "x = 1\nclass A:\n    y: int = 2\n\n    def f(self):\n        return self.y\n"
DRESSED = (
    '"""Module."""\n# a comment\nx = (1)  # another\n\n\nclass A:\n    """Class."""\n    y: int = 2\n'
    '    """Of an attribute."""\n'
    '\n    def f(self):\n        """Method."""\n        return (\n            self.y\n        )\n'
)


def test_comments_docstrings_and_layout_are_no_code(tmp_path):
    def bare(text):
        path = tmp_path / "some.py"
        path.write_text(text)
        return _bare_source(path)

    assert bare(PLAIN) == bare(DRESSED)
    assert bare(PLAIN) != bare(PLAIN.replace("y: int = 2", "y: int = 3"))
    assert bare(PLAIN) != bare(PLAIN.replace("self.y", "-self.y"))
    assert bare("def f():\n    '''Only text.'''\n") == bare("def f():\n    pass\n")
    assert bare("x = 'text'") != bare("x = 'other'"), "text that is used is code"
    assert bare("def f():\n    return 'a'\n") != bare("def f():\n    return 'b'\n")


def test_the_code_of_a_package(tmp_path, monkeypatch):
    code = "def f():\n    return 1\n"
    module = install(tmp_path, "tiny_hashed", code, {"one": "tiny_hashed:f"}, monkeypatch)
    hashed = _code_of.__wrapped__
    start = hashed("tiny_hashed")
    module.write_text("# remark\n" + code)
    assert hashed("tiny_hashed") == start
    module.write_text(code.replace("1", "2"))
    assert hashed("tiny_hashed") != start
    assert package_code("spectralx.method") == package_code("spectralx") != start


def test_the_environment_says_what_a_result_was_made_with():
    facts = environment("some-package", "3.1", "spectralx.method")
    assert facts["method package some-package"] == "3.1" and facts["method code"] == package_code("spectralx")
    assert {"python", "torch", "torchgeo", "suite code"} <= facts.keys() and all(facts.values())

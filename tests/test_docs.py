"""The documentation: links lead somewhere, commands are the suite's, and the tutorial works as it stands there."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pages import FENCE, PAGES, commands, content, prose
from shared import REPOSITORY

from spectral_tl_bench import __version__
from spectral_tl_bench.cli.main import app

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
INLINE = re.compile(r"`(stbench [^`]+)`")
LINK = re.compile(r"\]\(([^)\s#:]*)(?:#([^)\s]+))?\)")
ENDS = ("&&", "||", "|", ";", ">", ">>", "2>&1")


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as repositories make them; those of equal headings are numbered."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return set(found) | {f"{slug}-{number}" for slug, number in found.items() if number}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(prose(page)):
        path = (REPOSITORY / page).parent / target if target else REPOSITORY / page
        assert path.exists(), f"{page} links to {target}"
        if anchor:
            name = path.resolve().relative_to(REPOSITORY).as_posix()
            assert anchor in anchors(name), f"{page} links to {target}#{anchor}; there is {sorted(anchors(name))}"


def test_every_page_is_in_the_menu_of_the_site():
    def leaves(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for part in entry.values() if isinstance(entry, dict) else entry:
                yield from leaves(part)

    menu = set(leaves(yaml.safe_load(content("mkdocs.yml"))["nav"]))
    assert {page for page in PAGES if page.startswith("docs/")} <= {f"docs/{name}" for name in menu}
    made = {"reference/commands.md"}
    assert all((REPOSITORY / "docs" / name).exists() or (REPOSITORY / name).exists() for name in menu - made)


def invocations(line: str) -> Iterator[list[str]]:
    """The arguments of each ``stbench`` in a line."""
    words = shlex.split(line, comments=True)
    starts = [number for number, word in enumerate(words) if word == "stbench"]
    for start in starts:
        stop = next((number for number, word in enumerate(words) if number > start and word in ENDS), len(words))
        yield words[start + 1 : stop]


@functools.cache
def whole_command() -> Any:
    return typer.main.get_command(app)


def is_open(arguments: list[str]) -> bool:
    """Whether a command is written as one that goes on."""
    return arguments[-1:] == ["..."] and not (arguments[-2:-1] or [""])[0].startswith("-")


def is_flag(arguments: list[str]) -> bool:
    """Whether the option at the end takes no value."""
    try:
        parse(arguments, complete=False)
    except Exception as error:
        return "requires an argument" not in str(getattr(error, "message", error))
    return True


ACT_AT_ONCE = ("install_completion", "show_completion")
"""Options whose value is not processed here: that would install something."""


def parse(arguments: list[str], complete: bool) -> None:
    """Read arguments as the command does, and run nothing.

    Raises:
        Exception: Of the command line's library, if they name no verb, no option of it or no value of the option.
    """
    command = whole_command()
    context, rest = None, arguments[:-1] if is_open(arguments) else arguments
    while True:
        context = command.context_class(command, info_name=command.name, parent=context)
        values, rest, _ = command.make_parser(context).parse_args(args=list(rest))
        if not rest or not hasattr(command, "commands"):
            break
        _, command, rest = command.resolve_command(context, rest)
    assert not rest, f"nobody takes {rest}"
    for param in command.params:
        given = values.get(param.name)
        missing = given is None or given == () or type(given).__name__ == "Sentinel"
        assert not (complete and param.required and missing and not is_open(arguments)), f"{param.name} is missing"
        placeholder = any(str(one).isupper() for one in (given if isinstance(given, list | tuple) else [given]))
        if not missing and not placeholder and param.name not in ACT_AT_ONCE:
            param.process_value(context, given)


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_commands_are_those_of_the_suite(page):
    whole = [
        (line, arguments) for line in (command.text for command in commands(page)) for arguments in invocations(line)
    ]
    named = [(line, arguments) for line in INLINE.findall(prose(page)) for arguments in invocations(line)]
    for line, arguments in [*whole, *named]:
        complete = (line, arguments) in whole
        valueless = not complete and arguments[-1:] and arguments[-1].startswith("-") and not is_flag(arguments)
        try:
            parse([*arguments, "NAME"] if valueless else arguments, complete)
        except Exception as error:
            pytest.fail(f"{page}: {line}: {getattr(error, 'message', error)}")


@pytest.mark.parametrize(
    "line",
    [
        "stbench rum -m full", "stbench run --benchmarks all", "stbench data pak x", "stbench predict",
        "stbench run -m full -b all --steps many", "stbench methods show full extra",
    ],
)  # fmt: skip
def test_what_is_no_command_is_found(line):
    (arguments,) = invocations(line)
    with pytest.raises((Exception, SystemExit)):
        parse(arguments, complete=True)


def test_commands_of_the_makefile_and_of_ci_are_those_of_the_suite():
    found = []
    for page, start in (("Makefile", "$(BIN)/"), (".ci/run", ".venv/bin/")):
        lines = [line for line in content(page).splitlines() if f"{start}stbench " in line]
        texts = [re.sub(r"\$\((OUT)\)|\$\w+|\$\(\w+\)", r"\1", line.replace(start, "")) for line in lines]
        found += [arguments for text in texts for arguments in invocations(text.strip("\t@\\ ").replace('""', "NAME"))]
    assert len(found) >= 6
    for arguments in found:
        parse(arguments, complete=True)


@pytest.mark.parametrize("name", ["bug", "benchmark", "method", "record"])
def test_a_form_of_an_issue_can_be_shown(name):
    form = yaml.safe_load(content(f".github/ISSUE_TEMPLATE/{name}.yml"))
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert form.keys() == {"name", "description", "labels", "body"} and {part["type"] for part in asked} <= {
        "input", "textarea", "dropdown", "checkboxes",
    }  # fmt: skip
    assert len({part["id"] for part in asked}) == len(asked) >= 4
    assert all(part["attributes"]["label"] for part in asked)
    assert any(part.get("validations") == {"required": True} for part in asked)


def test_the_version_is_one():
    assert yaml.safe_load(content("CITATION.cff"))["version"] == __version__
    assert re.search(r"^## (\S+)", content("CHANGELOG.md"), re.M)[1] == __version__


@pytest.mark.slow
def test_the_tutorial(tmp_path):
    install, *blocks = [block for kind, block in FENCE.findall(TUTORIAL.read_text(encoding="utf-8")) if kind == "sh"]
    assert "pip install" in install and len(blocks) >= 5
    bin_folder = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if not key.startswith("STBENCH_DATA")}
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-eux", "-c", "\n".join(blocks)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(list(tmp_path.glob("runs/*/*/*/record.json"))) == 12
    board = (tmp_path / "runs/tables/board-sample.md").read_text(encoding="utf-8")
    assert "| lora |" in board and "| Drop |" in board and (tmp_path / "runs/site/index.html").is_file()
    assert (tmp_path / "forest.pdf").read_bytes().startswith(b"%PDF")
    assert list(tmp_path.glob("maps/*.tif")) and list(tmp_path.glob("maps/*.png"))

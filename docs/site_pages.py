"""What the site of the documentation (``mkdocs.yml``) has beside the files in this folder; MkDocs calls it.

Pages of the repository outside ``docs/`` become pages of the site, and links between files of the repository are made
to fit there: the same text works in the repository and on the site. Notebooks are shown without their outputs. The
reference of commands comes from the commands.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from spectral_tl_bench import __version__
from spectral_tl_bench.cli.main import app

REPOSITORY = Path(__file__).parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md", "leaderboard/README.md")
COMMANDS = "reference/commands.md"
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#:]+)(#[^)\s]*)?\)")
FROM_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source|link(?![^>]*rel=[\"']?(?:canonical|prev|next)))\b[^>]*?"
    r"\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Say the version at the foot of every page."""
    config.copyright = f"Spectral TL Bench {__version__}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of this folder."""
    boards = (path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("leaderboard/tables/board-*.md"))
    for name in (*OUTSIDE, *boards):
        files.append(File.generated(config, name, abs_src_path=str(REPOSITORY / name)))
    for path in sorted((REPOSITORY / "docs").rglob("*.ipynb")):
        name = path.relative_to(REPOSITORY / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, name, content=notebook(path)))
    files.append(File.generated(config, COMMANDS, content=commands()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Links between files of the repository become links of the site; what is not on it keeps its words alone."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if (REPOSITORY / here).is_file() else f"docs/{here}")

    def placed(found: re.Match[str]) -> str:
        words, target, anchor = found[1], posixpath.normpath(posixpath.join(folder, found[2])), found[3] or ""
        on_site = re.sub(r"\.ipynb$", ".md", target.removeprefix("docs/"))
        if files.get_file_from_path(on_site) is None and (REPOSITORY / target).exists():
            return words[1:-1]
        return f"{words}({posixpath.relpath(on_site, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(placed, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would load something from elsewhere.

    Raises:
        PluginError: If a page does.
    """
    for page in Path(config.site_dir).rglob("*.html"):
        if found := FROM_ELSEWHERE.search(page.read_text(encoding="utf-8")):
            raise PluginError(f"{page} loads {found[1]} from elsewhere")


def notebook(path: Path) -> str:
    """A notebook in Markdown."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts)


def commands() -> str:
    """The reference of commands, in Markdown."""
    first = "What `--help` says of every command of this version."
    return "\n".join(["# Commands", "", first, "", *_described(typer.main.get_command(app), "stbench", None)])


def _described(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=command.name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    yield from (f"## {name}", "", "```text", f"{name} {usage}", "```", "", html.escape(command.help or ""), "")
    told = (one.get_help_record(context) for one in command.get_params(context) if "--help" not in one.opts)
    rows = [f"| `{_cell(left)}` | {html.escape(_cell(right))} |" for left, right in filter(None, told)]
    if rows:
        yield from ("| Argument or option | What it does |", "|---|---|", *rows, "")
    for verb in getattr(command, "commands", {}).values():
        if not verb.hidden:
            yield from _described(verb, f"{name} {verb.name}", context)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

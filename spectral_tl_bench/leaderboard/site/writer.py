"""The files of the site while it is made: pages from templates, data as scripts, pictures named by their hash."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Any

import jinja2

from spectral_tl_bench.evaluation.metrics import MIOU_RULE
from spectral_tl_bench.leaderboard.generated import Generated
from spectral_tl_bench.leaderboard.site import names
from spectral_tl_bench.leaderboard.site.heat import heat
from spectral_tl_bench.leaderboard.site.names import Track
from spectral_tl_bench.leaderboard.text import NOTHING, plain

FORMAT = "site"
"""Under which the files stand in the folder's list of generated files."""


def environment() -> jinja2.Environment:
    """The templates: everything that is put into them is escaped, and a name that is not there is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("spectral_tl_bench.leaderboard.site"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    formats = ("percent", "signed", "count", "seconds", "setting", "printed")
    found.filters |= {"heat": heat, **{name: getattr(names, name) for name in formats}}
    found.globals |= {"NOTHING": NOTHING, "MIOU_RULE": MIOU_RULE}
    return found


class Writer:
    """Collects files.

    Args:
        tracks: The tracks that there are, in the order of the navigation.
    """

    def __init__(self, tracks: list[Track]) -> None:
        self.tracks = tracks
        self.files: dict[str, Generated] = {}
        self._templates = environment()

    def page(self, path: str, template: str, **values: Any) -> None:
        """Render a page.

        Args:
            path: Relative to the site, with ``/``.
            template: Name of the template.
            values: What it needs; ``root``, the way from the page to the site's top, is added.
        """
        root = "../" * path.count("/")
        text = self._templates.get_template(template).render(root=root, tracks=self.tracks, **values)
        self.text(path, text)

    def text(self, path: str, text: str) -> None:
        """Add a text file."""
        self.files[path] = Generated(FORMAT, text.encode())

    def script(self, path: str, key: str, value: Any) -> None:
        """Add data as a script: a page that is opened from disk can load no other."""
        self.text(path, f"stbench.put({names.script_json(key)},{names.script_json(value)});\n")

    def picture(self, content: bytes) -> str:
        """Add a PNG and give its path: the same picture is stored once."""
        path = f"pictures/{hashlib.sha256(content).hexdigest()[:20]}.png"
        self.files[path] = Generated(FORMAT, content)
        return path

    def static(self) -> None:
        """Add style sheet, scripts and icon."""
        folder = resources.files("spectral_tl_bench.leaderboard.site") / "static"
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.name.endswith((".css", ".js", ".svg")):
                self.files[f"static/{file.name}"] = Generated(FORMAT, file.read_bytes())


def _finalize(value: Any) -> Any:
    """No control characters and no marks that turn the writing direction, whoever wrote the text."""
    return plain(value) if type(value) is str and not value.isascii() else value

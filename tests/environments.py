"""Virtual environments that find what is installed in this one, and packages in them, without network."""

from __future__ import annotations

import sysconfig
import tomllib
import venv
from pathlib import Path


def new_environment(home: Path) -> Path:
    """Make an environment; its ``python``."""
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    # addsitedir, not a bare path: the suite itself may be installed in place.
    (site / "here.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return home / "bin" / "python"


def install_in_place(python: Path, package: Path) -> None:
    """Install a package as ``pip install -e`` leaves it, without a build."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    (site / f"{project['name']}.pth").write_text(f"{package.resolve()}\n")
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")

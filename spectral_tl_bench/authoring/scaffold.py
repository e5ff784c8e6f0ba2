"""A package to start from: ``stbench init-method``. Nothing heavy is imported."""

from __future__ import annotations

import keyword
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from spectral_tl_bench.errors import MethodError, UserError

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""Names that are good for all that is called so: an entry point, a package on PyPI, a folder, a module."""
LONGEST = 40

FILES = {
    "pyproject.toml": "pyproject.toml.tmpl",
    "README.md": "README.md.tmpl",
    "{module}/__init__.py": "method.py.tmpl",
    "tests/test_{module}.py": "test_method.py.tmpl",
}


@dataclass(frozen=True)
class Names:
    """What things are called in a new package.

    Attributes:
        name: The method, its distribution and its folder.
        module: The Python package.
    """

    name: str
    module: str
    klass: str


def names_for(name: str) -> Names:
    """Names for a new method.

    Args:
        name: What the method shall be called.

    Raises:
        MethodError: If it cannot be called so, or something installed is.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        better = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()).strip("-")[:LONGEST]
        hint = f"take {better}" if NAME.fullmatch(better) else "take a name such as my-method"
        raise MethodError(
            f"a method cannot be called {name!r}",
            expected=f"lower-case letters, digits and single dashes, a letter first, {LONGEST} at most",
            fix=hint,
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or keyword.issoftkeyword(module) or module in sys.stdlib_module_names:
        raise MethodError(f"{module!r} is a word of Python or a module of it", fix=f"take another name: my-{name}")
    from spectral_tl_bench.methods.registry import method_entries

    entries = method_entries()
    if name in entries:
        raise MethodError(
            f"there is a method {name!r} already", where=entries[name].value, fix=f"take another name: my-{name}"
        )
    try:
        package = distribution(name).name
    except PackageNotFoundError:
        package = module if find_spec(module) is not None and not _is_here(module) else ""
    if package:
        raise MethodError(f"a package {package!r} is installed already", fix=f"take another name: my-{name}")
    return Names(name, module, "".join(part.capitalize() for part in name.split("-")))


def _is_here(module: str) -> bool:
    """Whether a module is found only because the working folder is searched."""
    spec = find_spec(module)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    return any(place is not None and Path(place).is_relative_to(Path.cwd()) for place in places)


def write_package(name: str, parent: Path) -> Path:
    """Write the package of a new method, as a whole or not at all.

    Args:
        name: What the method shall be called.
        parent: Folder to make the package's folder in.

    Raises:
        UserError: If the name cannot be used, the folder exists, or it cannot be written.
    """
    names = names_for(name)
    target = parent / name
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already", fix="choose another name or another --folder; nothing was written")
    if not parent.is_dir():
        raise UserError("the folder for the package does not exist", where=parent, fix=f"mkdir -p {parent}")
    try:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}-"))
    except OSError as error:
        raise UserError(f"the package cannot be written: {error.strerror}", where=parent) from None
    try:
        for path, text in contents(names).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        folder.chmod(0o777 & ~_umask())  # mkdtemp makes private folders
        folder.rename(target)
    except OSError as error:
        raise UserError(f"the package cannot be written: {error.strerror}", where=target) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def contents(names: Names) -> dict[str, str]:
    """The text of every file of a new package, by its path in there."""
    templates = files("spectral_tl_bench.authoring") / "templates"
    words = {"name": names.name, "module": names.module, "klass": names.klass}
    return {
        path.format(module=names.module): Template((templates / source).read_text(encoding="utf-8")).substitute(words)
        for path, source in FILES.items()
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

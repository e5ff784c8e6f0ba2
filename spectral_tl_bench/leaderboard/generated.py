"""Folders of generated files: what a report made is replaced and removed by a report, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from spectral_tl_bench.errors import UserError
from spectral_tl_bench.files import write_bytes, write_json

LIST = ".generated.json"
"""In every folder: which files were generated, for which format, and the SHA-256 of their bytes."""


@dataclass(frozen=True)
class Generated:
    """One file to be written."""

    format: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hash of the bytes."""
        return hashlib.sha256(self.content).hexdigest()


def check_free(folder: Path, files: Mapping[str, Generated]) -> None:
    """Raise if a file would be overwritten that no report made.

    Raises:
        UserError: It names the first such file.
    """
    _check_free(folder, files, _read_list(folder))


def _check_free(folder: Path, files: Mapping[str, Generated], listed: Mapping[str, object]) -> None:
    for name, file in sorted(files.items()):
        path = folder / name
        if name not in listed and path.exists() and not (path.is_file() and path.read_bytes() == file.content):
            raise UserError(
                "a file is in the way that `stbench report` did not make",
                where=path,
                fix="move it away, or choose another folder with --out",
            )


def replace_generated(folder: Path, files: Mapping[str, Generated], formats: Collection[str]) -> list[Path]:
    """Write files and remove those of earlier reports that are not among them.

    Args:
        folder: Where the files and their list go; made if missing.
        files: By path relative to ``folder``, with ``/``.
        formats: Listed files of these formats are removed if they are not in ``files``, unless somebody changed
            them since. Files of other formats, and files that are not listed, stay as they are.

    Returns:
        The files, in the order given. Those that hold the same bytes already are not written again.

    Raises:
        UserError: If a file would be overwritten that no report made; nothing is written then.
    """
    folder = Path(folder)
    before = _read_list(folder)
    _check_free(folder, files, before)
    kept = {name: entry for name, entry in before.items() if entry["format"] not in formats}
    now = {name: {"format": file.format, "sha256": file.sha256} for name, file in files.items()}
    if not before and not now:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    # A list of more than is there does no harm; a generated file that is not listed would be in the way for ever.
    _write_list(folder, {**before, **now}, before)
    for name, file in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != file.content:
            write_bytes(path, file.content)
    for name in sorted(before.keys() - now.keys() - kept.keys()):
        path = folder / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == before[name]["sha256"]:
            path.unlink()
            remove_empty(path.parent, folder)
    _write_list(folder, {**kept, **now}, {**before, **now})
    return [folder / name for name in files]


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it, up to ``root``, as long as nothing is in them."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _write_list(folder: Path, entries: dict[str, dict[str, str]], before: dict[str, dict[str, str]]) -> None:
    path = folder / LIST
    if entries:
        if entries != before:
            write_json(path, {"files": entries})
        return
    path.unlink(missing_ok=True)
    remove_empty(folder, folder.parent)


def _read_list(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / LIST
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        listed = {str(name): {key: str(entry[key]) for key in ("format", "sha256")} for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            "the list of generated files cannot be read", where=path, fix="delete it and the files beside it"
        ) from None
    # the list comes with a clone, perhaps from somebody else: nothing outside may be touched
    home, inside = folder.resolve(), set()
    for name in listed:
        file = home / name
        if file.parent not in inside and file.parent.resolve() == file.parent and home in file.parents:
            inside.add(file.parent)
        if file.parent not in inside or file.name == ".." or file.is_symlink() or "\\" in name:
            raise UserError(f"the list of generated files names {name!r}", where=path, expected="files of this folder")
    return listed

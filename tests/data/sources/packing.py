"""Archives of all kinds, made small: as data sets are published, and as nobody should unpack them."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

REPO, COPERNICUS = "YuxiangZhang-BIT/SpectralX_datasets", "wangyi111/Copernicus-Bench"
MTS12, DFC, WHU = "MTS12.zip", "DFC_2020/dfc.tar.gz", "data/WHU-OHS/transfer-STall.zip"


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def whole_tree(root: Path, trees: Path, name: str, part: str = "") -> bool:
    """Whether a data set, or a folder of it, is byte for byte what was packed."""
    names = files_of(trees / name / part)
    here, there = root / name / part, trees / name / part
    return bool(names) and all((here / file).read_bytes() == (there / file).read_bytes() for file in names)


def pack(tree: Path, names: Iterable[str] = ("",), kind: str = "zip", below: str = "") -> bytes:
    """Pack folders of a tree.

    Args:
        tree: A folder.
        names: Folders in it; the empty name is all of it.
        kind: ``zip``, ``tar`` or ``gz``.
        below: Put in front of all names.
    """
    files = sorted(file for name in names for file in (tree / name).rglob("*") if file.is_file())
    members = {f"{below}{file.relative_to(tree).as_posix()}": file.read_bytes() for file in files}
    return zipped(members) if kind == "zip" else tarred(members, kind)


def zipped(members: dict[str, bytes], modes: dict[str, int] | None = None) -> bytes:
    """A zip of files; modes of the file system may be given by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((modes or {}).get(name, stat.S_IFREG | 0o644)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], kind: str = "tar", odd: Iterable[tarfile.TarInfo] = ()) -> bytes:
    """A tar of files, with odd members after them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "gz" else "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in odd:
            file.addfile(info)
    return buffer.getvalue()


def odd_member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member of a tar that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info

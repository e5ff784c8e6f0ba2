"""How datasets lie on disk: one file each, found by name through entry points."""

from spectral_tl_bench.data.layouts.base import ChipFiles, Layout, gathering
from spectral_tl_bench.data.layouts.find import check_sides, find_chips, layout_entries, layout_of, load_layout
from spectral_tl_bench.data.layouts.folders import FolderLayout

__all__ = [
    "ChipFiles", "FolderLayout", "Layout", "check_sides", "find_chips", "gathering", "layout_entries", "layout_of",
    "load_layout",
]  # fmt: skip

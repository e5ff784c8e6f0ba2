"""How datasets lie on disk: one file each, found by name through entry points."""

from spectral_tl_bench.data.layouts.base import ChipFiles, Layout, gathering
from spectral_tl_bench.data.layouts.find import check_sides, find_chips
from spectral_tl_bench.data.layouts.folders import FolderLayout
from spectral_tl_bench.data.layouts.registry import layout_entries, layout_of, load_layout

__all__ = [
    "ChipFiles",
    "FolderLayout",
    "Layout",
    "check_sides",
    "find_chips",
    "gathering",
    "layout_entries",
    "layout_of",
    "load_layout",
]

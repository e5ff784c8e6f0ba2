"""What the server imports that processes are forked off, so that each of them starts with all that is slow done."""

import gc

from spectral_tl_bench.provenance import package_code
from spectral_tl_bench.runner import cell

for _package in ("spectral_tl_bench", "spectralx"):
    package_code(_package)

gc.freeze()  # each process looks for garbage after its cell: not in all of PyTorch, whose pages it would copy

__all__ = ["cell"]

"""What the server imports that processes are forked off, so that each of them starts with all that is slow done."""

from spectral_tl_bench.provenance import package_code
from spectral_tl_bench.runner import cell

for _package in ("spectral_tl_bench", "spectralx"):
    package_code(_package)

__all__ = ["cell"]

"""Reads and writes the state-dict keys of the authors' release, so that what was trained with it can be used.

There is no second implementation here: every part is one of this package's modules, filled under translated names.
``evaluate`` runs one part in the ``released`` reading; ``read_file``, ``load_released`` and ``to_released`` convert
whole checkpoints.
"""

from spectralx.released.checkpoint import Checkpoint, Place, read_checkpoint
from spectralx.released.convert import load_converted, open_converted
from spectralx.released.files import ReleaseFile, open_file, read_file
from spectralx.released.parts import PARTS, ReferenceCase, evaluate
from spectralx.released.transfer import Mismatch, Report, load_released
from spectralx.released.write import to_released

__all__ = [
    "PARTS", "Checkpoint", "Mismatch", "Place", "ReferenceCase", "ReleaseFile", "Report", "evaluate",
    "load_converted", "load_released", "open_converted", "open_file", "read_checkpoint", "read_file", "to_released",
]  # fmt: skip

"""Users without a home, as in a container with a user id that has no account: libraries get a folder and a name."""

from __future__ import annotations

import contextlib
import os

from spectral_tl_bench.errors import StorageError
from spectral_tl_bench.storage.place import private_folder, usual_cache

_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def stand_in_for_home() -> None:
    """See to it that no library needs a home folder or an account, by environment variables that children inherit.

    Matplotlib, timm, PyTorch and others keep files below the home, and PyTorch asks for the user's name. Where there
    is neither, they fail or write into a folder called ``~``. Variables that are set stay as they are.
    """
    if not hasattr(os, "getuid"):
        return
    if not any(os.environ.get(name) for name in _NAMES) and not _has_account():
        os.environ["USER"] = f"uid-{os.getuid()}"
    if usual_cache() is None:
        with contextlib.suppress(StorageError):  # whoever needs the folder says why there is none
            folder = str(private_folder())
            for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TRITON_HOME"):
                os.environ.setdefault(name, folder)


def _has_account() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True

"""``stbench`` for the shell, as copies of one process that has imported it already.

Each command is the real entry point, with folder, environment and streams of the shell that called it; only the
imports, nine seconds of computing each time, are made once. ``python server.py SOCKET`` serves; ``CLIENT`` is the
command.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import socket
import sys
import sysconfig
import traceback
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [b"!"], [0, 1, 2])
    server.sendall(json.dumps(call).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(16) or b"70"))
"""


def import_all() -> None:
    """Import the suite, and what it imports when it is needed."""
    import spectral_tl_bench
    import spectralx

    for package in (spectral_tl_bench, spectralx):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # of an extra that is not installed
                    importlib.import_module(module.name)
    for name in ("matplotlib.figure", "scipy.stats", "peft", "torchgeo.datasets", "timm", "lightning", "submitit"):
        importlib.import_module(name)


def answer(connection: socket.socket) -> int:
    """Run the command of a connection in a copy of this process; its exit code."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as asked:
        call = json.load(asked)
    child = os.fork()
    if not child:
        for ours, theirs in enumerate(streams):
            os.dup2(theirs, ours)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, buffering=1, closefd=False)  # noqa: SIM115 - for all of this process
            for number, mode in enumerate("rww")
        )
        os._exit(run(call["arguments"], call["folder"], call["environment"]))
    for stream in streams:
        os.close(stream)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Be the command, here."""
    import site

    from smaller import smaller

    from spectral_tl_bench.cli.main import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    site.addsitedir(sysconfig.get_path("purelib"))  # what was installed since
    importlib.invalidate_caches()
    code = 0
    for words in smaller(arguments):
        sys.argv = ["stbench", *words]
        try:
            main()
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            break
    return code


def main() -> None:
    """Serve until the parent ends this process."""
    address = Path(sys.argv[1])
    import_all()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(str(answer(connection)).encode())


if __name__ == "__main__":
    main()

"""Installs this checkout, with an extra that is named, into the environment of the Python that runs this.

By uv, in less than half of pip's time, where it can be told all that pip's configuration says; otherwise, or where uv
cannot be had or fails, by pip. Neither compiles: bytecode is made of what is imported, when it is. Of all of PyTorch
that would take longer than the main job.
"""

from __future__ import annotations

import ast
import subprocess
import sys

TOLD = {
    "index-url": "--default-index", "extra-index-url": "--index", "find-links": "--find-links",
    "constraint": "--constraints",
}  # fmt: skip
"""pip's settings and uv's options for them."""
WITHOUT_EFFECT = {"cert", "default-timeout", "timeout", "retries", "disable-pip-version-check", "no-compile", "quiet",
                  "progress-bar", "no-input", "no-color", "root-user-action", "prefer-binary"}  # fmt: skip
"""Settings that change no choice of packages; certificates are those of the system."""
PIP = (sys.executable, "-m", "pip")
INSTALL = (*PIP, "install", "--quiet", "--no-compile", "--disable-pip-version-check")


def for_uv(configuration: str) -> list[str] | None:
    """The options that tell uv what ``pip config list`` says; None if it says something else, too."""
    options: dict[tuple[str, str], None] = {}
    for line in filter(None, configuration.splitlines()):
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].replace("_", "-")
        if name in WITHOUT_EFFECT:
            continue
        if name not in TOLD:
            return None
        options |= {(TOLD[name], one): None for one in ast.literal_eval(value).split()}
    return [part for pair in options for part in pair]


def main() -> int:
    """Install, and say with what code that ended."""
    target = f".[{sys.argv[1]}]" if len(sys.argv) > 1 else "."
    told = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False)
    options = for_uv(told.stdout) if told.returncode == 0 else None
    if options is not None and subprocess.run([*INSTALL, "uv"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        by_uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        by_uv += ["--system-certs", "--index-strategy", "unsafe-best-match", *options, "--editable", target]
        if subprocess.run(by_uv, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return 0
    return subprocess.run([*INSTALL, "--editable", target], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())

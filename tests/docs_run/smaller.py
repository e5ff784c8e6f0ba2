"""What makes the documentation's commands affordable: the one place where anything of them is changed.

A page's line comes here as the shell gives it to ``stbench``. Training is cut to a step, seeds to the first, groups of
benchmarks and methods to one or two, backbones to four narrow blocks, tables of a paper to a few cells. A line whose
groups or seeds are cut is planned whole first (``--dry-run``), so that all that it names is looked at.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

TRAINING: dict[str, Any] = {"steps": 1, "pretrain_steps": 1, "batch_size": 2, "validations": 1}
SIZES = {"width": 48, "depth": 4, "heads": 4}
"""Of every backbone that is named, other than the bundled miniature."""
GROUPS = {
    "all": ["mts12-n2s"], "cross-season": ["dfc2020-autumn"], "cross-region": ["mts12-n2s"],
    "track:hyperspectral": ["pavia-u2c", "houston-13to18"], "family:peft": ["lora", "bitfit"],
}  # fmt: skip
BLOCKS = 3
"""Of a plan, with one cell each."""
SHORTER = {"--budget": "2", "--recompute": "1", "--seeds": "1", "--jobs": "1"}
OWN_SIZES = ("rgb-mini", "galileo-nano")
PLAIN = {"-b": "--benchmark", "-m": "--method", "-s": "--seed"}


def smaller(arguments: list[str]) -> list[list[str]]:
    """The commands that are run for one, in their order."""
    verb = arguments[:1]
    if verb == ["run"] and "--plan" in arguments:
        plan = arguments[arguments.index("--plan") + 1]
        words = [cut(*pair) for pair in zip(["", *arguments], arguments, strict=False)]
        return [[str(smaller_plan(Path(plan))) if word == plan else word for word in words] + one_job(arguments)]
    if verb not in (["run"], ["tune"]):
        return [[cut(*pair) for pair in zip(["", *arguments], arguments, strict=False)]]
    words, whole = list(verb), True
    for before, word in pairwise(arguments):
        option = PLAIN.get(before, before)
        group = GROUPS.get(word, []) if option in ("--benchmark", "--method") else []
        first = word.partition("-")[0] if option == "--seed" else word
        whole = whole and not group and first == word and (before != "--seeds" or word == "1")
        words += [part for name in group for part in (before, name)][1:] if group else [cut(before, first)]
    settings = training("--until-plateau" in arguments)
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    small = [*words, *options, *sizes(arguments), *one_job(arguments)]
    planned = [*arguments, *sizes(arguments), "--dry-run"]
    if "--dry-run" in arguments:
        return [planned[:-1]]
    return [small] if whole or "--executor" in arguments or verb == ["tune"] else [planned, small]


def training(until_plateau: bool) -> dict[str, Any]:
    """What training is cut to; until a plateau, nothing else says how often to validate."""
    return {name: value for name, value in TRAINING.items() if not (until_plateau and name == "validations")}


def cut(option: str, value: str) -> str:
    """A number of an option, smaller."""
    return SHORTER.get(option, value) if value.isdigit() else value


def one_job(arguments: list[str]) -> list[str]:
    """One process, where the line does not say how many."""
    return [] if "--jobs" in arguments or "--devices" in arguments else ["--jobs", "1"]


def sizes(arguments: list[str]) -> list[str]:
    """Narrow blocks for the backbones that a line names."""
    named = [word for before, word in pairwise(arguments) if before == "--backbone"]
    if not set(named) - set(OWN_SIZES):
        return []
    return [part for name, value in SIZES.items() for part in ("--backbone-size", f"{name}={value}")]


def smaller_plan(path: Path) -> Path:
    """A file beside a plan with the first blocks, a cell of each, and little training."""
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    defaults = {**plan.get("defaults", {})}
    blocks = [{**block} for block in plan["blocks"][:BLOCKS]]
    for part in (defaults, *blocks):
        for key in ("benchmarks", "methods", "backbones"):
            if key in part:
                part[key] = part[key][:1]
        part.pop("grid", None)
        part.pop("seeds", None)
        if set(part.get("backbones", OWN_SIZES)) - set(OWN_SIZES):
            part.setdefault("backbone_sizes", {**SIZES})
        settings = part.get("settings", {})
        part["settings"] = settings | training("until_plateau" in {**defaults.get("settings", {}), **settings})
    small = path.with_name(f"smaller-{path.name}")
    small.write_text(yaml.safe_dump({**plan, "defaults": {**defaults, "seeds": 0}, "blocks": blocks}), encoding="utf-8")
    return small

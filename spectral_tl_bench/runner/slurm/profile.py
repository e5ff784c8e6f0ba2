"""What a job asks the cluster for: a profile in TOML or YAML, and single values over it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import platformdirs
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from spectral_tl_bench.console import is_file, read_values, user_path
from spectral_tl_bench.errors import UserError, nearest

VARIABLE = "STBENCH_PROFILE"
DEFAULT_NAME = "slurm"
_ENDINGS = (".toml", ".yaml", ".yml")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
_OURS = {
    "array", "chdir", "comment", "error", "export", "job-name", "no-requeue", "open-mode", "output", "parsable",
    "requeue", "signal", "test-only", "wait", "wrap",
}  # fmt: skip


def _one_line(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("expected one line of printable characters")
    return text


def _flag_name(name: str) -> str:
    name = name.replace("_", "-")
    if not re.fullmatch(r"[a-z][a-z-]*", name):
        raise ValueError("expected the long name of an option of sbatch, without dashes before it")
    if name in _OURS or name.replace("-", "_") in Profile.model_fields:
        raise ValueError(f"--{name} is set by stbench, or by a key of its own")
    return name


def _time(text: str) -> str:
    seconds_in(text)
    return text


def seconds_in(time: str) -> int:
    """Seconds of a time as SLURM writes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes...].

    Raises:
        ValueError: If it is written otherwise.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError("expected minutes, H:MM:SS or D-HH:MM:SS")
    first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
    if match["days"] is not None:
        return ((int(match["days"]) * 24 + first) * 60 + second) * 60 + third
    return (first * 60 + second) * 60 + third if match["third"] else first * 60 + second


def _text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _switch(value: Any) -> Any:
    """YAML is read as text, so that it does not take 1:00:00 for a number."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Line = Annotated[str, BeforeValidator(_text), AfterValidator(_one_line)]
Switch = Annotated[StrictBool | Line, BeforeValidator(_switch)]


class Profile(BaseModel):
    """What each job asks for; what is left out is decided by the cluster.

    Attributes:
        partition: Partitions, separated by commas.
        qos: Quality of service.
        constraint: Features of nodes.
        time: Time limit, as SLURM writes it.
        cpus: CPU cores of each task.
        mem: Memory of a node, as SLURM writes it (``16G``).
        gpus: GPUs of a node, as a number or ``type:number``.
        gres: Other generic resources.
        tasks_per_node: Processes that are started on each node: for cells on several devices.
        array_limit: Jobs that may run at once; 0 for any number.
        cells_per_job: Cells in one job, one after the other.
        pause_before: Seconds before the time limit at which training is asked to pause; by default 5 minutes, or a
            quarter of a short time limit.
        setup: Lines of shell before the command, for modules or conda.
        sbatch: Further options of sbatch by their long names; true for one without a value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    time: Annotated[Line, AfterValidator(_time)] | None = None
    cpus: int | None = Field(None, ge=1)
    mem: Line | None = None
    gpus: Line | None = None
    gres: Line | None = None
    nodes: int = Field(1, ge=1)
    tasks_per_node: int = Field(1, ge=1)
    array_limit: int = Field(0, ge=0)
    cells_per_job: int = Field(1, ge=1)
    pause_before: int | None = Field(None, ge=1, le=65535)
    setup: tuple[Line, ...] = ()
    sbatch: dict[Annotated[str, AfterValidator(_flag_name)], Switch] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _pause_in_time(self) -> Self:
        if self.time is not None and self.lead >= seconds_in(self.time):
            raise ValueError(f"pause_before is {self.lead} s, no less than the time limit")
        return self

    @property
    def lead(self) -> int:
        """Seconds before the time limit at which training is asked to pause."""
        if self.pause_before is not None:
            return self.pause_before
        return 300 if self.time is None else max(1, min(300, seconds_in(self.time) // 4))

    def on_nodes(self, number: int) -> Profile:
        """The same for cells that so many nodes train together, one process starting on each.

        Raises:
            UserError: If it asks for others.
        """
        if self.nodes not in (1, number) or self.tasks_per_node != 1:
            raise UserError(
                f"the profile asks for {self.nodes} nodes with {self.tasks_per_node} tasks on each, --num-nodes for "
                f"{number} with one", fix="leave out nodes and tasks_per_node; --devices starts a process for each GPU",
            )  # fmt: skip
        return self.model_copy(update={"nodes": number})

    def flags(self) -> dict[str, str | bool]:
        """Options of sbatch by name, apart from those of arrays, logs and signals."""
        given = {
            "partition": self.partition, "account": self.account, "qos": self.qos, "constraint": self.constraint,
            "time": self.time, "cpus-per-task": self.cpus, "mem": self.mem, "gpus-per-node": self.gpus,
            "gres": self.gres, "nodes": self.nodes, "ntasks-per-node": self.tasks_per_node,
        }  # fmt: skip
        flags: dict[str, str | bool] = {name: str(value) for name, value in given.items() if value is not None}
        return flags | {name: value for name, value in self.sbatch.items() if value is not False}


def read_profile(wanted: str | None, changes: Sequence[str] = ()) -> Profile:
    """The profile, with single values changed.

    Args:
        wanted: A file, or the name of one in the user's folder of settings; None for the one that ``STBENCH_PROFILE``
            says, else for ``slurm`` if there is such a file, else for an empty one.
        changes: Texts of the form ``key=value``, ``sbatch.option=value`` for further options of sbatch.

    Raises:
        UserError: If there is no such file, or a key or value is none of a profile.
    """
    path = _find(wanted or os.environ.get(VARIABLE) or None)
    values = _read(path) if path is not None else {}
    for name, value in read_values(changes, "--slurm").items():
        key, dot, option = name.partition(".")
        if key == "sbatch" and dot:
            values[key] = {**_table(values.get(key)), option: value}
        else:
            values[name] = (value,) if name == "setup" else value
    return _checked(values, path)


def _find(wanted: str | None) -> Path | None:
    folder = platformdirs.user_config_path("stbench", appauthor=False)
    if wanted is not None and is_file(wanted):
        return user_path(wanted)
    name = wanted or DEFAULT_NAME
    for ending in _ENDINGS:
        if os.path.basename(name) == name and (folder / f"{name}{ending}").is_file():  # noqa: PTH119 - a name alone
            return folder / f"{name}{ending}"
    if wanted is None:
        return None
    raise UserError(
        f"there is no profile {wanted!r}", expected=f"a TOML or YAML file, or the name of one in {folder}",
        fix="docs/cluster.md has examples; --slurm KEY=VALUE works without a file",
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.load(text, yaml.BaseLoader)  # noqa: S506 - texts only
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"the profile cannot be read: {error}", where=path, expected="TOML or YAML") from None
    if values is not None and not isinstance(values, dict):
        raise UserError("the profile holds no keys", where=path, expected="lines such as `partition: gpu`")
    return {str(key): value for key, value in (values or {}).items()}


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _checked(values: Mapping[str, Any], path: Path | None) -> Profile:
    try:
        return Profile(**values)
    except ValidationError as error:
        item = error.errors()[0]
        key = str(item["loc"][0]) if item["loc"] else ""
        where = path or "--slurm"
        if item["type"] == "extra_forbidden":
            hint = nearest(key, Profile.model_fields)
            raise UserError(f"a profile has no key {key!r}", where=where, fix=hint) from None
        place = ".".join(str(part) for part in item["loc"][:2])
        said = str(item["msg"]).removeprefix("Value error, ")
        got = f", not {item['input']!r}" if item["loc"] else ""
        raise UserError(f"profile{place and f', {place}'}: {said}{got}", where=where) from None

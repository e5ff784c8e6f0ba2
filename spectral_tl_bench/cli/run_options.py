"""The options that say what is to be run: shared by the verbs that plan cells."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from spectral_tl_bench.console import backbone_sizes, complain, read_values
from spectral_tl_bench.defaults import DEFAULT_BACKBONE
from spectral_tl_bench.errors import UserError

if TYPE_CHECKING:
    from spectral_tl_bench.protocol.settings import Overrides
    from spectral_tl_bench.runner.blocks import Block
    from spectral_tl_bench.runner.request import Request

Strings = list[str] | None
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of the datasets; default: STBENCH_DATA, else the bundled sample.")
]
TrustData = Annotated[bool, typer.Option("--trust-data", help="Follow links and VRTs of the data out of their folder.")]


def _methods_like(incomplete: str) -> list[str]:
    """For a shell that completes."""
    from spectral_tl_bench.methods.registry import method_entries

    return [name for name in method_entries() if name.startswith(incomplete)]


def _benchmarks_like(incomplete: str) -> list[str]:
    """For a shell that completes."""
    from spectral_tl_bench.benchmarks import builtin_benchmarks, further_benchmarks, groups

    names = [*groups(), *builtin_benchmarks(), *further_benchmarks()]
    return [name for name in names if name.startswith(incomplete)]


@dataclass(frozen=True)
class Choices:
    """What is to be run, as the command line says it; what is not given is None, or False.

    A verb that takes them is registered with ``takes_choices``, and then has an option for each.
    """

    method: Annotated[
        Strings,
        typer.Option(
            "--method",
            "-m",
            autocompletion=_methods_like,
            help="Method, method@preset, with any +objective; all, or family:peft; may be repeated.",
        ),
    ] = None
    benchmark: Annotated[
        Strings,
        typer.Option(
            "--benchmark",
            "-b",
            autocompletion=_benchmarks_like,
            help="Benchmark id, group (all, cross-region, ...) or YAML file.",
        ),
    ] = None
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Plan in YAML, instead of options; `stbench plan` writes one.")
    ] = None
    data_root: DataRoot = None
    seed: Annotated[
        Strings, typer.Option("--seed", "-s", help="Seed, or several as 0-4; may be given more than once. Default: 0.")
    ] = None
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="Number of seeds, in place of --seed: --seeds 5 is --seed 0-4.")
    ] = None
    option: Annotated[Strings, typer.Option("--option", "-o", help="Method option, as name=value.")] = None
    objective_option: Annotated[
        Strings, typer.Option("--objective-option", "-O", help="Option of an objective, as objective.name=value.")
    ] = None
    grid: Annotated[
        Strings,
        typer.Option(
            "--grid",
            help="Run with each of several values, as name=value,value: an option of the methods, "
            "objective.name, or what has a flag of its own (learning_rate, steps, weights, ...); may be repeated.",
        ),
    ] = None
    backbone: Annotated[Strings, typer.Option(help=f"Backbone; may be repeated. Default: {DEFAULT_BACKBONE}.")] = None
    backbone_size: Annotated[
        Strings, typer.Option(help="Size of the backbone, as name=number: width, depth, heads, patch.")
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="Pretrained weights: hub, hub:NAME, a file, or none. See `stbench backbones`.")
    ] = None
    patch_embedding: Annotated[
        str | None,
        typer.Option(help="How pretrained filters become those of the sensor's bands. See `stbench backbones show`."),
    ] = None
    input_scale: Annotated[
        str | None,
        typer.Option(
            help="How many times larger images are made before the backbone: auto, or a number from 1 on. "
            "Default: auto, a token covers 160 m at most."
        ),
    ] = None
    level_norm: Annotated[
        str | None,
        typer.Option(
            help="What feature levels pass before the decoder: auto, none, final (the backbone's last norm) or plain "
            "(a LayerNorm without weights). Default: auto, as the backbone's authors do."
        ),
    ] = None
    input_norm: Annotated[
        str | None,
        typer.Option(
            help="How pixels are normalised before the backbone alone: source (the source's statistics), window (each "
            "window's own) or reflectance (0-0.3 as 0-1, then the mean and deviation of its weights). Default: source."
        ),
    ] = None
    protocol: Annotated[
        str | None, typer.Option(help="How the number comes about: strict or published. Default: strict.")
    ] = None
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="Run as the authors' release does, validated on the target's labels; results go to a board apart.",
        ),
    ] = False
    budget: Annotated[
        str | None, typer.Option(help="Training budget: small or paper. Default: paper for published data, else small.")
    ] = None
    steps: Annotated[int | None, typer.Option(help="Steps with labels.")] = None
    pretrain_steps: Annotated[int | None, typer.Option(help="Steps without labels.")] = None
    batch_size: Annotated[int | None, typer.Option(help="Windows per step.")] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="AdamW learning rate of all that trains. Default: the method's or paper's.")
    ] = None
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay. Default: likewise.")] = None
    pretrained_rate: Annotated[
        float | None, typer.Option(help="Share of the learning rate for pretrained weights that train, as 0.1.")
    ] = None
    warmup_share: Annotated[float | None, typer.Option(help="Share of the steps in which the learning rate rises.")] = (
        None
    )
    schedule: Annotated[str | None, typer.Option(help="Learning-rate schedule: constant or cosine.")] = None
    until_plateau: Annotated[
        bool,
        typer.Option(
            "--until-plateau",
            help="Train until source validation no longer gains; the record says whether it did. --steps is the most.",
        ),
    ] = False
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between validations, with --until-plateau. Default: 100.")
    ] = None
    patience: Annotated[
        int | None, typer.Option(help="Validations without a gain that make a plateau. Default: 5.")
    ] = None
    window: Annotated[int | None, typer.Option(help="Side of windows in pixels.")] = None
    stride: Annotated[int | None, typer.Option(help="Step of evaluation windows; default: half a window.")] = None
    validations: Annotated[int | None, typer.Option(help="How often validation is done.")] = None
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed. Default: 32-true.")] = None
    compile_steps: Annotated[
        bool, typer.Option("--compile", help="Compile training steps; pays on large backbones and long runs.")
    ] = False
    oracle: Annotated[bool, typer.Option("--oracle", help="Also report the checkpoint that is best on the target.")] = (
        False
    )
    from_stage: Annotated[
        Path | None,
        typer.Option(help="Start from this trained first stage: the folder that an earlier run has kept it in."),
    ] = None
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Run on an incomplete copy of a dataset; results go to a track apart."),
    ] = False
    trust_data: TrustData = False
    packed: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|off",
            help="Folder of packed chips (`stbench data pack --out`), or off. Default: STBENCH_PACKED, else the cache.",
        ),
    ] = None


WHERE = ("plan", "data_root", "allow_partial", "trust_data", "packed")
"""What is said of the data at hand, and may stand beside a plan."""
MOST_SEEDS = 1000
"""That may be counted: more is a slip."""
SETTINGS = ("budget", "steps", "pretrain_steps", "batch_size", "learning_rate", "weight_decay", "pretrained_rate",
            "warmup_share", "schedule", "validate_every", "patience", "window", "stride", "validations",
            "precision")  # fmt: skip


def takes_choices(verb: Callable[..., Any], without: Collection[str] = ()) -> Callable[..., Any]:
    """A verb whose first parameter is ``Choices``, with one for each of them instead, but for those ``without``.

    It can be called from Python with the same names; all values are plain.
    """
    names = [one.name for one in fields(Choices) if one.name not in without]

    @functools.wraps(verb)
    def flat(**values: Any) -> Any:
        chosen = {name: values.pop(name) for name in names if name in values}
        return verb(Choices(**chosen), **values)

    hints = get_type_hints(Choices, include_extras=True)
    own = get_type_hints(verb, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [inspect.Parameter(one.name, kind, default=one.default, annotation=hints[one.name])
              for one in fields(Choices) if one.name in names]  # fmt: skip
    rest = [parameter.replace(kind=kind, annotation=own[name])
            for name, parameter in list(inspect.signature(verb).parameters.items())[1:]]  # fmt: skip
    flat.__signature__ = inspect.Signature([*shared, *rest])  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in (*shared, *rest)}
    return flat


def requests_of(choices: Choices) -> list[Request]:
    """The requests that the options, or the plan they name, stand for; all names are known.

    Raises:
        UserError: If a name is unknown, a value impossible, or an option contradicts another or the plan.
    """
    from spectral_tl_bench.runner.blocks import requests

    where = {name: getattr(choices, name) for name in WHERE if name != "plan"}
    return [request for block in blocks_of(choices) for request in requests(block, where)]


def blocks_of(choices: Choices) -> list[Block]:
    """The blocks of a plan that the options, or the plan they name, stand for; all names are known.

    Raises:
        UserError: As ``requests_of``.
    """
    from spectral_tl_bench.runner.blocks import check_names
    from spectral_tl_bench.runner.plan_file import read_plan

    if choices.plan is not None:
        _refuse_beside_plan(choices)
        blocks = read_plan(choices.plan)
        for number in sorted({block.seeds[0] for block in blocks if len(block.seeds) == 1 and block.seeds[0] > 1}):
            complain(f"note: the plan has seed {number} alone; {number} seeds would be `seeds: 0-{number - 1}`")
    else:
        blocks = [_block(choices)]
    for block in blocks:
        check_names(block)
    return blocks


def flag_of(name: str) -> str:
    """The flag of a choice."""
    return {"compile_steps": "--compile"}.get(name, "--" + name.replace("_", "-"))


def _refuse_beside_plan(choices: Choices) -> None:
    given = [one.name for one in fields(Choices) if getattr(choices, one.name) not in (None, False, [], ())]
    beside = [flag_of(name) for name in given if name not in WHERE]
    if beside:
        raise UserError(
            f"--plan says what is run, and so do {', '.join(beside)}",
            where=choices.plan,
            expected="beside a plan only what says where and how: --out, --data-root, --jobs, --accelerator, ...",
            fix="write it into the plan, or leave out --plan",
        )


def _block(choices: Choices) -> Block:
    from spectral_tl_bench.methods.listing import methods_named
    from spectral_tl_bench.objectives.registry import read_options
    from spectral_tl_bench.runner.blocks import Block

    methods, backbones = methods_named(_names(choices.method)), _names(choices.backbone)
    if not methods:
        raise UserError("--method names no method", fix="`stbench methods` lists them")
    if not choices.benchmark:
        raise UserError("--benchmark names no benchmark", fix="`stbench benchmarks` lists them")
    settings = {name: getattr(choices, name) for name in SETTINGS if getattr(choices, name) is not None}
    settings |= {"compile": True} if choices.compile_steps else {}
    settings |= {"until_plateau": True} if choices.until_plateau else {}
    named = {} if choices.protocol is None else {"protocol": choices.protocol}
    return Block(
        benchmarks=tuple(choices.benchmark), methods=methods, backbones=backbones or (DEFAULT_BACKBONE,),
        seeds=seeds_of(choices.seed, choices.seeds),
        options=read_values(choices.option or [], "--option", "several values at once: --grid {0}={1},{2}"),
        objective_options=read_options(choices.objective_option or []),
        grid={name: tuple(_parts(name, text)) for name, text in read_values(choices.grid or [], "--grid").items()},
        backbone_sizes=backbone_sizes(choices.backbone_size or []), weights=choices.weights,
        patch_embedding=choices.patch_embedding, input_scale=choices.input_scale,
        level_norm=choices.level_norm, input_norm=choices.input_norm,
        as_published=choices.as_published, settings=overrides_of({}, **settings), oracle=choices.oracle,
        from_stage=choices.from_stage, **named,
    )  # fmt: skip


def seeds_of(named: Strings, count: str | None) -> tuple[int, ...]:
    """The seeds that ``--seed`` lists or ``--seeds`` counts; 0 where neither is given.

    Raises:
        UserError: If something is no seed, or both are given.
    """
    from spectral_tl_bench.runner.blocks import read_seeds

    if count is None:
        return read_seeds(named or ["0"])
    number = str(count).strip()
    if not (number.isdecimal() and 0 < int(number) <= MOST_SEEDS):
        raise UserError(
            f"--seeds {count} is no number of seeds",
            expected=f"1 to {MOST_SEEDS}: --seeds 5 is the seeds 0 to 4",
            fix="to name seeds: --seed 0-4, or --seed 3",
        )
    if named:
        raise UserError(f"--seeds {number} counts seeds from 0 on, and --seed names them", expected="one of the two")
    return tuple(range(int(number)))


def _names(entries: Strings) -> tuple[str, ...]:
    return tuple(part.strip() for entry in entries or [] for part in entry.split(",") if part.strip())


def _parts(name: str, text: Any) -> list[Any]:
    """The values of a grid."""
    if not isinstance(text, str):
        return list(text)
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"--grid {name}={text} has an empty value", expected="--grid name=value,value")
    return parts


def overrides_of(flags: Mapping[str, str], **settings: Any) -> Overrides:
    """What the user set; a value that is none is named by its flag, which ``flags`` has where it is another one."""
    from pydantic import ValidationError

    from spectral_tl_bench.protocol.settings import Overrides

    try:
        return Overrides(**settings)
    except ValidationError as error:
        item = error.errors()[0]
        name = str(item["loc"][0])
        flag = flags.get(name) or flag_of(name)
        raise UserError(f"{flag}: {item['msg'].lower()}", expected=f"not {item['input']!r}") from None

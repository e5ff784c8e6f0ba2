"""The part of docs/peft.md that follows from the code: ``python tests/methods/peft_page.py`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spectral_tl_bench.inspect.describe import value_text
from spectral_tl_bench.methods.base import Method
from spectral_tl_bench.methods.registry import load_method

PAGE = Path(__file__).resolve().parents[2] / "docs" / "peft.md"
BEGIN, END = "<!-- from the code: begin -->\n", "<!-- from the code: end -->\n"
METHODS = (
    "lora", "lora-biased", "slr", "dora", "adalora", "ia3", "vera", "oft", "fourierft", "ln-tuning", "bitfit", "peft",
    "adaptformer", "houlsby", "ssf", "vpt-shallow", "vpt-deep", "rein", "earth-adapter", "land-moe", "linear-probe",
)  # fmt: skip
SHARED = ("train_patch_embed", "train_norms", "decoder", "where", "cache", "cache_copies", "cache_dtype", "head_seed")
"""Options that are told once for all, or on another page."""


def default(kind: type[Method], name: str) -> str:
    """An option's default as ``--option`` takes it."""
    value = kind.model_fields[name].get_default(call_default_factory=True)
    return ",".join(map(str, value)) if isinstance(value, tuple) else value_text(value)


def norms(kind: type[Method]) -> str:
    """Whether LayerNorms train by default."""
    return default(kind, "train_norms") if "train_norms" in kind.model_fields else "no option"


def section(name: str, kind: type[Method]) -> Iterator[str]:
    """A method's facts."""
    yield f"### `{name}`\n"
    yield f"{kind.reference}. Code: {kind.source_code or 'not read'}.\n"
    yield f"- acts: {kind.places}"
    yield f"- starts: {kind.starts}"
    own = [(key, field) for key, field in kind.model_fields.items() if key not in SHARED]
    for key, field in own:
        yield f"- `{key}` {default(kind, key)}: {field.description}"
    for preset, options in kind.presets.items():
        given = ", ".join(f"{key}={value_text(value)}" for key, value in options.items())
        yield f"- preset `{name}@{preset}`: {given}"
    yield from (f"- differs: {sentence}" for sentence in kind.differs)
    yield ""


def facts() -> str:
    """The whole part, in markdown."""
    kinds = {name: load_method(name) for name in METHODS}
    lines = ["| method | acts | `train_norms` | differs, or not checked |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind.places} | {norms(kind)} | {len(kind.differs)} |" for name, kind in kinds.items()]
    lines.append("")
    for name, kind in kinds.items():
        lines += section(name, kind)
    return "\n".join(lines)


def whole(text: str) -> str:
    """A page with the part as it should be."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{facts()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(whole(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

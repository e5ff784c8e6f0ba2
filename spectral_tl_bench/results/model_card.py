"""What a file of trained weights is, in words beside it, for whoever gets it without the run."""

from __future__ import annotations

from spectral_tl_bench.benchmarks import Benchmark
from spectral_tl_bench.console import in_percent
from spectral_tl_bench.results.schema import Record

CARD_FILE = "model-card.md"


def model_card(record: Record, benchmark: Benchmark) -> str:
    """A card in Markdown.

    Raises:
        ValueError: If the run has failed.
    """
    if record.scores is None or record.selection is None or record.data is None:
        raise ValueError(f"run {record.fingerprint} has failed")
    chips, backbone = record.data.chips, record.backbone
    validation = record.selection.value
    facts = [
        ("method", f"`{record.method}`, seed {record.seed}"),
        ("trained on", f"{benchmark.title}: {', '.join(record.source_domains)}, {chips.train} chips"),
        ("tested on", f"{', '.join(record.target_domains)}, {chips.target} chips, once, after selection"),
        ("target mIoU", in_percent(record.scores.selected.miou)),
        (record.selection.metric, "none" if validation is None else in_percent(validation)),
        ("bands", f"{benchmark.sensor.name}: {', '.join(benchmark.sensor.band_names)}"),
        ("unit", benchmark.sensor.unit),
        ("ground sampling distance", f"{benchmark.sensor.gsd:g} m"),
        ("classes", ", ".join(benchmark.labels.names)),
        ("windows", f"{record.settings.get('window')} px"),
        ("backbone", "none" if backbone is None else f"{backbone.name}, weights: {backbone.pretrained}, "
                                                     f"reads bands by {backbone.reading}"),
        ("run", f"`{record.fingerprint}`"),
    ]  # fmt: skip
    rows = "\n".join(f"| {name} | {str(value).replace('|', '/')} |" for name, value in facts)
    said = f"\n**{record.statement}**\n" if record.statement else ""
    return f"""# {record.method}, trained on {record.benchmark}
{said}
| | |
|---|---|
{rows}

```sh
stbench predict selected.safetensors SCENE.tif --out maps
```

The file holds what training changed; {
        "a frozen backbone is built again, from its own weights"
        if backbone
        else "the rest of the network is built again"
    }. It is meant for images of this sensor, in this unit; how well it does on ground
that is like neither source nor target, nobody has measured.
"""

"""What is made in a page's folder before its first command."""

from __future__ import annotations

from collections.abc import Callable

from world import (
    Place,
    checkout,
    checkpoint,
    cubes,
    data,
    dofa,
    hls_chips,
    images_and_labels,
    own_benchmark,
    profiles,
    scene,
    then,
    valleys,
    weights,
)

MY_METHOD = then("stbench init-method my-method && pip install -e my-method")
TWO_ROWS = then("stbench run -m majority -m nearest-mean -b mts12-n2s")
RELEASE = [
    checkpoint(f"{family}-stage{stage}.ckpt", stage, family)
    for family, stage in (("scalemae", 1), ("scalemae", 2), ("satmaepp", 1), ("satmaepp", 2), ("dinov3", 2))
]

NEEDS: dict[str, list[Callable[[Place], None]]] = {
    "CONTRIBUTING.md": [checkout("Makefile", ".ci/run")],
    "README.md": [
        checkout("Makefile", "pyproject.toml"),
        data("data/rs", "DFC2020", "WHU-OHS"), images_and_labels, own_benchmark,
        dofa, weights("dinov2.safetensors", "dinov2-small"),
        checkpoint("best-checkpoint.ckpt", 2, "scalemae"),
        then("stbench plan -m lora -b mts12-n2s --write plan.yaml"),
    ],
    "docs/backbones.md": [weights("weights/checkpoint.pth", "satmaepp-large")],
    "docs/bring-a-benchmark.md": [images_and_labels, valleys],
    "docs/bring-a-method.md": [],
    "docs/cluster.md": [data("shared/data"), profiles],
    "docs/convert.md": [checkpoint("best-checkpoint.ckpt", 2, "dinov3"), *RELEASE],
    "docs/data.md": [data("data/rs", "WHU-OHS", "DFC2020"), cubes],
    "docs/decoders.md": [],
    "docs/maps.md": [scene],
    "docs/performance.md": [checkout("profiling")],
    "docs/plans.md": [data("data/rs")],
    "docs/published.md": [checkout("profiling", "docs/examples"), data("DATA"), hls_chips],
    "docs/results.md": [
        checkout("docs", "leaderboard/tables", "leaderboard/results/demonstration"), hls_chips,
        weights("WEIGHTS/dinov2-vits14.safetensors", "dinov2-small"),
        weights("WEIGHTS/galileo-nano.safetensors", "galileo-nano", (0.443, 0.482, 0.561, 0.655, 0.865, 1.609, 2.201)),
    ],
    "docs/submit.md": [
        checkout("docs/examples"), data("DATA"), MY_METHOD,
        then("stbench submit --write-truth mts12-n2s --data-root DATA",
             "git add leaderboard && git commit -q -m truth && git switch -q -c mine"),
    ],
    "leaderboard/README.md": [
        checkout("leaderboard/benchmarks", *(f"leaderboard/results/{name}" for name in (
            "sample/chips", "sample/lora.jsonl", "sample/lora.parquet", "demonstration/majority.jsonl",
            "demonstration/majority.parquet"))),
    ],
}  # fmt: skip
"""What is made in a page's folder before its first command."""

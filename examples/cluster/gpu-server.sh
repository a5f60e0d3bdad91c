#!/bin/bash
# A server with GPUs: bash examples/cluster/gpu-server.sh [RECIPE] [options of brainseg cross-validate]
# Four folds share a card. NVIDIA's Multi-Process Service lets them compute side by side instead of in turn.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
if command -v nvidia-cuda-mps-control >/dev/null && ! pgrep -x nvidia-cuda-mps >/dev/null; then
  nvidia-cuda-mps-control -d
  trap 'echo quit | nvidia-cuda-mps-control' EXIT
fi
brainseg cross-validate --on ray --gpus 0.25 "$@"

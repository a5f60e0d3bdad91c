#!/bin/bash
# SLURM, from the top folder of a clone that `make setup` has prepared, on a disk that all nodes see:
#   sbatch examples/cluster/slurm.sh [RECIPE] [options of brainseg cross-validate]
#   sbatch examples/cluster/slurm.sh tune recipes/tune/default.yaml --trials 60
# Ray runs on all nodes of the job and ends with it. Change the lines below to what your cluster has.
#SBATCH --job-name=brainseg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --output=brainseg-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch}"
# shellcheck source=/dev/null
source .venv/bin/activate
export RAY_USAGE_STATS_ENABLED=0
# On the node's own disk, and one that outlives the job: a fold that begins again there goes on from its checkpoint.
export BRAINSEG_NODE_FOLDER="${BRAINSEG_NODE_FOLDER:-/tmp/brainseg-$USER}"
command=(cross-validate)
if [ "${1:-}" = tune ]; then
  command=()
fi
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # another job may have a node in common
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_PER_TASK:-0}" \
  -- brainseg "${command[@]}" "$@" --on ray --address auto --quiet

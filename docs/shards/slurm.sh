#!/bin/bash
# Embeds shards in a Slurm array: every task a part.
#   sbatch --array=1-8 slurm.sh MODEL 'web-{000000..000999}.tar' OUT [more flags of embed]
# A task that failed or ran out of time is submitted again with the same array: finished shards are skipped.
#SBATCH --job-name=embed
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: sbatch --array=1-N slurm.sh MODEL SHARDS OUT [more flags of embed]" >&2
    exit 2
fi
model=$1 shards=$2 out=$3
shift 3
first=${SLURM_ARRAY_TASK_MIN:?submit this with --array=1-N}
part=$(( SLURM_ARRAY_TASK_ID - first + 1 ))
exec ieq-wgpu embed "$model" --shards "$shards" --part "$part/$SLURM_ARRAY_TASK_COUNT" --out "$out" "$@"

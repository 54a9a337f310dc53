#!/bin/bash
# Embeds shards in a Slurm array: every task one of N parts.
#   sbatch --array=1-8 slurm.sh 8 MODEL 'web-{000000..000999}.tar' OUT [more flags of embed]
# Tasks that failed or ran out of time are submitted again, as with --array=3,5: finished shards are skipped.
#SBATCH --job-name=embed
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: sbatch --array=1-N slurm.sh N MODEL SHARDS OUT [more flags of embed]" >&2
    exit 2
fi
parts=$1 model=$2 shards=$3 out=$4
shift 4
part=${SLURM_ARRAY_TASK_ID:?submit this with --array=1-$parts}
exec ieq-wgpu embed "$model" --shards "$shards" --part "$part/$parts" --out "$out" "$@"

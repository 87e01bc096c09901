#!/bin/bash
# Curates on many machines: an array of jobs, each of which measures a share, and one that finishes behind them. Start it with: bash slurm-curate.sh
# Change: SHARES, the lines #SBATCH, /srv/darkroom and the data set (on disks that all nodes see, at the same paths). What failed: start it again.
# Run here: with a stand-in for sbatch that runs its script at once. Not run: on a cluster.
#SBATCH --job-name=darkroom-curate
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=darkroom-curate-%A-%a.log
set -eu
SHARES=16
cd "${DARKROOM:=/srv/darkroom}"

curate() {
    .venv/bin/python -m curate dataset=table dataset.path=/data/mine.parquet dataset.images_dir=/data/mine run.name=mine engine.memory=12GB "$@"
}

if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    curate stage=annotate "shard=$SLURM_ARRAY_TASK_ID/$SHARES"
elif [ -n "${SLURM_JOB_ID:-}" ]; then
    curate stage=finish
else
    this=workflows/recipes/slurm-curate.sh
    shares=$(sbatch --parsable --array="0-$((SHARES - 1))" "$this")
    sbatch --dependency="afterok:$shares" --kill-on-invalid-dep=yes "$this"
fi

#!/bin/bash
# Retrains once, on one GPU; goes back into the queue before its time ends and resumes there. Start it with: sbatch slurm.sh
# Change: the lines #SBATCH, /srv/darkroom (on a disk that all nodes see) and my/settings.yaml (your experiment). Every week: see the last lines.
# Run here: with Slurm 22.05 on one machine without a GPU, requeued three times before its end, and with a stand-in for the training. Not run: on a cluster.
#SBATCH --job-name=darkroom-retrain
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --dependency=singleton
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
#SBATCH --open-mode=append
#SBATCH --output=darkroom-retrain-%j.log
set -u
cd /srv/darkroom || exit 2

.venv/bin/python -m workflows.retrain experiment=my/settings.yaml &
retraining=$!
# Bash runs a trap only between commands, so the command is in the background. Slurm sends TERM 300 s before the end.
trap 'kill -TERM "$retraining"' TERM
wait "$retraining"
code=$?
if kill -0 "$retraining" 2>/dev/null; then # the trap ended the first wait; the command is storing its checkpoint
    wait "$retraining"
    code=$?
fi
if [ "$code" -eq 130 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

# Every Sunday at 03:17: `scrontab -e` where the cluster has it, with the same #SCRON options and this file as the command,
# or in the crontab of a login node: 17 3 * * 0  sbatch --chdir=/srv/darkroom /srv/darkroom/workflows/recipes/slurm.sh

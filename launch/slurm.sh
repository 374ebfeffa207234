#!/usr/bin/env bash
# One task of a Slurm array: runs the command in line SLURM_ARRAY_TASK_ID of a
# file that `python -m launch.sweep ... --slurm` wrote.
#
#   sbatch --array=1-8%4 launch/slurm.sh runs/sweep/commands.txt
#
# Before the time is up the run gets SIGTERM, saves, and is queued again; it
# goes on from its checkpoint. Add the partition and the account of your cluster
# on the command line of sbatch, or here. For one run over several nodes replace
# the last lines by `srun python -m launch.run --distributed ...`.
#
#SBATCH --job-name=effjax
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.log
set -u

if [ $# -ne 1 ] || [ ! -f "$1" ]; then
  echo "usage: sbatch --array=1-N $0 FILE_OF_COMMANDS" >&2
  exit 2
fi
command=$(sed -n "${SLURM_ARRAY_TASK_ID:?is set by Slurm}p" "$1")
if [ -z "$command" ]; then
  echo "$1 has no line $SLURM_ARRAY_TASK_ID" >&2
  exit 2
fi

cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
bash -c "exec $command" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
wait "$child"
status=$?
# The first wait ends with the trap; the run itself is still saving.
while kill -0 "$child" 2>/dev/null; do
  wait "$child"
  status=$?
done
if [ "$status" -eq 143 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

#!/bin/bash
# What the submit left behind is not for a notebook; what it left out, a login would have set.
unset LC_ALL SUDO_COMMAND SUDO_USER SUDO_UID SUDO_GID
export HOME=${HOME:-~} USER="${USER:-$(id -un)}"
# On every scheduler the same; the launcher changes to the server's folder.
cd 2>/dev/null || cd /

# Warnings of the scheduler would end this shell; they are for the launcher.
trap '' USR1 USR2

# The log is opened here and not by the scheduler, so that it lies at the same place everywhere.
hpc_job=$HPC_LOCAL_JOBID

hpc_folder="$HOME"/.hpcspawner
hpc_name=jupyter-alice
export HPC_JOB="$hpc_job" HPC_LOG="$hpc_folder/$hpc_name-$hpc_job.log"
hpc_begins="hpcspawner: job $hpc_job on $(uname -n), $(date)"
# Appended to: the scheduler may run this job again, on another node. A full disk shows at the first line only.
HPC_LOG_START=$(stat -L -c %s "$HPC_LOG" 2>/dev/null || echo 0)
if ! (umask 077 && mkdir -p -- "$hpc_folder" && echo "$hpc_begins" >>"$HPC_LOG") 2>/dev/null; then
  HPC_LOG_START=0
  HPC_LOG=$(umask 077 && mktemp) || HPC_LOG=/dev/null
  echo "$hpc_begins" >>"$HPC_LOG"
fi
export HPC_LOG_START
exec >>"$HPC_LOG" 2>&1 </dev/null
find "$hpc_folder" -maxdepth 1 -type f -name 'jupyter-*.log' -mtime +14 -delete 2>/dev/null

# Found before an environment can hide it: the launcher needs no more than Python 3.6.
hpc_python=$(command -v python3)
if [ -z "$hpc_python" ]; then
  echo "hpcspawner: no Python on this node; the site profile's job.python names the one to use"
  exit 127
fi

# The first line of the set-up that fails; the launcher reports it.
export HPC_SETUP_FAILED=

# The site's prologue.
echo prologue


"$hpc_python" -I /dev/fd/3 3<<'HPCSPAWNER_LAUNCHER' 4<<'HPCSPAWNER_SETTINGS' &
# (hpcspawner/job/launcher.py stands here)
HPCSPAWNER_LAUNCHER
{"bind": "--bind=", "ca": null, "callback": "https://hub.example.org/hub/api/hpcspawner", "command": ["jupyterhub-singleuser"], "directory": "/home/alice", "environment": "plain", "idle": null, "limit_s": 300, "ports": [20000, 20100], "programs": ["jupyterhub-singleuser", "jupyter-lab"], "ticket": "TICKET-STANDS-HERE", "tls": false, "variables": {"JUPYTERHUB_DEFAULT_URL": "/lab", "JUPYTERHUB_ROOT_DIR": "/home/alice"}, "wrap": []}
HPCSPAWNER_SETTINGS
hpc_launcher=$!

# A signal for this shell is for the server; `wait` returns early when one comes, so it is asked again.
trap 'kill -TERM "$hpc_launcher" 2>/dev/null' TERM INT HUP
trap 'kill -USR1 "$hpc_launcher" 2>/dev/null' USR1
while kill -0 "$hpc_launcher" 2>/dev/null; do
  wait "$hpc_launcher"
done
wait "$hpc_launcher"
hpc_code=$?

# The site's epilogue.
echo epilogue

exit "$hpc_code"

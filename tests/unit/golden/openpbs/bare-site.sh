#!/bin/bash
# shellcheck disable=SC2064,SC2218,SC2317  # functions are called by quoted lines, and one of them is `trap`
# Unset what sudo and the submit left in the environment; set HOME and USER as a login would.
unset LC_ALL SUDO_COMMAND SUDO_USER SUDO_UID SUDO_GID
export HOME=${HOME:-~} USER="${USER:-$(id -un)}"
# On every scheduler the same; the launcher changes to the server's folder.
cd 2>/dev/null || cd /

# Warnings of the scheduler would end this shell; they are for the launcher.
builtin trap '' USR1 USR2

# The log is opened here and not by the scheduler, so that it lies at the same place everywhere.
hpc_job=$PBS_JOBID

hpc_folder="$HOME"/.hpcspawner
hpc_name=jupyter-alice-@-h3f2a9c0b1d4e55.log
export HPC_JOB="$hpc_job" HPC_LOG="$hpc_folder/${hpc_name/@/$hpc_job}"
# As the scheduler calls it, where it says so.
hpc_node=${SLURMD_NODENAME:-$(uname -n)}
hpc_begins="hpcspawner: job $hpc_job on $hpc_node, $(date)"
# Appended to: the scheduler may run this job again, on another node. A full disk shows at the first line only.
HPC_LOG_START=$(stat -L -c %s "$HPC_LOG" 2>/dev/null || echo 0)
if ! (umask 077 && mkdir -p -- "$hpc_folder" && echo "$hpc_begins" >>"$HPC_LOG") 2>/dev/null; then
  HPC_LOG_START=0
  HPC_LOG=$(umask 077 && mktemp -t "hpcspawner-$hpc_job.XXXXXX.log") || HPC_LOG=/dev/null
  # The launcher removes it once the Hub has its last lines; this is for those that no launcher could remove.
  export HPC_LOG_SPARE=1
  find "${HPC_LOG%/*}" -maxdepth 1 -type f -user "$(id -u)" -name 'hpcspawner-*.log' -mtime +14 -delete 2>/dev/null
  echo "$hpc_begins" >>"$HPC_LOG"
fi
export HPC_LOG_START
exec >>"$HPC_LOG" 2>&1 </dev/null

# Old logs go, and nothing else: a log of ours has a job's number and tag in its name, and that number in its first line.
while IFS= read -r -d '' hpc_old; do
  IFS= read -r hpc_first <"$hpc_old"
  hpc_number=${hpc_first#hpcspawner: job }
  [ "$hpc_number" = "$hpc_first" ] && continue
  case ${hpc_old##*/} in jupyter*-"${hpc_number%% on *}"-[a-z]??????????????.log) rm -f -- "$hpc_old" ;; esac
done 2>/dev/null < <(find "$hpc_folder" -maxdepth 1 -type f -name 'jupyter*.log' -mtime +14 -print0 2>/dev/null)

# Found before an environment can hide them: the launcher needs no more than Python 3.6.
hpc_python=$(command -v python3)
if [ -z "$hpc_python" ]; then
  echo "hpcspawner: no Python on this node; the site profile's job.python names the one to use"
  exit 127
fi
HPC_OPENSSL=$(command -v openssl)
export HPC_OPENSSL
# The launcher runs by these as they are here, and the server by what the set-up makes of them.
for hpc_one in "${!LD_@}" "${!SSL_@}" "${!OPENSSL_@}"; do
  printf -v "hpc_found_$hpc_one" %s "${!hpc_one}"
done

# Starts the launcher. It and its settings come through pipes: a here-document may need a file, and the disk be full.
hpc_launch() {
  { set +aeuvx +o posix; } 2>/dev/null
  exec 3< <(printf '%s\n' '# (hpcspawner/programs/launcher stands here)') 4< <(printf '%s\n' '{"alone": [], "beside": "", "bind": "--bind=", "ca": null, "callback": "https://hub.example.org/hub/api/hpcspawner", "command": ["jupyterhub-singleuser"], "containers": [], "directory": "/home/alice", "environment": "plain", "extensions": ["hpcspawner_token"], "files": {"hpcspawner_token.py": "(hpcspawner/programs/token.py stands here)", "quick/rfc3987_syntax.py": "(hpcspawner/programs/rfc3987_syntax.py stands here)", "status/hpcspawner_status.py": "(its text)", "status/jupyter_server_config.d/hpcspawner_status.json": "(its text)", "status/jupyter_server_config.py": "(its text)", "status/labextensions/hpcspawner/package.json": "(its text)", "status/labextensions/hpcspawner/static/remoteEntry.(its hash).js": "(its text)", "status_keeper.py": "(its text)"}, "hidden": [], "idle_limit_s": null, "image": "", "limit_s": 300, "modules": "quick", "ports": null, "program": null, "programs": ["jupyterhub-singleuser", "jupyter-lab"], "proxy": "", "status": {"cpus": 1, "gpus": "", "memory": null, "nodes": 1, "partition": "debug", "reminders_s": [900, 300], "walltime_s": 1800}, "ticket": "TICKET-STANDS-HERE", "tls": false, "variables": {"JUPYTERHUB_DEFAULT_URL": "/lab", "JUPYTERHUB_ROOT_DIR": "/home/alice"}, "version": 3, "writable": true}')
  (
    for hpc_one in "${!LD_@}" "${!SSL_@}" "${!OPENSSL_@}"; do
      export "HPC_SET_$hpc_one=${!hpc_one}"
      unset "$hpc_one"
    done
    for hpc_one in "${!hpc_found_@}"; do
      export "${hpc_one#hpc_found_}=${!hpc_one}"
    done
    exec "$hpc_python" -I /dev/fd/3
  ) &
  hpc_launcher=$!
  exec 3<&- 4<&-
}

# Waits for the launcher: a signal for this shell is for the server; `wait` returns early when one comes.
hpc_wait() {
  builtin trap 'kill -TERM "$hpc_launcher" 2>/dev/null' TERM INT HUP
  builtin trap 'kill -USR1 "$hpc_launcher" 2>/dev/null' USR1
  while kill -0 "$hpc_launcher" 2>/dev/null; do
    wait "$hpc_launcher"
  done
  wait "$hpc_launcher"
  hpc_code=$?
}

# Runs at the end of this script. If the set-up has ended it, the launcher tells the Hub where.
hpc_end() {
  hpc_code=$?
  if [ -z "$hpc_launcher$hpc_signalled" ]; then
    HPC_SETUP_FAILED="${HPC_SETUP_FAILED:-$hpc_at}, which ended the job's script with exit code $hpc_code"
    hpc_launch
    hpc_wait
  fi
  eval "$hpc_at_end"
  exit "$hpc_code"
}
hpc_launcher='' hpc_signalled='' hpc_at='' hpc_at_end=''
# The part of the set-up that has failed; the launcher reports it.
export HPC_SETUP_FAILED=
builtin trap hpc_end EXIT
builtin trap 'hpc_signalled=1; exit 143' TERM INT HUP

# A job has its submitter's, which is the Hub's; a login would set what the node's own file says.
hpc_umask() {
  local key value rest mask='' groups=''
  while read -r key value rest; do
    case $key in
      UMASK) mask=$value ;;
      USERGROUPS_ENAB) groups=$value ;;
    esac
  done </etc/login.defs
  [[ $mask =~ ^0?[0-7]{3}$ ]] || return 0
  mask=${mask: -3}
  # A group of one's own gets its owner's rights.
  if [ "$groups" = yes ] && [ "$(id -un)" = "$(id -gn)" ]; then mask=${mask:0:1}${mask:0:1}${mask:2}; fi
  umask "$mask"
}
hpc_umask 2>/dev/null

# PBS sends no warning before the wall time ends, so the script counts.
hpc_left=1500
if [ "$hpc_left" -gt 0 ]; then
  while [ "$hpc_left" -gt 0 ]; do
    sleep $((hpc_left < 10 ? hpc_left : 10))
    hpc_left=$((hpc_left - 10))
    kill -0 "$$" || exit
  done && kill -USR1 "$$"
fi </dev/null >/dev/null 2>&1 &

hpc_launch
hpc_wait

exit "$hpc_code"

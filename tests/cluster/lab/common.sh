# shellcheck shell=bash
# Shared by up, down and tests/run. Sourced, never run.

LAB=${LAB:-/var/lib/hpcspawner-lab}
# shellcheck disable=SC2034 # for those who source this
NODES=(n1 n2 n3)

# "n1" lives in the network namespace "hpcn1", the head in "hpchead". A lab beside another needs another LAB and
# another LAB_NET.
netns() { echo "${LAB_NET:-hpc}$1"; }

# use_lab NUMBER: from here on the labs beside the first in which tests/run lets a part of its suites run meanwhile;
# "large" is that of benchmarks. `down` stops all of them. What users' programs lie in is made once, in the first.
use_lab() {
    FIRST_LAB=$LAB FIRST_NET=${LAB_NET:-hpc}
    [ "$1" = 1 ] || export LAB=$FIRST_LAB-$1 LAB_NET=$FIRST_NET$1
}

# Environments, Apptainer, ttyd and images of the first lab, in one that has none of its own.
share_environments() {
    local made
    mkdir -p "$LAB"
    for made in "$FIRST_LAB"/{env*,apptainer,ttyd,images}; do
        [ ! -d "$made" ] || [ -e "$LAB/${made##*/}" ] || ln -s "$made" "$LAB/${made##*/}"
    done
}

# The number of a lab's first job. All labs' users have the same homes, where the name of a job's log has its number.
first_job() { echo $(($(cksum <<<"$LAB" | cut -d ' ' -f 1) % 1000 * 10000 + 1)); }

# A file in /run/netns outlives a reboot when /run does, the namespace does not: enter it to know.
netns_works() { nsenter --net="/run/netns/$(netns "$1")" true 2>/dev/null; }

# running PIDFILE NAME HOST: the daemon runs, and in the namespace that HOST has now: one made anew leaves the old
# daemons behind, cut off.
running() {
    local pid
    pid=$(pid_of "$1" "$2") || return 1
    [ "/proc/$pid/ns/net" -ef "/run/netns/$(netns "$3")" ]
}

# pid_of PIDFILE NAME: prints the pid of our daemon. A pid file outlives its daemon, and the number is soon somebody
# else's. (Torque's ends with a null byte.)
pid_of() {
    local pid
    pid=$(tr -d "\\0" 2>/dev/null <"$1") && [ -n "$pid" ] && is_ours "$pid" "$2" && echo "$pid"
}

# is_ours PID NAME: a live process of that name that this lab has started, for it sees the lab's /etc/slurm. (A zombie
# sees nothing, which is as well: it may wait long for its parent.) Newer Slurms' daemons start themselves anew when
# they are reconfigured, by Debian's name for the program: slurmd-wlm.
is_ours() {
    local comm
    comm=$(cat "/proc/$1/comm" 2>/dev/null) && [ "${comm%-wlm}" = "$2" ] && [ "/proc/$1/root/etc/slurm" -ef "$LAB/etc/slurm" ]
}

# stop PIDFILE NAME: ask it to end, wait 15 s, then insist. Nothing to do when it is gone.
stop() {
    local pid
    if pid=$(pid_of "$1" "$2"); then
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 150); do
            is_ours "$pid" "$2" || break
            sleep 0.1
        done
        ! is_ours "$pid" "$2" || kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$1"
}

is_debian_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# packages_missing NAME...: those of the Debian packages that are not installed, one a line.
packages_missing() {
    local name
    for name in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

# apt_install LOGFILE NAME...: installs what is missing; no service is started by it.
apt_install() {
    local log=$1 missing policy=/usr/sbin/policy-rc.d ours=
    shift
    mapfile -t missing < <(packages_missing "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    mkdir -p "$(dirname "$log")"
    echo "apt-get install ${missing[*]}"
    if [ ! -e $policy ]; then
        ours=1
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    local ok=1
    apt_get "$log" "${missing[@]}" || { apt-get update -q >>"$log" 2>&1 && apt_get "$log" "${missing[@]}"; } || ok=
    [ -z "$ours" ] || rm -f $policy
    [ -n "$ok" ] || {
        tail -n 20 "$log" >&2
        echo "apt-get failed; the whole of its output is in $log" >&2
        return 1
    }
}

apt_get() {
    local log=$1
    shift
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 </dev/null
}

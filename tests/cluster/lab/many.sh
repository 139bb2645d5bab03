# shellcheck shell=bash
# With LAB_NODES=1000 the lab's Slurm has so many nodes, e0001 and on, in place of its three, and is set up as a big
# site's. For benchmarks. Sourced by up.
#
# Each node is a slurmd as it comes, of 1 MiB, with a port of its own on the host n1. Debian's emulator of Slurm
# (slurm-wlm-emulator 22.05.8), of which one daemon would stand for all, does not run: it wants a FrontendName, and the
# library that it shares with Slurm's other programs refuses that word. And its package makes `slurmctld` and `slurmd`
# mean the emulator's on the whole machine.

many() { [ -n "${LAB_NODES:-}" ]; }

# many_names [FIRST LAST]: as Slurm writes them, all where none are named.
many_names() { printf 'e[%04d-%04d]' "${1:-1}" "${2:-$LAB_NODES}"; }

# The last tenth has GPUs.
many_plain() { echo $((LAB_NODES * 9 / 10)); }

many_hosts() { seq -f '10.77.0.11 e%04g' 1 "$LAB_NODES"; }

# Interactive servers come before batch jobs, as many sites have it. A scheduler that looked at all its jobs at each
# submit would do nothing else, hence `defer` and the limits of how many it looks at.
many_lines() {
    local plain all
    plain=$(many_plain) all=$(many_names)
    cat <<END
SchedulerParameters=defer,default_queue_depth=200,partition_job_depth=100,sched_min_interval=2000000,bf_interval=30,bf_continue,bf_max_job_test=500,bf_max_job_user=50,bf_resolution=300,bf_window=2880,max_rpc_cnt=150
MaxJobCount=50000
SlurmdTimeout=600
NodeName=$(many_names 1 "$plain") NodeHostName=n1 NodeAddr=10.77.0.11 Port=[17001-$((17000 + plain))] CPUs=64 RealMemory=256000 Feature=skylake
NodeName=$(many_names $((plain + 1))) NodeHostName=n1 NodeAddr=10.77.0.11 Port=[$((17001 + plain))-$((17000 + LAB_NODES))] CPUs=64 RealMemory=512000 Feature=volta Gres=gpu:v100:4
PartitionName=compute Nodes=$(many_names 1 "$plain") Default=YES DefaultTime=00:30:00 MaxTime=48:00:00 PriorityTier=10
PartitionName=debug Nodes=$(many_names 1 20) MaxTime=00:30:00 PriorityTier=10
PartitionName=gpu-shared Nodes=$(many_names $((plain + 1))) MaxTime=24:00:00 PriorityTier=10
PartitionName=batch Nodes=$all MaxTime=7-00:00:00
END
}

many_gres() { echo "NodeName=$(many_names $(($(many_plain) + 1))) Name=gpu Type=v100 File=$LAB/dev/nvidia[0-3]"; }

# The numbers of nodes whose slurmd does not run. Asking each pid file by its own would take half a minute.
many_missing() {
    local pid
    declare -A runs=()
    for pid in $(ip netns pids "$(netns n1)" 2>/dev/null); do
        { read -rd '' _ && read -rd '' _ && read -rd '' node; } 2>/dev/null <"/proc/$pid/cmdline" || continue
        runs[$node]=1
    done
    for node in $(seq -f 'e%04g' 1 "$LAB_NODES"); do
        [ -n "${runs[$node]:-}" ] || echo "$node"
    done
}

# shellcheck disable=SC2016 # "$@" is for the inner shell
start_many() {
    local missing
    mapfile -t missing < <(many_missing)
    [ ${#missing[@]} -gt 0 ] || return 0
    say "slurmd of ${#missing[@]} nodes on n1"
    on n1 bash -c 'for node; do slurmd -N "$node" || exit; done' - "${missing[@]}" </dev/null \
        >"$LAB/log/many.start.log" 2>&1 9>&- || fail "slurmd does not start" "$LAB/log/many.start.log"
}

# Whatever runs on n1, which is theirs alone.
stop_many() {
    mapfile -t pids < <(ip netns pids "$(netns n1)" 2>/dev/null)
    [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
}

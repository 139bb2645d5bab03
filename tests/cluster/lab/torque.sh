# shellcheck shell=bash
# A real Torque on the lab's hosts: pbs_server and pbs_sched on the head, pbs_mom on the nodes, trqauthd on all, so that
# nodes may submit. Sourced by up and down, never run. There is no package of it: PBS_PROGRAMS names the folder of an archive that holds it.
#
# Two places are the same for every Torque: its home, /var/spool/torque, and the socket of trqauthd in /tmp. The lab's
# wrappers put $LAB/torque/HOST and $LAB/torque/tmp-HOST/trqauthd-unix there.

TORQUE=/opt/torque

# Jobs fail with code -14 where mom_priv is closed to others.
make_torque_homes() {
    local host home
    for host in head "${NODES[@]}"; do
        home=$LAB/torque/$host
        mkdir -p "$home"/{aux,checkpoint,client_logs,job_logs,mom_logs,mom_priv/jobs,sched_logs,spool,undelivered} \
            "$home"/sched_priv/accounting \
            "$home"/server_priv/{accounting,arrays,credentials,disallowed_types,hostlist,jobs,queues} "$home"/server_logs
        chmod 1777 "$home/spool" "$home/undelivered"
        chmod 751 "$home/mom_priv"
        chmod 750 "$home/sched_priv" "$home/server_priv"
        write "$home/server_name" <<<head
        write "$home/pbs_environment" <<<$'PATH=/usr/local/bin:/usr/bin:/bin\nLANG=C.UTF-8'
        # Homes are the same everywhere, so a file is copied and not sent.
        write "$home/mom_priv/config" <<<$'$pbsserver head\n$usecp *:/ /\n$check_poll_time 5\n$status_update_time 5'
    done
    touch "$LAB"/torque/head/sched_priv/{holidays,dedicated_time,resource_group}
    write "$LAB/torque/head/sched_priv/sched_config" <<END
by_queue: True prime
by_queue: True non_prime
strict_fifo: false ALL
help_starving_jobs: false ALL
sort_by: no_sort ALL
log_filter: 256
sync_time: 1:00:00
END
}

# start_in_foreground HOST NAME PIDFILE COMMAND...: for those that write no pid or that become daemons before they work.
start_in_foreground() {
    local host=$1 name=$2 pidfile=$3
    shift 3
    # shellcheck disable=SC2016 # "$@" is for the inner shell
    start "$host" "$name" "$pidfile" bash -c 'setsid "$@" & echo $! >"$0"' "$LAB/run/$pidfile" "$@"
}

start_torque() {
    local node create=()
    # The scheduler ends some time after trqauthd.
    running "$LAB/run/trqauthd.head.pid" trqauthd head || stop "$LAB/run/pbs_sched.pid" pbs_sched
    for node in head "${NODES[@]}"; do
        start_trqauthd "$node"
    done
    [ -s "$LAB/torque/head/server_priv/serverdb" ] || create=(-f -t create)
    # As with Slurm, the jobs of an earlier life are no part of a fresh lab.
    running "$LAB/run/pbs_server.pid" pbs_server head || rm -f "$LAB"/torque/head/server_priv/jobs/*
    start_in_foreground head pbs_server pbs_server.pid $TORQUE/sbin/pbs_server -F "${create[@]}"
    wait_for 60 on head $TORQUE/bin/qstat -B || fail "pbs_server does not answer" "$(newest server_logs)"
    configure_torque >"$LAB/log/qmgr.log" 2>&1 || fail "Torque cannot be configured" "$LAB/log/qmgr.log"
    [ ${#create[@]} -eq 0 ] || qmgr -c "set server next_job_number = $(first_job)" >>"$LAB/log/qmgr.log" 2>&1 ||
        fail "Torque's first job cannot be given its number" "$LAB/log/qmgr.log"
    start_scheduler
    for node in "${NODES[@]}"; do
        running "$LAB/run/pbs_mom.$node.pid" pbs_mom "$node" || rm -rf "$LAB/torque/$node"/mom_priv/jobs/*
        start_in_foreground "$node" pbs_mom "pbs_mom.$node.pid" $TORQUE/sbin/pbs_mom -F -p
    done
    wait_for 90 torque_nodes_usable || {
        on head $TORQUE/bin/pbsnodes -l all >&2 || true
        fail "not every node of Torque is usable" "$(newest server_logs)"
    }
    torque_test_job
}

start_trqauthd() {
    local host=$1 place=$LAB/torque/tmp-$1
    mkdir -p "$place"
    # shellcheck disable=SC2016 # "$@" is for the inner shell
    start_in_foreground "$host" trqauthd "trqauthd.$host.pid" unshare --mount --propagation slave bash -c \
        'rm -f "$0/trqauthd-unix" && mount --bind "$0" /tmp && exec "$@"' "$place" $TORQUE/sbin/trqauthd -F
    wait_for 30 test -S "$place/trqauthd-unix" || fail "trqauthd does not start on $host" "$LAB/log/trqauthd.start.log"
}

# It forks, and writes its own pid.
start_scheduler() {
    running "$LAB/run/pbs_sched.pid" pbs_sched head && return
    start head pbs_sched pbs_sched.pid $TORQUE/sbin/pbs_sched
    ln -sf "$LAB/torque/head/sched_priv/sched.lock" "$LAB/run/pbs_sched.pid"
}

newest() { find "$LAB/torque/head/$1" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; }

qmgr() { on head $TORQUE/bin/qmgr "$@"; }

# The timers are short for the tests' sake. A job that has ended is remembered for as long as on the lab's Slurm.
configure_torque() {
    local node queue limit
    qmgr -c 'set server managers = root@head' && qmgr -c 'set server operators = root@head' || return
    qmgr <<END || return
set server acl_hosts = head
set server submit_hosts = head
set server keep_completed = 300
set server query_other_jobs = True
set server allow_node_submit = True
set server scheduler_iteration = 2
set server job_stat_rate = 5
set server poll_jobs = True
set server mom_job_sync = True
set server node_check_rate = 15
set server tcp_timeout = 30
set server kill_delay = 5
END
    while read -r queue limit; do
        on head $TORQUE/bin/qstat -Q "$queue" >/dev/null 2>&1 || qmgr -c "create queue $queue queue_type=execution"
        qmgr <<END || return
set queue $queue resources_max.walltime = $limit
set queue $queue resources_default.walltime = 00:30:00
set queue $queue enabled = True
set queue $queue started = True
END
    done <<<$'debug 00:30:00\ncompute 48:00:00\ngpu-shared 24:00:00'
    qmgr -c 'set server default_queue = compute' || return
    for node in "${NODES[@]}"; do
        on head $TORQUE/bin/pbsnodes "$node" >/dev/null 2>&1 || qmgr -c "create node $node" || return
    done
    qmgr <<END || return
set node n1 np = 64
set node n1 properties = skylake
set node n2 np = 64
set node n2 properties = skylake
set node n3 np = 16
set node n3 properties = volta
set node n3 gpus = 4
set server scheduling = True
END
    # qmgr leaves the GPUs out of the file that the server reads when it starts again.
    sed -i 's/^n3 np=16 volta$/n3 np=16 gpus=4 volta/' "$LAB/torque/head/server_priv/nodes"
}

# Also wakes what a test left offline.
torque_nodes_usable() {
    local node
    for node in "${NODES[@]}"; do
        on head $TORQUE/bin/pbsnodes "$node" | grep -qE '^ +state = (free|job-exclusive)$' || {
            on head $TORQUE/bin/pbsnodes -c "$node"
            return 1
        }
    done
}

torque_test_job() {
    local out=$LAB/run/torque-test job
    rm -f "$out"
    job=$(cd / && on head runuser -u alice -- $TORQUE/bin/qsub -q compute -l nodes=1,walltime=1:00 -j oe -o /dev/null \
        <<<"uname -n >$out") || fail "alice's test job cannot be submitted to Torque"
    wait_for 60 test -s "$out" || fail "alice's test job $job does not run" "$(newest sched_logs)"
}

stop_torque() {
    local node
    for node in "${NODES[@]}"; do
        stop "$LAB/run/pbs_mom.$node.pid" pbs_mom
    done
    stop "$LAB/run/pbs_sched.pid" pbs_sched
    stop "$LAB/run/pbs_server.pid" pbs_server
    for node in head "${NODES[@]}"; do
        stop "$LAB/run/trqauthd.$node.pid" trqauthd
    done
}

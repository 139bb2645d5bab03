# shellcheck shell=bash
# A real OpenPBS on the lab's hosts: pbs_server with its database, pbs_sched and pbs_comm on the head, pbs_mom on the
# nodes. Sourced by up and down, never run. There is no package of it: PBS_PROGRAMS names the folder of an archive.
#
# Its server has a name of its own, so that a job's number says whose it is (12.openpbs; Torque's are 12.head), and its
# ports are other than Torque's. The lab's wrappers put $LAB/openpbs/HOST.conf in the place of /etc/pbs.conf.

OPENPBS=/opt/pbs

OPENPBS_PACKAGES=(postgresql libical3 libhwloc15 libpython3.11 libpq5 libcjson1 libedit2 libexpat1)

make_openpbs_confs() {
    local host
    # The machine's own, if it has one, is only covered up.
    [ -e /etc/pbs.conf ] || touch /etc/pbs.conf
    mkdir -p "$LAB/openpbs"
    for host in head "${NODES[@]}"; do
        openpbs_conf "$host" | write "$LAB/openpbs/$host.conf"
    done
}

openpbs_conf() {
    local on_head=0 on_node=1
    [ "$1" != head ] || { on_head=1 on_node=0; }
    cat <<END
PBS_EXEC=$OPENPBS
PBS_HOME=$LAB/openpbs/$1
PBS_SERVER=openpbs
PBS_MOM_NODE_NAME=$1
PBS_START_SERVER=$on_head
PBS_START_SCHED=$on_head
PBS_START_COMM=$on_head
PBS_START_MOM=$on_node
PBS_CORE_LIMIT=0
PBS_BATCH_SERVICE_PORT=15051
PBS_MOM_SERVICE_PORT=15052
PBS_MANAGER_SERVICE_PORT=15053
PBS_DATA_SERVICE_PORT=15057
END
}

# Users' commands prove who calls by a program that is root's.
prepare_openpbs() {
    apt_install "$LAB/log/apt.log" "${OPENPBS_PACKAGES[@]}" 9>&- || fail "packages of OpenPBS are missing"
    unpack openpbs pbs bin/qsub
    chmod 4755 $OPENPBS/sbin/pbs_iff $OPENPBS/sbin/pbs_rcp
    install -d -o postgres "$LAB/openpbs/postgresql"
    [ -d "$LAB/openpbs/head/datastore" ] || make_openpbs_server
    local node
    for node in "${NODES[@]}"; do
        make_openpbs_mom "$LAB/openpbs/$node"
    done
}

# on_database COMMAND...: on the head, where the socket of the database is the lab's own.
on_database() {
    # shellcheck disable=SC2016 # "$@" is for the inner shell
    on head unshare --mount --propagation slave bash -c \
        'mount --bind "$0" /run/postgresql && exec "$@"' "$LAB/openpbs/postgresql" "$@"
}

make_openpbs_server() {
    say "OpenPBS's server"
    rm -rf "$LAB/openpbs/head"
    on_database $OPENPBS/libexec/pbs_habitat </dev/null >"$LAB/log/pbs_habitat.log" 2>&1 9>&- ||
        fail "OpenPBS's server cannot be set up" "$LAB/log/pbs_habitat.log"
}

# Homes are the same everywhere, so a file is copied and not sent. Two labs' jobs may have the same number, so what a job
# has for a folder of its own is the lab's.
make_openpbs_mom() {
    mkdir -p "$1"/{aux,checkpoint,mom_logs,mom_priv/jobs,mom_priv/hooks/tmp,spool,undelivered}
    mkdir -p "$1/tmp"
    chmod 1777 "$1/spool" "$1/undelivered" "$1/tmp"
    chmod 751 "$1/mom_priv"
    write "$1/pbs_environment" <<<$'PATH=/usr/local/bin:/usr/bin:/bin\nLANG=C.UTF-8'
    write "$1/mom_priv/config" <<END
\$clienthost openpbs
\$restrict_user_maxsysid 999
\$usecp *:/ /
\$min_check_poll 2
\$max_check_poll 5
\$tmpdir $1/tmp
END
}

# start_openpbs_daemon HOST NAME PATH: its own pid file lies at PATH in its home.
start_openpbs_daemon() {
    local host=$1 name=$2 pidfile=openpbs.$1.$2.pid
    ln -sf "$LAB/openpbs/$host/$3" "$LAB/run/$pidfile"
    if [ "$host" = head ]; then
        running "$LAB/run/$pidfile" "$name" head && return
        say "OpenPBS's $name"
        on_database $OPENPBS/sbin/"${name%.bin}" </dev/null >"$LAB/log/${pidfile%.pid}.start.log" 2>&1 9>&- ||
            fail "OpenPBS's $name does not start" "$LAB/log/${pidfile%.pid}.start.log"
    else
        start "$host" "$name" "$pidfile" $OPENPBS/sbin/"$name"
    fi
}

start_openpbs() {
    local node
    start_openpbs_daemon head pbs_comm server_priv/comm.lock
    start_openpbs_daemon head pbs_sched sched_priv/sched.lock
    start_openpbs_daemon head pbs_server.bin server_priv/server.lock
    wait_for 60 on head $OPENPBS/bin/qstat -B || fail "OpenPBS's server does not answer" "$(newest_openpbs head server_logs)"
    for node in "${NODES[@]}"; do
        running "$LAB/run/openpbs.$node.pbs_mom.pid" pbs_mom "$node" || rm -rf "$LAB/openpbs/$node"/mom_priv/jobs/*
        start_openpbs_daemon "$node" pbs_mom mom_priv/mom.lock
    done
    configure_openpbs >"$LAB/log/openpbs-qmgr.log" 2>&1 || fail "OpenPBS cannot be configured" "$LAB/log/openpbs-qmgr.log"
    wait_for 90 openpbs_nodes_usable || {
        on head $OPENPBS/bin/pbsnodes -aSj >&2 || true
        fail "not every node of OpenPBS is usable" "$(newest_openpbs head server_logs)"
    }
    openpbs_test_job
}

newest_openpbs() { find "$LAB/openpbs/$1/$2" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2; }

openpbs_qmgr() { on head $OPENPBS/bin/qmgr "$@"; }

# What a node has is a boolean resource of it.
configure_openpbs() {
    local node queue limit config=$LAB/openpbs/head/sched_priv/sched_config
    openpbs_resource ngpus type=long,flag=nh || return
    openpbs_resource skylake type=boolean,flag=h || return
    openpbs_resource volta type=boolean,flag=h || return
    sed -i 's/^resources: .*/resources: "ncpus, mem, arch, host, vnode, aoe, ngpus"/' "$config"
    openpbs_qmgr <<END || return
set server flatuid = True
set server acl_roots = root@*
set server job_history_enable = True
set server job_history_duration = 01:00:00
set server query_other_jobs = True
set server scheduler_iteration = 5
set server node_fail_requeue = 20
set server resv_enable = True
END
    while read -r queue limit; do
        on head $OPENPBS/bin/qstat -Q "$queue" >/dev/null 2>&1 || openpbs_qmgr -c "create queue $queue queue_type=execution" || return
        openpbs_qmgr <<END || return
set queue $queue resources_max.walltime = $limit
set queue $queue resources_default.walltime = 00:30:00
set queue $queue kill_delay = 2
set queue $queue enabled = True
set queue $queue started = True
END
    done <<<$'debug 00:30:00\ncompute 48:00:00\ngpu-shared 24:00:00'
    openpbs_qmgr -c 'set server default_queue = compute' || return
    for node in "${NODES[@]}"; do
        on head $OPENPBS/bin/pbsnodes "$node" >/dev/null 2>&1 || openpbs_qmgr -c "create node $node" || return
    done
    openpbs_qmgr <<END || return
set node n1 resources_available.ncpus = 64, resources_available.mem = 128gb, resources_available.skylake = True
set node n2 resources_available.ncpus = 64, resources_available.mem = 128gb, resources_available.skylake = True
set node n3 resources_available.ncpus = 16, resources_available.mem = 32gb, resources_available.volta = True
set node n3 resources_available.ngpus = 4
set server scheduling = True
END
    kill -HUP "$(cat "$LAB/run/openpbs.head.pbs_sched.pid")"
}

openpbs_resource() {
    openpbs_qmgr -c "list resource $1" 2>/dev/null | grep -q . || openpbs_qmgr -c "create resource $1 $2"
}

# Also wakes what a test left offline.
openpbs_nodes_usable() {
    local node
    for node in "${NODES[@]}"; do
        on head $OPENPBS/bin/pbsnodes "$node" | grep -qE '^ +state = (free|job-busy)$' || {
            on head $OPENPBS/bin/pbsnodes -r "$node"
            return 1
        }
    done
}

openpbs_test_job() {
    local out=$LAB/run/openpbs-test job
    rm -f "$out"
    job=$(cd / && on head runuser -u alice -- $OPENPBS/bin/qsub -q compute -l select=1:ncpus=1 -j oe -o /dev/null \
        <<<"uname -n >$out") || fail "alice's test job cannot be submitted to OpenPBS"
    wait_for 60 test -s "$out" || fail "alice's test job $job does not run" "$(newest_openpbs head sched_logs)"
}

# The database ends with its server; its monitor is left to the end of all that runs on the head.
stop_openpbs() {
    local node
    for node in "${NODES[@]}"; do
        stop "$LAB/run/openpbs.$node.pbs_mom.pid" pbs_mom
    done
    stop "$LAB/run/openpbs.head.pbs_sched.pid" pbs_sched
    stop "$LAB/run/openpbs.head.pbs_server.bin.pid" pbs_server.bin
    stop "$LAB/run/openpbs.head.pbs_comm.pid" pbs_comm
}

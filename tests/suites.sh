# shellcheck shell=bash
# shellcheck disable=SC2154 # lane and pytest_options are of tests/run
# What each suite of tests/run needs and runs. Sourced by it, after tests/cluster/lab/common.sh; never run.

# What sites have beyond Slurm and one environment: containers, other programs, OpenPBS, several clusters, plugins, names
# of any kind.
of_sites=(tests/cluster/test_{containers,conversion,off_cluster,off_cluster_hidden,openpbs,own_environments,programs}.py)
of_sites+=(tests/cluster/test_{several_clusters,starts,site_options,site_plugins,sites,names}.py)
# What users, jobs and strangers try, and what the Hub may do at most.
of_attacks=(tests/cluster/test_{attack_options,attack_reports,bad_input,impostor,least_privilege,limits}.py)
of_attacks+=(tests/cluster/test_{scheduler_grammar,secrets,wiretap}.py)
elsewhere=(--ignore-glob='*/test_drills*' --ignore-glob='*/test_soak*' --ignore-glob='*/test_stand_ins*')
elsewhere+=("${of_sites[@]/#/--ignore=}" "${of_attacks[@]/#/--ignore=}")
# What must hold on a Slurm of another release: the contract, and the drills in which most depends on what Slurm itself
# does and prints. The Hub is killed, the controller hangs, a node or its daemon is lost; a job is put back, held,
# suspended, out of memory or time, or followed by another. The others are milder, or about what is not Slurm's: the
# Hub's own files, a listing that a stand-in garbles.
drill=tests/cluster/test_drills.py::test single=tests/cluster/test_drills_single.py::test_one_server_in_trouble
essentials=(
    tests/contract
    "${drill}_the_hub_goes_and_everybody_gets_what_they_asked_for[kill]"
    "${drill}_the_controller_hangs_and_a_server_asked_for_meanwhile_gets_one_job"
    "${drill}_a_nodes_network_is_cut"
    "${drill}_a_nodes_daemon_is_killed"
    "$single"\[{requeued,held,suspended,out_of_memory,out_of_time,renewed}\]
    tests/cluster/test_drills_written_down.py
)
# What `make releases` runs in other Debians: all that needs Slurm, one environment and no browser.
on_releases=(tests/contract tests/cluster/test_{first_light,init,least_privilege,limits,names,options,profiles}.py)
on_releases+=(tests/cluster/test_{scheduler_grammar,secrets,site_options,starts,unknown_nodes,stand_ins}.py)
on_releases+=(tests/cluster/test_drills{,_ledger,_single,_written_down}.py)
# Processes and timers: most of these tests wait. Tests of a file share its Hub.
by_test=(-n 3 --dist worksteal)
by_file=(-n 2 --dist loadfile)

where=() # command that runs pytest elsewhere

# suite SUITE: its exit code is the result.
suite() {
    case $1 in
    lint) environment environment && lint ;;
    unit) environment environment && run_pytest .venv tests/unit tests/contract "${by_test[@]}" ;;
    hub) environment environment proxy && run_pytest .venv tests/hub "${by_file[@]}" ;;
    hub-5.5) environment environment-5.5 proxy && run_pytest .venv-5.5 tests/hub -m both_hubs "${by_file[@]}" ;;
    package) environment environment proxy && run_pytest .venv tests/package ;;
    cluster) environment environment proxy && on_head .venv tests/cluster tests/contract "${elsewhere[@]}" ;;
    cluster-essentials) environment environment proxy && on_head .venv "${essentials[@]}" ;;
    cluster-release) environment environment proxy && on_head .venv "${on_releases[@]}" ;;
    newest) in_release "$NEWEST" tests/run "$IN_NEWEST" ;;
    cluster-sites) environment environment proxy && on_head .venv "${of_sites[@]}" ;;
    cluster-attack) environment environment proxy && on_head .venv "${of_attacks[@]}" ;;
    cluster-5.5) environment environment-5.5 proxy && on_head .venv-5.5 tests/cluster -m both_hubs ;;
    # In one process: the last of them compares the page about reliability with what the others found.
    drills) environment environment proxy && on_head .venv tests/cluster/test_drills*.py tests/cluster/test_stand_ins.py ;;
    soak) environment environment proxy && on_head .venv tests/cluster/test_soak.py ;;
    esac
}

# ---- what they need

# What the wanted suites need besides Python packages. A failure shows again where the program is missed.
install_programs() {
    local programs=()
    ! wants lint unit || programs+=(shellcheck)
    ! wants hub hub-5.5 cluster cluster-sites cluster-attack cluster-5.5 drills || programs+=(chromium fonts-dejavu-core sudo)
    ! wants hub hub-5.5 || programs+=(nginx-light apache2-bin postgresql)
    [ ${#programs[@]} -eq 0 ] || apt_install "$LOGS/apt.log" "${programs[@]}"
}

# why_not SUITE: prints why it cannot run here; nothing when it can.
why_not() {
    case $1 in
    hub*)
        has_chromium || echo "there is no chromium on PATH"
        has_fronts || echo "there is no nginx or no apache2"
        compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo "there is no PostgreSQL"
        ;;
    newest) is_debian_root || echo "another Debian needs root on Debian" ;;
    cluster* | drills | soak) is_debian_root || echo "the test cluster needs root on Debian" ;;
    esac
}

has_fronts() { PATH=$PATH:/usr/sbin command -v nginx && PATH=$PATH:/usr/sbin command -v apache2; } >/dev/null

has_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null

# The Makefile knows how; it has nothing to do when they are there. Another lane may want the same.
environment() { flock --close "$LOGS/.make" make --no-print-directory -s "$@"; }

# ---- how they run

lint() {
    local code=0
    check .venv/bin/ruff format --check . || code=1
    check .venv/bin/ruff check . || code=1
    check .venv/bin/mypy || code=1
    check make --no-print-directory -s docs || code=1
    if command -v shellcheck >/dev/null; then
        mapfile -t scripts < <(shell_scripts)
        check shellcheck -x "${scripts[@]}" || code=1
    elif [ "${CI:-}" = true ]; then
        echo "shellcheck is missing"
        code=1
    else
        echo "left out: shellcheck, because it is not on PATH"
    fi
    return "$code"
}

check() {
    echo "\$ $1 ${2:-} ${3:-} ${4:+...}"
    "$@"
}

# Every file that git tracks or would track and that starts like a shell script; not what makes one, or what was made.
shell_scripts() {
    git ls-files -co --exclude-standard -- ':!*.j2' ':!tests/recorded' ':!*/golden/*' | while read -r file; do
        [ -f "$file" ] && head -n 1 "$file" | grep -qaE '^#( shellcheck shell=|!.*\b(ba|da)?sh\b)' && echo "$file"
    done
}

# Labs come up one after the other: they install the same packages and make the same accounts.
on_head() {
    (flock 8 && lab_up) 8>"$LOGS/.lab" || return
    local -x HPC_LAB=$LAB
    local where=("$LAB/h")
    run_pytest "$@"
}

# in_release SUITE COMMAND...: in another Debian, with a lab there; see tests/cluster/lab/release.
in_release() {
    timeout --foreground --kill-after=60 "$LIMIT" \
        env -u PBS_PROGRAMS -u PYTHONPATH LAB="$FIRST_LAB-$1" LAB_PARTS=slurm tests/cluster/lab/release "$@" 3>&-
}

# No daemon may inherit the lock, nor the terminal or pipe that the run prints into.
lab_up() {
    if [ "$LAB" != "$FIRST_LAB" ]; then
        [ -e "$FIRST_LAB/images/.stamp" ] || LAB=$FIRST_LAB LAB_NET=$FIRST_NET tests/cluster/lab/up 3>&- 8>&- || return
        share_environments
    fi
    tests/cluster/lab/up 3>&- 8>&-
}

# run_pytest VENV ARGUMENTS...: with that environment's programs first on PATH; on the host of "where" if there is one.
# Its number is in $LOGS/.pytest.LANE, for `interrupt`.
run_pytest() {
    local venv=$ROOT/$1 colour=()
    shift
    [ ! -t 3 ] || colour=(--color=yes)
    # shellcheck disable=SC2016 # for the inner shell
    PATH="$venv/bin:$ROOT/build/npm/bin:$PATH" PYTHONUNBUFFERED=1 \
        sh -c 'echo $$ >"$0" && exec "$@"' "$LOGS/.pytest.$lane" \
        timeout --foreground --signal=INT --kill-after=60 "$LIMIT" \
        "${where[@]}" "$venv/bin/pytest" --durations=10 "${colour[@]}" "$@" "${pytest_options[@]}"
}

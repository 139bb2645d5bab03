# shellcheck shell=bash
# Slurm's REST service on the head, for auth/jwt alone: tests put a proxy with TLS before it. Sourced by up.

# shellcheck disable=SC2034 # for up
SLURMRESTD_PACKAGES=(slurmrestd slurm-wlm-jwt-plugin nginx-light)

# The key that signs tokens: whoever has it is every user to Slurm.
make_jwt_key() {
    local key=$LAB/etc/jwt_hs256.key
    [ -s "$key" ] || {
        (umask 077 && head -c 32 /dev/urandom >"$key.new")
        mv "$key.new" "$key"
    }
    chown slurm "$key"
    chmod 400 "$key"
}

# It has no rights of its own: with SLURM_JWT=daemon it hands on what its callers show, and has no credential of munge.
# shellcheck disable=SC2016 # "$@" is for the inner shell
start_slurmrestd() {
    start head slurmrestd slurmrestd.pid bash -c 'echo $$ >"$0" && exec setsid "$@" >"$0.log" 2>&1 &' \
        "$LAB/run/slurmrestd.pid" setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs \
        env SLURM_JWT=daemon slurmrestd -a rest_auth/jwt -s openapi/v0.0.38,openapi/dbv0.0.38 127.0.0.1:6820
    wait_for 20 on head bash -c 'exec 3<>/dev/tcp/127.0.0.1/6820' ||
        fail "slurmrestd does not answer" "$LAB/run/slurmrestd.pid.log"
}

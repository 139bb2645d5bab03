# shellcheck shell=bash
# Slurm's REST service on the head, with auth/jwt alone, and stunnel before it for TLS. Sourced by up.

# shellcheck disable=SC2034 # for up
SLURMRESTD_PACKAGES=(slurmrestd slurm-wlm-jwt-plugin stunnel4 openssl)

# What slurm.conf and slurmdbd.conf say of tokens.
token_lines() {
    printf '%s\n' AuthAltTypes=auth/jwt "AuthAltParameters=jwt_key=$LAB/etc/jwt_hs256.key"
}

# The key that signs tokens: who has it is every user to Slurm.
make_jwt_key() {
    local key=$LAB/etc/jwt_hs256.key
    [ -s "$key" ] || {
        (umask 077 && head -c 32 /dev/urandom >"$key.new")
        mv "$key.new" "$key"
    }
    chown slurm "$key"
    chmod 400 "$key"
}

# A certificate of the lab's own authority, for the head's name and address.
make_api_certificate() {
    local folder=$LAB/etc/api
    [ -s "$folder/head.pem" ] && return
    mkdir -p "$folder"
    (
        umask 077
        openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=The lab's authority" \
            -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$folder/ca.key" -out "$folder/ca.crt"
        openssl req -newkey rsa:2048 -nodes -subj /CN=head -keyout "$folder/head.key" -out "$folder/head.csr"
        printf '%s\n' 'subjectAltName=DNS:head,IP:10.77.0.1' 'extendedKeyUsage=serverAuth' >"$folder/head.ext"
        openssl x509 -req -in "$folder/head.csr" -days 3650 -CA "$folder/ca.crt" -CAkey "$folder/ca.key" \
            -CAcreateserial -extfile "$folder/head.ext" -out "$folder/head.crt"
        cat "$folder/head.key" "$folder/head.crt" >"$folder/head.pem.new"
    ) >"$LAB/log/api-certificate.log" 2>&1 || fail "the certificate of slurmrestd cannot be made" "$LAB/log/api-certificate.log"
    chmod 644 "$folder/ca.crt"
    mv "$folder/head.pem.new" "$folder/head.pem"
}

# It has no rights of its own: with SLURM_JWT=daemon it hands on what its callers show, and has no credential of munge.
# shellcheck disable=SC2016 # "$@" is for the inner shell
start_slurmrestd() {
    id -u slurmrestd >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin slurmrestd
    start head slurmrestd slurmrestd.pid bash -c 'echo $BASHPID >"$0" && exec setsid "$@" >"$0.log" 2>&1 &' \
        "$LAB/run/slurmrestd.pid" setpriv --reuid=slurmrestd --regid=slurmrestd --clear-groups --no-new-privs \
        env SLURM_JWT=daemon slurmrestd -a rest_auth/jwt 127.0.0.1:6820
    wait_for 20 on head bash -c 'exec 3<>/dev/tcp/127.0.0.1/6820' ||
        fail "slurmrestd does not answer" "$LAB/run/slurmrestd.pid.log"
    write "$LAB/etc/api/stunnel.conf" <<END
pid = $LAB/run/stunnel.pid
output = $LAB/log/stunnel.log
sslVersionMin = TLSv1.2
[slurmrestd]
accept = 10.77.0.1:6843
connect = 127.0.0.1:6820
cert = $LAB/etc/api/head.pem
END
    start head stunnel4 stunnel.pid stunnel4 "$LAB/etc/api/stunnel.conf"
    wait_for 20 on head bash -c 'exec 3<>/dev/tcp/10.77.0.1/6843' || fail "stunnel does not answer" "$LAB/log/stunnel.log"
}

# shellcheck shell=bash
# Lmod and Environment Modules for the lab's jobs, both Debian's. Sourced by up, after common.sh; never run.
#
# They are unpacked beside the system: installed, each would be there for every login and every job, and the tests need
# nodes with either of them and with none.

# shellcheck disable=SC2034 # for up
MODULE_PACKAGES=(lua5.3 lua-filesystem lua-json lua-posix lua-term tcl)

# $LAB/env-modules: lmod.sh and modules.sh define `module`, the folder modulefiles has jupyter/1.0.
make_module_systems() {
    local root=$LAB/env-modules name
    [ ! -e "$root/modules.sh" ] || return 0
    say "module systems"
    rm -rf "$root"
    mkdir -p "$root"/{lmod,modules,modulefiles/jupyter}
    (cd "$root" && apt-get -q -oAPT::Sandbox::User=root download lmod environment-modules) || return
    dpkg -x "$root"/lmod_*.deb "$root/lmod" && dpkg -x "$root"/environment-modules_*.deb "$root/modules" || return
    rm "$root"/*.deb
    # What they know of their own places.
    for name in lmod modules; do
        grep -lIrE '/(usr/share|etc)/(lmod|modules|environment-modules)|/usr/lib/[^/ ]*-linux-gnu' "$root/$name" |
            xargs sed -Ei "s:(/usr/share|/etc)/(lmod|modules|environment-modules):$root/$name\1/\2:g; s:(/usr/lib/[^/ ]*-linux-gnu/(modulecmd|libtclenvmodules)):$root/$name\1:g" ||
            return
    done
    cat >"$root/modulefiles/jupyter/1.0" <<END
#%Module
prepend-path PATH $LAB/env/bin
setenv FROM_MODULE jupyter/1.0
END
    ln -sf lmod/usr/share/lmod/lmod/init/bash "$root/lmod.sh" && ln -sf modules/usr/share/modules/init/bash "$root/modules.sh"
}

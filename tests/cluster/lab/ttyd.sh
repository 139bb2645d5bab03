# shellcheck shell=bash
# The lab's ttyd, a terminal in the browser that listens on a Unix socket. Sourced by up, after apptainer.sh; never run.
# Debian 12 has none: it comes from the unstable suite like Apptainer, with its own loader and libraries.

make_ttyd() {
    local root=$LAB/ttyd package
    [ ! -x "$root/bin/ttyd" ] || return 0
    say "ttyd"
    rm -rf "$root"
    mkdir -p "$root"/{debs,libraries,bin}
    fetch_unstable "$root/debs" ttyd libwebsockets19t64 libwebsockets-evlib-uv libuv1t64 libjson-c5 libssl3t64 libcap2 \
        libzstd1 zlib1g libc6 || return
    for package in "$root"/debs/*.deb; do
        dpkg -x "$package" "$root/libraries" || return
    done
    rm -r "$root/debs"
    local loader libraries
    loader=$(find "$root/libraries" -name 'ld-linux-*.so.*' | head -n 1)
    libraries=$(find "$root/libraries" -name 'libuv.so.1' -printf '%h' -quit)
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$root/libraries/usr/bin/ttyd" || return
    # It looks for its event loop in this variable's folders, and what it starts must not get these libraries.
    mkdir -p "$root/plugins"
    ln -s "$libraries/libwebsockets-evlib_uv.so" "$root/plugins/"
    write "$root/bin/ttyd" 755 <<END
#!/bin/sh
LD_LIBRARY_PATH=$root/plugins exec $root/libraries/usr/bin/ttyd "\$@"
END
    chmod -R a+rX "$root"
    "$root/bin/ttyd" --version
}

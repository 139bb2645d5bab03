# shellcheck shell=bash
# The lab's real Apptainer and the images that its tests start. Sourced by up, after common.sh; never run.
#
# Debian 12 has no Apptainer. It is taken from the unstable suite by an apt configuration of its own, and unpacked beside
# the system; it wants newer libraries, so its own loader and libraries come along. Images are made of the system's own
# suite and of the lab's Jupyter environment, once.

# shellcheck disable=SC2034 # for up
APPTAINER_PACKAGES=(patchelf squashfs-tools debootstrap)

# shellcheck disable=SC2016 # apt fills it in
mirror() { apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | sort -u | head -n 1; }

make_apptainer() {
    local root=$LAB/apptainer
    [ ! -x "$root/bin/apptainer" ] || return 0
    say "Apptainer"
    rm -rf "$root"
    mkdir -p "$root"/{debs,libraries,bin}
    fetch_unstable "$root/debs" apptainer libc6 libseccomp2 libsqlite3-0 || return
    dpkg -x "$root"/debs/apptainer_*.deb "$root" || return
    local package
    for package in libc6 libseccomp2 libsqlite3-0; do
        dpkg -x "$root/debs/${package}"_*.deb "$root/libraries" || return
    done
    rm -r "$root/debs"
    use_own_libraries "$root" "$root/usr/bin/apptainer" "$(find "$root/usr/lib" -path '*apptainer/bin/starter')" || return
    # The command looks for its configuration under usr, its starter under usr/lib.
    ln -sfn ../etc "$root/usr/etc"
    ln -sfn ../../etc "$root/usr/lib/etc"
    mkdir -p "$root/usr/var/lib/apptainer/mnt/session" "$root/usr/lib/var/lib/apptainer/mnt/session"
    chmod -R a+rX "$root"
    "$root/usr/bin/apptainer" --version && ln -sfn ../usr/bin/apptainer "$root/bin/apptainer"
}

# fetch_unstable FOLDER PACKAGE...: from the mirror that this machine uses; its own lists stay as they are.
fetch_unstable() {
    local folder=$1 apt
    shift
    apt=$(mktemp -d)
    mkdir -p "$apt"/{lists/partial,archives/partial}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) sid main" >"$apt/sources.list"
    local options=(
        -q -oDir::Etc::SourceList="$apt/sources.list" -oDir::Etc::SourceParts=/dev/null -oDir::State::Lists="$apt/lists"
        -oDir::Cache="$apt/archives" -oAPT::Sandbox::User=root
    )
    apt-get "${options[@]}" update && (cd "$folder" && apt-get "${options[@]}" download "$@")
    local code=$?
    rm -rf "$apt"
    return $code
}

# use_own_libraries ROOT PROGRAM...
use_own_libraries() {
    local root=$1 loader libraries program
    shift
    loader=$(find "$root/libraries" -name 'ld-linux-*.so.*' | head -n 1)
    libraries=$(find "$root/libraries" -name 'libseccomp.so.2' -printf '%h' -quit)
    for program in "$@"; do
        patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" "$program" || return
    done
}

# ---- images

# $LAB/images: hub (a folder; jupyterhub inside), lab (a folder) and lab.sif (JupyterLab alone), bare (no Jupyter),
# and what can't be started: arm64.sif, damaged.sif, unreadable.sif.
make_images() {
    local images=$LAB/images
    cmp -s "$LAB/env/.stamp" "$images/.stamp" && return
    say "images"
    rm -rf "$images"
    mkdir -p "$images"
    debootstrap --variant=minbase --include=python3 bookworm "$images/bare" "$(mirror)" || return
    rm -rf "$images"/bare/{var/cache/apt,var/lib/apt/lists,usr/share/{doc,locale,man}}/*
    add_jupyter hub && add_jupyter lab || return
    rm -rf "$images"/lab/opt/jupyter/{bin/jupyterhub*,lib/python3*/site-packages/jupyterhub}
    make_sif lab.sif lab || return
    make_broken_images || return
    chmod -R a+rX "$images/hub" "$images/lab" "$images/bare"
    chmod 600 "$images/unreadable.sif"
    cp "$LAB/env/.stamp" "$images/.stamp"
}

# add_jupyter NAME: the base with the lab's Jupyter environment in /opt/jupyter, which the image's own PATH names.
add_jupyter() {
    local root=$LAB/images/$1
    cp -a "$LAB/images/bare" "$root" && cp -a "$LAB/env" "$root/opt/jupyter" || return
    rm -rf "$root"/opt/jupyter/lib/python3*/site-packages/{pip,setuptools,jupyterlab/tests}
    grep -lIr "$LAB/env" "$root/opt/jupyter/bin" "$root/opt/jupyter/share/jupyter/kernels" |
        xargs sed -i "s:$LAB/env:/opt/jupyter:g" || return
    mkdir -p "$root/.singularity.d/env"
    # shellcheck disable=SC2016 # for the image's shell
    echo 'export PATH=/opt/jupyter/bin:$PATH IMAGE_SAYS=hello' >"$root/.singularity.d/env/90-environment.sh"
}

# make_sif FILE FOLDER: with a compression that is fast to undo.
make_sif() {
    "$LAB/apptainer/bin/apptainer" -q build --force --mksquashfs-args "-comp lz4" "$LAB/images/$1" "$LAB/images/$2"
}

# Apptainer takes the architecture of an image from the head of its shell.
make_broken_images() {
    local images=$LAB/images root
    root=$(mktemp -d)
    mkdir -p "$root/bin"
    cp /bin/dash "$root/bin/sh"
    printf '\xb7' | dd of="$root/bin/sh" bs=1 seek=18 conv=notrunc status=none
    "$LAB/apptainer/bin/apptainer" -q build --force "$images/arm64.sif" "$root" || return
    rm -rf "$root"
    head -c 50000 "$images/lab.sif" >"$images/damaged.sif"
    cp "$images/arm64.sif" "$images/unreadable.sif"
}

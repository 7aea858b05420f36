# shellcheck shell=bash
# The peer, qemu-storage-daemon: its program and its iSCSI driver come from different packages, and
# work together only when both are of one version.

# peer_version PACKAGE: its installed version; nothing when it is not installed.
peer_version() {
    local status_and_version
    status_and_version=$(dpkg-query --show --showformat='${db:Status-Status} ${Version}' "$1" 2>/dev/null) || true
    if [[ $status_and_version == installed* ]]; then printf '%s\n' "${status_and_version#* }"; fi
}

# peer_package: the installed package that holds qemu-storage-daemon: qemu-utils, or in some releases
# qemu-system-common.
peer_package() {
    local path package=''
    path=$(command -v qemu-storage-daemon) || return 0
    # With a merged /usr the file may be known by its other name.
    for path in "$path" "/usr/bin/${path##*/}" "/bin/${path##*/}"; do
        package=$(dpkg-query --search "$path" 2>/dev/null) && break
    done
    printf '%s\n' "${package%%:*}"
}

# peer_install_equal: qemu-utils and qemu-block-extra at the version that apt would install of the
# latter.
peer_install_equal() {
    local version
    packages_as_root || die 1 "--install-peer needs root, and sudo asks for a password"
    packages_apt_get update || die 1 "apt-get update failed; the lines above say why"
    version=$(apt-cache policy qemu-block-extra | sed --quiet 's/^ *Candidate: //p')
    say "installing qemu-utils and qemu-block-extra at version $version"
    packages_apt_get install --no-install-recommends --allow-downgrades \
        "qemu-utils=$version" "qemu-block-extra=$version" ||
        die 1 "apt-get could not install them; the lines above say why"
}

# peer_require INSTALL: qemu-storage-daemon with an iSCSI driver of its own version. Where versions
# differ, a non-empty INSTALL mends it, and an empty one says how.
peer_require() {
    local package program driver
    if [[ -n $1 ]]; then peer_install_equal; fi
    command -v qemu-storage-daemon >/dev/null || packages_require qemu-utils
    packages_require qemu-block-extra
    package=$(peer_package)
    # Built from source, it has its driver built in or beside it.
    [[ -n $package ]] || return 0
    program=$(peer_version "$package")
    driver=$(peer_version qemu-block-extra)
    [[ $program == "$driver" ]] && return
    die 1 "qemu-storage-daemon is of version $program ($package), its iSCSI driver of version $driver" \
        "(qemu-block-extra). They do not work together. Run this again with --install-peer, which installs" \
        "qemu-utils and qemu-block-extra at one version, by a downgrade if need be; or name another peer" \
        "with --peer"
}

# shellcheck shell=bash disable=SC2034
# The peer: qemu-storage-daemon, which serves an iSCSI LUN over vhost-user-blk as we do.

PEER=qemu-storage-daemon

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

# peer_require INSTALL: qemu-storage-daemon with an iSCSI driver that it loads. The driver is a module
# in a package of its own; the program is looked for by name, for it moved between packages, and may
# stem from another suite than the rest of QEMU. Where versions differ, a non-empty INSTALL mends it.
peer_require() {
    if [[ -n $1 ]]; then peer_install_equal; fi
    packages_require qemu-block-extra
    command -v "$PEER" >/dev/null || packages_require qemu-utils
    peer_check_versions "$PEER"
}

# peer_loads_iscsi PROGRAM: whether it finds its iscsi driver. Where nobody listens, a driver that
# is there fails to connect, and one that is not is unknown.
peer_loads_iscsi() {
    local options=() said
    if [[ $1 == qemu-system-* ]]; then options=(-machine none -nodefaults -display none); fi
    said=$(timeout --kill-after=2 10 "$1" "${options[@]}" --blockdev \
        driver=iscsi,node-name=trial,transport=tcp,portal=127.0.0.1:1,target=iqn.trial,lun=0 2>&1 </dev/null) || true
    [[ $said == *"Failed to connect"* ]]
}

# peer_package_of FILE: the package that it belongs to, with its version.
peer_package_of() {
    local package
    package=$(dpkg-query --search "$(realpath "$1")" 2>/dev/null | cut --delimiter=: --fields=1)
    if [[ -z $package ]]; then
        printf 'no Debian package\n'
    else
        dpkg-query --show --showformat='${Package} ${Version}\n' "$package"
    fi
}

# peer_check_versions PROGRAM...: QEMU loads modules of its very own build only, and says no more
# than "Unknown driver" of others.
peer_check_versions() {
    local program module
    module=$(compgen -G '/usr/lib/*/qemu/block-iscsi.so' | head --lines=1)
    for program in "$@"; do
        peer_loads_iscsi "$program" && continue
        die 1 "$program cannot load QEMU's iscsi driver. The program is of" \
            "$(peer_package_of "$(command -v "$program")"), the driver of $(peer_package_of "$module"):" \
            "their versions have to be equal. qemu-scripts/bench --install-peer installs qemu-utils and" \
            "qemu-block-extra at one version, by a downgrade if need be; for qemu-system-x86 too:" \
            "apt-get install --allow-downgrades qemu-system-x86=VERSION"
    done
}

peer_listens_or_died() {
    [[ -S $1 ]] || ! is_running "$PEER_PID"
}

# peer_start URL SOCKET QUEUES: sets PEER_PID; returns when the socket is there.
peer_start() {
    local url=$1 socket=$2 queues=$3
    iscsi_blockdev "$url" lun
    "$PEER" "${ISCSI_SECRET[@]/#-object/--object}" --blockdev "$ISCSI_BLOCKDEV" \
        --export "type=vhost-user-blk,id=export,node-name=lun,writable=on,num-queues=$queues,addr.type=unix,addr.path=${socket//,/,,}" \
        >"$WORKDIR/peer.log" 2>&1 </dev/null &
    PEER_PID=$!
    cleanup_push stop_child "$PEER_PID"
    wait_until 30 peer_listens_or_died "$socket" && is_running "$PEER_PID" && return
    indent <"$WORKDIR/peer.log"
    die 1 "$PEER does not serve $url; its messages are above"
}

# shellcheck shell=bash disable=SC2034
# The Debian package under test, and roots of this machine's own suite to try it in.

# How long mmdebstrap may take: half a minute, and its downloads.
ROOT_LIMIT_S=180

# package_build: sets PACKAGE, and ROUND_TRIP, a program that is a guest of a disk for a moment.
package_build() {
    PACKAGE=$(qemu-scripts/package --output "$WORKDIR" | tail --lines=1)
    [[ -f $PACKAGE ]] || die 1 "there is no package"
    cargo build --quiet --locked --package vhost-user-iscsi-tests --example socket_round_trip
    ROUND_TRIP=$TARGET_DIR/debug/examples/socket_round_trip
}

# apt_source SUITE: its line, with the mirror that apt has been told of.
apt_source() {
    # shellcheck disable=SC2016  # the words in dollars are apt's
    apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' \
        "Codename: $1" 'Component: main' | sed --quiet 1p
}

# unmount_all: what mmdebstrap would leave mounted if it were killed; before anything is removed.
unmount_all() {
    local place
    while read -r place; do
        umount "$place"
    done < <(findmnt --noheadings --raw --output TARGET | grep --fixed-strings "$WORKDIR/" | tac)
}

# debian_root PLACE PACKAGES [OPTION...]: what every Debian has, and PACKAGES, with commas between them, by
# mmdebstrap with its further options. In the foreground: a signal waits for it, for it has things to unmount.
debian_root() {
    local place=$1 packages=$2 suite source
    shift 2
    # shellcheck disable=SC1091
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    source=$(apt_source "$suite")
    [[ -n $source ]] || die 1 "apt knows no source of the suite $suite; apt-get update may help"
    timeout --kill-after=10 "$ROOT_LIMIT_S" mmdebstrap --quiet --variant=essential --include="$packages" \
        --dpkgopt=force-unsafe-io "$@" "$suite" "$place" "$source" || die 1 "the root cannot be made, or not in $ROOT_LIMIT_S s; the lines above say why"
}

# shellcheck shell=bash disable=SC2034
# An iSCSI URL as the options of QEMU's own iscsi driver, which takes no URL.

# iscsi_blockdev_parse URL: sets ISCSI_PORTAL, ISCSI_TARGET, ISCSI_LUN and ISCSI_USER. Fails where
# the URL says more than this understands: the driver has no like for our keys behind the '?'.
iscsi_blockdev_parse() {
    [[ $1 =~ ^iscsi://(([^@/]*)@)?([^/@]+)/([^/%?]+)/([0-9]+)$ ]] || return 1
    ISCSI_USER=${BASH_REMATCH[2]}
    ISCSI_PORTAL=${BASH_REMATCH[3]} ISCSI_TARGET=${BASH_REMATCH[4]} ISCSI_LUN=${BASH_REMATCH[5]}
    ISCSI_USER=${ISCSI_USER:-${LIBISCSI_CHAP_USERNAME:-}}
}

# iscsi_blockdev URL NODE: sets ISCSI_BLOCKDEV to the value of --blockdev, and ISCSI_SECRET to the
# arguments that have to stand before it. CHAP comes from where the back-end takes it too.
iscsi_blockdev() {
    ISCSI_SECRET=()
    iscsi_blockdev_parse "$1" || die 2 "QEMU's iscsi driver cannot be given this URL: $1"
    ISCSI_BLOCKDEV="driver=iscsi,node-name=$2,discard=unmap,transport=tcp"
    ISCSI_BLOCKDEV+=",portal=${ISCSI_PORTAL//,/,,},target=${ISCSI_TARGET//,/,,},lun=$ISCSI_LUN"
    if [[ -n $ISCSI_USER && -n ${LIBISCSI_CHAP_PASSWORD:-} ]]; then
        # By a file: a command line can be read by everybody.
        (umask 077 && printf '%s' "$LIBISCSI_CHAP_PASSWORD" >"$WORKDIR/chap-secret")
        ISCSI_SECRET=(-object "secret,id=chap-$2,file=$WORKDIR/chap-secret")
        ISCSI_BLOCKDEV+=",user=${ISCSI_USER//,/,,},password-secret=chap-$2"
    fi
}

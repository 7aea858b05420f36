# shellcheck shell=bash disable=SC2034
# A real iSCSI target (tgt) of our own, on loopback, unprivileged, gone when the script ends.

TGT_IQN=iqn.2001-01.com.example:disk

# tgt_admin ARG...: tgtadm, talking to our tgtd and no other.
tgt_admin() {
    TGT_IPC_SOCKET=$WORKDIR/tgt.sock /usr/sbin/tgtadm --control-port "$TGT_PORT" --lld iscsi "$@"
}

# loopback_port_is_free PORT
loopback_port_is_free() {
    ! (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# loopback_port: prints a free port, outside the range from which the kernel takes client ports.
loopback_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        if loopback_port_is_free "$port"; then break; fi
    done
    printf '%d\n' "$port"
}

tgt_answers_or_died() {
    ! is_running "$TGT_PID" || tgt_admin --op show --mode target >/dev/null 2>&1
}

# tgt_try_start: one attempt on one port; fails when somebody else took the port in between.
tgt_try_start() {
    TGT_PORT=$(loopback_port)
    TGT_IPC_SOCKET=$WORKDIR/tgt.sock /usr/sbin/tgtd --foreground --control-port "$TGT_PORT" \
        --iscsi "portal=127.0.0.1:$TGT_PORT" >"$WORKDIR/tgt.log" 2>&1 </dev/null &
    TGT_PID=$!
    wait_until 10 tgt_answers_or_died && is_running "$TGT_PID"
}

# tgt_stop: tgtd, as Debian has it, ignores SIGTERM while it has a target.
tgt_stop() {
    kill -KILL "$TGT_PID" 2>/dev/null || true
    wait "$TGT_PID" 2>/dev/null || true
}

# tgt_start: sets TGT_PORT and TGT_PID; the target TGT_IQN exists and admits everyone.
tgt_start() {
    local attempt
    for attempt in 1 2 3; do
        if tgt_try_start; then break; fi
        tgt_stop
        ((attempt < 3)) || die 1 "tgtd does not start: $(tail --lines=1 "$WORKDIR/tgt.log")"
    done
    cleanup_push tgt_stop
    tgt_admin --op new --mode target --tid 1 --targetname "$TGT_IQN"
    tgt_admin --op bind --mode target --tid 1 --initiator-address ALL
}

# tgt_add_disk LUN FILE SERIAL: FILE becomes a LUN that is thin, so that discard reaches it.
tgt_add_disk() {
    tgt_admin --op new --mode logicalunit --tid 1 --lun "$1" --backing-store "$2"
    tgt_admin --op update --mode logicalunit --tid 1 --lun "$1" \
        --params "thin_provisioning=1,scsi_sn=$3"
}

# tgt_add_null_disk LUN: a LUN of 1 TiB that keeps nothing and answers at once.
tgt_add_null_disk() {
    tgt_admin --op new --mode logicalunit --tid 1 --lun "$1" --bstype null --backing-store null
}

# tgt_url LUN: what an initiator calls that LUN.
tgt_url() {
    printf 'iscsi://127.0.0.1:%d/%s/%d\n' "$TGT_PORT" "$TGT_IQN" "$1"
}

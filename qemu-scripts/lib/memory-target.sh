# shellcheck shell=bash disable=SC2034
# The in-memory target of the tests, as a target that answers at once.

# memory_target_build: sets MEMORY_TARGET. ISCSI_TEST_TARGET in the environment names one that is
# already built.
memory_target_build() {
    MEMORY_TARGET=${ISCSI_TEST_TARGET:-}
    if [[ -n $MEMORY_TARGET ]]; then
        [[ -x $MEMORY_TARGET ]] || die 1 "ISCSI_TEST_TARGET is not a program: $MEMORY_TARGET"
        return
    fi
    cargo_build iscsi-test-target
    MEMORY_TARGET=$TARGET_DIR/release/iscsi-test-target
}

memory_target_listens_or_died() {
    [[ -s $WORKDIR/target.portal ]] || ! is_running "$MEMORY_TARGET_PID"
}

# memory_target_start SIZE: sets MEMORY_TARGET_PID and MEMORY_TARGET_URL. Its LUN keeps nothing:
# what is written is gone, what is read is zero.
memory_target_start() {
    local name=iqn.2001-01.com.example:memory
    "$MEMORY_TARGET" --target-name "$name" --lun "1:$1:null" \
        >"$WORKDIR/target.portal" 2>"$WORKDIR/target.log" </dev/null &
    MEMORY_TARGET_PID=$!
    cleanup_push stop_child "$MEMORY_TARGET_PID"
    if ! wait_until 10 memory_target_listens_or_died || ! is_running "$MEMORY_TARGET_PID"; then
        indent <"$WORKDIR/target.log"
        die 1 "the in-memory target does not start; its messages are above"
    fi
    MEMORY_TARGET_URL=iscsi://$(<"$WORKDIR/target.portal")/$name/1
}

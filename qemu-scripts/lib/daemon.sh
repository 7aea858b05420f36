# shellcheck shell=bash disable=SC2034
# The back-end: built from this checkout, started, stopped.

# cargo_find: puts cargo on the PATH, also where rustup put it for a shell that has not read that.
cargo_find() {
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null ||
        die 1 "cargo is missing. Get Rust from https://rustup.rs (no root needed):" \
            "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
    cargo_check_version
}

# cargo_check_version: an old cargo's own message about this is hard to understand.
cargo_check_version() {
    local wanted found
    wanted=$(sed --quiet 's/^rust-version = "\(.*\)"/\1/p' "$REPOSITORY_DIR/Cargo.toml")
    found=$(cd "$REPOSITORY_DIR" && cargo --version | cut --delimiter=' ' --fields=2)
    [[ $(printf '%s\n' "$wanted" "$found" | sort --version-sort | head --lines=1) == "$wanted" ]] ||
        die 1 "cargo is $found, this needs Rust $wanted or later: rustup update stable"
}

# cargo_build PACKAGE: builds its program, as it is released, below TARGET_DIR.
cargo_build() {
    cargo_find
    packages_require gcc libc6-dev
    local command=(cargo build --release --locked --package "$1"
        --manifest-path "$REPOSITORY_DIR/Cargo.toml" --target-dir "$TARGET_DIR")
    show "${command[@]}"
    run_interruptible "${command[@]}" </dev/null || die 1 "the build failed; the lines above say why"
}

# daemon_build: sets DAEMON. VHOST_USER_ISCSI in the environment names one that is already built.
daemon_build() {
    if [[ -n ${VHOST_USER_ISCSI:-} ]]; then
        [[ -x $VHOST_USER_ISCSI ]] || die 1 "VHOST_USER_ISCSI is not a program: $VHOST_USER_ISCSI"
        DAEMON=$(realpath "$VHOST_USER_ISCSI")
        return
    fi
    cargo_build vhost-user-iscsi
    DAEMON=$TARGET_DIR/release/vhost-user-iscsi
}

daemon_listens_or_died() {
    [[ -S $DAEMON_SOCKET ]] || ! is_running "$DAEMON_PID"
}

# daemon_start URL [ARG...]: sets DAEMON_SOCKET and DAEMON_PID; returns when the socket is there.
daemon_start() {
    DAEMON_SOCKET=$WORKDIR/disk.sock
    "$DAEMON" --socket-path "$DAEMON_SOCKET" --blk-file "$@" >"$WORKDIR/daemon.log" 2>&1 </dev/null &
    DAEMON_PID=$!
    cleanup_push stop_child "$DAEMON_PID"
    wait_until 30 daemon_listens_or_died && is_running "$DAEMON_PID" && return
    indent <"$WORKDIR/daemon.log"
    is_running "$DAEMON_PID" && die 1 "the back-end does not serve after 30 s; its messages are above"
    local status=0
    wait "$DAEMON_PID" || status=$?
    die 1 "the back-end ended with status $status instead of serving; its messages are above"
}

# daemon_stop: asks it to end, and says so when it does not end well.
daemon_stop() {
    local status=0
    kill -TERM "$DAEMON_PID" 2>/dev/null || true
    wait_until 5 is_gone "$DAEMON_PID" || die 1 "the back-end does not end within 5 s of SIGTERM"
    wait "$DAEMON_PID" || status=$?
    ((status == 0)) && return
    indent <"$WORKDIR/daemon.log"
    die 1 "the back-end ended with status $status; its messages are above"
}

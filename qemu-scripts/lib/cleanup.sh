# shellcheck shell=bash
# A stack of things to undo when the script ends, however it ends.

CLEANUP_STACK=()

# cleanup_push COMMAND [ARG...]: COMMAND runs at the end, the last one pushed first.
cleanup_push() {
    CLEANUP_STACK+=("$(printf '%q ' "$@")")
}

# cleanup_run: undoes everything; a second signal does not cut it short.
cleanup_run() {
    local status=$? i
    trap '' INT TERM HUP
    for ((i = ${#CLEANUP_STACK[@]} - 1; i >= 0; i--)); do
        eval "${CLEANUP_STACK[i]}" || true
    done
    CLEANUP_STACK=()
    exit "$status"
}

# cleanup_arm: from here on, the stack is undone at exit and on INT, TERM and HUP.
cleanup_arm() {
    trap cleanup_run EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# cleanup_workdir: makes a private temporary directory, sets WORKDIR to it, removes it at the end.
# A short path, since the address of a unix socket has room for 107 bytes: a long TMPDIR is not used.
cleanup_workdir() {
    local parent=${TMPDIR:-/tmp}
    if ((${#parent} > 60)); then parent=/tmp; fi
    WORKDIR=$(mktemp --directory "$parent/${0##*/}.XXXXXX")
    cleanup_push rm --recursive --force "$WORKDIR"
}

# is_running PID: whether this child of ours still runs.
is_running() {
    [[ $(ps --no-headers --format stat --pid "$1" 2>/dev/null) == [!Z]* ]]
}

# wait_until SECONDS COMMAND [ARG...]: tries COMMAND until it succeeds; 1 when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

is_gone() {
    ! is_running "$1"
}

# stop_child PID [GRACE_SECONDS]: ends a child of ours: TERM, then KILL after the grace.
stop_child() {
    local pid=$1 grace_s=${2:-5}
    is_running "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || true
    wait_until "$grace_s" is_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# run_interruptible COMMAND [ARG...]: runs it to its end and returns its status. A signal to the
# script ends it at once: bash would otherwise wait for a foreground command before it listens.
# COMMAND is a program: of a function, only the shell that runs it would be ended. It has the caller's
# stdin, which bash would take from a command in the background.
run_interruptible() {
    local status=0
    "$@" <&0 &
    local pid=$!
    cleanup_push stop_child "$pid"
    wait "$pid" || status=$?
    unset 'CLEANUP_STACK[-1]'
    return "$status"
}

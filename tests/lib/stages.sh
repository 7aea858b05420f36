# shellcheck shell=bash
# Stages of a test run: what is checked, how long it takes, what passed and what failed.
#
# A stage is a function stage_NAME that calls `check`, `cargo_tests` and `tap_tests`. A check that fails ends
# neither its stage nor the run: the summary names it.

PASSED=0 FAILED=0 SKIPPED=0
FAILURES=() TIMINGS=()

# in_group COMMAND [ARG...]: runs it, in a process group of its own, to its end; a signal to this
# script ends the group. Cargo alone would leave the test programs behind that it started.
in_group() {
    local status=0
    setsid "$@" </dev/null &
    local pid=$!
    cleanup_push stop_group "$pid"
    wait "$pid" || status=$?
    unset 'CLEANUP_STACK[-1]'
    return "$status"
}

group_is_gone() {
    ! kill -0 -- "-$1" 2>/dev/null
}

# stop_group PID: TERM, then KILL after a grace in which guests and targets are taken down.
stop_group() {
    kill -TERM -- "-$1" 2>/dev/null || return 0
    wait "$1" 2>/dev/null || true
    wait_until 10 group_is_gone "$1" || kill -KILL -- "-$1" 2>/dev/null || true
}

passed() {
    PASSED=$((PASSED + $1))
}

failed() {
    FAILED=$((FAILED + 1))
    FAILURES+=("$STAGE: $1")
    say "FAILED: $1"
}

# check NAME COMMAND [ARG...]: one check, passed when COMMAND succeeds.
check() {
    local name=$1
    shift
    show "$@"
    if in_group "$@"; then passed 1; else failed "$name"; fi
}

# cargo_tests NAME ARG...: `cargo test` with these arguments, each of its tests counted.
cargo_tests() {
    local name=$1 output=$WORKDIR/cargo-test status=0
    shift
    show cargo test --locked --no-fail-fast "$@"
    in_group cargo test --locked --no-fail-fast "$@" > >(tee "$output") 2>&1 || status=$?
    count_cargo_tests "$name" "$status" "$output"
}

# sum_of WORD FILE: how many tests cargo says WORD of (passed, failed, ignored), over all programs.
sum_of() {
    awk -v word="$1" '/^test result: / {
        for (i = 2; i <= NF; i++) if ($i == word ";") sum += $(i - 1)
    } END { print sum + 0 }' "$2"
}

# count_cargo_tests NAME STATUS OUTPUT: a test program that crashed prints no result of its own, so
# cargo's exit status counts too. An ignored test is a test that did not run.
count_cargo_tests() {
    local name=$1 status=$2 output=$3 line
    passed "$(sum_of passed "$output")"
    SKIPPED=$((SKIPPED + $(sum_of ignored "$output")))
    while read -r line; do
        failed "$line"
    done < <(sed --quiet 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output")
    if ((status != 0)) && (($(sum_of failed "$output") == 0)); then failed "$name: cargo test ended with $status"; fi
    if (($(sum_of passed "$output") == 0)); then failed "$name: no test ran"; fi
}

# tap_tests NAME COMMAND [ARG...]: a program that prints "ok N - what" and "not ok N - what", each counted.
tap_tests() {
    local name=$1 output=$WORKDIR/tap status=0 failures=$FAILED line
    shift
    show "$@"
    in_group "$@" > >(tee "$output") 2>&1 || status=$?
    passed "$(grep --count '^ok ' "$output" || true)"
    while read -r line; do
        failed "$line"
    done < <(sed --quiet 's/^not ok [0-9]* - //p' "$output")
    if ((status != 0 && FAILED == failures)); then failed "$name: ended with $status"; fi
    if ! grep --quiet '^ok ' "$output"; then failed "$name: no check passed"; fi
}

# run_stage NAME
run_stage() {
    local begin=$SECONDS failures=$FAILED
    STAGE=$1
    say "=== $STAGE"
    "stage_$STAGE"
    TIMINGS+=("$(printf '%-12s %4d s%s' "$STAGE" $((SECONDS - begin)) "$( ((FAILED == failures)) || printf '  FAILED')")")
}

# summary: timings, what failed, and at the very end the line of totals; fails if anything did.
summary() {
    local line
    say "=== summary"
    printf '    %s\n' "${TIMINGS[@]}"
    for line in "${FAILURES[@]}"; do printf 'failed: %s\n' "$line"; done
    if ((SKIPPED > 0)); then printf 'skipped: %d tests, which this run counts as a failure\n' "$SKIPPED"; fi
    printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
    ((FAILED == 0 && SKIPPED == 0))
}

# shellcheck shell=bash
# What bench-guest tells: a table for people, one for a document, and everything as JSON.

# report_environment: lines of "name: value", what was measured on what.
report_environment() {
    local model
    model=$(sed --quiet 's/^model name[^:]*: //p' /proc/cpuinfo | head --lines=1)
    printf 'date: %s\n' "$(date --utc +%Y-%m-%dT%H:%M:%SZ)"
    printf 'host: %d CPUs (%s), Linux %s\n' "$(nproc)" "$model" "$(uname --kernel-release)"
    printf 'guest: -accel %s, %d virtual CPUs, %s\n' "$ACCEL" "$VCPUS" "$GUEST"
    printf 'target: %s\n' "$(report_target)"
    printf 'ours: %s\n' "$("$DAEMON" --version)"
    printf 'peer: %s\n' "$("$PEER" --version | head --lines=1)"
    printf 'qemu: %s\n' "$(qemu-system-x86_64 --version | head --lines=1)"
    printf 'queues: %d of %d entries for each disk\n' "$VCPUS" "$QUEUE_SIZE"
    printf 'rounds: %d, of %d s on ours, peer and qemu in turn\n' "$ROUNDS" "$RUN_S"
}

report_target() {
    case $TARGET in
    tgt) printf 'tgt %s, null store' "$(/usr/sbin/tgtd --version)" ;;
    memory) printf 'iscsi-test-target (in memory, keeps nothing)' ;;
    *) printf '%s' "$TARGET" ;;
    esac
}

# report_note: what keeps the figures from being what they seem.
report_note() {
    if [[ $ACCEL == tcg* ]]; then
        printf '%s\n' "The guest's code is translated, not run by the CPU (TCG): the guest itself takes most of the" \
            "time, so IOPS and latency differ less than with KVM. The CPU of the back-ends is theirs alone."
    fi
}

# report_rows: the summary with its numbers as people read them, tab-separated.
report_rows() {
    jq --slurp --raw-output -L "$LIB" 'include "bench-guest"; summary | lines' "$WORKDIR/runs.json" |
        LC_ALL=C awk -F '\t' -v OFS='\t' '
            $2 ~ /_to_/ {
                sub("_to_", " / ", $2)
                for (i = 3; i <= NF; i++) $i = sprintf("%.2f", $i)
            }
            $2 !~ / / { for (i = 3; i <= NF; i++) $i = sprintf($i < 10 ? "%.2f" : $i < 100 ? "%.1f" : "%.0f", $i) }
            { print }'
}

# report_table ROWS
report_table() {
    # Not by the format below: how wide a "µ" is depends on the locale.
    printf 'case               disk              IOPS      MB/s    p50 µs    p99 µs      irqs    CPU µs  +QEMU µs\n'
    awk -F '\t' '
        $1 != last && NR > 1 { print "" }
        { printf "%-18s %-12s %9s %9s %9s %9s %9s %9s %9s\n", ($1 == last ? "" : $1), $2, $3, $4, $5, $6, $7, $8, $9; last = $1 }' <<<"$1"
}

# report_markdown ROWS: the same for a document, with what it was measured on.
report_markdown() {
    report_environment | sed 's/^\([a-z]*\): /- \1: /'
    printf '\n'
    report_note
    printf '\n| case | disk | IOPS | MB/s | p50 µs | p99 µs | interrupts per request | CPU µs per request | with all of QEMU |\n'
    printf '| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n'
    awk -F '\t' '{
        printf "| %s |", ($1 == last ? "" : $1); last = $1
        for (i = 2; i <= NF; i++) printf " %s |", $i
        print ""
    }' <<<"$1"
}

# report_json: everything that was measured, and what follows from it.
report_json() {
    report_environment |
        jq --raw-input --slurp -L "$LIB" --slurpfile runs "$WORKDIR/runs.json" 'include "bench-guest";
            (split("\n") | map(select(. != "") | capture("^(?<key>[^:]*): (?<value>.*)$")) | from_entries) as $environment
            | { environment: $environment, summary: ($runs | summary), runs: $runs }'
}

report() {
    local rows
    rows=$(report_rows)
    report_environment
    printf '\n'
    report_table "$rows"
    printf '\nirqs and CPU are per request; CPU is of the back-end (qemu: its I/O thread); +QEMU is with all of QEMU, guest included.\n'
    report_note
    if [[ -n $JSON ]]; then report_json >"$JSON"; fi
    if [[ -n $MARKDOWN ]]; then report_markdown "$rows" >"$MARKDOWN"; fi
}

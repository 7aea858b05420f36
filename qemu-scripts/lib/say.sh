# shellcheck shell=bash
# Messages: what is being done, how long it has taken so far, and why a script gives up.

# Where messages go: a script whose stdout belongs to someone else leaves it at stderr.
SAY_FD=${SAY_FD:-2}

# say TEXT...: one line, after the seconds since the script began.
say() {
    printf '[%4ds] %s\n' "$SECONDS" "$*" >&"$SAY_FD"
}

# quoted WORD...: the words as one could type them, with quotes only where a shell needs them.
quoted() {
    local word quote="'" words=()
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//$quote/$quote\\$quote$quote}'"
        words+=("$word")
    done
    printf '%s\n' "${words[*]}"
}

# show COMMAND [ARG...]: the command as one could type it.
show() {
    printf '        $ %s\n' "$(quoted "$@")" >&"$SAY_FD"
}

# indent: its stdin, set off from the script's own lines.
indent() {
    sed -u 's/^/        | /' >&"$SAY_FD"
}

# die STATUS TEXT...: gives up for the reason in TEXT.
die() {
    local status=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$status"
}

# usage_error TEXT...: the command line is wrong.
usage_error() {
    die 2 "$* (see --help)"
}

# print_help FILE: the comment block at the top of FILE, which is its manual page.
print_help() {
    sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$1"
}

# shellcheck shell=bash
# Debian packages that a script needs: found, or installed without a question.

# packages_missing PACKAGE...: prints those that are not installed.
packages_missing() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$package"
    done
}

# packages_as_root: sets AS_ROOT to the prefix that makes a command run as root without a prompt.
packages_as_root() {
    AS_ROOT=()
    if ((EUID != 0)); then
        sudo --non-interactive true 2>/dev/null || return 1
        AS_ROOT=(sudo --non-interactive)
    fi
}

# packages_apt_get ARG...: apt-get that asks nothing and shows what it does. It runs in the
# foreground: a signal waits for it, since half an installation is worse than a late end.
packages_apt_get() {
    "${AS_ROOT[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get --quiet --yes --option DPkg::Lock::Timeout=120 --option Dpkg::Use-Pty=0 "$@" > >(indent) 2>&1 </dev/null
}

# packages_require PACKAGE...: installs what is missing; touches nothing when all is there.
packages_require() {
    command -v dpkg-query apt-get >/dev/null ||
        die 1 "needs Debian or a relative of it, to install: $*"
    local missing
    mapfile -t missing < <(packages_missing "$@")
    ((${#missing[@]})) || return 0
    packages_as_root ||
        die 1 "packages are missing and sudo asks for a password; install them first:" \
            "apt-get install --no-install-recommends ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    packages_apt_get update || die 1 "apt-get update failed; the lines above say why"
    packages_apt_get install --no-install-recommends "${missing[@]}" ||
        die 1 "apt-get could not install ${missing[*]}; the lines above say why"
}

# shellcheck shell=bash disable=SC2034
# Where things are, whatever directory a script is called from.

SCRIPTS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPOSITORY_DIR=$(dirname "$SCRIPTS_DIR")
# cargo takes a relative CARGO_TARGET_DIR from the directory it is called in; so do we.
TARGET_DIR=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-$REPOSITORY_DIR/target}")
# What the scripts build and keep: the guest's image, the result of the KVM trial.
GUEST_CACHE_DIR=$TARGET_DIR/guest

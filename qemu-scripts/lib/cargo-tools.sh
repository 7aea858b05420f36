# shellcheck shell=bash
# Programs that cargo installs: found, or built without a question.

# cargo_tool PROGRAM: makes PROGRAM one that can be started. Built for its own speed of building: it
# runs for seconds.
cargo_tool() {
    cargo_find
    PATH=$PATH:$TARGET_DIR/tools/bin
    if command -v "$1" >/dev/null; then return; fi
    packages_require gcc libc6-dev
    say "installing $1 by cargo, below $TARGET_DIR/tools"
    local command=(cargo install --debug --locked --quiet --root "$TARGET_DIR/tools"
        --target-dir "$TARGET_DIR/tools/build" "$1")
    show "${command[@]}"
    CARGO_PROFILE_DEV_DEBUG=0 run_interruptible "${command[@]}" </dev/null ||
        die 1 "$1 could not be installed; the lines above say why"
    rm --recursive --force "$TARGET_DIR/tools/build"
}

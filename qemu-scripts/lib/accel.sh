# shellcheck shell=bash disable=SC2034
# How QEMU runs the guest's code: KVM where it really runs a kernel, else the TCG translator.

# KVM needs about a second for the trial; a machine where it only pretends to work needs for ever.
ACCEL_TRIAL_S=10

# accel_kernel_runs ACCEL KERNEL: boots KERNEL without a root; its panic ends QEMU, so an end in
# time means that a kernel ran.
accel_kernel_runs() {
    [[ -r /dev/kvm && -w /dev/kvm ]] || return 1
    run_interruptible timeout --kill-after=2 "$ACCEL_TRIAL_S" \
        qemu-system-x86_64 -accel "$1" -machine q35 -cpu host -m 256 -nodefaults -display none \
        -no-reboot -kernel "$2" -append 'panic=-1' </dev/null >/dev/null 2>&1
}

# accel_choose KERNEL: sets ACCEL to kvm or tcg,thread=multi. The trial is made once per boot of
# this machine. GUEST_ACCEL in the environment decides instead.
accel_choose() {
    local kernel=$1 memory
    memory=$GUEST_CACHE_DIR/accel-$(id --user)-$(cat /proc/sys/kernel/random/boot_id)
    if [[ -n ${GUEST_ACCEL:-} ]]; then
        ACCEL=$GUEST_ACCEL
    elif [[ -s $memory ]]; then
        ACCEL=$(<"$memory")
    else
        ACCEL='tcg,thread=multi'
        if accel_kernel_runs kvm "$kernel"; then ACCEL=kvm; fi
        say "the guest runs with -accel $ACCEL"
        mkdir --parents "$GUEST_CACHE_DIR"
        rm --force "$GUEST_CACHE_DIR/accel-$(id --user)-"*
        printf '%s\n' "$ACCEL" >"$memory"
    fi
    case $ACCEL in
    kvm) CPU=host ;;
    *) CPU=max ;;
    esac
}

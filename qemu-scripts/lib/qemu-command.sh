# shellcheck shell=bash
# QEMU's command line for a guest, from the settings that run-guest parsed.

# qemu_version_at_least MAJOR MINOR
qemu_version_at_least() {
    local version major minor
    version=$(qemu-system-x86_64 --version | sed --quiet 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
    IFS=. read -r major minor _ <<<"$version"
    ((major > $1 || (major == $1 && minor >= $2)))
}

# qemu_reconnect: the chardev's option for it; seconds before QEMU 9.2, milliseconds from there.
qemu_reconnect() {
    if [[ -z $RECONNECT ]]; then
        return
    elif qemu_version_at_least 9 2; then
        printf ',reconnect-ms=1000'
    else
        printf ',reconnect=1'
    fi
}

# qemu_quote TEXT: TEXT as a value in one of QEMU's option lists.
qemu_quote() {
    printf '%s' "${1//,/,,}"
}

# qemu_socket_disk INDEX PATH BOOT
qemu_socket_disk() {
    local options=("chardev=disk$1" "id=disk$1" "${DEVICE_OPTIONS[@]}")
    QEMU+=(-chardev "socket,id=disk$1,path=$(qemu_quote "$2")$(qemu_reconnect)")
    QEMU+=(-device "vhost-user-blk-pci,$(IFS=, && printf '%s' "${options[*]}")$3")
}

# qemu_drive_disk INDEX FILE BOOT
qemu_drive_disk() {
    QEMU+=(-blockdev "driver=raw,node-name=drive$1,discard=unmap,file.driver=file,file.filename=$(qemu_quote "$2")")
    QEMU+=(-device "virtio-blk-pci,drive=drive$1,id=disk$1$3")
}

# qemu_iscsi_disk INDEX URL BOOT: by QEMU's own driver, whose work is done by a thread of its own,
# which shows the disk's name after "IO ".
qemu_iscsi_disk() {
    local options=("drive=drive$1" "id=disk$1" "iothread=io$1" "${DEVICE_OPTIONS[@]}")
    iscsi_blockdev "$2" "drive$1"
    QEMU+=(-name debug-threads=on -object "iothread,id=io$1" "${ISCSI_SECRET[@]}" -blockdev "$ISCSI_BLOCKDEV")
    QEMU+=(-device "virtio-blk-pci,$(IFS=, && printf '%s' "${options[*]}")$3")
}

qemu_disks() {
    local i boot
    for i in "${!DISKS[@]}"; do
        boot=''
        if [[ -n $FIRMWARE_BOOT ]]; then boot=",bootindex=$i"; fi
        case ${DISKS[i]} in
        socket:*) qemu_socket_disk "$i" "${DISKS[i]#*:}" "$boot" ;;
        iscsi:*) qemu_iscsi_disk "$i" "${DISKS[i]#*:}" "$boot" ;;
        drive:*) qemu_drive_disk "$i" "${DISKS[i]#*:}" "$boot" ;;
        esac
    done
}

# qemu_machine: vhost-user needs the guest's memory to be shareable.
qemu_machine() {
    QEMU+=(-machine "q35,memory-backend=memory" -accel "$ACCEL" -cpu "$CPU" -smp "$VCPUS" -m "$MEMORY")
    QEMU+=(-object "memory-backend-memfd,id=memory,size=$MEMORY,share=on")
    QEMU+=(-nodefaults -no-user-config -display none)
    if [[ -z $ALLOW_REBOOT ]]; then QEMU+=(-no-reboot); fi
}

# qemu_kernel: the kernel's self-test of its ciphers is left out: it takes seconds where the processor
# is translated, and QEMU 7.2 was seen to hang a virtual CPU in it for good.
qemu_kernel() {
    local append='console=ttyS0 quiet panic=-1 cryptomgr.notests'
    if [[ -n $SHELL_WANTED ]]; then append+=' guest.shell'; fi
    if [[ -n $STDIN_WANTED ]]; then append+=' guest.stdin'; fi
    QEMU+=(-kernel "$KERNEL" -initrd "$INITRD" -append "$append")
}

qemu_console() {
    if [[ -n $SHELL_WANTED ]]; then
        QEMU+=(-serial mon:stdio)
    else
        QEMU+=(-serial "file:$(qemu_quote "${KEEP_CONSOLE:-$WORKDIR/console}")")
    fi
}

# qemu_port NAME: a virtio-serial port whose host end is the file or pipe of that name.
qemu_port() {
    QEMU+=(-chardev "file,id=$1,path=$WORKDIR/$1" -device "virtserialport,chardev=$1,name=$1")
}

# qemu_script: the script goes in through fw_cfg and speaks through ports.
qemu_script() {
    QEMU+=(-fw_cfg "name=opt/vhost-user-iscsi/script,file=$(qemu_quote "$SCRIPT")")
    QEMU+=(-fw_cfg "name=opt/vhost-user-iscsi/environment,file=$WORKDIR/environment")
    QEMU+=(-device virtio-serial-pci)
    qemu_port output
    qemu_port error
    qemu_port result
    if [[ -n $STDIN_WANTED ]]; then
        QEMU+=(-chardev "stdio,id=input,signal=off" -device "virtserialport,chardev=input,name=input")
    fi
}

# qemu_command: sets QEMU, the command and its arguments.
qemu_command() {
    QEMU=(qemu-system-x86_64)
    qemu_machine
    qemu_disks
    if [[ -z $FIRMWARE_BOOT ]]; then qemu_kernel; fi
    qemu_console
    if [[ -n $SCRIPT ]]; then qemu_script; fi
    if [[ -n $PID_FILE ]]; then QEMU+=(-pidfile "$PID_FILE"); fi
    if [[ -n $QMP ]]; then QEMU+=(-qmp "unix:$(qemu_quote "$QMP"),server=on,wait=off"); fi
}

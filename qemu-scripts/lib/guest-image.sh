# shellcheck shell=bash disable=SC2034
# The guest: this machine's own kernel and an initramfs made of its own tools, kept by content.

# What the guest can do beyond busybox. Everything is a file of an installed Debian package.
GUEST_PACKAGES=(bash busybox-static coreutils cpio diffutils e2fsprogs fdisk kmod mount udev util-linux)
GUEST_TOOLS=(bash blkdiscard blkid blockdev cmp dd dumpe2fs e2fsck lsblk mkfs.ext4 mount sfdisk fdisk
    udevadm umount wipefs)
GUEST_MODULES=(virtio_pci virtio_blk virtio_console qemu_fw_cfg ext4)
GUEST_DATA=(/etc/mke2fs.conf
    /usr/lib/udev/rules.d/50-udev-default.rules
    /usr/lib/udev/rules.d/60-block.rules
    /usr/lib/udev/rules.d/60-persistent-storage.rules)

# guest_kernel_versions: kernels of this machine that can be a guest, best first: the ones made for
# virtual machines boot fastest, and of those the newest.
guest_kernel_versions() {
    local image version
    for image in /boot/vmlinuz-*; do
        version=${image#/boot/vmlinuz-}
        [[ -r $image && -d /lib/modules/$version ]] || continue
        case $version in
        *cloud*) printf '1 %s\n' "$version" ;;
        *) printf '0 %s\n' "$version" ;;
        esac
    done | sort --key=1,1nr --key=2,2Vr | cut --delimiter=' ' --fields=2
}

# guest_kernel_find: sets KERNEL_VERSION and KERNEL; installs a kernel when there is none.
guest_kernel_find() {
    KERNEL_VERSION=$(guest_kernel_versions | head --lines=1)
    if [[ -z $KERNEL_VERSION ]]; then
        packages_require linux-image-cloud-amd64
        KERNEL_VERSION=$(guest_kernel_versions | head --lines=1)
    fi
    [[ -n $KERNEL_VERSION ]] || die 1 "no readable kernel in /boot has its modules in /lib/modules"
    KERNEL=/boot/vmlinuz-$KERNEL_VERSION
}

# guest_module_files: the modules to load, in the order of their dependencies.
guest_module_files() {
    local module
    for module in "${GUEST_MODULES[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin modprobe --set-version "$KERNEL_VERSION" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# guest_libraries FILE...: the shared libraries that these programs need.
guest_libraries() {
    ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// && $2 ~ /^\(/ { print $1 }' |
        sort --unique
}

# guest_find_tool NAME: prints its path; sbin is not on everyone's PATH.
guest_find_tool() {
    PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v "$1" || die 1 "$1 is not installed"
}

# guest_manifest TOOL...: lines of "source destination", all that goes into the image.
guest_manifest() {
    local tool path file paths=()
    for tool in "$@"; do
        path=$(guest_find_tool "$tool")
        paths+=("$path")
        printf '%s %s\n' "$path" "$path"
    done
    for file in $(guest_libraries "${paths[@]}") "${GUEST_DATA[@]}"; do
        printf '%s %s\n' "$file" "$file"
    done
    while read -r file; do
        printf '%s /modules/%s\n' "$file" "${file##*/}"
    done < <(guest_module_files)
    printf '%s /usr/bin/busybox\n' "$(guest_find_tool busybox)"
    printf '%s /init\n' "$SCRIPTS_DIR/lib/guest-init"
}

# guest_manifest_hash MANIFEST: names the image by the content of everything in it.
guest_manifest_hash() {
    {
        cat "$1"
        cut --delimiter=' ' --fields=1 "$1" | xargs --delimiter='\n' sha256sum
        sha256sum "${BASH_SOURCE[0]}"
    } | sha256sum | cut --characters=1-16
}

# guest_stage MANIFEST ROOT: lays the files out as the guest will see them.
guest_stage() {
    local manifest=$1 root=$2 source destination
    mkdir --parents "$root"/{dev,etc,mnt,modules,proc,root,run,sys,tmp,usr/{bin,sbin,lib,lib64,applets}}
    ln --symbolic usr/bin usr/sbin usr/lib usr/lib64 "$root"
    while read -r source destination; do
        install -D --mode=755 "$source" "$root$destination"
    done <"$manifest"
    ln --symbolic ../bin/udevadm "$root/usr/sbin/systemd-udevd"
    guest_stage_modules "$root" <"$manifest"
    guest_stage_applets "$root"
    : >"$root/etc/vhost-user-iscsi-guest"
    printf 'root:x:0:0:root:/root:/bin/bash\n' >"$root/etc/passwd"
    guest_stage_groups >"$root/etc/group"
}

# guest_stage_modules ROOT: the list that init loads, one file a line, in order.
guest_stage_modules() {
    awk '$2 ~ /^\/modules\// { print $2 }' >"$1/modules/order"
}

# guest_stage_applets ROOT: busybox's commands, in a directory of their own: real tools come first.
guest_stage_applets() {
    local applet
    while read -r applet; do
        ln --symbolic /usr/bin/busybox "$1/usr/applets/$applet"
    done < <("$1/usr/bin/busybox" --list)
    ln --symbolic busybox "$1/usr/bin/sh"
}

# guest_stage_groups: the groups that udev's rules name; it complains about unknown ones.
guest_stage_groups() {
    local name id=0
    for name in root tty dialout disk video audio cdrom lp kmem input kvm render sgx tape; do
        printf '%s:x:%d:\n' "$name" "$id"
        id=$((id + 1))
    done
}

# guest_pack ROOT FILE: the initramfs, uncompressed: QEMU loads it faster than a guest unpacks it.
guest_pack() {
    (
        cd "$1" || exit
        find . -print0 | LC_ALL=C sort --zero-terminated |
            cpio --null --create --format=newc --owner=0:0 --reproducible --quiet
    ) >"$2"
}

# guest_image_build MANIFEST FILE: FILE appears complete or not at all.
guest_image_build() {
    local stage=$2.stage.$$
    cleanup_push rm --recursive --force "$stage" "$2.part.$$"
    guest_stage "$1" "$stage"
    guest_pack "$stage" "$2.part.$$"
    mv "$2.part.$$" "$2"
    rm --recursive --force "$stage"
}

# guest_image_prepare [TOOL...]: sets INITRD, for the KERNEL found before; TOOL is a further program for the guest.
# The image is made when anything in it has changed. Images that nothing used for a week go.
guest_image_prepare() {
    packages_require "${GUEST_PACKAGES[@]}"
    mkdir --parents "$GUEST_CACHE_DIR"
    local manifest=$WORKDIR/manifest
    guest_manifest "${GUEST_TOOLS[@]}" "$@" | awk '!seen[$2]++' >"$manifest"
    INITRD=$GUEST_CACHE_DIR/initrd-$(guest_manifest_hash "$manifest").cpio
    if [[ ! -s $INITRD ]]; then
        say "building the guest's image: $INITRD"
        guest_image_build "$manifest" "$INITRD"
    fi
    touch "$INITRD"
    find "$GUEST_CACHE_DIR" -maxdepth 1 -name 'initrd-*.cpio*' -mtime +7 -delete
}

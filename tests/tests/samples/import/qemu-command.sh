#!/bin/sh
exec qemu-system-x86_64 -name guest=mail,debug-threads=on -m 4G \
    -object secret,id=sec0,file=/etc/qemu/mail.secret \
    -object '{"qom-type": "secret", "id": "sec1", "data": "bm8tbW9yZS10ZWE=", "format": "base64"}' \
    -iscsi user=mail,password=march-hare-42,header-digest=none-crc32c,timeout=30 \
    -drive file=iscsi://192.0.2.1/iqn.2001-04.com.example:mail/1,format=raw,if=virtio,cache=none,throttling.iops-total=500,id=root \
    -drive file=iscsi://192.0.2.1/iqn.2001-04.com.example:mail/2,if=virtio,readonly=on \
    -drive file=iscsi://192.0.2.1/iqn.2001-04.com.example:mail/3,format=qcow2,if=virtio \
    -blockdev driver=iscsi,node-name=data,transport=tcp,portal=192.0.2.1:3260,target=iqn.2001-04.com.example:mail,lun=4,user=mail2,password-secret=sec0,initiator-name=iqn.2001-04.com.example:mail,header-digest=crc32c \
    -blockdev '{"driver": "raw", "node-name": "logs", "read-only": true, "file": {"driver": "iscsi", "portal": "192.0.2.1", "target": "iqn.2001-04.com.example:mail", "lun": 5, "user": "mail3", "password-secret": "sec1", "transport": "tcp"}}' \
    -blockdev driver=iscsi,node-name=lower,transport=tcp,portal=192.0.2.1,target=iqn.2001-04.com.example:mail,lun=6 \
    -blockdev driver=qcow2,node-name=upper,file=lower \
    -device virtio-blk-pci,drive=data,bootindex=1

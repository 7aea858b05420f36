//! Names and numbers of virtio 1.3 (sections 2.7 and 5.2) that a driver needs.

/// VIRTIO_BLK_F_SIZE_MAX: the configuration names the longest segment.
pub const F_SIZE_MAX: u64 = 1 << 1;
/// VIRTIO_BLK_F_SEG_MAX: the configuration names the most segments.
pub const F_SEG_MAX: u64 = 1 << 2;
/// VIRTIO_BLK_F_RO: the disk cannot be written.
pub const F_RO: u64 = 1 << 5;
/// VIRTIO_BLK_F_BLK_SIZE: the configuration names the block size.
pub const F_BLK_SIZE: u64 = 1 << 6;
/// VIRTIO_BLK_F_FLUSH: there is a flush command.
pub const F_FLUSH: u64 = 1 << 9;
/// VIRTIO_BLK_F_TOPOLOGY: the configuration describes physical blocks.
pub const F_TOPOLOGY: u64 = 1 << 10;
/// VIRTIO_BLK_F_CONFIG_WCE: the driver may switch the write cache.
pub const F_CONFIG_WCE: u64 = 1 << 11;
/// VIRTIO_BLK_F_MQ: several queues.
pub const F_MQ: u64 = 1 << 12;
/// VIRTIO_BLK_F_DISCARD: there is a discard command.
pub const F_DISCARD: u64 = 1 << 13;
/// VIRTIO_BLK_F_WRITE_ZEROES: there is a write zeroes command.
pub const F_WRITE_ZEROES: u64 = 1 << 14;
/// VIRTIO_F_INDIRECT_DESC: descriptors may point to tables of descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX: both sides say at which index they want to be woken.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES: vhost-user's own bit.
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
pub const F_VERSION_1: u64 = 1 << 32;

/// What this client can drive.
pub const DRIVER_FEATURES: u64 = F_SIZE_MAX
    | F_SEG_MAX
    | F_RO
    | F_BLK_SIZE
    | F_FLUSH
    | F_TOPOLOGY
    | F_CONFIG_WCE
    | F_MQ
    | F_DISCARD
    | F_WRITE_ZEROES
    | F_INDIRECT_DESC
    | F_EVENT_IDX
    | F_PROTOCOL_FEATURES
    | F_VERSION_1;

/// VIRTIO_BLK_T_IN: read.
pub const T_IN: u32 = 0;
/// VIRTIO_BLK_T_OUT: write.
pub const T_OUT: u32 = 1;
/// VIRTIO_BLK_T_FLUSH.
pub const T_FLUSH: u32 = 4;
/// VIRTIO_BLK_T_GET_ID.
pub const T_GET_ID: u32 = 8;
/// VIRTIO_BLK_T_DISCARD.
pub const T_DISCARD: u32 = 11;
/// VIRTIO_BLK_T_WRITE_ZEROES.
pub const T_WRITE_ZEROES: u32 = 13;

/// VIRTIO_BLK_S_OK.
pub const S_OK: u8 = 0;
/// VIRTIO_BLK_S_IOERR.
pub const S_IOERR: u8 = 1;
/// VIRTIO_BLK_S_UNSUPP.
pub const S_UNSUPP: u8 = 2;
/// What the client puts into a status byte before it submits; no device writes it.
pub const S_UNTOUCHED: u8 = 0xaa;

/// VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP.
pub const FLAG_UNMAP: u32 = 1;

/// Unit of sectors, offsets and lengths in a request, whatever the block size.
pub const SECTOR_BYTES: u32 = 512;
/// Length of the header of a request.
pub const HEADER_BYTES: u32 = 16;
/// Length of the answer to GET_ID.
pub const ID_BYTES: u32 = 20;

/// VIRTQ_DESC_F_NEXT.
pub const DESC_NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub const DESC_WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT.
pub const DESC_INDIRECT: u16 = 4;

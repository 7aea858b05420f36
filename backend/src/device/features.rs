//! The feature bits that the device offers: one row per bit, with its condition and its reason.

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::limits::DeviceLimits;
use vhost::vhost_user::VhostUserVirtioFeatures;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::backend::DeviceSettings;

/// One feature bit.
struct Feature {
    bit: u32,
    name: &'static str,
    offered: fn(&LunFacts, &DeviceSettings) -> bool,
    reason: &'static str,
}

const ALWAYS: fn(&LunFacts, &DeviceSettings) -> bool = |_, _| true;
const NEVER: fn(&LunFacts, &DeviceSettings) -> bool = |_, _| false;

/// VHOST_USER_F_PROTOCOL_FEATURES is a mask in the vhost crate; the table wants the bit.
const PROTOCOL_FEATURES: u32 = VhostUserVirtioFeatures::PROTOCOL_FEATURES
    .bits()
    .trailing_zeros();

#[rustfmt::skip]
const FEATURES: [Feature; 14] = [
    Feature { bit: VIRTIO_BLK_F_SIZE_MAX, name: "SIZE_MAX", offered: NEVER,
        reason: "segments of any length are served" },
    Feature { bit: VIRTIO_BLK_F_SEG_MAX, name: "SEG_MAX", offered: ALWAYS,
        reason: "without it drivers use one segment per request" },
    Feature { bit: VIRTIO_BLK_F_RO, name: "RO", offered: is_read_only,
        reason: "the LUN is write-protected or was asked to be read-only" },
    Feature { bit: VIRTIO_BLK_F_BLK_SIZE, name: "BLK_SIZE", offered: ALWAYS,
        reason: "the LUN's logical block may be larger than a sector" },
    Feature { bit: VIRTIO_BLK_F_FLUSH, name: "FLUSH", offered: ALWAYS,
        reason: "a flush of a write-through LUN is answered at once" },
    Feature { bit: VIRTIO_BLK_F_TOPOLOGY, name: "TOPOLOGY", offered: ALWAYS,
        reason: "the LUN's physical block and optimal lengths" },
    Feature { bit: VIRTIO_BLK_F_CONFIG_WCE, name: "CONFIG_WCE", offered: ALWAYS,
        reason: "the driver may ask for write-through" },
    Feature { bit: VIRTIO_BLK_F_MQ, name: "MQ", offered: has_several_queues,
        reason: "each queue can have a session of its own" },
    Feature { bit: VIRTIO_BLK_F_DISCARD, name: "DISCARD", offered: can_discard,
        reason: "the LUN is thin and has a command to deallocate" },
    Feature { bit: VIRTIO_BLK_F_WRITE_ZEROES, name: "WRITE_ZEROES", offered: is_writable,
        reason: "WRITE SAME, or else zeros are written" },
    Feature { bit: VIRTIO_RING_F_INDIRECT_DESC, name: "INDIRECT_DESC", offered: ALWAYS,
        reason: "requests of many segments take one descriptor of the ring" },
    Feature { bit: VIRTIO_RING_F_EVENT_IDX, name: "EVENT_IDX", offered: ALWAYS,
        reason: "fewer kicks and interrupts" },
    Feature { bit: PROTOCOL_FEATURES, name: "PROTOCOL_FEATURES", offered: ALWAYS,
        reason: "vhost-user's own negotiation" },
    Feature { bit: VIRTIO_F_VERSION_1, name: "VERSION_1", offered: ALWAYS,
        reason: "any layout of requests" },
];

/// Whether writes are refused.
pub fn is_read_only(facts: &LunFacts, settings: &DeviceSettings) -> bool {
    settings.read_only || facts.write_protected
}

fn is_writable(facts: &LunFacts, settings: &DeviceSettings) -> bool {
    !is_read_only(facts, settings)
}

fn has_several_queues(_: &LunFacts, settings: &DeviceSettings) -> bool {
    settings.num_queues > 1
}

fn can_discard(facts: &LunFacts, settings: &DeviceSettings) -> bool {
    is_writable(facts, settings) && DeviceLimits::of(facts).discard.is_some()
}

/// The bits to offer for this LUN, as VHOST_USER_GET_FEATURES answers them.
pub fn offered(facts: &LunFacts, settings: &DeviceSettings) -> u64 {
    FEATURES
        .iter()
        .filter(|feature| (feature.offered)(facts, settings))
        .fold(0, |bits, feature| bits | 1 << feature.bit)
}

/// The names of the bits in `features` and why each is offered, for the log.
pub fn describe(features: u64) -> impl Iterator<Item = (&'static str, &'static str)> {
    FEATURES
        .iter()
        .filter(move |feature| features & (1 << feature.bit) != 0)
        .map(|feature| (feature.name, feature.reason))
}

#[cfg(test)]
mod tests {
    use super::super::backend::test_facts;
    use super::*;
    use iscsi_core::disk::facts::{BlockLimits, Provisioning};

    const SETTINGS: DeviceSettings = DeviceSettings {
        num_queues: 4,
        queue_size: 128,
        read_only: false,
    };

    fn offers(facts: &LunFacts, settings: &DeviceSettings, bit: u32) -> bool {
        offered(facts, settings) & (1 << bit) != 0
    }

    #[test]
    fn has_each_bit_once() {
        let distinct = FEATURES
            .iter()
            .fold(0_u64, |bits, feature| bits | 1 << feature.bit);
        assert_eq!(distinct.count_ones() as usize, FEATURES.len());
    }

    #[test]
    fn offers_flush_even_for_a_write_through_lun() {
        let facts = LunFacts {
            write_cache: false,
            ..test_facts()
        };
        assert!(offers(&facts, &SETTINGS, VIRTIO_BLK_F_FLUSH));
    }

    #[test]
    fn offers_nothing_that_writes_when_read_only() {
        let thin = Provisioning {
            thin: true,
            unmap: true,
            ..Provisioning::default()
        };
        let facts = LunFacts {
            provisioning: thin,
            ..test_facts()
        };
        let protected = LunFacts {
            write_protected: true,
            ..facts.clone()
        };
        let asked = DeviceSettings {
            read_only: true,
            ..SETTINGS
        };
        for (facts, settings, writable) in [
            (&facts, &SETTINGS, true),
            (&protected, &SETTINGS, false),
            (&facts, &asked, false),
        ] {
            assert_eq!(offers(facts, settings, VIRTIO_BLK_F_RO), !writable);
            assert_eq!(offers(facts, settings, VIRTIO_BLK_F_DISCARD), writable);
            assert_eq!(offers(facts, settings, VIRTIO_BLK_F_WRITE_ZEROES), writable);
        }
    }

    #[test]
    fn offers_discard_only_when_the_lun_is_thin_and_has_a_command_for_it() {
        let p = |thin, unmap, write_same_unmap| Provisioning {
            thin,
            unmap,
            write_same_unmap,
            reads_zeros: true,
        };
        let none = Some(0);
        for (provisioning, max_unmap_blocks, expected) in [
            (p(true, true, false), None, true),
            (p(true, false, true), None, true),
            (p(true, false, false), None, false),
            (p(false, true, true), None, false),
            (p(true, true, false), none, false),
            (p(true, true, true), none, true),
        ] {
            let limits = BlockLimits {
                max_unmap_blocks,
                ..BlockLimits::default()
            };
            let facts = LunFacts {
                provisioning,
                limits,
                ..test_facts()
            };
            assert_eq!(
                offers(&facts, &SETTINGS, VIRTIO_BLK_F_DISCARD),
                expected,
                "{facts:?}"
            );
        }
    }

    #[test]
    fn offers_multiqueue_from_two_queues_on() {
        for (num_queues, expected) in [(1, false), (2, true)] {
            let settings = DeviceSettings {
                num_queues,
                ..SETTINGS
            };
            assert_eq!(offers(&test_facts(), &settings, VIRTIO_BLK_F_MQ), expected);
        }
    }
}

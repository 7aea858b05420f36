//! Which of a front-end's requests may reach the vhost crates.
//!
//! The crates end the connection themselves for most that is wrong. Held back here are
//!
//! - requests that the device does not serve. Protocol features may be acknowledged without having
//!   been offered, and the crates then act on what needs them: with LOG_SHMFD, SET_LOG_BASE ends at
//!   a bitmap of type `()`, whose `replace` panics;
//! - regions whose addresses wrap around, unchecked in ADD_MEM_REG: translating an address then
//!   overflows, which is a panic in a debug build and a wrong address in a release;
//! - regions longer than their file, which would be a SIGBUS at the first touch. Files that can be
//!   sealed are sealed first, so that they stay as long as they are; what becomes of the others is
//!   `memory_watch`'s to say;
//! - regions that end within a huge page, whose mapping could never be undone;
//! - more regions than the slots that were advertised: ADD_MEM_REG does not count, and each holds a
//!   file descriptor;
//! - ring sizes that are no power of two, which the crate ignores and reports as done.
//!
//! Read and found harmless: queue indices beyond the last (looked up with `get`), ring addresses
//! unaligned or outside memory (an error), overlapping regions (an error), enable values other than
//! 0 and 1 (an error), a missing, superfluous or wrong kind of file (an error, or unused).

use std::os::fd::{AsFd, BorrowedFd};

use vhost::vhost_user::message::FrontendReq as Code;

use super::backend::protocol_features;
use super::file_length::{ends_within_a_page, is_shorter, keeps_its_length};
use super::message::{Message, MessageError};
use super::queue::MAX_QUEUE_SIZE;

/// What is served. VHOST_USER_GET_INFLIGHT_FD and SET_INFLIGHT_FD are answered by the channel and
/// never reach the crates.
const SERVED: [Code; 25] = [
    Code::GET_FEATURES,
    Code::SET_FEATURES,
    Code::SET_OWNER,
    Code::RESET_OWNER,
    Code::SET_MEM_TABLE,
    Code::SET_VRING_NUM,
    Code::SET_VRING_ADDR,
    Code::SET_VRING_BASE,
    Code::GET_VRING_BASE,
    Code::SET_VRING_KICK,
    Code::SET_VRING_CALL,
    Code::SET_VRING_ERR,
    Code::GET_PROTOCOL_FEATURES,
    Code::SET_PROTOCOL_FEATURES,
    Code::GET_QUEUE_NUM,
    Code::SET_VRING_ENABLE,
    Code::SET_BACKEND_REQ_FD,
    Code::GET_CONFIG,
    Code::SET_CONFIG,
    Code::RESET_DEVICE,
    Code::GET_MAX_MEM_SLOTS,
    Code::ADD_MEM_REG,
    Code::REM_MEM_REG,
    Code::GET_INFLIGHT_FD,
    Code::SET_INFLIGHT_FD,
];

/// The memory slots that `vhost-user-backend` answers GET_MAX_MEM_SLOTS with.
const MAX_REGIONS: usize = 509;

/// A region in a message: four 64-bit words. Both messages that have some have them from byte 8 of
/// the body on.
const REGION_BYTES: usize = 32;
const FIRST_REGION: usize = 8;

/// Looks at the requests of one connection, in order.
#[derive(Debug, Default)]
pub(super) struct RequestFilter {
    /// How many regions the front-end's memory has now.
    regions: usize,
}

impl RequestFilter {
    /// Whether the request may be passed on.
    ///
    /// # Errors
    /// When it may not: the connection is to be closed.
    pub(super) fn check(&mut self, message: &Message) -> Result<(), MessageError> {
        let code = message.code();
        let served = Code::try_from(code)
            .ok()
            .filter(|request| SERVED.contains(request));
        let request = served.ok_or(MessageError::NotServed { code })?;
        self.count_regions(request, message);
        match self.fault(request, message) {
            Some(what) => Err(MessageError::Refused { request, what }),
            None => Ok(()),
        }
    }

    /// Exact, since the connection ends when one of these requests fails.
    fn count_regions(&mut self, request: Code, message: &Message) {
        match request {
            Code::SET_MEM_TABLE => self.regions = message.files().len(),
            Code::ADD_MEM_REG => self.regions += 1,
            Code::REM_MEM_REG => self.regions = self.regions.saturating_sub(1),
            _ => {}
        }
    }

    /// What is wrong with the request, if anything.
    fn fault(&self, request: Code, message: &Message) -> Option<&'static str> {
        match request {
            Code::SET_PROTOCOL_FEATURES
                if message.body_long(0) & !protocol_features().bits() != 0 =>
            {
                Some("features that were not offered")
            }
            Code::SET_VRING_NUM if !is_ring_size(message.body_word(4)) => {
                Some("a size that is not a power of two up to 32768")
            }
            Code::ADD_MEM_REG if self.regions > MAX_REGIONS => Some("more regions than slots"),
            Code::ADD_MEM_REG => regions_fault(message, 1),
            Code::SET_MEM_TABLE => regions_fault(message, message.body_word(0)),
            _ => None,
        }
    }
}

fn is_ring_size(size: u32) -> bool {
    size.is_power_of_two() && size <= MAX_QUEUE_SIZE.into()
}

/// What is wrong with the memory regions of a message.
fn regions_fault(message: &Message, count: u32) -> Option<&'static str> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count != message.files().len() {
        return Some("not one file for each region");
    }
    let regions = (0..count).map(|index| Region::at(message, FIRST_REGION + REGION_BYTES * index));
    regions
        .zip(message.files())
        .find_map(|(region, file)| region.fault(file.as_fd()))
}

struct Region {
    guest_address: u64,
    size_bytes: u64,
    user_address: u64,
    mmap_offset: u64,
}

impl Region {
    fn at(message: &Message, offset: usize) -> Self {
        Self {
            guest_address: message.body_long(offset),
            size_bytes: message.body_long(offset + 8),
            user_address: message.body_long(offset + 16),
            mmap_offset: message.body_long(offset + 24),
        }
    }

    /// What is wrong with the region, if anything.
    fn fault(&self, file: BorrowedFd<'_>) -> Option<&'static str> {
        let end = |start: u64| start.checked_add(self.size_bytes);
        let ends = (
            end(self.guest_address),
            end(self.user_address),
            end(self.mmap_offset),
        );
        let (Some(_), Some(_), Some(file_end)) = ends else {
            return Some("a region that wraps around");
        };
        if ends_within_a_page(file, self.size_bytes) {
            return Some("a region that ends within a huge page");
        }
        if !keeps_its_length(file) {
            log::debug!(
                "the memory at guest address {:#x} is a file that the front-end could truncate",
                self.guest_address
            );
        }
        is_shorter(file, file_end).then_some("a region longer than its file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::OwnedFd;

    fn check(message: &Message) -> Result<(), MessageError> {
        RequestFilter::default().check(message)
    }

    fn longs(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn memory_file(length_bytes: u64) -> OwnedFd {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length_bytes).unwrap();
        file
    }

    fn add_region(words: [u64; 4]) -> Message {
        let body = longs(&[&[0], words.as_slice()].concat());
        Message::new(37, &body, vec![memory_file(0x1000)])
    }

    #[test]
    fn counts_regions_up_to_the_slots_and_refuses_one_more() {
        let mut filter = RequestFilter::default();
        let add = add_region([0, 0x1000, 0, 0]);
        let remove = Message::new(38, &longs(&[0, 0, 0x1000, 0, 0]), Vec::new());
        (0..MAX_REGIONS).for_each(|_| filter.check(&add).unwrap());
        filter.check(&remove).unwrap();
        filter.check(&add).unwrap();
        filter.check(&add).unwrap_err();
    }

    #[test]
    fn refuses_requests_that_are_not_served() {
        for code in [0, 6, 7, 19, 22, 28, 33, 35, 39, 40, 41, 1000, u32::MAX] {
            let result = check(&Message::new(code, &[], Vec::new()));
            assert!(
                matches!(result, Err(MessageError::NotServed { .. })),
                "{code}: {result:?}"
            );
        }
    }

    #[test]
    fn refuses_protocol_features_that_were_not_offered() {
        let offered = protocol_features().bits();
        for (features, good) in [(0, true), (offered, true), (offered | 2, false)] {
            let request = Message::new(16, &longs(&[features]), Vec::new());
            assert_eq!(check(&request).is_ok(), good, "{features:#x}");
        }
    }

    #[test]
    fn refuses_ring_sizes_that_are_no_power_of_two() {
        for (size, good) in [
            (0_u32, false),
            (1, true),
            (3, false),
            (32_768, true),
            (65_536, false),
        ] {
            let body = [0_u32.to_ne_bytes(), size.to_ne_bytes()];
            let request = Message::new(8, body.as_flattened(), Vec::new());
            assert_eq!(check(&request).is_ok(), good, "{size}");
        }
    }

    #[test]
    fn refuses_regions_that_wrap_around_or_outgrow_their_file() {
        for (words, good) in [
            ([0, 0x1000, 0, 0], true),
            ([0, 0x1001, 0, 0], false),
            ([0, 0x1000, 0, 1], false),
            ([u64::MAX - 0xfff, 0x1000, 0, 0], false),
            ([0, 0x1000, u64::MAX - 0xfff, 0], false),
            ([0, 0x1000, 0, u64::MAX - 0xfff], false),
        ] {
            assert_eq!(check(&add_region(words)).is_ok(), good, "{words:x?}");
        }
    }

    #[test]
    fn refuses_a_memory_table_without_a_file_for_each_region() {
        let region = [0, 0x1000, 0, 0];
        let body = [longs(&[1]), longs(&region)].concat();
        check(&Message::new(5, &body, vec![memory_file(0x1000)])).unwrap();
        check(&Message::new(5, &body, Vec::new())).unwrap_err();
        let huge = [longs(&[u32::MAX.into()]), longs(&region)].concat();
        check(&Message::new(5, &huge, vec![memory_file(0x1000)])).unwrap_err();
    }
}

//! How long a front-end's file is, and whether it stays so.
//!
//! To touch a mapped page beyond the end of a file is a SIGBUS. So the length is checked before a
//! file is mapped, and where that can be had the file is sealed against shrinking even before.

use std::os::fd::AsFd;

use rustix::fs::{FileType, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};

use crate::memory_watch::huge_page_bytes;

/// Whether the file can never become shorter: it is sealed (memfd_create(2), File sealing), now if
/// it was not before. Files other than memfds, and memfds that were made without sealing, cannot be.
pub(super) fn keeps_its_length(file: impl AsFd) -> bool {
    let is_sealed = |seals: SealFlags| seals.contains(SealFlags::SHRINK);
    fcntl_get_seals(&file).is_ok_and(is_sealed) || fcntl_add_seals(&file, SealFlags::SHRINK).is_ok()
}

/// Whether a plain file (or memfd) ends before `end`. Other kinds have no length to go by.
pub(super) fn is_shorter(file: impl AsFd, end: u64) -> bool {
    fstat(file).is_ok_and(|stat| {
        let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        plain && u64::try_from(stat.st_size).unwrap_or(0) < end
    })
}

/// Whether a mapping of this length ends within a huge page, and so could never be unmapped.
pub(super) fn ends_within_a_page(file: impl AsFd, length_bytes: u64) -> bool {
    huge_page_bytes(file).is_some_and(|page_bytes| !length_bytes.is_multiple_of(page_bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::OwnedFd;

    fn memfd(flags: MemfdFlags) -> OwnedFd {
        let file = memfd_create("memory", flags | MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 8192).unwrap();
        file
    }

    #[test]
    fn a_file_that_can_be_sealed_cannot_be_cut_shorter_afterwards() {
        let file = memfd(MemfdFlags::ALLOW_SEALING);
        assert!(keeps_its_length(&file));
        ftruncate(&file, 4096).unwrap_err();
        ftruncate(&file, 16_384).unwrap();
        assert!(keeps_its_length(&file), "sealed already");
    }

    #[test]
    fn a_file_that_was_sealed_against_further_seals_counts_by_those_it_has() {
        for (seals, good) in [
            (SealFlags::SEAL, false),
            (SealFlags::SEAL | SealFlags::SHRINK, true),
        ] {
            let file = memfd(MemfdFlags::ALLOW_SEALING);
            fcntl_add_seals(&file, seals).unwrap();
            assert_eq!(keeps_its_length(&file), good, "{seals:?}");
        }
    }

    #[test]
    fn only_whole_huge_pages_can_be_mapped_but_any_length_of_others() {
        let huge = memfd_create("memory", MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).unwrap();
        for (length_bytes, bad) in [(4096, true), (2 << 20, false), (3 << 20, true)] {
            assert_eq!(
                ends_within_a_page(&huge, length_bytes),
                bad,
                "{length_bytes}"
            );
        }
        assert!(!ends_within_a_page(memfd(MemfdFlags::empty()), 100));
    }

    #[test]
    fn other_files_can_be_cut_shorter_and_say_how_long_they_are() {
        let on_disk = OwnedFd::from(tempfile::tempfile().unwrap());
        ftruncate(&on_disk, 8192).unwrap();
        for file in [memfd(MemfdFlags::empty()), on_disk] {
            assert!(!keeps_its_length(&file));
            assert!(!is_shorter(&file, 8192));
            assert!(is_shorter(&file, 8193));
        }
    }
}

//! What a LUN stores: sparse memory, or nothing at all.

use crate::data::Data;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Granularity of what is kept; also what GET LBA STATUS can tell apart.
const CHUNK_BYTES: usize = 64 * 1024;

/// The bytes of one LUN. Sparse: what was never written, or was unmapped, reads as zeros and takes
/// no memory. Keep the `Arc` of one to start a second target over the same data.
#[derive(Debug)]
pub struct Disk {
    keeps: bool,
    max_stored_bytes: u64,
    chunks: Mutex<HashMap<u64, Box<[u8]>>>,
}

/// The store has no room for more chunks.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the disk would store more than its limit")]
pub struct Full;

/// A piece of a transfer within one chunk.
struct Piece {
    chunk: u64,
    /// Where in the chunk.
    at: usize,
    /// Where in the transfer.
    from: usize,
    length_bytes: usize,
}

impl Disk {
    /// A disk that keeps what is written, up to `max_stored_bytes` of non-zero chunks.
    pub fn sparse(max_stored_bytes: u64) -> Self {
        Self {
            keeps: true,
            max_stored_bytes,
            chunks: Mutex::default(),
        }
    }

    /// A disk that answers without storing: reads are zeros.
    pub fn null() -> Self {
        Self {
            keeps: false,
            max_stored_bytes: 0,
            chunks: Mutex::default(),
        }
    }

    /// Whether what is written is kept.
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// The `length_bytes` at `offset_bytes`.
    pub(crate) fn data(&self, offset_bytes: u64, length_bytes: usize) -> Data<'static> {
        if !self.keeps {
            return Data::Zeros(length_bytes);
        }
        let mut bytes = vec![0; length_bytes];
        self.read(offset_bytes, &mut bytes);
        bytes.into()
    }

    /// Fills `to` with the bytes at `offset_bytes`.
    pub fn read(&self, offset_bytes: u64, to: &mut [u8]) {
        if !self.keeps {
            return to.fill(0);
        }
        let chunks = self.chunks();
        for piece in pieces(offset_bytes, to.len()) {
            let Some(target) = to.get_mut(piece.from..piece.from + piece.length_bytes) else {
                break;
            };
            match chunks.get(&piece.chunk).and_then(|c| c.get(piece.at..)) {
                Some(source) => target.copy_from_slice(&source[..piece.length_bytes]),
                None => target.fill(0),
            }
        }
    }

    /// Stores `data` at `offset_bytes`, or nothing of it.
    ///
    /// # Errors
    /// [`Full`] when the new chunks would exceed the limit.
    pub fn write(&self, offset_bytes: u64, data: &[u8]) -> Result<(), Full> {
        if !self.keeps {
            return Ok(());
        }
        let mut chunks = self.chunks();
        self.check_room(&chunks, offset_bytes, data.len())?;
        for piece in pieces(offset_bytes, data.len()) {
            let source = data
                .get(piece.from..piece.from + piece.length_bytes)
                .unwrap_or_default();
            let chunk = chunks
                .entry(piece.chunk)
                .or_insert_with(|| vec![0; CHUNK_BYTES].into());
            let end = piece.at + source.len();
            chunk
                .get_mut(piece.at..end)
                .unwrap_or_default()
                .copy_from_slice(source);
        }
        Ok(())
    }

    /// Makes `length_bytes` at `offset_bytes` read as zeros; whole chunks are given back.
    pub fn discard(&self, offset_bytes: u64, length_bytes: u64) {
        let end = offset_bytes.saturating_add(length_bytes);
        let size = CHUNK_BYTES as u64;
        let mut chunks = self.chunks();
        chunks.retain(|index, chunk| {
            let start = index * size;
            let from = offset_bytes.clamp(start, start + size) - start;
            let to = end.clamp(start, start + size) - start;
            let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
            chunk.get_mut(range).unwrap_or_default().fill(0);
            to - from < size
        });
    }

    /// Bytes of memory the disk holds.
    pub fn stored_bytes(&self) -> u64 {
        (self.chunks().len() * CHUNK_BYTES) as u64
    }

    /// Whether the byte at `offset_bytes` lies in a chunk that is kept, and where that chunk ends.
    pub(crate) fn mapped(&self, offset_bytes: u64) -> (bool, u64) {
        let chunk = offset_bytes / CHUNK_BYTES as u64;
        (
            self.chunks().contains_key(&chunk),
            (chunk + 1) * CHUNK_BYTES as u64,
        )
    }

    fn check_room(
        &self,
        chunks: &HashMap<u64, Box<[u8]>>,
        offset_bytes: u64,
        length_bytes: usize,
    ) -> Result<(), Full> {
        let new = pieces(offset_bytes, length_bytes)
            .filter(|p| !chunks.contains_key(&p.chunk))
            .count();
        let total = (chunks.len() + new) as u64 * CHUNK_BYTES as u64;
        if new > 0 && total > self.max_stored_bytes {
            Err(Full)
        } else {
            Ok(())
        }
    }

    fn chunks(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Box<[u8]>>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pieces(offset_bytes: u64, length_bytes: usize) -> impl Iterator<Item = Piece> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let left = length_bytes.checked_sub(from).filter(|left| *left > 0)?;
        let offset = offset_bytes.checked_add(from as u64)?;
        let at = usize::try_from(offset % CHUNK_BYTES as u64).ok()?;
        let length = left.min(CHUNK_BYTES - at);
        let piece = Piece {
            chunk: offset / CHUNK_BYTES as u64,
            at,
            from,
            length_bytes: length,
        };
        from += length;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    #[test]
    fn reads_what_was_written_across_a_chunk_border() {
        let disk = Disk::sparse(1 << 20);
        disk.write(CHUNK - 3, b"border").unwrap();
        let mut back = [9; 8];
        disk.read(CHUNK - 4, &mut back);
        assert_eq!(&back, b"\0border\0");
    }

    #[test]
    fn takes_its_limit_and_not_one_chunk_more() {
        let disk = Disk::sparse(CHUNK);
        disk.write(0, &[1]).unwrap();
        disk.write(CHUNK - 1, &[1]).unwrap();
        assert_eq!(disk.write(CHUNK, &[1]), Err(Full));
    }

    #[test]
    fn discards_only_what_was_named_and_gives_memory_back() {
        let disk = Disk::sparse(1 << 20);
        disk.write(0, &vec![5; 3 * CHUNK_BYTES]).unwrap();
        disk.discard(CHUNK - 1, CHUNK + 2);
        assert_eq!(disk.stored_bytes(), 2 * CHUNK);
        let mut edge = [0; 2];
        disk.read(CHUNK - 2, &mut edge);
        assert_eq!(edge, [5, 0]);
        disk.read(2 * CHUNK, &mut edge);
        assert_eq!(edge, [0, 5]);
    }

    #[test]
    fn null_disk_stores_nothing() {
        let disk = Disk::null();
        disk.write(0, b"lost").unwrap();
        let mut back = [1; 4];
        disk.read(0, &mut back);
        assert_eq!((back, disk.stored_bytes()), ([0; 4], 0));
    }
}

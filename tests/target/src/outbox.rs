//! What a connection is going to send: answers of one wake-up, for one gathered write.

use crate::data::{Data, zeros};
use std::io::IoSlice;

/// Entries that one system call takes (UIO_MAXIOV).
const MAX_SLICES: usize = 1024;

/// Bytes that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// Runs of zeros between the bytes, in order.
    gaps: Vec<Gap>,
    length_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    /// How many bytes lie before it.
    after: usize,
    length_bytes: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.length_bytes
    }

    pub(crate) fn push(&mut self, data: &Data<'_>) {
        match data {
            Data::Bytes(bytes) => self.push_bytes(bytes),
            Data::Zeros(0) => {}
            Data::Zeros(length_bytes) => {
                self.length_bytes += length_bytes;
                self.gaps.push(Gap {
                    after: self.bytes.len(),
                    length_bytes: *length_bytes,
                });
            }
        }
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.length_bytes += bytes.len();
    }

    /// Keeps the first `length_bytes` only.
    pub(crate) fn truncate(&mut self, length_bytes: usize) {
        let mut excess = self.length_bytes.saturating_sub(length_bytes);
        self.length_bytes -= excess;
        while excess > 0 {
            let behind = self.bytes.len() - self.gaps.last().map_or(0, |gap| gap.after);
            let cut = excess.min(behind);
            self.bytes.truncate(self.bytes.len() - cut);
            excess -= cut;
            if let Some(gap) = self.gaps.last_mut() {
                let cut = excess.min(gap.length_bytes);
                gap.length_bytes -= cut;
                excess -= cut;
                if gap.length_bytes == 0 {
                    self.gaps.pop();
                }
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.gaps.clear();
        self.length_bytes = 0;
    }

    /// Everything in order, to be written with as few calls as possible.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.gaps.len() * 2 + 1);
        let mut start = 0;
        for gap in &self.gaps {
            if start < gap.after {
                let bytes = self.bytes.get(start..gap.after);
                slices.push(IoSlice::new(bytes.unwrap_or_default()));
                start = gap.after;
            }
            slices.extend(zeros(gap.length_bytes).map(IoSlice::new));
        }
        let rest = self.bytes.get(start..).unwrap_or_default();
        if !rest.is_empty() {
            slices.push(IoSlice::new(rest));
        }
        slices
    }
}

#[cfg(test)]
impl Outbox {
    /// A copy of everything.
    pub(crate) fn content(&self) -> Vec<u8> {
        let slices = self.slices();
        slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }
}

/// As many of `slices` as one call takes.
pub(crate) fn of_one_call<'a, 'b>(slices: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    slices.get(..MAX_SLICES).unwrap_or(slices)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than one slice of zeros takes.
    const LONG: usize = 70_000;

    fn sample() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.push(&Data::Zeros(2));
        outbox.push_bytes(b"abc");
        outbox.push(&Data::Zeros(LONG + 1));
        outbox.push(&Data::Zeros(1));
        outbox.push_bytes(b"d");
        outbox
    }

    #[test]
    fn keeps_bytes_and_zeros_in_order() {
        let expected = [&[0; 2][..], b"abc", &[0; LONG + 2], b"d"].concat();
        assert_eq!(sample().content(), expected);
        assert_eq!(sample().len(), expected.len());
    }

    #[test]
    fn truncates_at_every_length() {
        let expected = sample().content();
        for length in (0..8).chain(expected.len() - 4..=expected.len() + 1) {
            let mut outbox = sample();
            outbox.truncate(length);
            let kept = length.min(expected.len());
            assert_eq!(outbox.content(), expected[..kept], "{length}");
            outbox.push_bytes(b"x");
            assert_eq!(outbox.len(), kept + 1);
            assert_eq!(outbox.content().len(), kept + 1);
        }
    }
}

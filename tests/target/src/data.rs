//! Data of commands, both ways, without bytes that nobody needs: zeros that are sent need no copy,
//! and what a disk does not keep need not be gathered.

use crate::bytes::put;
use std::borrow::Cow;

/// What zeros are sent from. It stays in the CPU's nearest cache.
static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// Data for the initiator.
#[derive(Clone, Debug)]
pub(crate) enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    /// So many zeros.
    Zeros(usize),
}

impl Default for Data<'_> {
    fn default() -> Self {
        Self::Zeros(0)
    }
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Data<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(bytes))
    }
}

impl Data<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(length) => *length,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part from `start` to `end`, as far as it exists.
    pub(crate) fn part(&self, start: usize, end: usize) -> Data<'_> {
        let end = end.min(self.len());
        match self {
            Self::Bytes(bytes) => bytes.get(start..end).unwrap_or_default().into(),
            Self::Zeros(_) => Data::Zeros(end.saturating_sub(start)),
        }
    }

    pub(crate) fn into_owned(self) -> Data<'static> {
        match self {
            Self::Bytes(bytes) => bytes.into_owned().into(),
            Self::Zeros(length) => Data::Zeros(length),
        }
    }

    /// The bytes, in one slice or in several; none of them is empty.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let (bytes, zeros_bytes) = match self {
            Self::Bytes(bytes) => (&**bytes, 0),
            Self::Zeros(length) => (&[][..], *length),
        };
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        bytes.into_iter().chain(zeros(zeros_bytes))
    }
}

/// Slices of so many zeros together; none of them is empty.
pub(crate) fn zeros<'a>(length_bytes: usize) -> impl Iterator<Item = &'a [u8]> {
    let rest = ZEROS.get(..length_bytes % ZEROS.len());
    let rest = rest.filter(|rest| !rest.is_empty());
    std::iter::repeat_n(&ZEROS[..], length_bytes / ZEROS.len()).chain(rest)
}

/// Data that came with a command.
#[derive(Clone, Debug)]
pub(crate) enum DataOut<'a> {
    Kept(Cow<'a, [u8]>),
    /// So many bytes, which the disk would not have kept.
    Dropped(usize),
}

impl<'a> DataOut<'a> {
    /// Data that is all there, kept or not.
    pub(crate) fn of(bytes: &'a [u8], keep: bool) -> Self {
        if keep {
            Self::Kept(Cow::Borrowed(bytes))
        } else {
            Self::Dropped(bytes.len())
        }
    }
}

impl DataOut<'_> {
    /// No data.
    pub(crate) const NONE: DataOut<'static> = DataOut::Dropped(0);

    /// Room for so many bytes, which are kept or not.
    pub(crate) fn room(length_bytes: usize, keep: bool) -> DataOut<'static> {
        if keep {
            DataOut::Kept(Cow::Owned(vec![0; length_bytes]))
        } else {
            DataOut::Dropped(length_bytes)
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Kept(bytes) => bytes.len(),
            Self::Dropped(length) => *length,
        }
    }

    /// What was kept.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
            Self::Dropped(_) => &[],
        }
    }

    /// Puts `data` at `offset_bytes`, as much of it as there is room.
    pub(crate) fn put(&mut self, offset_bytes: usize, data: &[u8]) {
        if let Self::Kept(bytes) = self {
            put(bytes.to_mut(), offset_bytes, data);
        }
    }

    pub(crate) fn into_owned(self) -> DataOut<'static> {
        match self {
            Self::Kept(bytes) => DataOut::Kept(Cow::Owned(bytes.into_owned())),
            Self::Dropped(length) => DataOut::Dropped(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_as_many_as_they_say() {
        for length in [0, 1, ZEROS.len(), 3 * ZEROS.len() + 1] {
            let data = Data::Zeros(length);
            assert_eq!(data.slices().collect::<Vec<_>>().concat(), vec![0; length]);
        }
    }

    #[test]
    fn a_part_ends_with_the_data() {
        assert_eq!(Data::Zeros(10).part(4, 20).len(), 6);
        assert_eq!(
            Data::from(&b"abc"[..]).part(1, 9).slices().next(),
            Some(&b"bc"[..])
        );
        assert!(Data::Zeros(3).part(3, 3).is_empty());
    }

    #[test]
    fn puts_no_more_than_fits() {
        let mut kept = DataOut::room(4, true);
        kept.put(2, b"abc");
        kept.put(9, b"abc");
        assert_eq!(kept.bytes(), b"\0\0ab");
        let mut dropped = DataOut::room(4, false);
        dropped.put(2, b"abc");
        assert_eq!((dropped.len(), dropped.bytes()), (4, &[][..]));
    }
}

//! A block request and how its bytes are laid out over descriptors.

use super::spec::{
    FLAG_UNMAP, HEADER_BYTES, ID_BYTES, T_DISCARD, T_FLUSH, T_GET_ID, T_IN, T_OUT, T_WRITE_ZEROES,
};

/// A request in the driver's words: what the device reads, and how much it may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// One of the `T_…` numbers, or a wrong one.
    pub kind: u32,
    /// First sector, in units of 512 bytes.
    pub sector: u64,
    /// What follows the header: data to write, or segments to discard or to zero.
    pub data_out: Vec<u8>,
    /// How much data comes back.
    pub data_in_bytes: u32,
}

impl Request {
    /// A request without data.
    pub fn bare(kind: u32) -> Self {
        Self {
            kind,
            sector: 0,
            data_out: Vec::new(),
            data_in_bytes: 0,
        }
    }

    /// IN: reads `length_bytes` from `sector`.
    pub fn read(sector: u64, length_bytes: u32) -> Self {
        Self {
            sector,
            data_in_bytes: length_bytes,
            ..Self::bare(T_IN)
        }
    }

    /// OUT: writes `data` to `sector`.
    pub fn write(sector: u64, data: impl Into<Vec<u8>>) -> Self {
        Self {
            sector,
            data_out: data.into(),
            ..Self::bare(T_OUT)
        }
    }

    /// FLUSH.
    pub fn flush() -> Self {
        Self::bare(T_FLUSH)
    }

    /// GET_ID.
    pub fn get_id() -> Self {
        Self {
            data_in_bytes: ID_BYTES,
            ..Self::bare(T_GET_ID)
        }
    }

    /// DISCARD of one range.
    pub fn discard(sector: u64, sectors: u32) -> Self {
        Self::ranges(T_DISCARD, &[(sector, sectors, 0)])
    }

    /// WRITE_ZEROES of one range; with `unmap` the device may give the space back.
    pub fn write_zeroes(sector: u64, sectors: u32, unmap: bool) -> Self {
        let flags = if unmap { FLAG_UNMAP } else { 0 };
        Self::ranges(T_WRITE_ZEROES, &[(sector, sectors, flags)])
    }

    /// DISCARD or WRITE_ZEROES with any ranges `(sector, sectors, flags)`.
    pub fn ranges(kind: u32, ranges: &[(u64, u32, u32)]) -> Self {
        let mut data_out = Vec::new();
        for (sector, sectors, flags) in ranges {
            data_out.extend(sector.to_le_bytes());
            data_out.extend(sectors.to_le_bytes());
            data_out.extend(flags.to_le_bytes());
        }
        Self {
            data_out,
            ..Self::bare(kind)
        }
    }

    /// Everything the device reads: the header, then the data.
    pub fn readable(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.data_out.len() + 16);
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(self.sector.to_le_bytes());
        bytes.extend(&self.data_out);
        bytes
    }
}

/// How the two streams of a request are cut into descriptors.
///
/// The device reads one stream (header, then data) and writes another (data, then status). With
/// VIRTIO_F_VERSION_1 a driver may cut both anywhere (virtio 1.3, section 2.7.4.1). What the
/// lengths do not cover becomes one last descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Lengths of the descriptors that the device reads.
    pub readable: Vec<u32>,
    /// Lengths of the descriptors that the device writes.
    pub writable: Vec<u32>,
    /// Put all descriptors into an indirect table.
    pub indirect: bool,
    /// Put the buffers across the border of two memory regions.
    pub across_border: bool,
}

impl Layout {
    /// What drivers do: one descriptor each for header, data and status.
    pub fn usual(request: &Request) -> Self {
        Self {
            readable: vec![HEADER_BYTES],
            writable: vec![request.data_in_bytes],
            ..Self::default()
        }
    }

    /// As few descriptors as possible: header with data, data with status.
    pub fn merged() -> Self {
        Self::default()
    }

    /// Header and status by themselves, data in segments of `segment_bytes`.
    pub fn data_in_segments(request: &Request, segment_bytes: u32) -> Self {
        let segments = |length: usize| {
            let count = length.div_ceil(usize::try_from(segment_bytes).expect("a short segment"));
            vec![segment_bytes; count]
        };
        let mut writable = segments(usize::try_from(request.data_in_bytes).expect("a length"));
        if let Some(last) = writable.last_mut() {
            *last -= excess(request.data_in_bytes, segment_bytes);
        }
        let mut readable = vec![HEADER_BYTES];
        readable.extend(segments(request.data_out.len()));
        Self {
            readable,
            writable,
            ..Self::default()
        }
    }

    /// Both streams in descriptors of `bytes`, across header, data and status alike.
    pub fn every(request: &Request, bytes: u32) -> Self {
        let all = |length: usize| vec![bytes; length / usize::try_from(bytes).expect("a length")];
        Self {
            readable: all(request.readable().len()),
            writable: all(usize::try_from(request.data_in_bytes).expect("a length") + 1),
            ..Self::default()
        }
    }

    /// The same in an indirect table.
    pub fn indirect(self) -> Self {
        Self {
            indirect: true,
            ..self
        }
    }

    /// The same across the border of two memory regions.
    pub fn across_border(self) -> Self {
        Self {
            across_border: true,
            ..self
        }
    }
}

/// How much longer than `length` a whole number of segments is.
fn excess(length: u32, segment_bytes: u32) -> u32 {
    length.next_multiple_of(segment_bytes) - length
}

/// Cuts `total_bytes` into `lengths`, cut off at the end, and what they leave over.
pub(super) fn cut(total_bytes: u32, lengths: &[u32]) -> Vec<u32> {
    let mut left = total_bytes;
    let mut pieces = Vec::with_capacity(lengths.len() + 1);
    for length in lengths.iter().chain([&u32::MAX]) {
        let piece = left.min(*length);
        if piece > 0 {
            pieces.push(piece);
        }
        left -= piece;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_covers_the_whole_and_nothing_more() {
        assert_eq!(cut(17, &[16]), [16, 1]);
        assert_eq!(cut(17, &[1, 2]), [1, 2, 14]);
        assert_eq!(cut(5, &[4, 4, 4]), [4, 1]);
        assert_eq!(cut(5, &[0, 5]), [5]);
    }

    #[test]
    fn segments_leave_status_to_itself() {
        let layout = Layout::data_in_segments(&Request::read(0, 512), 500);
        assert_eq!(cut(513, &layout.writable), [500, 12, 1]);
        let layout = Layout::data_in_segments(&Request::read(0, 512), 256);
        assert_eq!(cut(513, &layout.writable), [256, 256, 1]);
    }
}

//! Cuts the inbound byte stream into headers and data segments, and checks lengths and digests.
//!
//! What a data segment is for, and where its bytes go, is decided by the [`crate::session`]; the
//! framer counts them. Additional header segments are covered by the header digest and skipped:
//! none is defined for a PDU that a target sends.

use crate::crc32c::{Crc32c, wire_digest};
use crate::error::{Misbehaviour, SessionError};
use crate::pdu::{BHS_LENGTH_BYTES, Bhs, DIGEST_LENGTH_BYTES, Lengths, padding};

/// The state of one inbound stream.
#[derive(Debug)]
pub(crate) struct Framer {
    header_digest: bool,
    data_digest: bool,
    max_data_bytes: u32,
    crc32c: Crc32c,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A header is next.
    Header,
    /// A header without a data segment went by: no padding, no digest follow.
    NoData,
    /// `remaining_bytes` of a data segment are next, then its padding and digest.
    Data {
        remaining_bytes: usize,
        padding_bytes: usize,
        crc: u32,
    },
}

/// What is next in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Too few bytes: with what was not consumed, `at_least` are needed.
    NeedBytes { at_least: usize },
    /// A header, digest checked. A data segment follows, perhaps an empty one.
    Header(Bhs),
    /// The data segment goes on for that many bytes: hand them to [`Framer::take`].
    Data { remaining_bytes: usize },
    /// The data segment is over, digest checked.
    End,
}

impl Framer {
    pub(crate) fn new(
        header_digest: bool,
        data_digest: bool,
        max_data_bytes: u32,
        crc32c: Crc32c,
    ) -> Self {
        Self {
            header_digest,
            data_digest,
            max_data_bytes,
            crc32c,
            state: State::Header,
        }
    }

    /// Whether the bytes of data segments have to pass through [`Framer::take`], because a digest
    /// is computed over them.
    pub(crate) fn digests_data(&self) -> bool {
        self.data_digest
    }

    /// Looks at the start of `bytes`; says how many it used up, and what came of them.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<(usize, Frame), SessionError> {
        match self.state {
            State::Header => self.header(bytes),
            State::NoData => {
                self.state = State::Header;
                Ok((0, Frame::End))
            }
            State::Data {
                remaining_bytes: 0,
                padding_bytes,
                crc,
            } => self.trailer(bytes, padding_bytes, crc),
            State::Data {
                remaining_bytes, ..
            } => Ok((0, Frame::Data { remaining_bytes })),
        }
    }

    /// Counts `bytes` of the data segment, for the digest too. Never more than remain.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if let State::Data { crc, .. } = &mut self.state
            && self.data_digest
        {
            *crc = (self.crc32c)(*crc, bytes);
        }
        self.skip(bytes.len());
    }

    /// Counts bytes of the data segment that went past us.
    pub(crate) fn skip(&mut self, length_bytes: usize) {
        if let State::Data {
            remaining_bytes, ..
        } = &mut self.state
        {
            debug_assert!(length_bytes <= *remaining_bytes);
            *remaining_bytes = remaining_bytes.saturating_sub(length_bytes);
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<(usize, Frame), SessionError> {
        let Some(bhs) = bytes.first_chunk::<BHS_LENGTH_BYTES>() else {
            return Ok((
                0,
                Frame::NeedBytes {
                    at_least: BHS_LENGTH_BYTES,
                },
            ));
        };
        let lengths = Lengths::of(bhs);
        let covered_bytes = BHS_LENGTH_BYTES + lengths.ahs_bytes;
        let at_least = covered_bytes + digest_bytes(self.header_digest);
        let Some((covered, digest)) = bytes
            .get(..at_least)
            .and_then(|header| header.split_at_checked(covered_bytes))
        else {
            return Ok((0, Frame::NeedBytes { at_least }));
        };
        if self.header_digest && digest != wire_digest((self.crc32c)(0, covered)) {
            return Err(Misbehaviour::HeaderDigest.into());
        }
        self.check_length(lengths)?;
        self.state = match lengths.data_bytes {
            0 => State::NoData,
            remaining_bytes => State::Data {
                remaining_bytes,
                padding_bytes: lengths.padding_bytes(),
                crc: 0,
            },
        };
        Ok((at_least, Frame::Header(*bhs)))
    }

    fn check_length(&self, lengths: Lengths) -> Result<(), SessionError> {
        let pdu_bytes = u32::try_from(lengths.data_bytes).unwrap_or(u32::MAX);
        if pdu_bytes > self.max_data_bytes {
            let declared_bytes = self.max_data_bytes;
            return Err(Misbehaviour::DataSegmentTooLong {
                pdu_bytes,
                declared_bytes,
            }
            .into());
        }
        Ok(())
    }

    fn trailer(
        &mut self,
        bytes: &[u8],
        padding_bytes: usize,
        crc: u32,
    ) -> Result<(usize, Frame), SessionError> {
        let at_least = padding_bytes + digest_bytes(self.data_digest);
        let Some((padding, digest)) = bytes
            .get(..at_least)
            .and_then(|trailer| trailer.split_at_checked(padding_bytes))
        else {
            return Ok((0, Frame::NeedBytes { at_least }));
        };
        if self.data_digest && digest != wire_digest((self.crc32c)(crc, padding)) {
            return Err(Misbehaviour::DataDigest.into());
        }
        self.state = State::Header;
        Ok((at_least, Frame::End))
    }
}

const fn digest_bytes(enabled: bool) -> usize {
    if enabled { DIGEST_LENGTH_BYTES } else { 0 }
}

/// The padding and digest that end a data segment of ours, as they go on the wire.
pub(crate) struct Trailer {
    bytes: [u8; 3 + DIGEST_LENGTH_BYTES],
    length_bytes: usize,
}

impl Trailer {
    /// `crc` is that of the data segment when a data digest is in use.
    pub(crate) fn new(data_bytes: usize, crc: Option<u32>, crc32c: Crc32c) -> Self {
        let padding_bytes = padding(data_bytes);
        let mut bytes = [0; 3 + DIGEST_LENGTH_BYTES];
        let mut length_bytes = padding_bytes;
        if let (Some(crc), Some((zeros, rest))) = (crc, bytes.split_at_mut_checked(padding_bytes))
            && let Some(digest) = rest.first_chunk_mut::<DIGEST_LENGTH_BYTES>()
        {
            *digest = wire_digest(crc32c(crc, zeros));
            length_bytes += DIGEST_LENGTH_BYTES;
        }
        Self {
            bytes,
            length_bytes,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length_bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn framer(header_digest: bool, data_digest: bool) -> Framer {
        Framer::new(header_digest, data_digest, 1000, crc32c::crc32c_append)
    }

    /// Feeds `stream` in pieces of `piece` bytes and notes what came out.
    fn run(mut framer: Framer, stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, SessionError> {
        let mut pdus: Vec<Vec<u8>> = Vec::new();
        let (mut start, mut end) = (0, 0);
        loop {
            let (used, frame) = framer.next(&stream[start..end])?;
            start += used;
            match frame {
                Frame::Header(bhs) => pdus.push(bhs.to_vec()),
                Frame::End => {}
                Frame::Data { remaining_bytes } if start < end => {
                    let length = remaining_bytes.min(end - start);
                    framer.take(&stream[start..start + length]);
                    pdus.last_mut()
                        .unwrap()
                        .extend(&stream[start..start + length]);
                    start += length;
                }
                Frame::NeedBytes { at_least } => {
                    assert!(at_least > end - start);
                    if end == stream.len() {
                        return Ok(pdus);
                    }
                    end = stream.len().min(end + piece);
                }
                Frame::Data { .. } => end = stream.len().min(end + piece),
            }
        }
    }

    fn pdu(data: &[u8], ahs_words: u8, header_digest: bool, data_digest: bool) -> Vec<u8> {
        let mut bytes = [0x25; BHS_LENGTH_BYTES].to_vec();
        bytes[4] = ahs_words;
        bytes[5..8].copy_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes()[1..]);
        bytes.resize(48 + usize::from(ahs_words) * 4, 0xaa);
        if header_digest {
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        }
        let start = bytes.len();
        bytes.extend(data);
        bytes.resize(start + data.len().next_multiple_of(4), 0);
        if data_digest && !data.is_empty() {
            bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn any_fragmentation_gives_the_same_pdus() {
        for (header_digest, data_digest) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let mut stream = Vec::new();
            for (data, ahs_words) in [(&b""[..], 0), (b"a", 0), (b"abcd", 3), (b"", 255)] {
                stream.extend(pdu(data, ahs_words, header_digest, data_digest));
            }
            let whole = run(framer(header_digest, data_digest), &stream, stream.len()).unwrap();
            assert_eq!(whole.len(), 4);
            assert_eq!(whole[2][48..], *b"abcd");
            for piece in 1..60 {
                assert_eq!(
                    run(framer(header_digest, data_digest), &stream, piece).unwrap(),
                    whole
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_found_by_the_digest_that_covers_it() {
        let good = pdu(b"abcde", 1, true, true);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let outcome = run(framer(true, true), &bad, bad.len());
            // A longer length is noticed only when all that it asks for has arrived.
            let needs_more = outcome.is_ok() && matches!(at, 4..8);
            assert!(outcome.is_err() || needs_more, "byte {at}");
        }
    }

    #[test]
    fn the_declared_length_passes_and_one_more_does_not() {
        assert!(run(framer(false, false), &pdu(&[7; 1000], 0, false, false), 64).is_ok());
        assert_eq!(
            run(framer(false, false), &pdu(&[7; 1001], 0, false, false), 64),
            Err(Misbehaviour::DataSegmentTooLong {
                pdu_bytes: 1001,
                declared_bytes: 1000
            }
            .into())
        );
    }

    #[test]
    fn a_trailer_is_padding_and_then_the_digest_over_both() {
        let crc = crc32c::crc32c(b"abcde");
        let trailer = Trailer::new(5, Some(crc), crc32c::crc32c_append);
        let mut expected = [0, 0, 0].to_vec();
        expected.extend(crc32c::crc32c(b"abcde\0\0\0").to_le_bytes());
        assert_eq!(trailer.as_bytes(), expected);
        assert_eq!(Trailer::new(4, None, crc32c::crc32c_append).as_bytes(), b"");
    }

    #[test]
    fn the_digests_match_the_vectors_of_rfc_3720_appendix_b4() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, digest) in [
            (&[0u8; 32][..], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&ascending, [0x4e, 0x79, 0xdd, 0x46]),
            (&descending, [0x5c, 0xdb, 0x3f, 0x11]),
        ] {
            assert_eq!(wire_digest(crc32c::crc32c(bytes)), digest);
        }
    }
}

//! The target's own way with bytes: RFC 7143 section 11, without any code of the initiator.

/// The length of a basic header segment.
pub(super) const HEADER_BYTES: usize = 48;
/// The reserved value of tags.
pub(super) const NO_TAG: u32 = u32::MAX;

/// A PDU, of either side.
#[derive(Clone, Debug)]
pub(super) struct Pdu {
    /// The basic header segment.
    pub(super) header: [u8; HEADER_BYTES],
    /// The data segment.
    pub(super) data: Vec<u8>,
}

/// Which digests are in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digests {
    /// HeaderDigest=CRC32C.
    pub(super) header: bool,
    /// DataDigest=CRC32C.
    pub(super) data: bool,
}

/// What the start of a stream holds.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A PDU, and how many bytes it took.
    Pdu(usize, Pdu),
    /// More bytes are needed.
    Incomplete,
    /// A digest does not fit.
    Damaged,
}

impl Pdu {
    /// An answer with the F bit.
    pub(super) fn new(opcode: u8) -> Self {
        let mut header = [0; HEADER_BYTES];
        header[0] = opcode;
        header[1] = 0x80;
        Self {
            header,
            data: Vec::new(),
        }
    }

    /// Sets a 32-bit field.
    #[must_use]
    pub(super) fn put(mut self, at: usize, value: u32) -> Self {
        self.header[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    /// Sets a byte.
    #[must_use]
    pub(super) fn byte(mut self, at: usize, value: u8) -> Self {
        self.header[at] = value;
        self
    }

    /// Sets the data segment.
    #[must_use]
    pub(super) fn with(mut self, data: Vec<u8>) -> Self {
        self.data = data;
        self
    }

    /// A 32-bit field.
    pub(super) fn get(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.header[at..at + 4]);
        u32::from_be_bytes(bytes)
    }

    /// The opcode without the I bit.
    pub(super) fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    /// The I bit.
    pub(super) fn is_immediate(&self) -> bool {
        self.header[0] & 0x40 != 0
    }

    /// The F bit.
    pub(super) fn is_final(&self) -> bool {
        self.header[1] & 0x80 != 0
    }

    /// The PDU as it goes on the wire.
    pub(super) fn bytes(&self, digests: Digests) -> Vec<u8> {
        let mut header = self.header;
        header[5..8].copy_from_slice(&(self.data.len() as u32).to_be_bytes()[1..]);
        let mut bytes = header.to_vec();
        if digests.header {
            bytes.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        let start = bytes.len();
        bytes.extend(&self.data);
        bytes.resize(start + self.data.len().next_multiple_of(4), 0);
        if digests.data && !self.data.is_empty() {
            bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
        }
        bytes
    }

    /// Takes the first PDU of a stream.
    pub(super) fn parse(stream: &[u8], digests: Digests) -> Parsed {
        let header_bytes = HEADER_BYTES + if digests.header { 4 } else { 0 };
        let Some(start) = stream.get(..header_bytes) else {
            return Parsed::Incomplete;
        };
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&start[..HEADER_BYTES]);
        if digests.header && start[HEADER_BYTES..] != crc32c::crc32c(&header).to_le_bytes() {
            return Parsed::Damaged;
        }
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let padded = length.next_multiple_of(4);
        let digest_bytes = if digests.data && length > 0 { 4 } else { 0 };
        let end = header_bytes + padded + digest_bytes;
        let Some(rest) = stream.get(header_bytes..end) else {
            return Parsed::Incomplete;
        };
        let (data, digest) = rest.split_at(padded);
        if digest_bytes > 0 && digest != crc32c::crc32c(data).to_le_bytes() {
            return Parsed::Damaged;
        }
        let data = data[..length].to_vec();
        Parsed::Pdu(end, Self { header, data })
    }
}

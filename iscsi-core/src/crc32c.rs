//! CRC32C, handed in from outside: the core takes whatever the machine does fastest.

/// Continues the CRC32C `crc` over `bytes`; the CRC of nothing is 0 (RFC 7143 section 13.1,
/// polynomial 0x11edc6f41). The function `crc32c::crc32c_append` is one.
pub type Crc32c = fn(crc: u32, bytes: &[u8]) -> u32;

/// The digest as it goes on the wire. RFC 7143 section 13.1 maps the CRC to its four bytes such
/// that the value of the usual implementations is sent least significant byte first.
pub(crate) fn wire_digest(crc: u32) -> [u8; 4] {
    crc.to_le_bytes()
}

//! Operation codes: the first byte of a command descriptor block (SPC-5, "Operation codes").

/// TEST UNIT READY.
pub const TEST_UNIT_READY: u8 = 0x00;
/// INQUIRY.
pub const INQUIRY: u8 = 0x12;
/// MODE SENSE(6).
pub const MODE_SENSE_6: u8 = 0x1a;
/// READ CAPACITY(10).
pub const READ_CAPACITY_10: u8 = 0x25;
/// READ(10).
pub const READ_10: u8 = 0x28;
/// WRITE(10).
pub const WRITE_10: u8 = 0x2a;
/// SYNCHRONIZE CACHE(10).
pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
/// UNMAP.
pub const UNMAP: u8 = 0x42;
/// MODE SENSE(10).
pub const MODE_SENSE_10: u8 = 0x5a;
/// READ(16).
pub const READ_16: u8 = 0x88;
/// WRITE(16).
pub const WRITE_16: u8 = 0x8a;
/// SYNCHRONIZE CACHE(16).
pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
/// WRITE SAME(16).
pub const WRITE_SAME_16: u8 = 0x93;
/// SERVICE ACTION IN(16), of which we send the one action READ CAPACITY(16).
pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
/// REPORT LUNS.
pub const REPORT_LUNS: u8 = 0xa0;

/// The standard's name of a command that we send, for messages.
pub fn name(opcode: u8) -> &'static str {
    match opcode {
        TEST_UNIT_READY => "TEST UNIT READY",
        INQUIRY => "INQUIRY",
        MODE_SENSE_6 => "MODE SENSE(6)",
        READ_CAPACITY_10 => "READ CAPACITY(10)",
        READ_10 => "READ(10)",
        WRITE_10 => "WRITE(10)",
        SYNCHRONIZE_CACHE_10 => "SYNCHRONIZE CACHE(10)",
        UNMAP => "UNMAP",
        MODE_SENSE_10 => "MODE SENSE(10)",
        READ_16 => "READ(16)",
        WRITE_16 => "WRITE(16)",
        SYNCHRONIZE_CACHE_16 => "SYNCHRONIZE CACHE(16)",
        WRITE_SAME_16 => "WRITE SAME(16)",
        SERVICE_ACTION_IN_16 => "READ CAPACITY(16)",
        REPORT_LUNS => "REPORT LUNS",
        _ => "an unknown command",
    }
}

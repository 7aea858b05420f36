//! Headers, prepared as far as they are the same for every command of a run.

use std::ops::Range;

use iscsi_core::pdu::command::{Direction, ScsiCommandPdu};
use iscsi_core::scsi::read_write::{read_16, write_16};
use iscsi_core::sequence::SerialNumber;

use super::login::LoggedIn;
use super::{Floor, FloorError, Operation};

pub(super) type Header = [u8; 48];

/// The tag that means "none" (RFC 7143 section 11.2.1.8).
const RESERVED_TAG: u32 = 0xffff_ffff;

/// What every command of a run has in common.
pub(super) struct Commands {
    command: Header,
    /// The data that goes with the command.
    immediate: Range<u32>,
    /// Data-Out that follows it unasked.
    unsolicited: Vec<DataOut>,
    data_out: Header,
    segment_bytes: u32,
    blocks_per_command: u64,
    /// Commands that fit on the disk side by side.
    pub(super) places: u64,
}

/// One Data-Out, but for its tag and the StatSN.
#[derive(Clone)]
pub(super) struct DataOut {
    header: Header,
    pub(super) data: Range<u32>,
}

impl Commands {
    pub(super) fn new(floor: &Floor, session: &LoggedIn) -> Result<Self, FloorError> {
        let negotiated = &session.negotiated;
        let (length, block) = (floor.length_bytes, session.block_bytes);
        if length == 0 || block == 0 || length % block != 0 {
            return Err(FloorError::Config(format!(
                "commands of {length} bytes on blocks of {block}"
            )));
        }
        let blocks = length / block;
        let places = session.blocks / u64::from(blocks);
        if places == 0 {
            return Err(FloorError::Config(format!(
                "the disk has less than {length} bytes"
            )));
        }
        let writes = floor.operation == Operation::Write;
        let segment = negotiated.target_max_recv_data_segment_length_bytes;
        let first_burst = length.min(negotiated.first_burst_length_bytes);
        let immediate = if writes && negotiated.immediate_data {
            first_burst.min(segment)
        } else {
            0
        };
        let unsolicited_to = if writes && !negotiated.initial_r2t {
            first_burst
        } else {
            immediate
        };
        let (direction, cdb) = match floor.operation {
            Operation::Read => (Direction::Read, read_16(0, blocks)),
            Operation::Write => (Direction::Write, write_16(0, blocks, false)),
        };
        let command = ScsiCommandPdu {
            is_final: unsolicited_to == immediate,
            direction,
            lun: session.lun,
            initiator_task_tag: 0,
            expected_data_transfer_length: length,
            cmd_sn: SerialNumber(0),
            exp_stat_sn: SerialNumber(0),
            cdb,
            immediate_length_bytes: immediate,
        };
        let mut commands = Self {
            command: command.emit(),
            immediate: 0..immediate,
            unsolicited: Vec::new(),
            data_out: data_out(session.lun),
            segment_bytes: segment,
            blocks_per_command: u64::from(blocks),
            places,
        };
        commands.unsolicited = commands
            .data_outs(RESERVED_TAG, immediate..unsolicited_to)
            .collect();
        Ok(commands)
    }

    /// The header of a command, and the data that goes with it.
    pub(super) fn command(
        &self,
        tag: u32,
        place: u64,
        cmd_sn: u32,
        exp_stat_sn: u32,
    ) -> (Header, Range<u32>) {
        let mut header = self.command;
        put(&mut header, 16, tag);
        put(&mut header, 24, cmd_sn);
        put(&mut header, 28, exp_stat_sn);
        let block = place * self.blocks_per_command;
        header[34..42].copy_from_slice(&block.to_be_bytes());
        (header, self.immediate.clone())
    }

    /// The Data-Out that follow each command unasked.
    pub(super) fn unsolicited(&self) -> &[DataOut] {
        &self.unsolicited
    }

    /// The Data-Out of one burst, each as long as the target takes.
    pub(super) fn data_outs(
        &self,
        target_transfer_tag: u32,
        burst: Range<u32>,
    ) -> impl Iterator<Item = DataOut> + use<> {
        let (template, segment) = (self.data_out, self.segment_bytes);
        let starts = burst.clone().step_by(segment as usize);
        starts.zip(0..).map(move |(start, data_sn)| {
            let end = burst.end.min(start.saturating_add(segment));
            let mut header = template;
            header[1] = if end == burst.end { 0x80 } else { 0 };
            // The byte before DataSegmentLength is TotalAHSLength, and a segment has 24 bits.
            put(&mut header, 4, end - start);
            put(&mut header, 20, target_transfer_tag);
            put(&mut header, 36, data_sn);
            put(&mut header, 40, start);
            DataOut {
                header,
                data: start..end,
            }
        })
    }
}

impl DataOut {
    pub(super) fn header(&self, tag: u32, exp_stat_sn: u32) -> Header {
        let mut header = self.header;
        put(&mut header, 16, tag);
        put(&mut header, 28, exp_stat_sn);
        header
    }
}

/// A NOP-Out that answers a NOP-In: immediate, with the target's tag and LUN field.
pub(super) fn nop_out(nop_in: &Header, cmd_sn: u32, exp_stat_sn: u32) -> Header {
    let mut header = [0; 48];
    (header[0], header[1]) = (0x40, 0x80);
    header[8..16].copy_from_slice(&nop_in[8..16]);
    header[20..24].copy_from_slice(&nop_in[20..24]);
    put(&mut header, 16, RESERVED_TAG);
    put(&mut header, 24, cmd_sn);
    put(&mut header, 28, exp_stat_sn);
    header
}

fn data_out(lun: u64) -> Header {
    let mut header = [0; 48];
    header[0] = 0x05;
    header[8..16].copy_from_slice(&lun.to_be_bytes());
    header
}

fn put(header: &mut Header, at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

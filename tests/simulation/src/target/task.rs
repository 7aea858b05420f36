//! One task of the target: what it waits for, and how it is to end.

use std::collections::VecDeque;

use super::Terms;
use super::codec::{NO_TAG, Pdu};
use super::disk::{Disk, SECTOR_BYTES};
use crate::Failure;
use crate::faults::{Chaos, Fault};

/// How a task is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    /// A status without sense data.
    Status(u8),
    /// Response code, sense key, additional sense code and qualifier.
    Sense(u8, u8, u8, u8),
    /// The same, after half of the data was written.
    Half(u8, u8, u8, u8),
    /// GOOD, with less than was asked for.
    Short,
    /// Never.
    Lost,
}

/// A command and what has come for it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) tag: u32,
    pub(super) cdb: [u8; 16],
    pub(super) expected: usize,
    pub(super) is_write: bool,
    /// What has come of a write.
    pub(super) data: Vec<u8>,
    /// Where the data ends that comes unasked for.
    unsolicited_end: usize,
    unsolicited_sn: u32,
    asked_end: usize,
    r2t_sn: u32,
    r2ts: VecDeque<R2t>,
    is_odd: bool,
    pub(super) due_ms: u64,
    pub(super) fate: Fate,
    /// It is answered without waiting for data.
    pub(super) is_early: bool,
    pub(super) reply: Option<Reply>,
}

#[derive(Debug)]
struct R2t {
    transfer_tag: u32,
    next: usize,
    end: usize,
    data_sn: u32,
}

/// What goes back.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) data: Vec<u8>,
    pub(super) status: u8,
    pub(super) sense: Vec<u8>,
    pub(super) residual: usize,
    pub(super) sent: usize,
    pub(super) data_sn: u32,
    burst_bytes: usize,
}

impl Task {
    /// Takes a SCSI Command apart, with its immediate data.
    pub(super) fn new(pdu: Pdu, terms: &Terms, chaos: &mut Chaos) -> Result<Self, Failure> {
        let mut cdb = [0; 16];
        cdb.copy_from_slice(&pdu.header[32..48]);
        let expected = pdu.get(20) as usize;
        let (is_read, is_write) = (pdu.header[1] & 0x40 != 0, pdu.header[1] & 0x20 != 0);
        let immediate = pdu.data.len();
        let first_burst = expected.min(terms.first_burst);
        let is_fine = match (is_read, is_write) {
            (true, true) => false,
            (_, true) => {
                let may_be_immediate = immediate == 0 || terms.immediate_data;
                let may_follow = pdu.is_final() || !terms.initial_r2t;
                may_be_immediate && may_follow && immediate <= first_burst
            }
            (is_read, false) => immediate == 0 && pdu.is_final() && is_read == (expected > 0),
        };
        if !is_fine {
            return Err(format!("a command that breaks what was agreed: {pdu:02x?}"));
        }
        let unsolicited_end = if pdu.is_final() {
            immediate
        } else {
            first_burst
        };
        let odd = if is_write {
            Fault::OddR2t
        } else {
            Fault::OddDataIn
        };
        let is_moving = unsolicited_end < expected || !is_write && expected > 0;
        Ok(Self {
            tag: pdu.get(16),
            cdb,
            expected,
            is_write,
            data: pdu.data,
            unsolicited_end,
            unsolicited_sn: 0,
            asked_end: unsolicited_end,
            r2t_sn: 0,
            r2ts: VecDeque::new(),
            is_odd: is_moving && chaos.fires(odd),
            due_ms: 0,
            fate: Fate::Good,
            is_early: false,
            reply: None,
        })
    }

    /// Whether all data is there.
    pub(super) fn has_data(&self) -> bool {
        !self.is_write || self.data.len() == self.expected
    }

    /// Takes a Data-Out.
    pub(super) fn data_out(&mut self, pdu: &Pdu, terms: &Terms) -> Result<(), Failure> {
        let offset = pdu.get(40) as usize;
        let end = offset + pdu.data.len();
        let mut arrived = self.data.len();
        let (next, last, sn) = match self.r2ts.front_mut() {
            Some(r2t) if pdu.get(20) == r2t.transfer_tag => {
                (&mut r2t.next, r2t.end, &mut r2t.data_sn)
            }
            _ if pdu.get(20) == NO_TAG && !terms.initial_r2t => {
                (&mut arrived, self.unsolicited_end, &mut self.unsolicited_sn)
            }
            _ => {
                return Err(format!(
                    "a Data-Out that nobody asked for: {:02x?}",
                    pdu.header
                ));
            }
        };
        let is_in_order = offset == *next && offset == self.data.len() && pdu.get(36) == *sn;
        if !is_in_order || end > last || pdu.is_final() != (end == last) {
            return Err(format!("a Data-Out out of place: {:02x?}", pdu.header));
        }
        (*next, *sn) = (end, *sn + 1);
        self.data.extend(&pdu.data);
        if pdu.get(20) != NO_TAG && end == last {
            self.r2ts.pop_front();
        }
        Ok(())
    }

    /// The next R2T, when there is something to ask for.
    pub(super) fn next_r2t(
        &mut self,
        transfer_tag: u32,
        terms: &Terms,
        chaos: &mut Chaos,
    ) -> Option<Pdu> {
        let has_room = self.r2ts.len() < terms.max_r2ts && self.fate != Fate::Lost;
        if !self.is_write || self.asked_end == self.expected || !has_room {
            return None;
        }
        let most = (self.expected - self.asked_end).min(terms.max_burst);
        let length = if self.is_odd {
            1 + chaos.rng.index(most)
        } else {
            most
        };
        let start = self.asked_end;
        self.asked_end += length;
        self.r2ts.push_back(R2t {
            transfer_tag,
            next: start,
            end: self.asked_end,
            data_sn: 0,
        });
        self.r2t_sn += 1;
        Some(
            Pdu::new(0x31)
                .put(16, self.tag)
                .put(20, transfer_tag)
                .put(36, self.r2t_sn - 1)
                .put(40, start as u32)
                .put(44, length as u32),
        )
    }

    /// Does what the command says, as far as its fate allows, and prepares the answer.
    pub(super) fn carry_out(&mut self, disk: &mut Disk) -> Result<(), Failure> {
        let mut reply = Reply::default();
        match self.fate {
            Fate::Good => reply.data = self.run(disk, 1)?,
            Fate::Short => self.run_short(disk, &mut reply)?,
            Fate::Status(status) => reply.status = status,
            Fate::Sense(code, key, asc, ascq) => reply.sense(code, key, asc, ascq),
            Fate::Half(code, key, asc, ascq) => {
                if self.has_data() {
                    self.run(disk, 2)?;
                }
                reply.sense(code, key, asc, ascq);
            }
            Fate::Lost => {}
        }
        self.reply = Some(reply);
        Ok(())
    }

    fn run_short(&mut self, disk: &mut Disk, reply: &mut Reply) -> Result<(), Failure> {
        reply.data = self.run(disk, 2)?;
        if self.is_write {
            reply.residual = self.expected - self.expected / 2 / SECTOR_BYTES * SECTOR_BYTES;
        } else {
            reply.data.truncate(self.expected / 2);
            reply.residual = self.expected - reply.data.len();
        }
        Ok(())
    }

    /// Runs the first `1 / share` of the command; the result is what a read brings.
    fn run(&self, disk: &mut Disk, share: usize) -> Result<Vec<u8>, Failure> {
        let cdb = &self.cdb;
        let (first, count) = match cdb[0] & 0xe0 {
            0x20 => (number(&cdb[2..6]), number(&cdb[7..9])),
            _ => (number(&cdb[2..10]), number(&cdb[10..14])),
        };
        let is_fua = cdb[1] & 0x08 != 0;
        let wrong = || Err(format!("a command that makes no sense: {cdb:02x?}"));
        match cdb[0] {
            0x28 | 0x88 | 0x2a | 0x8a
                if count * SECTOR_BYTES != self.expected || !disk.has(first, count) =>
            {
                return wrong();
            }
            0x28 | 0x88 => return Ok(disk.read(first, count).to_vec()),
            0x2a | 0x8a => {
                let length = count / share * SECTOR_BYTES;
                disk.write(first, &self.data[..length], is_fua);
            }
            0x35 | 0x91 if share == 1 => disk.sync(),
            0x93 if disk.has(first, count) && self.expected == SECTOR_BYTES => {
                disk.write(first, &self.data.repeat(count / share), false);
            }
            0x42 if self.data.len() == 24 => {
                let (first, count) = (number(&self.data[8..16]), number(&self.data[16..20]));
                if !disk.has(first, count) {
                    return wrong();
                }
                // A hint: whoever likes ignores it.
                if first % 2 == 0 {
                    disk.write(first, &vec![0; count * SECTOR_BYTES], false);
                }
            }
            0x35 | 0x91 => {}
            _ => return wrong(),
        }
        Ok(Vec::new())
    }

    /// The next PDU of the answer, and whether it is the last.
    pub(super) fn next_answer(&mut self, terms: &Terms, chaos: &mut Chaos) -> Option<(Pdu, bool)> {
        let (tag, is_odd) = (self.tag, self.is_odd);
        let reply = self.reply.as_mut()?;
        let left = reply.data.len() - reply.sent;
        if left == 0 {
            return Some((reply.response(tag), true));
        }
        let most = left
            .min(terms.initiator_segment)
            .min(terms.max_burst - reply.burst_bytes);
        let length = if is_odd {
            1 + chaos.rng.index(most)
        } else {
            most
        };
        let start = reply.sent;
        reply.sent += length;
        reply.burst_bytes += length;
        reply.data_sn += 1;
        let is_last = length == left;
        let is_burst_over = is_last || reply.burst_bytes == terms.max_burst;
        if is_burst_over {
            reply.burst_bytes = 0;
        }
        let has_status = is_last && reply.status == 0 && chaos.rng.chance(50);
        let residual_flag = if reply.residual > 0 { 0x02 } else { 0 };
        let flags = match (is_burst_over, has_status) {
            (_, true) => 0x81 | residual_flag,
            (true, false) => 0x80,
            (false, false) => 0,
        };
        let mut pdu = Pdu::new(0x25)
            .byte(1, flags)
            .put(16, tag)
            .put(20, NO_TAG)
            .put(36, reply.data_sn - 1)
            .put(40, start as u32)
            .with(reply.data[start..reply.sent].to_vec());
        if has_status {
            pdu = pdu.put(44, reply.residual as u32);
        }
        Some((pdu, has_status))
    }
}

impl Reply {
    fn sense(&mut self, code: u8, key: u8, asc: u8, ascq: u8) {
        self.status = 0x02;
        self.sense = vec![
            code, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0,
        ];
    }

    fn response(&self, tag: u32) -> Pdu {
        let flags = if self.residual > 0 { 0x82 } else { 0x80 };
        let mut pdu = Pdu::new(0x21)
            .byte(1, flags)
            .byte(3, self.status)
            .put(16, tag)
            .put(36, self.data_sn)
            .put(44, self.residual as u32);
        if !self.sense.is_empty() {
            let mut data = (self.sense.len() as u16).to_be_bytes().to_vec();
            data.extend(&self.sense);
            pdu = pdu.with(data);
        }
        pdu
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

//! The target's side of a session: what we send is checked and remembered, what it sends is made
//! here, right unless a fuzzer wants it otherwise.

use iscsi_core::crc32c::Crc32c;
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::pdu::{BHS_LENGTH_BYTES, Bhs, Lengths, padding};
use iscsi_core::sequence::SerialNumber;
use iscsi_core::session::{RequestTag, Transmit};

use crate::Input;

/// The CmdSN of each session's first command: it wraps soon.
pub(crate) const FIRST_CMD_SN: u32 = u32::MAX - 2;

const SCSI_COMMAND: u8 = 0x01;
const TASK_MANAGEMENT: u8 = 0x02;
const DATA_OUT: u8 = 0x05;
const LOGOUT: u8 = 0x06;
const NOP_OUT: u8 = 0x00;

/// A piece of a PDU of ours, behind its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of our own: parameters, zeros, digests, padding.
    Own(usize),
    /// A part of a request's buffer.
    Payload(RequestTag, u32, u32),
}

/// A PDU of ours.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) bhs: Bhs,
    pub(crate) pieces: Vec<Piece>,
}

impl Sent {
    fn length(&self) -> usize {
        self.pieces.iter().fold(0, |sum, piece| {
            sum + match piece {
                Piece::Own(length) => *length,
                Piece::Payload(_, _, length) => *length as usize,
            }
        })
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.bhs[0] & 0x3f
    }

    pub(crate) fn is_command(&self) -> bool {
        self.opcode() == SCSI_COMMAND
    }

    pub(crate) fn is_data_out(&self) -> bool {
        self.opcode() == DATA_OUT
    }

    pub(crate) fn is_abort(&self) -> bool {
        self.opcode() == TASK_MANAGEMENT
    }

    /// The parts of request buffers in it.
    pub(crate) fn payload(&self) -> impl Iterator<Item = (RequestTag, u32, u32)> + '_ {
        self.pieces.iter().filter_map(|piece| match *piece {
            Piece::Payload(request, offset, length) => Some((request, offset, length)),
            Piece::Own(_) => None,
        })
    }

    pub(crate) fn data_bytes(&self) -> u32 {
        u32::try_from(Lengths::of(&self.bhs).data_bytes).expect("24 bits")
    }
}

/// A command that was sent and has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) tag: u32,
    pub(crate) length: u32,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    /// How much of a read was sent, in how many PDUs.
    pub(crate) sent_bytes: u32,
    pub(crate) data_sn: u32,
    /// How far data was asked for, by how many R2Ts.
    pub(crate) asked_bytes: u32,
    pub(crate) r2t_sn: u32,
    /// How many of these are not served yet.
    pub(crate) open_r2ts: u32,
}

/// The target.
#[derive(Debug)]
pub(crate) struct Peer {
    header_digest: bool,
    data_digest: bool,
    max_data_bytes: u32,
    next_cmd_sn: u32,
    pub(crate) stat_sn: u32,
    pub(crate) window: u32,
    pub(crate) tasks: Vec<Task>,
    /// How many more PDUs the sink takes.
    pub(crate) room: usize,
    sent: Vec<Sent>,
}

/// What was agreed on, as the input chooses.
pub(crate) fn negotiated(input: &mut Input<'_>) -> Negotiated {
    let flags = input.byte();
    let lengths = [512, 8192, 65_536, 262_144];
    Negotiated {
        header_digest: flags & 1 != 0,
        data_digest: flags & 2 != 0,
        max_recv_data_segment_length_bytes: input.one_of(&lengths),
        target_max_recv_data_segment_length_bytes: input.one_of(&[512, 4096, 1 << 20, 0xff_ffff]),
        max_burst_length_bytes: input.one_of(&lengths),
        first_burst_length_bytes: input.one_of(&lengths),
        initial_r2t: flags & 4 != 0,
        immediate_data: flags & 8 != 0,
        max_outstanding_r2t: u16::from(flags >> 4 & 7) + 1,
        default_time2wait_s: 0,
        default_time2retain_s: 0,
        data_pdu_in_order: true,
        data_sequence_in_order: true,
        error_recovery_level: 0,
        max_connections: 1,
        target_alias: None,
        target_portal_group_tag: Some(1),
        tsih: 1,
        authentication: String::new(),
        cmd_sn: SerialNumber(FIRST_CMD_SN),
        exp_cmd_sn: SerialNumber(FIRST_CMD_SN),
        max_cmd_sn: SerialNumber(FIRST_CMD_SN.wrapping_add(u32::from(input.byte()))),
        exp_stat_sn: SerialNumber(u32::MAX),
    }
}

impl Peer {
    pub(crate) fn new(negotiated: &Negotiated) -> Self {
        Self {
            header_digest: negotiated.header_digest,
            data_digest: negotiated.data_digest,
            max_data_bytes: negotiated.target_max_recv_data_segment_length_bytes,
            next_cmd_sn: FIRST_CMD_SN,
            stat_sn: negotiated.exp_stat_sn.0,
            window: negotiated
                .max_cmd_sn
                .steps_after(negotiated.cmd_sn)
                .wrapping_add(1),
            tasks: Vec::new(),
            room: 0,
            sent: Vec::new(),
        }
    }

    /// What was sent since the last time: checked, and remembered where a command begins.
    pub(crate) fn take_sent(&mut self) -> Vec<Sent> {
        let sent = std::mem::take(&mut self.sent);
        for pdu in &sent {
            self.check(pdu);
            match pdu.opcode() {
                SCSI_COMMAND => self.begin(pdu),
                DATA_OUT => self.take_data(pdu),
                TASK_MANAGEMENT | LOGOUT | NOP_OUT => {}
                opcode => panic!("opcode {opcode:#x} of an initiator"),
            }
        }
        sent
    }

    /// A PDU is as long as its header says, and no longer than agreed.
    fn check(&self, pdu: &Sent) {
        let lengths = Lengths::of(&pdu.bhs);
        assert_eq!(lengths.ahs_bytes, 0);
        assert!(pdu.data_bytes() <= self.max_data_bytes, "{pdu:?}");
        let digest = |is_used: bool| if is_used { 4 } else { 0 };
        let mut length = digest(self.header_digest);
        if lengths.data_bytes > 0 {
            let padding = padding(lengths.data_bytes);
            length += lengths.data_bytes + padding + digest(self.data_digest);
        }
        assert_eq!(pdu.length(), length, "{pdu:?}");
    }

    fn begin(&mut self, pdu: &Sent) {
        let cmd_sn = field(&pdu.bhs, 24);
        assert_eq!(cmd_sn, self.next_cmd_sn, "CmdSN");
        self.next_cmd_sn = cmd_sn.wrapping_add(1);
        let tag = field(&pdu.bhs, 16);
        assert!(self.task(tag).is_none(), "the tag {tag:#x} is in use");
        let length = field(&pdu.bhs, 20);
        let writes = pdu.bhs[1] & 0x20 != 0;
        let data_bytes = pdu.data_bytes();
        assert!(data_bytes == 0 || writes && data_bytes <= length);
        self.tasks.push(Task {
            tag,
            length,
            reads: pdu.bhs[1] & 0x40 != 0,
            writes,
            sent_bytes: 0,
            data_sn: 0,
            asked_bytes: data_bytes,
            r2t_sn: 0,
            open_r2ts: 0,
        });
    }

    /// Data that nobody asked for need not be asked for.
    fn take_data(&mut self, pdu: &Sent) {
        let end = field(&pdu.bhs, 40).checked_add(pdu.data_bytes());
        let end = end.expect("an end within 32 bits");
        if let Some(task) = self.task_mut(field(&pdu.bhs, 16)) {
            assert!(task.writes && end <= task.length);
            if field(&pdu.bhs, 20) == u32::MAX {
                task.asked_bytes = end;
            } else if pdu.bhs[1] & 0x80 != 0 {
                // One that came in raw bytes was not counted.
                task.open_r2ts = task.open_r2ts.saturating_sub(1);
            }
            assert!(end <= task.asked_bytes, "data that nobody asked for");
        }
    }

    pub(crate) fn task(&self, tag: u32) -> Option<&Task> {
        self.tasks.iter().find(|task| task.tag == tag)
    }

    pub(crate) fn task_mut(&mut self, tag: u32) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.tag == tag)
    }

    pub(crate) fn end(&mut self, tag: u32) {
        self.tasks.retain(|task| task.tag != tag);
    }

    /// A header with the numbers that belong there; a status takes a StatSN.
    pub(crate) fn header(&mut self, opcode: u8, flags: u8, tag: u32, takes_stat_sn: bool) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = opcode;
        bhs[1] = flags;
        put(&mut bhs, 16, tag);
        put(&mut bhs, 24, self.stat_sn);
        put(&mut bhs, 28, self.next_cmd_sn);
        let last = self.next_cmd_sn.wrapping_add(self.window).wrapping_sub(1);
        put(&mut bhs, 32, last);
        if takes_stat_sn {
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        bhs
    }

    /// A whole PDU on the wire.
    pub(crate) fn pdu(&self, bhs: &Bhs, data: &[u8]) -> Vec<u8> {
        let mut bhs = *bhs;
        let [_, a, b, c] = u32::try_from(data.len()).expect("short data").to_be_bytes();
        (bhs[5], bhs[6], bhs[7]) = (a, b, c);
        let mut bytes = bhs.to_vec();
        // Additional header segments, if the header has come to say so.
        bytes.resize(bytes.len() + usize::from(bhs[4]) * 4, 0);
        if self.header_digest {
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        }
        let start = bytes.len();
        bytes.extend(data);
        bytes.resize(start + data.len().next_multiple_of(4), 0);
        if self.data_digest && !data.is_empty() {
            bytes.extend(crc32c::crc32c(&bytes[start..]).to_le_bytes());
        }
        bytes
    }

    fn last(&mut self) -> &mut Sent {
        self.sent.last_mut().expect("a header first")
    }
}

impl Transmit for Peer {
    fn has_room(&self) -> bool {
        self.room > 0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // Nothing else of ours has this length: parameters have 24 bytes, trailers 7 at most.
        match <&Bhs>::try_from(bytes) {
            Ok(bhs) => {
                self.room = self.room.saturating_sub(1);
                self.sent.push(Sent {
                    bhs: *bhs,
                    pieces: Vec::new(),
                });
            }
            Err(_) => self.last().pieces.push(Piece::Own(bytes.len())),
        }
    }

    fn zeros(&mut self, length_bytes: u32) {
        self.last().pieces.push(Piece::Own(length_bytes as usize));
    }

    fn payload(&mut self, request: RequestTag, offset_bytes: u32, length_bytes: u32) {
        let piece = Piece::Payload(request, offset_bytes, length_bytes);
        self.last().pieces.push(piece);
    }

    fn payload_with_digest(
        &mut self,
        request: RequestTag,
        offset_bytes: u32,
        length_bytes: u32,
        crc32c: Crc32c,
    ) -> u32 {
        self.payload(request, offset_bytes, length_bytes);
        crc32c(0, &offset_bytes.to_be_bytes())
    }
}

/// The number at a place of a header.
pub(crate) fn field(bhs: &Bhs, at: usize) -> u32 {
    let bytes = bhs.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .copied()
        .map(u32::from_be_bytes)
        .expect("in the header")
}

/// Writes the number at a place of a header.
pub(crate) fn put(bhs: &mut Bhs, at: usize, value: u32) {
    let place = bhs.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    *place.expect("in the header") = value.to_be_bytes();
}

/// Writes a few bytes somewhere in a header, as the input says.
pub(crate) fn spoil(bhs: &mut Bhs, input: &mut Input<'_>) {
    for _ in 0..input.byte() & 3 {
        let at = input.below(BHS_LENGTH_BYTES);
        bhs[at] = input.byte();
    }
}

//! Block requests of a guest, a session under them, and a target that answers as it likes.
//!
//! At the end a target that does everything right takes over: then every request has to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use iscsi_core::disk::facts::{BlockLimits, CommandWidth, Identity, LunFacts, Provisioning};
use iscsi_core::disk::request::{BlockOperation, Extent};
use iscsi_core::disk::requests::{Admitted, Completion, Requests};
use iscsi_core::error::SessionError;
use iscsi_core::limits::RETRY_DELAY_MS;
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::session::{Event, Placement, Received, RequestTag, Session};

use crate::Input;
use crate::peer::{Peer, Task, negotiated, put, spoil};

/// More than there are requests times commands of one, times the ways of writing zeros.
const MAX_TURNS: usize = 20_000;
/// The capacity of the disk in blocks.
const CAPACITY: u64 = 4096;

/// A request of the guest that has not ended.
#[derive(Debug)]
struct Live {
    operation: BlockOperation,
    /// Which bytes of a read have arrived.
    arrived: Vec<bool>,
    length: u64,
}

struct Run {
    requests: Requests,
    negotiated: Negotiated,
    session: Session,
    peer: Peer,
    now_ms: u64,
    live: BTreeMap<u32, Live>,
    completed: u64,
}

/// The first bytes are the disk and what was agreed on; then all sides act as the input says.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let facts = facts(&mut input);
    let table = 1 + input.below(8);
    let mut negotiated = negotiated(&mut input);
    // A disk of small requests needs no long bursts.
    negotiated.max_burst_length_bytes = negotiated.max_burst_length_bytes.min(65_536);
    let mut run = Run {
        requests: Requests::new(facts, 0, table, Arc::default()),
        session: Session::new(negotiated.clone(), crc32c::crc32c_append, 0),
        peer: Peer::new(&negotiated),
        negotiated,
        now_ms: 0,
        live: BTreeMap::new(),
        completed: 0,
    };
    while !input.is_empty() {
        run.step(&mut input);
        assert_eq!(run.requests.in_flight(), run.live.len());
    }
    run.finish();
    run.completed
}

fn facts(input: &mut Input<'_>) -> LunFacts {
    let flags = input.word();
    let flag = |bit: u16| flags >> bit & 1 != 0;
    let block_length_bytes = if flag(0) { 4096 } else { 512 };
    let width = |ten| {
        if ten {
            CommandWidth::Ten
        } else {
            CommandWidth::Sixteen
        }
    };
    let limit = |input: &mut Input<'_>| Some(u32::from(input.byte())).filter(|&n| n != 0);
    LunFacts {
        identity: Identity {
            designators: Vec::new(),
            serial: Vec::new(),
            block_length_bytes,
        },
        vendor: String::new(),
        product: String::new(),
        revision: String::new(),
        block_length_bytes,
        capacity_blocks: CAPACITY,
        physical_block_exponent: 0,
        lowest_aligned_block: 0,
        write_protected: flag(1),
        write_cache: flag(2),
        fua: flag(3),
        width: width(flag(4)),
        sync_cache: width(flag(5)),
        provisioning: Provisioning {
            thin: flag(6),
            reads_zeros: flag(7),
            unmap: flag(8),
            write_same_unmap: flag(9),
        },
        limits: BlockLimits {
            max_transfer_blocks: limit(input),
            max_unmap_blocks: limit(input),
            unmap_granularity_blocks: limit(input),
            unmap_alignment_blocks: limit(input),
            max_write_same_blocks: limit(input).map(u64::from),
            ..BlockLimits::default()
        },
        rotates: None,
    }
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        let outcome = match input.byte() & 15 {
            0..=3 => {
                self.admit(input);
                self.send(input.byte().into());
                Ok(())
            }
            4 => {
                self.send(input.byte().into());
                Ok(())
            }
            5..=11 => self.answer(input),
            12 => {
                self.now_ms += u64::from(input.byte()) * 10;
                self.session.handle_timeout(self.now_ms).map(drop)
            }
            13 => {
                let length = input.byte();
                let bytes = input.bytes(length.into());
                self.deliver(bytes, None)
            }
            14 => {
                self.lose();
                self.change_facts(input);
                Ok(())
            }
            _ => {
                self.lose();
                self.abandon(input);
                Ok(())
            }
        };
        if outcome.is_err() {
            self.lose();
        }
    }

    fn admit(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        let (unmap, stable) = (kind & 0x80 != 0, kind & 0x40 != 0);
        let operation = match kind & 7 {
            0..=2 => BlockOperation::Read,
            3 | 4 => BlockOperation::Write { stable },
            5 => BlockOperation::Flush,
            6 => BlockOperation::Discard,
            _ => BlockOperation::WriteZeroes { unmap, stable },
        };
        let count = match kind & 7 {
            0..=4 => 1,
            5 => 0,
            _ => usize::from(kind >> 3 & 3),
        };
        let extents: Vec<Extent> = (0..count)
            .map(|_| {
                let sector = u64::from(input.word());
                let length = u64::from(input.byte() & 0x3f) * 512;
                let scale = if kind & 0x20 == 0 { 1 } else { 4 };
                Extent {
                    sector,
                    length_bytes: length * scale,
                }
            })
            .collect();
        let free = self.requests.next_free();
        let length = extents.iter().map(|extent| extent.length_bytes).sum();
        match self.requests.admit(operation, extents.into_iter()) {
            Ok(Admitted::InFlight) => {
                let RequestTag(tag) = free.expect("a free slot");
                let reads = operation == BlockOperation::Read;
                let arrived = if reads { length } else { 0 };
                let live = Live {
                    operation,
                    arrived: vec![false; usize::try_from(arrived).expect("short reads")],
                    length,
                };
                assert!(self.live.insert(tag, live).is_none(), "the slot is in use");
            }
            Ok(Admitted::Done) => self.requests.release(free.expect("a free slot")),
            Ok(Admitted::Full) => assert!(free.is_none()),
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }

    fn send(&mut self, room: usize) {
        self.requests.submit_to(&mut self.session, self.now_ms);
        self.peer.room = room;
        self.session.transmit(&mut self.peer);
        for pdu in self.peer.take_sent() {
            for (request, offset, length) in pdu.payload() {
                let live = self.live.get(&request.0).expect("data of a living request");
                assert!(matches!(live.operation, BlockOperation::Write { .. }));
                assert!(u64::from(offset) + u64::from(length) <= live.length);
            }
        }
    }

    /// The target does something about a command.
    fn answer(&mut self, input: &mut Input<'_>) -> Result<(), SessionError> {
        let kind = input.byte();
        let which = usize::from(input.byte());
        let count = self.peer.tasks.len().max(1);
        let Some(task) = self.peer.tasks.get(which % count).copied() else {
            return Ok(());
        };
        let pdu = match kind & 7 {
            0 | 1 => self.good(&task),
            2 => self.ask(&task),
            3 => self.data_in(&task, u32::from(input.byte()) * 64),
            4 => self.response(&task, input.byte(), &sense(input), 0),
            5 => {
                let lost = u32::from(input.word()).min(task.length);
                self.response(&task, 0, &[], lost)
            }
            6 => {
                let mut bhs = self.peer.header(0x3f, 0x80, u32::MAX, true);
                bhs[2] = input.byte();
                let mut refused = [0; 48];
                refused[0] = 1;
                put(&mut refused, 16, task.tag);
                self.peer.pdu(&bhs, &refused)
            }
            _ => {
                let mut bhs = self.peer.header(0x21, 0x80, task.tag, true);
                spoil(&mut bhs, input);
                self.peer.pdu(&bhs, &[])
            }
        };
        if kind & 0x40 != 0 {
            self.peer.window = input.byte().into();
        }
        self.deliver(&pdu, Some(task.tag))
    }

    /// Whatever a good target does next for a command.
    fn good(&mut self, task: &Task) -> Vec<u8> {
        if task.reads && task.sent_bytes < task.length {
            return self.data_in(task, u32::MAX);
        }
        if task.writes && task.asked_bytes < task.length {
            return self.ask(task);
        }
        self.response(task, 0, &[], 0)
    }

    fn data_in(&mut self, task: &Task, length: u32) -> Vec<u8> {
        let left = task.length - task.sent_bytes;
        let most = self.negotiated.max_recv_data_segment_length_bytes;
        let length = length.min(left).min(most);
        let mut bhs = self.peer.header(0x25, 0x80, task.tag, false);
        put(&mut bhs, 36, task.data_sn);
        put(&mut bhs, 40, task.sent_bytes);
        if let Some(task) = self.peer.task_mut(task.tag) {
            task.sent_bytes += length;
            task.data_sn += 1;
        }
        self.peer.pdu(&bhs, &vec![0x5a; length as usize])
    }

    fn ask(&mut self, task: &Task) -> Vec<u8> {
        let left = task.length - task.asked_bytes;
        let length = left.min(self.negotiated.max_burst_length_bytes);
        let mut bhs = self.peer.header(0x31, 0x80, task.tag, false);
        put(&mut bhs, 20, task.r2t_sn);
        put(&mut bhs, 36, task.r2t_sn);
        put(&mut bhs, 40, task.asked_bytes);
        put(&mut bhs, 44, length);
        if let Some(task) = self.peer.task_mut(task.tag) {
            task.asked_bytes += length;
            task.r2t_sn += 1;
            task.open_r2ts += 1;
        }
        self.peer.pdu(&bhs, &[])
    }

    fn response(&mut self, task: &Task, status: u8, sense: &[u8], lost: u32) -> Vec<u8> {
        let flags = if lost > 0 { 0x82 } else { 0x80 };
        let mut bhs = self.peer.header(0x21, flags, task.tag, true);
        bhs[3] = status;
        put(&mut bhs, 44, lost);
        let mut data = Vec::new();
        if !sense.is_empty() {
            let length = u16::try_from(sense.len()).expect("short sense data");
            data.extend(length.to_be_bytes());
            data.extend(sense);
        }
        self.peer.pdu(&bhs, &data)
    }

    /// Bytes arrive; those of a PDU that is about one task, or any. A task that ends is the one
    /// that they are about: if they are about none, nobody knows which, and the session is lost.
    fn deliver(&mut self, bytes: &[u8], tag: Option<u32>) -> Result<(), SessionError> {
        let before = self.session.tasks_in_flight();
        self.receive(bytes)?;
        match tag {
            _ if self.session.tasks_in_flight() == before => {}
            Some(tag) => self.peer.end(tag),
            None => self.lose(),
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let mut rest = bytes;
        loop {
            let (consumed, received) = self.session.receive(rest, self.now_ms)?;
            rest = &rest[consumed..];
            match received {
                Received::NeedBytes { .. } if rest.is_empty() => return Ok(()),
                // A cut header has to be kept by whoever reads; here the rest of it never comes.
                Received::NeedBytes { .. } => return Err(SessionError::LogoutUnanswered),
                Received::Payload(_) if rest.is_empty() => return Ok(()),
                Received::Payload(placement) => {
                    let length = rest.len().min(placement.length_bytes as usize);
                    let (placed, behind) = rest.split_at(length);
                    self.place(&placement, length);
                    self.session.placed(placed);
                    rest = behind;
                }
                Received::Event(event) => self.event(event),
            }
        }
    }

    fn place(&mut self, placement: &Placement, length: usize) {
        let live = self.live.get_mut(&placement.request.0);
        let live = live.unwrap_or_else(|| panic!("nobody's: {placement:?}"));
        let start = placement.offset_bytes as usize;
        let end = start + placement.length_bytes as usize;
        assert!(end <= live.arrived.len(), "{placement:?} for {live:?}");
        live.arrived[start..start + length].fill(true);
    }

    fn event(&mut self, event: Event) {
        let (request, completion) = match event {
            Event::CommandDone { request, outcome } => (
                request,
                self.requests.command_done(request, &outcome, self.now_ms),
            ),
            Event::CommandRejected { request, reason } => (
                request,
                self.requests.command_rejected(request, reason, self.now_ms),
            ),
            _ => return,
        };
        assert!(self.live.contains_key(&request.0), "an answer to nobody");
        if let Some(completion) = completion {
            assert_eq!(completion.request, request);
            self.complete(&completion);
        }
    }

    fn complete(&mut self, completion: &Completion) {
        let live = self.live.remove(&completion.request.0);
        let live = live.expect("a request ends once");
        match completion.result {
            Ok(()) => assert!(live.arrived.iter().all(|arrived| *arrived), "{live:?}"),
            Err(failure) => assert!(!failure.to_string().is_empty()),
        }
        self.requests.release(completion.request);
        self.completed += 1;
    }

    fn lose(&mut self) {
        self.requests.session_lost();
        for live in self.live.values_mut() {
            live.arrived.fill(false);
        }
        self.session = Session::new(self.negotiated.clone(), crc32c::crc32c_append, self.now_ms);
        self.peer = Peer::new(&self.negotiated);
    }

    /// The disk comes back with other properties.
    fn change_facts(&mut self, input: &mut Input<'_>) {
        let mut facts = facts(input);
        facts.block_length_bytes = self.requests.facts().block_length_bytes;
        self.requests.set_facts(facts);
    }

    fn abandon(&mut self, input: &mut Input<'_>) {
        let which = usize::from(input.byte());
        let count = self.live.len().max(1);
        let Some(tag) = self.live.keys().nth(which % count).copied() else {
            return;
        };
        self.live.remove(&tag);
        assert!(self.requests.abandon(RequestTag(tag)));
        self.requests.release(RequestTag(tag));
        assert!(!self.requests.abandon(RequestTag(tag)));
    }

    /// A good target on a new session: nothing may be left.
    fn finish(&mut self) {
        self.negotiated.max_cmd_sn = self.negotiated.cmd_sn.plus(31);
        self.lose();
        for _ in 0..MAX_TURNS {
            self.send(usize::MAX);
            let Some(task) = self.peer.tasks.first().copied() else {
                match self.requests.next_timeout_ms() {
                    Some(_) => self.now_ms += RETRY_DELAY_MS,
                    None => break,
                }
                continue;
            };
            let pdu = self.good(&task);
            let delivered = self.deliver(&pdu, Some(task.tag));
            delivered.expect("a good target");
        }
        assert!(self.live.is_empty(), "never ends: {:?}", self.live);
        assert!(!self.requests.has_backlog());
    }
}

/// Sense data: of a kind that is known to matter, or any.
fn sense(input: &mut Input<'_>) -> Vec<u8> {
    let codes = [
        [6, 0x29, 0],
        [5, 0x20, 0],
        [5, 0x24, 0],
        [2, 0x04, 1],
        [3, 0x11, 0],
        [0xb, 0, 0],
        [1, 0x17, 0],
        [7, 0x27, 7],
    ];
    let kind = input.byte();
    if kind & 0x80 != 0 {
        let length = input.byte() & 31;
        return input.bytes(length.into()).to_vec();
    }
    let [key, asc, ascq] = codes[usize::from(kind & 7)];
    // Bit 4: a deferred error.
    let mut sense = [0; 18];
    sense[0] = 0x70 | kind >> 4 & 1;
    (sense[2], sense[7], sense[12], sense[13]) = (key, 10, asc, ascq);
    sense.to_vec()
}

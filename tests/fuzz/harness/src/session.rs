//! A session in full-feature phase: commands in flight, and any bytes from the target.

use iscsi_core::error::SessionError;
use iscsi_core::limits::{MAX_QUEUED_NOP_ANSWERS, MAX_TASKS};
use iscsi_core::scsi::command::{ScsiCommand, ScsiData};
use iscsi_core::session::{Command, Event, Placement, Received, RequestTag, Session};

use crate::Input;
use crate::peer::{Peer, Sent, field, negotiated, put, spoil};

/// A header, additional segments, and digests: what the session may ask for at once.
const MAX_WANTED_BYTES: usize = 48 + 255 * 4 + 4;
/// What may wait for a task: to be sent, to be served, to be aborted. A former task of its slot may
/// have left the last two behind, but then it has not been sent itself, so it cannot be served.
const PER_TASK: usize = 3;
/// What may wait beside: answers to pings, a ping and a logout.
const OTHERS: usize = MAX_QUEUED_NOP_ANSWERS + 2;

/// A command that was submitted and has not ended.
#[derive(Debug)]
struct Live {
    command: Command,
    /// Its tag, once it was sent.
    tag: Option<u32>,
    /// Its owner wants it aborted.
    aborted: bool,
    /// The target was asked to.
    abort_sent: bool,
    placed_bytes: u32,
}

struct Run {
    session: Session,
    peer: Peer,
    data_digest: bool,
    now_ms: u64,
    /// How many bytes arrive at once; 0 for all.
    fragment: usize,
    /// What has arrived, and how much of that is dealt with.
    arrived: Vec<u8>,
    done: usize,
    submitted: u32,
    live: Vec<Live>,
    ended: u64,
    logging_out: bool,
}

/// The first bytes are what was agreed on; then both sides act as the input says, until the
/// session is over.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let negotiated = negotiated(&mut input);
    let mut run = Run {
        peer: Peer::new(&negotiated),
        data_digest: negotiated.data_digest,
        session: Session::new(negotiated, crc32c::crc32c_append, 0),
        now_ms: 0,
        fragment: 0,
        arrived: Vec::new(),
        done: 0,
        submitted: 0,
        live: Vec::new(),
        ended: 0,
        logging_out: false,
    };
    while !input.is_empty() {
        if let Err(error) = run.step(&mut input) {
            assert!(!error.to_string().is_empty());
            break;
        }
        run.check();
    }
    run.ended
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) -> Result<(), SessionError> {
        match input.byte() & 15 {
            0..=2 => self.submit(input),
            3 => self.abort(input),
            4 => {
                self.session.log_out();
                self.logging_out = true;
            }
            5 => return self.pass_time(input),
            6..=8 => self.transmit(input),
            9..=12 => return self.answer(input),
            13 => {
                self.fragment = input.byte().into();
            }
            _ => {
                let length = input.byte();
                let bytes = input.bytes(length.into());
                return self.deliver(bytes);
            }
        }
        Ok(())
    }

    fn check(&self) {
        assert_eq!(self.session.tasks_in_flight(), self.live.len());
        let queued = self.session.queued();
        let of_tasks = PER_TASK * self.submitted as usize;
        assert!(queued <= of_tasks.min(4 * MAX_TASKS) + OTHERS, "{queued}");
        assert!(self.live.len() <= MAX_TASKS);
        let data_bytes = self.live.iter().map(|live| u64::from(live.length()));
        assert_eq!(self.session.data_bytes(), data_bytes.sum::<u64>());
        assert!(self.session.next_timeout_ms() <= self.now_ms + 20_000);
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let request = RequestTag(self.submitted);
        let kind = input.byte();
        let offset_bytes = u32::from(input.byte()) << 8;
        let length_bytes = match kind >> 4 & 3 {
            0 => u32::from(input.byte()) * 512,
            1 => u32::from(input.byte()),
            2 => u32::from(input.word()) * 64,
            _ => input.long() >> 1,
        };
        let data = match kind & 7 {
            0 => ScsiData::None,
            1..=3 => ScsiData::In {
                offset_bytes,
                length_bytes,
            },
            4 | 5 => ScsiData::Out {
                offset_bytes,
                length_bytes,
            },
            6 => ScsiData::Zeros { length_bytes },
            _ => ScsiData::Parameters { bytes: [7; 24] },
        };
        let scsi = ScsiCommand {
            cdb: [kind; 16],
            data,
        };
        let lun = u64::from(kind) << 48;
        let command = Command { request, lun, scsi };
        let expected = self.session.can_submit();
        let submitted = self.session.submit(command, self.now_ms);
        assert_eq!(submitted, expected);
        if submitted.is_ok() {
            assert!(!self.logging_out);
            self.submitted += 1;
            self.live.push(Live {
                command,
                tag: None,
                aborted: false,
                abort_sent: false,
                placed_bytes: 0,
            });
        }
    }

    /// Each request is aborted once: its owner knows.
    fn abort(&mut self, input: &mut Input<'_>) {
        let which = usize::from(input.byte());
        let count = self.live.len().max(1);
        if let Some(live) = self.live.get_mut(which % count).filter(|l| !l.aborted) {
            live.aborted = true;
            assert_eq!(self.session.abort(live.command.request), 1);
        }
    }

    fn pass_time(&mut self, input: &mut Input<'_>) -> Result<(), SessionError> {
        self.now_ms += u64::from(input.byte()) * 100;
        self.session.handle_timeout(self.now_ms).map(drop)
    }

    fn transmit(&mut self, input: &mut Input<'_>) {
        self.peer.room = input.byte().into();
        self.session.transmit(&mut self.peer);
        for pdu in self.peer.take_sent() {
            self.sent(&pdu);
        }
    }

    fn sent(&mut self, pdu: &Sent) {
        let tag = field(&pdu.bhs, 16);
        if pdu.is_command() {
            let unsent = self.live.iter_mut().find(|live| live.tag.is_none());
            let live = unsent.expect("a command that was submitted");
            assert_eq!(pdu.bhs[32..], live.command.scsi.cdb);
            assert_eq!(field(&pdu.bhs, 20), live.length());
            live.tag = Some(tag);
        }
        if pdu.is_abort() {
            let task = field(&pdu.bhs, 20);
            let live = self.live.iter_mut().find(|live| live.tag == Some(task));
            let live = live.expect("an abort of a living command");
            assert!(live.aborted && !live.abort_sent);
            live.abort_sent = true;
        }
        let offset = if pdu.is_data_out() {
            field(&pdu.bhs, 40)
        } else {
            0
        };
        for (request, from, length) in pdu.payload() {
            let live = self.live.iter().find(|live| live.tag == Some(tag));
            let live = live.expect("data of a living command");
            assert_eq!(live.command.request, request);
            let ScsiData::Out { offset_bytes, .. } = live.command.scsi.data else {
                panic!("data of a command that has none: {live:?}");
            };
            assert_eq!(u64::from(from), u64::from(offset_bytes) + u64::from(offset));
            let end = u64::from(offset) + u64::from(length);
            assert!(end <= u64::from(live.length()), "beyond the data");
        }
    }

    /// A PDU of the target, right but for what the input says.
    fn answer(&mut self, input: &mut Input<'_>) -> Result<(), SessionError> {
        let kind = input.byte();
        let which = input.byte();
        let count = self.peer.tasks.len().max(1);
        let task = self.peer.tasks.get(usize::from(which) % count);
        let tag = task.map_or(u32::from(which), |task| task.tag);
        let mut data = Vec::new();
        let mut bhs = match kind & 15 {
            0..=2 => {
                let mut bhs = self.peer.header(0x21, 0x80, tag, true);
                if kind & 0x40 != 0 {
                    bhs[2] = input.byte();
                    bhs[3] = input.byte();
                    residual(&mut bhs, input);
                    let length = input.byte();
                    data = input.bytes(length.into()).to_vec();
                }
                bhs
            }
            3..=6 => {
                let is_last = kind & 0x40 != 0;
                let mut bhs = self.peer.header(0x25, 0, tag, is_last);
                let mut length = u32::from(input.word() & 0xfff);
                if let Some(task) = self.peer.task_mut(tag) {
                    if length == 0xfff {
                        length = (task.length - task.sent_bytes).min(0x4000);
                    }
                    put(&mut bhs, 36, task.data_sn);
                    put(&mut bhs, 40, task.sent_bytes);
                    task.data_sn += 1;
                    task.sent_bytes = task.length.min(task.sent_bytes.saturating_add(length));
                }
                if is_last {
                    bhs[1] = 0x81;
                    residual(&mut bhs, input);
                }
                data = vec![0x5a; length as usize];
                bhs
            }
            7 | 8 => {
                let mut bhs = self.peer.header(0x31, 0x80, tag, false);
                let length = u32::from(input.byte()) * 512;
                put(&mut bhs, 20, u32::from(kind));
                if let Some(task) = self.peer.task_mut(tag) {
                    let length = length.min(task.length - task.asked_bytes);
                    put(&mut bhs, 36, task.r2t_sn);
                    put(&mut bhs, 40, task.asked_bytes);
                    put(&mut bhs, 44, length);
                    task.r2t_sn += 1;
                    task.open_r2ts += u32::from(kind & 0x80 == 0);
                    task.asked_bytes += length;
                }
                bhs
            }
            9 => {
                let mut bhs = self.peer.header(0x20, 0x80, u32::MAX, false);
                put(&mut bhs, 20, u32::from(input.byte()));
                bhs
            }
            10 => {
                let mut bhs = self.peer.header(0x20, 0x80, 0x8000_0000, true);
                put(&mut bhs, 20, u32::MAX);
                bhs
            }
            11 => {
                let mut bhs = self.peer.header(0x22, 0x80, tag | 0x4000_0000, true);
                bhs[2] = input.byte();
                bhs
            }
            12 => {
                let mut bhs = self.peer.header(0x32, 0x80, u32::MAX, true);
                bhs[36] = input.byte();
                bhs
            }
            13 => {
                let mut bhs = self.peer.header(0x3f, 0x80, u32::MAX, true);
                bhs[2] = input.byte();
                let mut refused = [0; 48];
                refused[0] = input.byte();
                put(&mut refused, 16, tag);
                data = refused.to_vec();
                bhs
            }
            14 => {
                let mut bhs = self.peer.header(0x26, 0x80, 0x8000_0001, true);
                bhs[2] = input.byte();
                bhs
            }
            _ => self.peer.header(input.byte(), input.byte(), tag, true),
        };
        if kind & 0x80 != 0 {
            self.peer.window = input.byte().into();
            spoil(&mut bhs, input);
        }
        let pdu = self.peer.pdu(&bhs, &data);
        self.deliver(&pdu)?;
        let most = self.session.negotiated().max_outstanding_r2t;
        let open = self.peer.tasks.iter().map(|task| task.open_r2ts);
        assert!(open.max() <= Some(most.into()), "more R2Ts than agreed");
        Ok(())
    }

    /// Bytes arrive, in pieces.
    fn deliver(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        self.arrived.drain(..self.done);
        self.done = 0;
        self.arrived.extend(bytes);
        let piece = match self.fragment {
            0 => self.arrived.len(),
            fragment => fragment,
        };
        let mut end = piece.min(self.arrived.len());
        loop {
            let shown = &self.arrived[self.done..end];
            let (consumed, received) = self.session.receive(shown, self.now_ms)?;
            assert!(consumed <= shown.len(), "more than there is");
            self.done += consumed;
            let seen = end - self.done;
            let wants_more = match received {
                Received::NeedBytes { at_least } => {
                    assert!(at_least > seen, "{at_least} wanted, {seen} there");
                    assert!(at_least <= MAX_WANTED_BYTES);
                    true
                }
                Received::Payload(placement) => !self.place(&placement, end),
                Received::Event(event) => {
                    self.event(event);
                    false
                }
            };
            if wants_more && end == self.arrived.len() {
                return Ok(());
            }
            if wants_more {
                end = self.arrived.len().min(end + piece);
            }
        }
    }

    /// Takes what is there of a placement; whether anything is.
    fn place(&mut self, placement: &Placement, end: usize) -> bool {
        assert!(placement.length_bytes > 0);
        assert_eq!(placement.may_be_direct, !self.data_digest);
        let request = placement.request;
        let live = self.live.iter_mut().find(|l| l.command.request == request);
        let live = live.unwrap_or_else(|| panic!("nobody's: {placement:?}"));
        let ScsiData::In { offset_bytes, .. } = live.command.scsi.data else {
            panic!("no room: {placement:?} for {live:?}");
        };
        let at = u64::from(placement.offset_bytes);
        let place = u64::from(offset_bytes) + u64::from(live.placed_bytes);
        let room = u64::from(offset_bytes) + u64::from(live.length());
        assert_eq!(at, place, "{live:?}");
        assert!(at + u64::from(placement.length_bytes) <= room, "{live:?}");
        let length = (end - self.done).min(placement.length_bytes as usize);
        if length == 0 {
            return false;
        }
        live.placed_bytes += u32::try_from(length).expect("a short piece");
        let bytes = &self.arrived[self.done..self.done + length];
        self.done += length;
        if placement.may_be_direct && length.is_multiple_of(2) {
            self.session.placed_directly(length, self.now_ms);
        } else {
            self.session.placed(bytes);
        }
        true
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::CommandDone { request, outcome } => {
                let live = self.end(request);
                assert!(!live.abort_sent, "an end instead of that of the abort");
                assert_eq!(outcome.expected_bytes, live.length());
                assert!(outcome.transferred_bytes <= live.length());
                if matches!(live.command.scsi.data, ScsiData::In { .. }) {
                    assert_eq!(outcome.transferred_bytes, live.placed_bytes);
                }
                assert!(outcome.sense.as_bytes().is_empty() || outcome.scsi_status() == 2);
            }
            Event::CommandRejected { request, .. } => {
                self.end(request);
            }
            // Refused, it may still be answered, and that is dropped.
            Event::AbortDone { request, response } if !response.is_over() => {
                let mut live = self.live.iter();
                let asked = live.any(|live| live.command.request == request && live.abort_sent);
                assert!(asked, "nobody asked for it");
            }
            Event::AbortDone { request, .. } => {
                assert!(self.end(request).abort_sent, "nobody asked for it");
            }
            Event::LoggedOut { .. } => assert!(self.logging_out),
            Event::ResetDone { .. } => panic!("nobody asked for a reset"),
            Event::Async(_) | Event::Rejected(_) => {}
        }
    }

    /// A command has ended, for the first time.
    fn end(&mut self, request: RequestTag) -> Live {
        let is_it = |live: &Live| live.command.request == request;
        let at = self.live.iter().position(is_it);
        let at = at.unwrap_or_else(|| panic!("a second end of {request:?}"));
        self.ended += 1;
        let live = self.live.remove(at);
        self.peer.end(live.tag.expect("what was sent"));
        live
    }
}

impl Live {
    fn length(&self) -> u32 {
        self.command.scsi.data.length_bytes()
    }
}

fn residual(bhs: &mut [u8; 48], input: &mut Input<'_>) {
    let kind = input.byte();
    bhs[1] |= kind & 6;
    if kind & 6 != 0 {
        put(bhs, 44, u32::from(input.word()));
    }
}

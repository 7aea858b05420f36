//! A session as the target sees it: numbers, window, tasks, and what it does in which order.

use super::Terms;
use super::codec::{Digests, NO_TAG, Parsed, Pdu};
use super::disk::Disk;
use super::task::{Fate, Task};
use crate::Failure;
use crate::faults::{Chaos, Fault};
use crate::wire::Link;

/// One session with one connection. It outlives the connection, and so do its tasks.
#[derive(Debug)]
pub(super) struct TargetSession {
    terms: Terms,
    stream: Vec<u8>,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    stat_sn: u32,
    /// Until then the window is not moved on.
    window_shut_until_ms: Option<u64>,
    tasks: Vec<Task>,
    next_transfer_tag: u32,
    /// An abort was not answered: no other may follow it.
    owes_abort: bool,
    /// The initiator had the logical unit reset.
    pub(super) has_reset: bool,
    /// Answers that are to be given once more.
    ghosts: Vec<(u64, Pdu)>,
    /// A digest was wrong, or a logout is done: nothing is said any more.
    is_mute: bool,
}

impl TargetSession {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            stream: Vec::new(),
            exp_cmd_sn: terms.cmd_sn,
            max_cmd_sn: terms.cmd_sn.wrapping_add(terms.window).wrapping_sub(1),
            stat_sn: terms.stat_sn,
            window_shut_until_ms: None,
            tasks: Vec::new(),
            next_transfer_tag: 1,
            owes_abort: false,
            has_reset: false,
            ghosts: Vec::new(),
            is_mute: false,
            terms,
        }
    }

    /// Takes what arrived, then does a few things in any order.
    pub(super) fn step(
        &mut self,
        mut link: Option<&mut Link>,
        disk: &mut Disk,
        attentions: &mut Vec<(u8, u8)>,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<bool, Failure> {
        let mut came = false;
        if let Some(link) = link.as_deref_mut() {
            while let Some(bytes) = link.take_up(now_ms, chaos) {
                came = true;
                self.stream.extend(bytes);
                if chaos.rng.chance(30) {
                    break;
                }
            }
            self.take_pdus(link, disk, attentions, now_ms, chaos)?;
            came |= self.open_window(link, now_ms, chaos);
            came |= self.haunt(link, now_ms, chaos);
        }
        for _ in 0..chaos.rng.below(8) {
            let at = chaos.rng.index(self.tasks.len());
            if at < self.tasks.len() {
                came |= self.work(at, link.as_deref_mut(), disk, now_ms, chaos)?;
            }
        }
        Ok(came)
    }

    /// When something will happen by the passing of time alone.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let tasks = self.tasks.iter().filter(|task| task.fate != Fate::Lost);
        let dues = tasks.map(|task| task.due_ms);
        let ghosts = self.ghosts.iter().map(|(due_ms, _)| *due_ms);
        dues.chain(ghosts).chain(self.window_shut_until_ms).min()
    }

    /// Another initiator ended all tasks of the logical unit.
    pub(super) fn reset(&mut self, has_status: bool) {
        if has_status {
            for task in &mut self.tasks {
                let is_answered = task.reply.is_some();
                if !is_answered {
                    (task.fate, task.is_early, task.due_ms) = (Fate::Status(0x40), true, 0);
                }
            }
        } else {
            self.tasks.clear();
        }
    }

    /// Asynchronous messages, now and then.
    pub(super) fn announce(&mut self, link: &mut Link, now_ms: u64, chaos: &mut Chaos) {
        for (fault, event) in [(Fault::LogoutRequest, 1), (Fault::DropAnnounced, 2)] {
            if !self.is_mute && !link.is_cut && chaos.fires(fault) {
                let message = Pdu::new(0x32).put(16, NO_TAG).put(20, NO_TAG);
                self.answer(message.byte(36, event), link, now_ms, chaos);
            }
        }
    }

    fn take_pdus(
        &mut self,
        link: &mut Link,
        disk: &mut Disk,
        attentions: &mut Vec<(u8, u8)>,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Failure> {
        while !self.is_mute {
            match Pdu::parse(&self.stream, self.digests()) {
                Parsed::Incomplete => break,
                Parsed::Damaged => {
                    self.is_mute = true;
                    link.is_cut = true;
                }
                Parsed::Pdu(length, pdu) => {
                    self.stream.drain(..length);
                    chaos.tell(|| format!("{now_ms} > {:02x?}", pdu.header));
                    self.take(pdu, link, disk, attentions, now_ms, chaos)?;
                }
            }
        }
        Ok(())
    }

    fn digests(&self) -> Digests {
        Digests {
            header: self.terms.header_digest,
            data: self.terms.data_digest,
        }
    }

    fn take(
        &mut self,
        pdu: Pdu,
        link: &mut Link,
        disk: &mut Disk,
        attentions: &mut Vec<(u8, u8)>,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Failure> {
        if pdu.data.len() > self.terms.target_segment {
            return Err(format!("{} bytes of data in one PDU", pdu.data.len()));
        }
        match pdu.opcode() {
            0x00 => self.nop_out(&pdu, link, now_ms, chaos)?,
            0x01 => self.command(pdu, link, attentions, now_ms, chaos)?,
            0x02 => self.management(&pdu, link, disk, now_ms, chaos)?,
            0x05 => {
                let task = self.tasks.iter_mut().find(|task| task.tag == pdu.get(16));
                // What comes for a task that has ended is dropped.
                if let Some(task) = task {
                    task.data_out(&pdu, &self.terms)?;
                }
            }
            0x06 => {
                self.check_immediate(&pdu)?;
                self.answer(Pdu::new(0x26).put(16, pdu.get(16)), link, now_ms, chaos);
                self.tasks.clear();
                self.is_mute = true;
            }
            opcode => return Err(format!("an unexpected PDU {opcode:#x}")),
        }
        Ok(())
    }

    fn check_immediate(&self, pdu: &Pdu) -> Result<(), Failure> {
        if pdu.is_immediate() && pdu.get(24) == self.exp_cmd_sn {
            return Ok(());
        }
        Err(format!(
            "an immediate PDU out of order: {:02x?}",
            pdu.header
        ))
    }

    fn nop_out(
        &mut self,
        pdu: &Pdu,
        link: &mut Link,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Failure> {
        self.check_immediate(pdu)?;
        let tag = pdu.get(16);
        if tag != NO_TAG {
            let answer = Pdu::new(0x20).put(16, tag).put(20, NO_TAG);
            self.answer(answer, link, now_ms, chaos);
        }
        Ok(())
    }

    fn command(
        &mut self,
        pdu: Pdu,
        link: &mut Link,
        attentions: &mut Vec<(u8, u8)>,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Failure> {
        let cmd_sn = pdu.get(24);
        let room = self.max_cmd_sn.wrapping_sub(cmd_sn);
        if pdu.is_immediate() || cmd_sn != self.exp_cmd_sn || room > i32::MAX as u32 {
            return Err(format!(
                "CmdSN {cmd_sn:#x}, {:#x} was next and {:#x} the last",
                self.exp_cmd_sn, self.max_cmd_sn
            ));
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        if self.tasks.iter().any(|task| task.tag == pdu.get(16)) {
            return Err(format!("the tag {:#x} is in use", pdu.get(16)));
        }
        if chaos.fires(Fault::Reject) {
            self.reject(&pdu, 0x09, link, now_ms, chaos);
            return Ok(());
        }
        if chaos.fires(Fault::RejectForNow) {
            let reason = chaos.rng.pick(&[0x06, 0x0a]);
            self.reject(&pdu, reason, link, now_ms, chaos);
            return Ok(());
        }
        let mut task = Task::new(pdu, &self.terms, chaos)?;
        task.fate = fate(&task, attentions, chaos);
        let needs_data = matches!(task.fate, Fate::Good | Fate::Short);
        task.is_early = !needs_data && chaos.rng.chance(50);
        task.due_ms = now_ms
            + if chaos.fires(Fault::Late) {
                chaos.rng.between(1_000, 60_000)
            } else {
                chaos.rng.below(4)
            };
        self.tasks.push(task);
        Ok(())
    }

    fn reject(&mut self, pdu: &Pdu, reason: u8, link: &mut Link, now_ms: u64, chaos: &mut Chaos) {
        let reject = Pdu::new(0x3f).byte(2, reason).put(16, NO_TAG);
        self.answer(reject.with(pdu.header.to_vec()), link, now_ms, chaos);
    }

    /// ABORT TASK and LOGICAL UNIT RESET, the functions that we know.
    fn management(
        &mut self,
        pdu: &Pdu,
        link: &mut Link,
        disk: &mut Disk,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Failure> {
        self.check_immediate(pdu)?;
        match pdu.header[1] & 0x7f {
            1 => self.abort(pdu, link, disk, now_ms, chaos),
            5 => {
                self.reset_unit(pdu, link, now_ms, chaos);
                Ok(())
            }
            _ => Err(format!("an unexpected function: {:02x?}", pdu.header)),
        }
    }

    fn reset_unit(&mut self, pdu: &Pdu, link: &mut Link, now_ms: u64, chaos: &mut Chaos) {
        let answer = Pdu::new(0x22).put(16, pdu.get(16));
        if chaos.fires(Fault::ResetRefused) {
            let code = chaos.rng.pick(&[2, 5, 6, 255]);
            self.answer(answer.byte(2, code), link, now_ms, chaos);
        } else if chaos.fires(Fault::ResetUnanswered) {
            self.has_reset = chaos.rng.chance(50);
        } else {
            self.has_reset = true;
            self.answer(answer, link, now_ms, chaos);
        }
    }

    fn abort(
        &mut self,
        pdu: &Pdu,
        link: &mut Link,
        disk: &mut Disk,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<(), Failure> {
        if self.owes_abort {
            return Err(String::from("an abort, though one is not answered"));
        }
        let answer = Pdu::new(0x22).put(16, pdu.get(16));
        if chaos.fires(Fault::AbortRefused) {
            let code = chaos.rng.pick(&[2, 3, 5, 6, 255]);
            self.answer(answer.byte(2, code), link, now_ms, chaos);
            return Ok(());
        }
        if chaos.fires(Fault::AbortRejected) {
            let reason = chaos.rng.pick(&[0x04, 0x05, 0x06, 0x0a]);
            self.reject(pdu, reason, link, now_ms, chaos);
            return Ok(());
        }
        let is_asked = |task: &Task| task.tag == pdu.get(20);
        if let Some(at) = self.tasks.iter().position(is_asked)
            && self.tasks[at].has_data()
            && self.tasks[at].fate != Fate::Lost
            && chaos.fires(Fault::AbortCrossed)
        {
            self.tasks[at].due_ms = 0;
            // Until it is over, or the connection is: then there is nothing left to do for it.
            while self.tasks.get(at).is_some_and(is_asked)
                && self.work(at, Some(link), disk, now_ms, chaos)?
            {}
        }
        self.owes_abort = chaos.fires(Fault::AbortUnanswered);
        if self.owes_abort && chaos.rng.chance(50) {
            return Ok(());
        }
        let before = self.tasks.len();
        self.tasks.retain(|task| !is_asked(task));
        let response = u8::from(self.tasks.len() == before);
        if !self.owes_abort {
            self.answer(answer.byte(2, response), link, now_ms, chaos);
        }
        Ok(())
    }

    /// Goes one step on with a task. Without a connection only what is complete is carried out.
    fn work(
        &mut self,
        at: usize,
        link: Option<&mut Link>,
        disk: &mut Disk,
        now_ms: u64,
        chaos: &mut Chaos,
    ) -> Result<bool, Failure> {
        let task = &mut self.tasks[at];
        if task.reply.is_none() {
            let is_ready = task.has_data() || task.is_early;
            if is_ready && task.due_ms <= now_ms && task.fate != Fate::Lost {
                task.carry_out(disk)?;
                return Ok(true);
            }
        }
        let Some(link) = link.filter(|link| !link.is_cut && !self.is_mute) else {
            return Ok(false);
        };
        if let Some((pdu, is_last)) = task.next_answer(&self.terms, chaos) {
            if is_last {
                let tag = self.tasks.remove(at).tag;
                if chaos.fires(Fault::AnsweredTwice) {
                    let due_ms = now_ms + chaos.rng.below(30);
                    self.ghosts.push((due_ms, Pdu::new(0x21).put(16, tag)));
                }
                self.answer(pdu, link, now_ms, chaos);
            } else {
                self.send(pdu, link, now_ms, chaos);
            }
            return Ok(true);
        }
        let transfer_tag = self.next_transfer_tag;
        let Some(r2t) = task.next_r2t(transfer_tag, &self.terms, chaos) else {
            return Ok(false);
        };
        self.next_transfer_tag += 1;
        let stat_sn = self.stat_sn;
        self.send(r2t.put(24, stat_sn), link, now_ms, chaos);
        Ok(true)
    }

    /// Answers that were given before.
    fn haunt(&mut self, link: &mut Link, now_ms: u64, chaos: &mut Chaos) -> bool {
        let is_due = self.ghosts.first().is_some_and(|(due, _)| *due <= now_ms);
        if is_due {
            let (_, pdu) = self.ghosts.remove(0);
            self.answer(pdu, link, now_ms, chaos);
        }
        is_due
    }

    /// After a time of closed window, an initiator with nothing in flight has to be told.
    fn open_window(&mut self, link: &mut Link, now_ms: u64, chaos: &mut Chaos) -> bool {
        let is_due = self
            .window_shut_until_ms
            .is_some_and(|until_ms| until_ms <= now_ms);
        if is_due {
            self.window_shut_until_ms = None;
            let (stat_sn, pdu) = (self.stat_sn, Pdu::new(0x20));
            let pdu = pdu.put(16, NO_TAG).put(20, NO_TAG).put(24, stat_sn);
            self.send(pdu, link, now_ms, chaos);
        }
        is_due
    }

    /// Sends a PDU that takes a StatSN.
    fn answer(&mut self, pdu: Pdu, link: &mut Link, now_ms: u64, chaos: &mut Chaos) {
        if chaos.fires(Fault::TargetPing) {
            let (transfer_tag, stat_sn) = (self.next_transfer_tag, self.stat_sn);
            self.next_transfer_tag += 1;
            let ping = Pdu::new(0x20).put(16, NO_TAG).put(20, transfer_tag);
            // It tells the next StatSN, and does not take it.
            self.send(ping.put(24, stat_sn), link, now_ms, chaos);
        }
        let pdu = pdu.put(24, self.stat_sn);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        if chaos.fires(Fault::Duplicate) {
            self.send(pdu.clone(), link, now_ms, chaos);
        }
        self.send(pdu, link, now_ms, chaos);
    }

    fn send(&mut self, pdu: Pdu, link: &mut Link, now_ms: u64, chaos: &mut Chaos) {
        if self.is_mute {
            return;
        }
        if self.window_shut_until_ms.is_none() && chaos.fires(Fault::WindowClosed) {
            self.window_shut_until_ms = Some(now_ms + chaos.rng.between(1, 2_000));
        }
        if self.window_shut_until_ms.is_none() {
            let max = self
                .exp_cmd_sn
                .wrapping_add(self.terms.window)
                .wrapping_sub(1);
            self.max_cmd_sn = max;
        }
        let pdu = pdu.put(28, self.exp_cmd_sn).put(32, self.max_cmd_sn);
        chaos.tell(|| format!("{now_ms} < {:02x?}", pdu.header));
        link.send_down(pdu.bytes(self.digests()), now_ms, chaos);
    }
}

/// How a command is to end.
fn fate(task: &Task, attentions: &mut Vec<(u8, u8)>, chaos: &mut Chaos) -> Fate {
    if let Some((asc, ascq)) = attentions.pop() {
        return Fate::Sense(0x70, 0x06, asc, ascq);
    }
    let is_transfer = matches!(task.cdb[0], 0x28 | 0x88 | 0x2a | 0x8a);
    let aborted = if chaos.rng.chance(50) {
        Fate::Sense(0x70, 0x0b, 0x47, 0x05)
    } else {
        Fate::Half(0x70, 0x0b, 0x47, 0x05)
    };
    // Becoming ready; initializing command, manual intervention required; offline.
    let unready = chaos.rng.pick(&[0x01, 0x02, 0x03, 0x12]);
    let fates = [
        (Fault::Lost, Fate::Lost),
        (Fault::Busy, Fate::Status(0x08)),
        (Fault::TaskSetFull, Fate::Status(0x28)),
        (Fault::UnitAttention, Fate::Sense(0x70, 0x06, 0x2a, 0x09)),
        (Fault::AbortedCommand, aborted),
        (Fault::NotReady, Fate::Sense(0x70, 0x02, 0x04, unready)),
        (Fault::NoLun, Fate::Sense(0x70, 0x05, 0x25, 0x00)),
        (Fault::MediumError, Fate::Sense(0x70, 0x03, 0x11, 0x00)),
        (Fault::DeferredError, Fate::Sense(0x71, 0x03, 0x0c, 0x00)),
    ];
    if task.cdb[0] == 0x93 && chaos.fires(Fault::Refused) {
        return Fate::Sense(0x70, 0x05, 0x20, 0x00);
    }
    if is_transfer && chaos.fires(Fault::Short) {
        return Fate::Short;
    }
    let mut fates = fates.into_iter();
    let found = fates.find(|(fault, _)| chaos.fires(*fault));
    found.map_or(Fate::Good, |(_, fate)| fate)
}

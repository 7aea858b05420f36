//! A write whose data is on its way: unsolicited bursts, and those asked for by R2T.

use crate::data::DataOut;
use crate::session::Command;

/// A sequence of Data-Out that an R2T asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub(crate) target_transfer_tag: u32,
    pub(crate) offset_bytes: u32,
    pub(crate) length_bytes: u32,
    received_bytes: u32,
    next_data_sn: u32,
}

/// One write from its command to its last byte.
#[derive(Debug)]
pub(crate) struct WriteTask {
    pub(crate) command: Command,
    pub(crate) data: DataOut<'static>,
    /// Unsolicited data may still come, up to this offset.
    unsolicited: Option<Burst>,
    /// Everything before this came or was asked for.
    pub(crate) solicited_bytes: u32,
    pub(crate) bursts: Vec<Burst>,
    received_bytes: u32,
    pub(crate) next_r2t_sn: u32,
}

impl WriteTask {
    /// A write with its immediate data. `unsolicited_limit_bytes` is how far unsolicited Data-Out
    /// may go when the command did not have the F bit; `keep` says whether the data matters.
    pub(crate) fn new(
        command: Command,
        immediate: &[u8],
        unsolicited_limit_bytes: Option<u32>,
        keep: bool,
    ) -> Self {
        let start = crate::bytes::len32(immediate.len());
        let mut data = DataOut::room(command.expected_data_transfer_length as usize, keep);
        data.put(0, immediate);
        let unsolicited = unsolicited_limit_bytes
            .map(|limit| Burst::new(crate::pdu::RESERVED_TAG, start, limit.saturating_sub(start)));
        Self {
            command,
            data,
            unsolicited,
            solicited_bytes: start,
            bursts: Vec::new(),
            received_bytes: start,
            next_r2t_sn: 0,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.received_bytes as usize == self.data.len()
    }

    /// Takes the data of one Data-Out. The error says which rule it breaks.
    pub(crate) fn take(
        &mut self,
        target_transfer_tag: u32,
        data_sn: u32,
        offset_bytes: u32,
        last: bool,
        data: &[u8],
    ) -> Result<(), String> {
        let length = crate::bytes::len32(data.len());
        let unsolicited = self.unsolicited.iter_mut();
        let burst = unsolicited
            .chain(&mut self.bursts)
            .find(|burst| burst.target_transfer_tag == target_transfer_tag)
            .ok_or_else(|| {
                format!("Data-Out with tag {target_transfer_tag:#x}, never asked for")
            })?;
        burst.advance(data_sn, offset_bytes, length)?;
        burst.check_final(last)?;
        let is_unsolicited = target_transfer_tag == crate::pdu::RESERVED_TAG;
        self.data.put(offset_bytes as usize, data);
        self.received_bytes = self.received_bytes.saturating_add(length);
        if is_unsolicited {
            self.solicited_bytes = self.solicited_bytes.saturating_add(length);
        }
        if last {
            self.end_burst(target_transfer_tag);
        }
        Ok(())
    }

    fn end_burst(&mut self, target_transfer_tag: u32) {
        self.unsolicited = self
            .unsolicited
            .take()
            .filter(|b| b.target_transfer_tag != target_transfer_tag);
        self.bursts
            .retain(|burst| burst.target_transfer_tag != target_transfer_tag);
    }

    /// The next piece to ask for: offset and length. Nothing while unsolicited data is coming.
    pub(crate) fn next_piece(&self, limit_bytes: u32) -> Option<(u32, u32)> {
        let left = crate::bytes::len32(self.data.len()).saturating_sub(self.solicited_bytes);
        let wanted = left > 0 && self.unsolicited.is_none();
        wanted.then(|| (self.solicited_bytes, left.min(limit_bytes.max(1))))
    }

    /// Notes that a piece was asked for under this tag.
    pub(crate) fn ask(
        &mut self,
        target_transfer_tag: u32,
        offset_bytes: u32,
        length_bytes: u32,
    ) -> u32 {
        self.bursts
            .push(Burst::new(target_transfer_tag, offset_bytes, length_bytes));
        self.solicited_bytes = offset_bytes.saturating_add(length_bytes);
        let r2t_sn = self.next_r2t_sn;
        self.next_r2t_sn = r2t_sn.wrapping_add(1);
        r2t_sn
    }
}

impl Burst {
    fn new(target_transfer_tag: u32, offset_bytes: u32, length_bytes: u32) -> Self {
        Self {
            target_transfer_tag,
            offset_bytes,
            length_bytes,
            received_bytes: 0,
            next_data_sn: 0,
        }
    }

    /// DataPDUInOrder=Yes: each PDU starts where the last one ended.
    fn advance(&mut self, data_sn: u32, offset_bytes: u32, length: u32) -> Result<(), String> {
        let expected = self.offset_bytes.saturating_add(self.received_bytes);
        if data_sn != self.next_data_sn {
            return Err(format!("DataSN {data_sn}, expected {}", self.next_data_sn));
        }
        if offset_bytes != expected {
            return Err(format!("Data-Out at {offset_bytes}, expected {expected}"));
        }
        if length > self.length_bytes - self.received_bytes {
            return Err(format!("Data-Out of {length} bytes beyond its burst"));
        }
        self.received_bytes += length;
        self.next_data_sn = data_sn.wrapping_add(1);
        Ok(())
    }

    /// The F bit ends a burst, and only unsolicited data may end early.
    fn check_final(&self, last: bool) -> Result<(), String> {
        let full = self.received_bytes == self.length_bytes;
        let may_end_early = self.target_transfer_tag == crate::pdu::RESERVED_TAG;
        match (full, last) {
            (false, true) if !may_end_early => Err("F bit before the end of the burst".to_owned()),
            (true, false) => Err("no F bit at the end of the burst".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdu::RESERVED_TAG;

    fn task(length: u32, immediate: &[u8], unsolicited: Option<u32>) -> WriteTask {
        let command = Command {
            lun: [0; 8],
            cdb: [0; 16],
            initiator_task_tag: 1,
            expected_data_transfer_length: length,
            reads: false,
            writes: true,
            cmd_sn: 1,
            fault: None,
        };
        WriteTask::new(command, immediate, unsolicited, true)
    }

    #[test]
    fn assembles_immediate_unsolicited_and_solicited_data() {
        let mut task = task(10, b"im", Some(5));
        assert_eq!(task.next_piece(4), None);
        task.take(RESERVED_TAG, 0, 2, true, b"uns").unwrap();
        assert_eq!(task.next_piece(4), Some((5, 4)));
        task.ask(7, 5, 4);
        task.ask(8, 9, 1);
        assert_eq!(task.next_piece(4), None);
        task.take(8, 0, 9, true, b"!").unwrap();
        task.take(7, 0, 5, false, b"so").unwrap();
        assert!(!task.is_complete());
        task.take(7, 1, 7, true, b"li").unwrap();
        assert!(task.is_complete());
        assert_eq!(task.data.bytes(), b"imunssoli!");
    }

    #[test]
    fn rejects_data_that_nobody_asked_for() {
        let mut task = task(10, b"", None);
        assert!(task.take(RESERVED_TAG, 0, 0, true, b"x").is_err());
        task.ask(7, 0, 4);
        assert!(task.take(9, 0, 0, true, b"asdf").is_err());
        assert!(task.take(7, 0, 1, true, b"asd").is_err(), "wrong offset");
        assert!(task.take(7, 1, 0, true, b"asdf").is_err(), "wrong DataSN");
        assert!(
            task.take(7, 0, 0, true, b"asdfg").is_err(),
            "one byte too long"
        );
        assert!(task.take(7, 0, 0, true, b"asdf").is_ok());
    }

    #[test]
    fn rejects_a_wrong_final_bit() {
        let mut early = task(4, b"", None);
        early.ask(7, 0, 4);
        assert!(early.take(7, 0, 0, true, b"abc").is_err());
        let mut missing = task(4, b"", None);
        missing.ask(7, 0, 4);
        assert!(missing.take(7, 0, 0, false, b"abcd").is_err());
    }
}

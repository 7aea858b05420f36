//! Task Management Function Request and Response (RFC 7143 sections 11.5 and 11.6).

use core::fmt;

use super::{BHS_LENGTH_BYTES, Bhs, FINAL, IMMEDIATE, Numbers, Opcode, PduError, RESERVED_TAG};
use super::{get_u32, put_lun, put_u32};
use crate::sequence::SerialNumber;

/// What to do (RFC 7143 section 11.5.1); the functions that an initiator of one disk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// ABORT TASK: end one task.
    AbortTask {
        /// Its tag.
        referenced_task_tag: u32,
        /// Its CmdSN.
        ref_cmd_sn: SerialNumber,
    },
    /// ABORT TASK SET: end all our tasks of the LUN.
    AbortTaskSet,
    /// LOGICAL UNIT RESET: end all tasks of the LUN, other initiators' too.
    LogicalUnitReset,
}

impl Function {
    fn code(self) -> u8 {
        match self {
            Self::AbortTask { .. } => 1,
            Self::AbortTaskSet => 2,
            Self::LogicalUnitReset => 5,
        }
    }
}

/// A request to end tasks, for immediate delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagementRequest {
    /// What to do.
    pub function: Function,
    /// The LUN field.
    pub lun: u64,
    /// Names this request.
    pub initiator_task_tag: u32,
    /// Our next CmdSN.
    pub cmd_sn: SerialNumber,
    /// The StatSN that we expect next.
    pub exp_stat_sn: SerialNumber,
}

impl TaskManagementRequest {
    /// The header as it goes on the wire.
    pub fn emit(&self) -> Bhs {
        let mut bhs = [0; BHS_LENGTH_BYTES];
        bhs[0] = Opcode::TaskManagementRequest as u8 | IMMEDIATE;
        bhs[1] = FINAL | self.function.code();
        put_lun(&mut bhs, self.lun);
        put_u32::<16>(&mut bhs, self.initiator_task_tag);
        put_u32::<20>(&mut bhs, RESERVED_TAG);
        put_u32::<24>(&mut bhs, self.cmd_sn.0);
        put_u32::<28>(&mut bhs, self.exp_stat_sn.0);
        if let Function::AbortTask {
            referenced_task_tag,
            ref_cmd_sn,
        } = self.function
        {
            put_u32::<20>(&mut bhs, referenced_task_tag);
            put_u32::<32>(&mut bhs, ref_cmd_sn.0);
        }
        bhs
    }
}

/// The target's answer (RFC 7143 section 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionResponse {
    /// The tasks are ended.
    Complete,
    /// The task is not known (any more): it is over, or its answer is on its way.
    TaskDoesNotExist,
    /// The LUN is not known.
    LunDoesNotExist,
    /// "Task still allegiant", "not supported", "authorization failed" or "rejected".
    Refused(u8),
}

impl FunctionResponse {
    /// "Function rejected", which is also what a Reject PDU for the request comes to.
    pub const REJECTED: Self = Self::Refused(255);

    /// Whether the referenced task is certainly over (RFC 7143 section 11.6.1): ended by the
    /// function, or before it, and then its answer came before this one.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::TaskDoesNotExist)
    }
}

impl fmt::Display for FunctionResponse {
    /// In the words of RFC 7143 section 11.6.1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, words) = match *self {
            Self::Complete => (0, "function complete"),
            Self::TaskDoesNotExist => (1, "task does not exist"),
            Self::LunDoesNotExist => (2, "LUN does not exist"),
            Self::Refused(3) => (3, "task still allegiant"),
            Self::Refused(4) => (4, "task allegiance reassignment not supported"),
            Self::Refused(5) => (5, "task management function not supported"),
            Self::Refused(6) => (6, "function authorization failed"),
            Self::Refused(code) => (code, "function rejected"),
        };
        write!(f, "{words} ({code})")
    }
}

/// The answer to a [`TaskManagementRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskManagementResponse {
    /// How it went.
    pub response: FunctionResponse,
    /// The tag of our request.
    pub initiator_task_tag: u32,
    /// StatSN and the command window.
    pub numbers: Numbers,
}

impl TaskManagementResponse {
    /// Takes the header apart.
    pub fn parse(bhs: &Bhs) -> Result<Self, PduError> {
        let response = match bhs[2] {
            0 => FunctionResponse::Complete,
            1 => FunctionResponse::TaskDoesNotExist,
            2 => FunctionResponse::LunDoesNotExist,
            code @ (3..=6 | 255) => FunctionResponse::Refused(code),
            code => {
                return Err(PduError::BadField {
                    pdu: "Task Management Function Response",
                    field: "Response",
                    value: u32::from(code),
                });
            }
        };
        Ok(Self {
            response,
            initiator_task_tag: get_u32::<16>(bhs),
            numbers: Numbers::parse(bhs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_names_its_task_twice() {
        let bhs = TaskManagementRequest {
            function: Function::AbortTask {
                referenced_task_tag: 0x11,
                ref_cmd_sn: SerialNumber(0x22),
            },
            lun: 0,
            initiator_task_tag: 0x33,
            cmd_sn: SerialNumber(0x44),
            exp_stat_sn: SerialNumber(0x55),
        }
        .emit();
        assert_eq!(bhs[..2], [0x42, 0x81]);
        assert_eq!(
            bhs[16..36],
            [
                0, 0, 0, 0x33, 0, 0, 0, 0x11, 0, 0, 0, 0x44, 0, 0, 0, 0x55, 0, 0, 0, 0x22
            ]
        );
    }

    #[test]
    fn only_two_answers_say_that_the_task_is_over() {
        let answer = |code: u8| {
            let mut bhs = [0; BHS_LENGTH_BYTES];
            bhs[2] = code;
            TaskManagementResponse::parse(&bhs).map(|answer| answer.response)
        };
        let over = (0..=u8::MAX).filter(|&code| answer(code).is_ok_and(FunctionResponse::is_over));
        assert!(over.eq([0, 1]));
        assert_eq!(answer(255), Ok(FunctionResponse::REJECTED));
        assert!(answer(7).is_err());
    }

    #[test]
    fn answers_read_in_words_and_numbers() {
        use alloc::string::ToString;
        let words = FunctionResponse::Refused(5).to_string();
        assert_eq!(words, "task management function not supported (5)");
        assert_eq!(
            FunctionResponse::REJECTED.to_string(),
            "function rejected (255)"
        );
    }

    #[test]
    fn a_reset_references_no_task() {
        let request = TaskManagementRequest {
            function: Function::LogicalUnitReset,
            lun: 0,
            initiator_task_tag: 1,
            cmd_sn: SerialNumber(2),
            exp_stat_sn: SerialNumber(3),
        };
        assert_eq!(request.emit()[20..24], [255; 4]);
        assert_eq!(request.emit()[1], 0x85);
    }
}

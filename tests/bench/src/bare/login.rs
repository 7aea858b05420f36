//! From an address to a session on a disk: the login by `iscsi-core`, then the two questions that
//! have to be asked before the first read. Nothing here is measured.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use iscsi_core::login::machine::{Login, LoginEntropy, LoginStep};
use iscsi_core::login::negotiated::Negotiated;
use iscsi_core::login::settings::{DigestPreference, Isid, LoginSettings};
use iscsi_core::name::IscsiName;
use iscsi_core::pdu::command::{Direction, ScsiCommandPdu};
use iscsi_core::scsi::lun::Lun;
use iscsi_core::sequence::SerialNumber;
use iscsi_core::whole_pdu::{WholePdu, WholePdus};

use super::error::answer;
use super::{Floor, FloorError};

const INITIATOR_NAME: &str = "iqn.2026-11.org.example:bare-initiator";
/// How long the target may stay silent, also while it is measured.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Unit attentions that a new session may meet.
const MAX_UNIT_ATTENTIONS: usize = 8;

/// SCSI Response and Data-In (RFC 7143 section 11.2.1.2).
const SCSI_RESPONSE: u8 = 0x21;
const DATA_IN: u8 = 0x25;

/// A session in full-feature phase, on a disk that is ready.
pub(super) struct LoggedIn {
    pub(super) stream: TcpStream,
    pub(super) negotiated: Negotiated,
    /// The LUN field of commands.
    pub(super) lun: u64,
    pub(super) block_bytes: u32,
    pub(super) blocks: u64,
    pub(super) numbers: Numbers,
}

/// The sequence numbers of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Of the next command.
    pub(super) cmd_sn: SerialNumber,
    /// The last one that the target's window lets through.
    pub(super) max_cmd_sn: SerialNumber,
    /// Of the next answer.
    pub(super) exp_stat_sn: SerialNumber,
}

/// Logs in, and asks for the capacity of the disk.
pub(super) fn log_in(floor: &Floor) -> Result<LoggedIn, FloorError> {
    let lun = Lun::new(floor.lun);
    let lun = lun.ok_or_else(|| FloorError::Config(format!("there is no LUN {}", floor.lun)))?;
    let stream = TcpStream::connect(floor.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    let mut setup = Setup {
        stream,
        pdus: WholePdus::of_login(crc32c::crc32c_append),
        bytes: Vec::new(),
    };
    let negotiated = setup.log_in(floor)?;
    let lun = u64::from_be_bytes(lun.address().0);
    let mut numbers = Numbers {
        cmd_sn: negotiated.cmd_sn,
        max_cmd_sn: negotiated.max_cmd_sn,
        exp_stat_sn: negotiated.exp_stat_sn,
    };
    setup.wait_until_ready(lun, &mut numbers)?;
    let (blocks, block_bytes) = setup.capacity(lun, &mut numbers)?;
    Ok(LoggedIn {
        stream: setup.stream,
        negotiated,
        lun,
        block_bytes,
        blocks,
        numbers,
    })
}

/// What a command came to: its status, and the data segment that came with it or before.
struct Answer {
    status: u8,
    data: Vec<u8>,
}

struct Setup {
    stream: TcpStream,
    pdus: WholePdus,
    /// What was received and not looked at yet.
    bytes: Vec<u8>,
}

impl Setup {
    fn log_in(&mut self, floor: &Floor) -> Result<Negotiated, FloorError> {
        let mut login = Login::new(settings(floor)?, ENTROPY)?;
        let mut request = login.start()?;
        loop {
            self.stream.write_all(&request)?;
            let WholePdu { bhs, data } = self.receive()?;
            match login.receive(&bhs, &data)? {
                LoginStep::Send(next) => request = next,
                LoginStep::Done(negotiated) => return Ok(*negotiated),
                LoginStep::Redirect(redirect) => {
                    return answer(format!("the target is elsewhere: {}", redirect.address));
                }
            }
        }
    }

    fn receive(&mut self) -> Result<WholePdu, FloorError> {
        let mut room = [0; 4096];
        loop {
            let (used, pdu) = self.pdus.receive(&self.bytes)?;
            self.bytes.drain(..used);
            if let Some(pdu) = pdu {
                return Ok(pdu);
            }
            let count = self.stream.read(&mut room)?;
            if count == 0 {
                return answer("the target closed the connection");
            }
            self.bytes
                .extend_from_slice(room.get(..count).unwrap_or(&room));
        }
    }

    /// TEST UNIT READY, until the unit attentions of the new session are told.
    fn wait_until_ready(&mut self, lun: u64, numbers: &mut Numbers) -> Result<(), FloorError> {
        for _ in 0..=MAX_UNIT_ATTENTIONS {
            if self.command(lun, [0; 16], 0, numbers)?.status == 0 {
                return Ok(());
            }
        }
        answer("the disk does not get ready")
    }

    /// READ CAPACITY(16): the number of blocks and their length in bytes.
    fn capacity(&mut self, lun: u64, numbers: &mut Numbers) -> Result<(u64, u32), FloorError> {
        const LENGTH_BYTES: u32 = 32;
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (0x9e, 0x10);
        cdb[10..14].copy_from_slice(&LENGTH_BYTES.to_be_bytes());
        let Answer { status, data } = self.command(lun, cdb, LENGTH_BYTES, numbers)?;
        let fields = data.first_chunk::<8>().zip(data.get(8..12));
        let Some((last, block_bytes)) = fields.filter(|_| status == 0) else {
            return answer(format!(
                "READ CAPACITY(16) ended with status {status:#04x} and {} bytes",
                data.len()
            ));
        };
        let block_bytes = block_bytes.try_into().map_or(0, u32::from_be_bytes);
        Ok((u64::from_be_bytes(*last).saturating_add(1), block_bytes))
    }

    /// One command from its request to its status.
    fn command(
        &mut self,
        lun: u64,
        cdb: [u8; 16],
        length_bytes: u32,
        numbers: &mut Numbers,
    ) -> Result<Answer, FloorError> {
        let request = ScsiCommandPdu {
            is_final: true,
            direction: if length_bytes > 0 {
                Direction::Read
            } else {
                Direction::None
            },
            lun,
            initiator_task_tag: 0,
            expected_data_transfer_length: length_bytes,
            cmd_sn: numbers.cmd_sn,
            exp_stat_sn: numbers.exp_stat_sn,
            cdb,
            immediate_length_bytes: 0,
        };
        numbers.cmd_sn = numbers.cmd_sn.next();
        self.stream.write_all(&request.emit())?;
        let mut gathered = Vec::new();
        loop {
            let WholePdu { bhs, data } = self.receive()?;
            let has_status = match bhs[0] & 0x3f {
                SCSI_RESPONSE => true,
                DATA_IN => bhs[1] & 1 != 0,
                opcode => return answer(format!("opcode {opcode:#04x} instead of an answer")),
            };
            gathered.extend(data);
            if has_status {
                numbers.exp_stat_sn = numbers.exp_stat_sn.next();
                numbers.max_cmd_sn = SerialNumber(word(&bhs, 32));
                return Ok(Answer {
                    status: bhs[3],
                    data: gathered,
                });
            }
        }
    }
}

/// The big-endian word at byte `at` of a header.
pub(super) fn word(bhs: &[u8; 48], at: usize) -> u32 {
    u32::from_be_bytes([bhs[at], bhs[at + 1], bhs[at + 2], bhs[at + 3]])
}

fn settings(floor: &Floor) -> Result<LoginSettings, FloorError> {
    let [high, low] = floor.session.to_be_bytes();
    Ok(LoginSettings {
        initiator_name: IscsiName::parse(INITIATOR_NAME)?,
        initiator_alias: None,
        target_name: Some(IscsiName::parse(&floor.target_name)?),
        // Format "random" (RFC 7143 section 11.12.5), with bytes that are the same in each run: a
        // run takes the place of one that was killed.
        isid: Isid([0x80, 0xba, 0x4e, 0, high, low]),
        chap: None,
        header_digest: DigestPreference::None,
        data_digest: DigestPreference::None,
        expected_portal_group_tag: None,
    })
}

/// Any numbers will do: there is no CHAP, and no login before this one on the connection.
const ENTROPY: LoginEntropy = LoginEntropy {
    initiator_task_tag: 1,
    cmd_sn: SerialNumber(1),
    chap_identifier: 0,
    chap_challenge: [0; 32],
};

//! SCSI commands one at a time, awaited: for the probe of a LUN.

use iscsi_core::crc32c::Crc32c;
use iscsi_core::pdu::command::Response;
use iscsi_core::scsi::command::{ScsiCommand, ScsiData};
use iscsi_core::session::{Command, Event, Outcome, Received, RequestTag, Session, Transmit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error::ControlError;
use super::login::LoggedIn;
use crate::engine::{Connection, Transport};
use crate::pdu_log::trace_pdus;
use crate::portal::Portal;

/// The most data that a probe's command may bring.
const MAX_DATA_BYTES: u32 = 1024 * 1024;

/// A session whose owner awaits each command.
pub(super) struct Commands {
    portal: Portal,
    stream: TcpStream,
    session: Session,
    /// What arrived and is not consumed.
    arrived: Vec<u8>,
    /// The data of the present command.
    data: Vec<u8>,
}

/// How a command ended, with the data that it brought.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) data: Vec<u8>,
}

impl Commands {
    pub(super) fn new(logged_in: LoggedIn) -> Self {
        let portal = logged_in.stream.portal.clone();
        let mut session = Session::new(logged_in.negotiated, crc32c::crc32c_append, 0);
        trace_pdus(&mut session);
        let (stream, arrived) = logged_in.stream.into_parts();
        Self {
            portal,
            stream,
            session,
            arrived,
            data: Vec::new(),
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn portal(&self) -> &Portal {
        &self.portal
    }

    pub(super) fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.stream.peer_addr()
    }

    /// Hands the idle session over to the data plane.
    pub(super) fn into_connection(self) -> std::io::Result<Connection> {
        let transport = Transport::new(self.stream.into_std()?, &self.arrived)?;
        Ok(Connection::new(self.session, transport))
    }

    /// Runs one command.
    pub(super) async fn run(
        &mut self,
        lun: u64,
        scsi: ScsiCommand,
    ) -> Result<Answer, ControlError> {
        let length_bytes = match scsi.data {
            ScsiData::In { length_bytes, .. } => length_bytes.min(MAX_DATA_BYTES),
            _ => 0,
        };
        self.data.clear();
        self.data.resize(length_bytes as usize, 0);
        let command = Command {
            request: RequestTag(0),
            lun,
            scsi,
        };
        // The window may be closed for a moment; the target opens it with a PDU of its own.
        while self.session.submit(command, 0).is_err() {
            self.next_event().await?;
        }
        loop {
            match self.next_event().await? {
                Some(Event::CommandDone { outcome, .. }) => return Ok(self.answer(outcome)),
                Some(Event::CommandRejected { reason, .. }) => {
                    log::debug!(
                        "{}: a command of the probe was rejected: {reason}",
                        self.portal
                    );
                    return Ok(self.answer(rejected()));
                }
                _ => {}
            }
        }
    }

    /// Logs out, as far as the target plays along.
    pub(super) async fn log_out(&mut self) -> Result<(), ControlError> {
        self.session.log_out();
        while !matches!(self.next_event().await?, Some(Event::LoggedOut { .. })) {}
        Ok(())
    }

    fn answer(&mut self, outcome: Outcome) -> Answer {
        let mut data = std::mem::take(&mut self.data);
        data.truncate(outcome.transferred_bytes as usize);
        Answer { outcome, data }
    }

    /// Sends what is due, and takes in what arrives up to the next event. `None` after something
    /// arrived that was none.
    async fn next_event(&mut self) -> Result<Option<Event>, ControlError> {
        self.flush().await?;
        let event = self.take_arrived()?;
        if event.is_some() {
            return Ok(event);
        }
        self.arrived.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.arrived).await {
            Ok(0) => Err(self.closed()),
            Ok(_) => self.take_arrived(),
            Err(error) => Err(self.io_error(error)),
        }
    }

    fn take_arrived(&mut self) -> Result<Option<Event>, ControlError> {
        loop {
            let received = self.session.receive(&self.arrived, 0);
            let (consumed, received) = received.map_err(|error| self.session_error(error))?;
            self.arrived.drain(..consumed);
            match received {
                Received::Event(event) => return Ok(Some(event)),
                Received::Payload(placement) if !self.arrived.is_empty() => {
                    let length = self.arrived.len().min(placement.length_bytes as usize);
                    let start = placement.offset_bytes as usize;
                    let bytes = self.arrived.get(..length).unwrap_or_default();
                    if let Some(room) = self.data.get_mut(start..start + length) {
                        room.copy_from_slice(bytes);
                    }
                    self.session.placed(bytes);
                    self.arrived.drain(..length);
                }
                Received::Payload(_) | Received::NeedBytes { .. } => return Ok(None),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), ControlError> {
        let mut output = Output(Vec::new());
        self.session.transmit(&mut output);
        self.stream
            .write_all(&output.0)
            .await
            .map_err(|error| self.io_error(error))
    }

    fn closed(&self) -> ControlError {
        ControlError::Closed {
            portal: self.portal.clone(),
            during: "while the LUN was probed",
        }
    }

    fn io_error(&self, error: std::io::Error) -> ControlError {
        let during = "while the LUN was probed";
        ControlError::Io {
            portal: self.portal.clone(),
            during,
            error,
        }
    }

    fn session_error(&self, error: iscsi_core::error::SessionError) -> ControlError {
        ControlError::Session {
            portal: self.portal.clone(),
            error,
        }
    }
}

/// A rejected command looks to the probe like one that the target failed to run.
fn rejected() -> Outcome {
    Outcome {
        response: Response::Failed(1),
        status: 0,
        transferred_bytes: 0,
        expected_bytes: 0,
        sense: iscsi_core::session::SenseData::EMPTY,
    }
}

/// Collects outgoing bytes. The commands of a probe only read, so no payload is ever asked for.
struct Output(Vec<u8>);

impl Transmit for Output {
    fn has_room(&self) -> bool {
        true
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn zeros(&mut self, length_bytes: u32) {
        self.0.resize(self.0.len() + length_bytes as usize, 0);
    }

    fn payload(&mut self, _: RequestTag, _: u32, length_bytes: u32) {
        self.zeros(length_bytes);
    }

    fn payload_with_digest(&mut self, _: RequestTag, _: u32, length: u32, crc32c: Crc32c) -> u32 {
        let start = self.0.len();
        self.zeros(length);
        crc32c(0, self.0.get(start..).unwrap_or_default())
    }
}

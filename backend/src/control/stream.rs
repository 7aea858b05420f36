//! Whole PDUs over TCP, for login and discovery.

use std::io;

use iscsi_core::pdu::Opcode;
use iscsi_core::session::Way;
use iscsi_core::whole_pdu::{WholePdu, WholePdus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::error::ControlError;
use crate::pdu_log::log_pdu;
use crate::portal::Portal;

/// How much one read can bring.
const READ_BYTES: usize = 16 * 1024;

/// How much of an answer that is not iSCSI is shown.
const SHOWN_BYTES: usize = 24;

/// A connection that carries whole PDUs.
#[derive(Debug)]
pub(super) struct PduStream {
    pub(super) portal: Portal,
    pub(super) stream: TcpStream,
    pdus: WholePdus,
    /// What arrived and is not consumed.
    arrived: Vec<u8>,
    /// What we are waiting for, to say in an error: "during the login".
    during: &'static str,
}

impl PduStream {
    pub(super) fn new(
        portal: Portal,
        stream: TcpStream,
        pdus: WholePdus,
        during: &'static str,
    ) -> Self {
        Self {
            portal,
            stream,
            pdus,
            arrived: Vec::new(),
            during,
        }
    }

    /// The connection, and what arrived beyond the last PDU.
    pub(super) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.arrived)
    }

    /// Goes on in full-feature phase.
    pub(super) fn change_phase(&mut self, pdus: WholePdus, during: &'static str) {
        (self.pdus, self.during) = (pdus, during);
    }

    /// Sends a PDU that lacks nothing but digests.
    pub(super) async fn send(&mut self, pdu: &[u8]) -> Result<(), ControlError> {
        if let Some(bhs) = pdu.first_chunk() {
            log_pdu(Way::Out, bhs);
        }
        let sealed = self.pdus.seal(pdu);
        self.stream
            .write_all(&sealed)
            .await
            .map_err(|error| self.io_error(error))
    }

    /// The next PDU.
    pub(super) async fn receive(&mut self) -> Result<WholePdu, ControlError> {
        loop {
            let received = self.pdus.receive(&self.arrived);
            let (consumed, pdu) = received.map_err(|error| ControlError::Session {
                portal: self.portal.clone(),
                error,
            })?;
            self.arrived.drain(..consumed);
            if let Some(pdu) = pdu {
                log_pdu(Way::In, &pdu.bhs);
                return Ok(pdu);
            }
            self.read().await?;
        }
    }

    /// Waits for the first byte of the first answer, and tells another protocol by it: its text
    /// would pass for a header that announces more than ever comes.
    pub(super) async fn expect_login_response(&mut self) -> Result<(), ControlError> {
        while self.arrived.is_empty() {
            self.read().await?;
        }
        let expected = [Opcode::LoginResponse as u8, Opcode::Reject as u8];
        let first = self.arrived.first();
        if first.is_some_and(|byte| expected.contains(byte)) {
            return Ok(());
        }
        let shown = self.arrived.iter().take(SHOWN_BYTES).copied();
        let shown: Vec<u8> = shown.collect();
        Err(ControlError::NotIscsi {
            portal: self.portal.clone(),
            reason: format!("its answer begins with \"{}\"", shown.escape_ascii()),
        })
    }

    async fn read(&mut self) -> Result<(), ControlError> {
        self.arrived.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.arrived).await {
            Ok(0) => Err(self.closed()),
            Ok(_) => Ok(()),
            Err(error) => Err(self.io_error(error)),
        }
    }

    fn closed(&self) -> ControlError {
        ControlError::Closed {
            portal: self.portal.clone(),
            during: self.during,
        }
    }

    fn io_error(&self, error: io::Error) -> ControlError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match error.kind() {
            BrokenPipe | ConnectionReset => self.closed(),
            _ => ControlError::Io {
                portal: self.portal.clone(),
                during: self.during,
                error,
            },
        }
    }
}

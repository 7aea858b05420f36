//! An initiator of bytes: every header is written out by hand, nothing is checked on its behalf.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A PDU as it came.
#[derive(Debug)]
pub(crate) struct Pdu {
    pub(crate) header: [u8; 48],
    pub(crate) data: Vec<u8>,
}

impl Pdu {
    pub(crate) fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().unwrap())
    }

    /// Login status, class and detail.
    pub(crate) fn status(&self) -> (u8, u8) {
        (self.header[36], self.header[37])
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.data.clone()).unwrap()
    }
}

/// A connection without any digests.
pub(crate) struct Client {
    stream: TcpStream,
    pub(crate) cmd_sn: u32,
    tag: u32,
}

pub(crate) const ISID: [u8; 6] = [0x80, 0, 0, 1, 0, 0];
pub(crate) const OPERATIONAL_TO_FULL: u8 = 0x87;
pub(crate) const SECURITY_TO_OPERATIONAL: u8 = 0x81;
pub(crate) const NAME: &str = "iqn.2026-11.org.example:client";

impl Client {
    pub(crate) fn connect(target: &iscsi_test_target::TestTarget) -> Self {
        let stream = TcpStream::connect(target.portal()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            stream,
            cmd_sn: 1,
            tag: 0x100,
        }
    }

    /// A connection in the full-feature phase of a normal session, logged in in two steps.
    pub(crate) fn logged_in(target: &iscsi_test_target::TestTarget) -> Self {
        let mut client = Self::connect(target);
        let names = format!("InitiatorName={NAME}\0TargetName={}\0", target.name());
        client.login(
            SECURITY_TO_OPERATIONAL,
            &(names + "SessionType=Normal\0AuthMethod=None\0"),
        );
        let last = client.login(OPERATIONAL_TO_FULL, "InitialR2T=No\0MaxOutstandingR2T=8\0");
        assert_eq!(
            (last.status(), last.header[1]),
            ((0, 0), OPERATIONAL_TO_FULL)
        );
        client
    }

    pub(crate) fn send(&mut self, header: &[u8; 48], data: &[u8]) {
        let mut bytes = header.to_vec();
        bytes[5..8].copy_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes()[1..]);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next PDU; panics at the end of the stream or after ten seconds.
    pub(crate) fn receive(&mut self) -> Pdu {
        let mut header = [0; 48];
        self.stream.read_exact(&mut header).unwrap();
        let ahs = usize::from(header[4]) * 4;
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let mut rest = vec![0; ahs + length.next_multiple_of(4)];
        self.stream.read_exact(&mut rest).unwrap();
        Pdu {
            header,
            data: rest[ahs..ahs + length].to_vec(),
        }
    }

    /// What comes until the other side closes.
    pub(crate) fn receive_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    pub(crate) fn send_login(&mut self, flags: u8, text: &str) {
        let mut header = [0; 48];
        header[0] = 0x43;
        header[1] = flags;
        header[8..14].copy_from_slice(&ISID);
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        self.send(&header, text.as_bytes());
    }

    pub(crate) fn login(&mut self, flags: u8, text: &str) -> Pdu {
        self.send_login(flags, text);
        self.receive()
    }

    fn next_header(&mut self, opcode: u8, flags: u8) -> [u8; 48] {
        let mut header = [0; 48];
        (header[0], header[1]) = (opcode, flags);
        self.tag += 1;
        header[16..20].copy_from_slice(&self.tag.to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        if opcode & 0x40 == 0 {
            self.cmd_sn += 1;
        }
        header
    }

    /// The header of a READ(16) or WRITE(16) of LUN 0; returns it for sending.
    pub(crate) fn read_write(
        &mut self,
        flags: u8,
        opcode: u8,
        block: u64,
        blocks: u32,
    ) -> [u8; 48] {
        let mut header = self.next_header(0x01, flags);
        header[20..24].copy_from_slice(&(blocks * 512).to_be_bytes());
        header[32] = opcode;
        header[34..42].copy_from_slice(&block.to_be_bytes());
        header[42..46].copy_from_slice(&blocks.to_be_bytes());
        header
    }

    pub(crate) fn send_read(&mut self, block: u64, blocks: u32) -> u32 {
        let header = self.read_write(0xc0, 0x88, block, blocks);
        self.send(&header, &[]);
        self.tag
    }

    pub(crate) fn send_write(&mut self, block: u64, blocks: u32, immediate: &[u8]) -> u32 {
        let header = self.read_write(0xa0, 0x8a, block, blocks);
        self.send(&header, immediate);
        self.tag
    }

    pub(crate) fn send_data_out(&mut self, r2t: &Pdu, data: &[u8]) {
        let mut header = [0; 48];
        (header[0], header[1]) = (0x05, 0x80);
        header[16..24].copy_from_slice(&r2t.header[16..24]);
        header[40..44].copy_from_slice(&r2t.header[40..44]);
        self.send(&header, data);
    }

    pub(crate) fn send_text(&mut self, text: &str, target_transfer_tag: u32) {
        let mut header = self.next_header(0x04, 0x80);
        header[20..24].copy_from_slice(&target_transfer_tag.to_be_bytes());
        self.send(&header, text.as_bytes());
    }

    pub(crate) fn send_nop(&mut self, data: &[u8]) {
        let mut header = self.next_header(0x40, 0x80);
        header[20..24].fill(0xff);
        self.send(&header, data);
    }

    pub(crate) fn send_abort(&mut self, referenced_task_tag: u32) {
        let mut header = self.next_header(0x42, 0x81);
        header[20..24].copy_from_slice(&referenced_task_tag.to_be_bytes());
        self.send(&header, &[]);
    }

    pub(crate) fn send_logout(&mut self) {
        let header = self.next_header(0x46, 0x80);
        self.send(&header, &[]);
    }
}

//! A vhost-user message on its way: how it is received and sent with its file descriptors, and
//! which ones of a front-end are let through.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use vhost::vhost_user::message::FrontendReq as Code;

use super::backend::protocol_features;
use super::queue::MAX_QUEUE_SIZE;

/// Request, flags, size: 32 bits each, in the byte order of the host.
const HEADER_BYTES: usize = 12;

/// The longest body that the vhost crate takes.
const MAX_BODY_BYTES: usize = 0x1000;

/// The most file descriptors of one message: SET_MEM_TABLE's regions, as the vhost crate has it.
const MAX_FILES: usize = 32;

/// Why a message was not passed on. The connection ends with it.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The other side closed within a message.
    #[error("the message broke off")]
    BrokeOff,
    /// The body is longer than any message's.
    #[error("a message of {size} bytes, more than {MAX_BODY_BYTES}")]
    TooLong {
        /// The size that the header announced.
        size: u32,
    },
    /// More file descriptors than any message has.
    #[error("more than {MAX_FILES} file descriptors in one message")]
    TooManyFiles,
    /// Not a request that is served.
    #[error("request {code}, which is not served")]
    NotServed {
        /// The request's number.
        code: u32,
    },
    /// A request that breaks the protocol.
    #[error("{request:?} with {what}")]
    Refused {
        /// Which request.
        request: Code,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// One message, header and body as received, with its file descriptors.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Message {
    /// Receives the next message; `None` when the other side closed before it.
    pub(super) async fn receive(stream: &UnixStream) -> Result<Option<Self>, MessageError> {
        let mut message = Self {
            bytes: vec![0; HEADER_BYTES],
            files: Vec::new(),
        };
        if message.fill(stream, 0).await? == 0 {
            return Ok(None);
        }
        let size = message.word(8);
        let body_bytes = usize::try_from(size).unwrap_or(usize::MAX);
        if body_bytes > MAX_BODY_BYTES {
            return Err(MessageError::TooLong { size });
        }
        message.bytes.resize(HEADER_BYTES + body_bytes, 0);
        message.fill(stream, HEADER_BYTES).await?;
        Ok(Some(message))
    }

    /// Fills the bytes from `start` on. Returns 0 when the other side closed before the first,
    /// which is the end of the stream only before a header.
    async fn fill(&mut self, stream: &UnixStream, start: usize) -> Result<usize, MessageError> {
        let mut filled = start;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read_bytes = receive_some(stream, rest, &mut self.files).await?;
            if read_bytes == 0 && filled == 0 {
                return Ok(0);
            }
            if read_bytes == 0 {
                return Err(MessageError::BrokeOff);
            }
            filled += read_bytes;
        }
        Ok(filled)
    }

    /// Sends the whole message, its file descriptors with the first byte.
    ///
    /// The vhost crate takes a body that arrives in pieces for an error. It gets each in one:
    /// a message is small against the socket's buffer, and the kernel queues that much at once.
    pub(super) async fn send(&self, stream: &UnixStream) -> Result<(), MessageError> {
        let mut sent = 0;
        while let Some(rest) = self.bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let files = if sent == 0 {
                self.files.as_slice()
            } else {
                &[]
            };
            sent += send_some(stream, rest, files).await?;
        }
        Ok(())
    }

    /// A 32-bit word of the message, 0 beyond its end.
    fn word(&self, offset: usize) -> u32 {
        let word = self.bytes.get(offset..).and_then(<[u8]>::first_chunk);
        word.copied().map_or(0, u32::from_ne_bytes)
    }

    /// A 32-bit word of the body.
    fn body_word(&self, offset: usize) -> u32 {
        self.word(HEADER_BYTES + offset)
    }

    /// A 64-bit word of the body, 0 beyond its end.
    fn body_long(&self, offset: usize) -> u64 {
        let long = self
            .bytes
            .get(HEADER_BYTES + offset..)
            .and_then(<[u8]>::first_chunk);
        long.copied().map_or(0, u64::from_ne_bytes)
    }

    /// Whether a front-end's request may reach the vhost crates, which end the connection
    /// themselves for most that is wrong. Held back here are
    ///
    /// - requests that the crates would act on though the device does not offer what they need
    ///   (protocol features may be acknowledged without having been offered: with LOG_SHMFD the
    ///   crate's bitmap of `()` panics at SET_LOG_BASE);
    /// - regions whose addresses wrap around, unchecked in ADD_MEM_REG: translating an address
    ///   then overflows, which is a panic in a debug build and a wrong address in a release;
    /// - regions longer than their file, which would be a SIGBUS at the first touch;
    /// - ring sizes that are no power of two, which the crate ignores and reports as done.
    ///
    /// Read and found harmless: queue indices beyond the last (looked up with `get`), unaligned
    /// or unmapped ring addresses (an error), overlapping regions (an error), enable values other
    /// than 0 and 1 (an error), a missing, superfluous or wrong kind of file (an error or unused).
    pub(super) fn check_request(&self) -> Result<(), MessageError> {
        let code = self.word(0);
        let request = Code::try_from(code).map_err(|_| MessageError::NotServed { code })?;
        let refuse = |what| Err(MessageError::Refused { request, what });
        match request {
            Code::SET_PROTOCOL_FEATURES if self.body_long(0) & !protocol_features().bits() != 0 => {
                refuse("features that were not offered")
            }
            Code::SET_VRING_NUM if !is_ring_size(self.body_word(4)) => {
                refuse("a size that is not a power of two up to 32768")
            }
            Code::SET_MEM_TABLE => match self.regions(8, self.body_word(0)) {
                Some(what) => refuse(what),
                None => Ok(()),
            },
            Code::ADD_MEM_REG => match self.regions(8, 1) {
                Some(what) => refuse(what),
                None => Ok(()),
            },
            _ if SERVED.contains(&request) => Ok(()),
            _ => Err(MessageError::NotServed { code }),
        }
    }

    /// What is wrong with memory regions from `offset` of the body on.
    fn regions(&self, offset: usize, count: u32) -> Option<&'static str> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count != self.files.len() {
            return Some("not one file for each region");
        }
        let regions = (0..count).map(|index| self.region(offset + REGION_BYTES * index));
        regions
            .zip(&self.files)
            .find_map(|(region, file)| region.fault(file.as_fd()))
    }

    fn region(&self, offset: usize) -> Region {
        Region {
            guest_address: self.body_long(offset),
            size_bytes: self.body_long(offset + 8),
            user_address: self.body_long(offset + 16),
            mmap_offset: self.body_long(offset + 24),
        }
    }
}

/// Requests that need no look here. VHOST_USER_GET_INFLIGHT_FD and SET_INFLIGHT_FD will be
/// answered by the channel; until then they are not served.
const SERVED: [Code; 22] = [
    Code::GET_FEATURES,
    Code::SET_FEATURES,
    Code::SET_OWNER,
    Code::RESET_OWNER,
    Code::SET_MEM_TABLE,
    Code::SET_VRING_NUM,
    Code::SET_VRING_ADDR,
    Code::SET_VRING_BASE,
    Code::GET_VRING_BASE,
    Code::SET_VRING_KICK,
    Code::SET_VRING_CALL,
    Code::SET_VRING_ERR,
    Code::GET_PROTOCOL_FEATURES,
    Code::SET_PROTOCOL_FEATURES,
    Code::GET_QUEUE_NUM,
    Code::SET_VRING_ENABLE,
    Code::GET_CONFIG,
    Code::SET_CONFIG,
    Code::RESET_DEVICE,
    Code::GET_MAX_MEM_SLOTS,
    Code::ADD_MEM_REG,
    Code::REM_MEM_REG,
];

fn is_ring_size(size: u32) -> bool {
    size.is_power_of_two() && size <= MAX_QUEUE_SIZE.into()
}

/// Memory region description: four 64-bit words.
const REGION_BYTES: usize = 32;

struct Region {
    guest_address: u64,
    size_bytes: u64,
    user_address: u64,
    mmap_offset: u64,
}

impl Region {
    /// What is wrong with the region, if anything.
    fn fault(&self, file: BorrowedFd<'_>) -> Option<&'static str> {
        let end = |start: u64| start.checked_add(self.size_bytes);
        let ends = (
            end(self.guest_address),
            end(self.user_address),
            end(self.mmap_offset),
        );
        let (Some(_), Some(_), Some(file_end)) = ends else {
            return Some("a region that wraps around");
        };
        is_shorter(file, file_end).then_some("a region longer than its file")
    }
}

/// Whether a plain file (or memfd) ends before `end`. Other kinds have no length to go by.
fn is_shorter(file: BorrowedFd<'_>, end: u64) -> bool {
    fstat(file).is_ok_and(|stat| {
        let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        plain && u64::try_from(stat.st_size).unwrap_or(0) < end
    })
}

/// One `recvmsg`: some bytes, and the descriptors that came with them.
async fn receive_some(
    stream: &UnixStream,
    bytes: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> Result<usize, MessageError> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(bytes)];
        let received = recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        Ok((received.bytes, received.flags.contains(ReturnFlags::CTRUNC)))
    };
    let (read_bytes, truncated) = stream.async_io(Interest::READABLE, receive).await?;
    if truncated || files.len() > MAX_FILES {
        return Err(MessageError::TooManyFiles);
    }
    Ok(read_bytes)
}

/// One `sendmsg`. Returns how many bytes went.
async fn send_some(
    stream: &UnixStream,
    bytes: &[u8],
    files: &[OwnedFd],
) -> Result<usize, MessageError> {
    let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&files));
        }
        let sent = sendmsg(
            stream,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(sent)
    };
    Ok(stream.async_io(Interest::WRITABLE, send).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use tokio::io::AsyncWriteExt;

    fn message(code: u32, body: &[u8], files: Vec<OwnedFd>) -> Message {
        let header = [code, 1, u32::try_from(body.len()).unwrap()].map(u32::to_ne_bytes);
        Message {
            bytes: [header.as_flattened(), body].concat(),
            files,
        }
    }

    fn longs(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn memory_file(length_bytes: u64) -> OwnedFd {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length_bytes).unwrap();
        file
    }

    fn add_region(words: [u64; 4]) -> Message {
        message(
            37,
            &longs(&[&[0], words.as_slice()].concat()),
            vec![memory_file(0x1000)],
        )
    }

    #[tokio::test]
    async fn passes_a_message_with_its_files() {
        let (near, far) = UnixStream::pair().unwrap();
        let sent = message(5, &[7; 100], vec![memory_file(1), memory_file(2)]);
        sent.send(&near).await.unwrap();
        let received = Message::receive(&far).await.unwrap().unwrap();
        assert_eq!(received.bytes, sent.bytes);
        let sizes: Vec<_> = received
            .files
            .iter()
            .map(|f| fstat(f).unwrap().st_size)
            .collect();
        assert_eq!(sizes, [1, 2]);
    }

    #[tokio::test]
    async fn tells_an_end_between_messages_from_one_within() {
        for length in [0, 1, 11, 12, 19] {
            let (mut near, far) = UnixStream::pair().unwrap();
            let whole = message(2, &[0; 8], Vec::new()).bytes;
            near.write_all(&whole[..length]).await.unwrap();
            drop(near);
            match Message::receive(&far).await {
                Ok(None) => assert_eq!(length, 0),
                Err(MessageError::BrokeOff) => assert_ne!(length, 0),
                other => panic!("{length} bytes: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn refuses_a_body_of_more_than_4096_bytes() {
        for (size, good) in [(4096, true), (4097, false), (u32::MAX, false)] {
            let (mut near, far) = UnixStream::pair().unwrap();
            let header = [2, 1, size].map(u32::to_ne_bytes);
            near.write_all(header.as_flattened()).await.unwrap();
            near.write_all(&[0; 4096]).await.unwrap();
            assert_eq!(Message::receive(&far).await.is_ok(), good, "{size}");
        }
    }

    #[tokio::test]
    async fn refuses_more_files_than_any_message_has() {
        for (count, good) in [(32, true), (33, false)] {
            let (near, far) = UnixStream::pair().unwrap();
            let files: Vec<OwnedFd> = (0..count).map(|_| memory_file(0)).collect();
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&files));
            let bytes = message(5, &[], Vec::new()).bytes;
            near.async_io(Interest::WRITABLE, || {
                Ok(sendmsg(
                    &near,
                    &[IoSlice::new(&bytes)],
                    &mut control,
                    SendFlags::empty(),
                )?)
            })
            .await
            .unwrap();
            assert_eq!(Message::receive(&far).await.is_ok(), good, "{count} files");
        }
    }

    #[test]
    fn refuses_requests_that_are_not_served() {
        for code in [
            0,
            6,
            7,
            19,
            21,
            28,
            31,
            32,
            33,
            35,
            39,
            40,
            41,
            1000,
            u32::MAX,
        ] {
            let result = message(code, &[], Vec::new()).check_request();
            assert!(
                matches!(result, Err(MessageError::NotServed { .. })),
                "{code}: {result:?}"
            );
        }
    }

    #[test]
    fn refuses_protocol_features_that_were_not_offered() {
        let offered = protocol_features().bits();
        for (features, good) in [(0, true), (offered, true), (offered | 2, false)] {
            let request = message(16, &longs(&[features]), Vec::new());
            assert_eq!(request.check_request().is_ok(), good, "{features:#x}");
        }
    }

    #[test]
    fn refuses_ring_sizes_that_are_no_power_of_two() {
        for (size, good) in [
            (0_u32, false),
            (1, true),
            (3, false),
            (32_768, true),
            (65_536, false),
        ] {
            let body = [0_u32.to_ne_bytes(), size.to_ne_bytes()];
            let request = message(8, body.as_flattened(), Vec::new());
            assert_eq!(request.check_request().is_ok(), good, "{size}");
        }
    }

    #[test]
    fn refuses_regions_that_wrap_around_or_outgrow_their_file() {
        for (words, good) in [
            ([0, 0x1000, 0, 0], true),
            ([0, 0x1001, 0, 0], false),
            ([0, 0x1000, 0, 1], false),
            ([u64::MAX - 0xfff, 0x1000, 0, 0], false),
            ([0, 0x1000, u64::MAX - 0xfff, 0], false),
            ([0, 0x1000, 0, u64::MAX - 0xfff], false),
        ] {
            assert_eq!(
                add_region(words).check_request().is_ok(),
                good,
                "{words:x?}"
            );
        }
    }

    #[test]
    fn refuses_a_memory_table_without_a_file_for_each_region() {
        let region = [0, 0x1000, 0, 0];
        let body = [longs(&[1]), longs(&region)].concat();
        message(5, &body, vec![memory_file(0x1000)])
            .check_request()
            .unwrap();
        message(5, &body, Vec::new()).check_request().unwrap_err();
        let huge = [longs(&[u32::MAX.into()]), longs(&region)].concat();
        message(5, &huge, vec![memory_file(0x1000)])
            .check_request()
            .unwrap_err();
    }
}

//! A vhost-user message on its way: how it is received and sent, with its file descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use vhost::vhost_user::message::{BackendReq, FrontendReq as Code};

use super::inflight::InflightError;

/// Request, flags, size: 32 bits each, in the byte order of the host.
const HEADER_BYTES: usize = 12;

/// In the flags of a reply: version 1, and that it is one.
const REPLY_FLAGS: u32 = 1 | 1 << 2;
/// In the flags of a request: the front-end waits for an answer, which is a 64-bit 0 for success.
const NEED_REPLY: u32 = 1 << 3;

/// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, whole: version 1, no reply wanted, no body.
pub(super) const CONFIG_CHANGE: [u8; HEADER_BYTES] = {
    let [c0, c1, c2, c3] = (BackendReq::CONFIG_CHANGE_MSG as u32).to_ne_bytes();
    let [v0, v1, v2, v3] = 1_u32.to_ne_bytes();
    [c0, c1, c2, c3, v0, v1, v2, v3, 0, 0, 0, 0]
};

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
    /// An inflight region that cannot be used.
    #[error(transparent)]
    Inflight(#[from] InflightError),
}

/// One message, header and body as received, with its file descriptors.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Message {
    /// A message made by hand, for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn new(code: u32, body: &[u8], files: Vec<OwnedFd>) -> Self {
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = [code, 1, size].map(u32::to_ne_bytes);
        Self {
            bytes: [header.as_flattened(), body].concat(),
            files,
        }
    }

    /// The answer to this request.
    pub(super) fn reply(&self, body: &[u8], files: Vec<OwnedFd>) -> Self {
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = [self.code(), REPLY_FLAGS, size].map(u32::to_ne_bytes);
        Self {
            bytes: [header.as_flattened(), body].concat(),
            files,
        }
    }

    /// That this request, which has no other answer, has succeeded; `None` when the front-end does
    /// not wait for it.
    pub(super) fn acknowledgement(&self) -> Option<Self> {
        let is_awaited = self.word(4) & NEED_REPLY != 0;
        is_awaited.then(|| self.reply(&0_u64.to_ne_bytes(), Vec::new()))
    }

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

    /// The number of the request.
    pub(super) fn code(&self) -> u32 {
        self.word(0)
    }

    /// The file descriptors that came with it.
    pub(super) fn files(&self) -> &[OwnedFd] {
        &self.files
    }

    /// The same, to be kept.
    pub(super) fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.files)
    }

    /// A 32-bit word of the body, 0 beyond its end.
    pub(super) fn body_word(&self, offset: usize) -> u32 {
        self.word(HEADER_BYTES + offset)
    }

    /// A 64-bit word of the body, 0 beyond its end.
    pub(super) fn body_long(&self, offset: usize) -> u64 {
        let long = self
            .bytes
            .get(HEADER_BYTES + offset..)
            .and_then(<[u8]>::first_chunk);
        long.copied().map_or(0, u64::from_ne_bytes)
    }
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
    use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
    use tokio::io::AsyncWriteExt;

    fn memory_file(length_bytes: u64) -> OwnedFd {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, length_bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn passes_a_message_with_its_files() {
        let (near, far) = UnixStream::pair().unwrap();
        let sent = Message::new(5, &[7; 100], vec![memory_file(1), memory_file(2)]);
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
            let whole = Message::new(2, &[0; 8], Vec::new()).bytes;
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
            let bytes = Message::new(5, &[], Vec::new()).bytes;
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
}

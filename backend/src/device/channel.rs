//! The channel between a front-end and the vhost crates.
//!
//! `VhostUserDaemon` only takes connections from a listener of its own and answers every message
//! itself, also those it should leave to us. So we accept the front-end and connect to the daemon
//! through a private listener, and pass messages and their file descriptors on, both ways. On the
//! way those that the crates had better not see are refused, and the two inflight messages, which the
//! crate refuses, are answered. Of the socket of SET_BACKEND_REQ_FD a duplicate is kept. When the
//! crate takes a connected stream and has hooks for these, this file can go.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream as BlockingStream};
use std::sync::Arc;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with,
};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::FrontendReq as Code;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::GuestMemoryAtomic;

use super::backend::{BlockDevice, Connection};
use super::filter::RequestFilter;
use super::inflight::{self, Description, InflightRegion};
use super::message::{Message, MessageError};
use crate::guest_memory::MemoryTable;

/// Why a front-end's connection ended before the front-end did.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The private connection could not be made: no more file descriptors, most likely.
    #[error("cannot start serving a front-end: {0}")]
    Start(#[source] io::Error),
    /// The daemon of the vhost crate could not be started.
    #[error("cannot start serving a front-end: {0}")]
    Daemon(vhost_user_backend::Error),
    /// The front-end sent what cannot be passed on.
    #[error("the front-end's connection was closed: {0}")]
    Message(#[from] MessageError),
    /// Memory that the front-end had shared is gone.
    #[error(
        "the front-end's connection was closed: the front-end truncated its memory file, or the \
         file system or huge pages behind it ran out of room"
    )]
    MemoryLost,
    /// The vhost crate refused a request.
    #[error("the front-end's connection was closed: {0}")]
    Refused(vhost_user_backend::Error),
}

type Daemon = VhostUserDaemon<Arc<Connection>>;

/// Serves one front-end until it closes its connection, then takes back its rings and lets go of
/// its memory. Returns `Ok` when it closed between messages; the caller logs the error, once.
///
/// Ending waits for the rings as long as [`RingOwner::stop_ring`](super::RingOwner::stop_ring)
/// may take. Dropping the future ends the connection too, and waits within the drop.
///
/// # Errors
/// When the connection could not be served, or was ended because of what the front-end sent.
pub async fn serve_front_end(
    stream: UnixStream,
    device: Arc<BlockDevice>,
) -> Result<(), ChannelError> {
    let connection = Connection::new(device).map_err(ChannelError::Start)?;
    let loss = loss_pipe(&connection).map_err(ChannelError::Start)?;
    let (mut served, inner) = Served::start(Arc::clone(&connection))?;
    let passed = tokio::select! {
        passed = pass_requests(&stream, &inner, &connection) => passed.map_err(ChannelError::from),
        () = pass_replies(&inner, &stream) => Ok(()),
        _ = loss.readable() => Err(ChannelError::MemoryLost),
    };
    drop((stream, inner));
    let daemon = tokio::task::spawn_blocking(move || served.end()).await;
    if connection.loss().is_lost() {
        // Whatever else came of it.
        return Err(ChannelError::MemoryLost);
    }
    passed?;
    match daemon {
        Ok(Err(error)) if !is_departure(&error) => Err(ChannelError::Refused(error)),
        _ => Ok(()),
    }
}

/// Readable when memory that the front-end had shared is gone. It tells where others would have to
/// ask: the handler of a signal may write to it, and it is seen at once.
fn loss_pipe(connection: &Connection) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(connection.loss().as_fd().try_clone_to_owned()?)
}

/// Passes requests on, or answers them, until either side closes.
async fn pass_requests(
    front_end: &UnixStream,
    daemon: &UnixStream,
    connection: &Connection,
) -> Result<(), MessageError> {
    let mut filter = RequestFilter::default();
    loop {
        let mut request = match Message::receive(front_end).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            // Killed, with a reply unread.
            Err(MessageError::Socket(e)) if e.kind() == io::ErrorKind::ConnectionReset => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        filter.check(&request)?;
        let sent = match answer(&mut request, connection)? {
            Answer::PassOn => request.send(daemon).await,
            Answer::Reply(Some(reply)) => reply.send(front_end).await,
            Answer::Reply(None) => Ok(()),
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

/// What to do with a request.
enum Answer {
    /// It is the daemon's to answer.
    PassOn,
    /// It is done; the front-end may wait for a reply.
    Reply(Option<Message>),
}

/// Answers the messages of INFLIGHT_SHMFD, and looks at some others.
///
/// The answers do not wait for messages before them that the daemon has not finished. A front-end sends
/// them before it sets up any ring, and GET_INFLIGHT_FD has to wait for its reply anyway.
fn answer(request: &mut Message, connection: &Connection) -> Result<Answer, MessageError> {
    let max_queues = connection.max_queues();
    match Code::try_from(request.code()) {
        Ok(Code::GET_INFLIGHT_FD) => {
            let (description, file) = inflight::create(Description::parse(request), max_queues)?;
            let reply = request.reply(&description.body(), vec![file]);
            Ok(Answer::Reply(Some(reply)))
        }
        Ok(Code::SET_INFLIGHT_FD) => {
            let (description, files) = (Description::parse(request), request.take_files());
            let region = InflightRegion::adopt(description, files, max_queues, connection.loss())?;
            if let Some(disk) = region.former_disk(&connection.disk())? {
                connection.take_over(disk);
            }
            connection.rings().set_inflight(region);
            Ok(Answer::Reply(request.acknowledgement()))
        }
        Ok(Code::SET_BACKEND_REQ_FD) => {
            // The daemon judges the message. It ends the connection when there is not one file.
            if let [socket] = request.files() {
                connection.set_config_channel(socket.try_clone().map_err(MessageError::Socket)?);
            }
            Ok(Answer::PassOn)
        }
        // A front-end may ignore what it is told before its driver is there.
        Ok(Code::SET_VRING_ENABLE) if request.body_word(0) == 0 => {
            connection.tell_capacity();
            Ok(Answer::PassOn)
        }
        _ => Ok(Answer::PassOn),
    }
}

/// Passes replies on until either side closes. The daemon closes when it refuses a request, and
/// [`Served::end`] has the reason.
async fn pass_replies(daemon: &UnixStream, front_end: &UnixStream) {
    while let Ok(Some(reply)) = Message::receive(daemon).await {
        if reply.send(front_end).await.is_err() {
            return;
        }
    }
}

/// Whether the daemon ended because we closed our end of its connection.
fn is_departure(error: &vhost_user_backend::Error) -> bool {
    use vhost::vhost_user::Error as VhostUserError;
    use vhost_user_backend::Error::HandleRequest;
    matches!(
        error,
        HandleRequest(
            VhostUserError::Disconnected
                | VhostUserError::PartialMessage
                | VhostUserError::SocketBroken(_)
        )
    )
}

/// A running daemon and its rings, which end with it.
struct Served {
    daemon: Option<Daemon>,
    connection: Arc<Connection>,
}

impl Served {
    /// Starts a daemon; returns also our end of the connection to it.
    fn start(connection: Arc<Connection>) -> Result<(Self, UnixStream), ChannelError> {
        let memory = GuestMemoryAtomic::new(MemoryTable::new());
        let mut daemon = connection
            .rings()
            .assemble(|| Daemon::new("vhost-user".into(), Arc::clone(&connection), memory))
            .map_err(ChannelError::Daemon)?;
        let (listener, inner) = private_connection().map_err(ChannelError::Start)?;
        daemon
            .start(&mut Listener::from(listener))
            .map_err(ChannelError::Daemon)?;
        let served = Self {
            daemon: Some(daemon),
            connection,
        };
        let inner = UnixStream::from_std(inner).map_err(ChannelError::Start)?;
        Ok((served, inner))
    }

    /// Waits for the daemon's thread, which ends when our end of its connection is closed, then
    /// takes back the rings: in this order, since the thread could start them again. Returns how
    /// the daemon ended.
    fn end(&mut self) -> Result<(), vhost_user_backend::Error> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        let result = daemon.wait();
        self.connection.end();
        result
    }
}

impl Drop for Served {
    /// Only has something to do when the serving future was dropped half-way.
    fn drop(&mut self) {
        if let Some(daemon) = &self.daemon {
            daemon.request_shutdown();
        }
        if let Err(error) = self.end() {
            log::debug!("the daemon of a dropped connection ended: {error}");
        }
    }
}

/// How often to try again when another process came between.
const CONNECT_ATTEMPTS: usize = 16;

/// A listener with exactly one connection waiting, and the other end of that connection.
///
/// The address is in the abstract namespace, named by the kernel, so it leaves nothing behind; but
/// anyone on this host may connect to it. With a backlog of 0 the kernel keeps one connection
/// waiting and no second: when ours is accepted without blocking, it is the one, and whoever comes
/// later is turned away when the listener closes.
fn private_connection() -> io::Result<(UnixListener, BlockingStream)> {
    for _ in 0..CONNECT_ATTEMPTS {
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&listener, &SocketAddrUnix::new_unnamed())?;
        listen(&listener, 0)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&stream, &getsockname(&listener)?) {
            Ok(()) => return Ok((listener.into(), stream.into())),
            Err(rustix::io::Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other(
        "another process keeps connecting to our private socket",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both go to other threads: the future to the runtime's, queues and requests to the owner's.
    #[test]
    fn can_be_spawned_and_handed_over() {
        fn sendable<T: Send>() {}
        fn spawnable<F: Future + Send>(_: fn(UnixStream, Arc<BlockDevice>) -> F) {}
        spawnable(serve_front_end);
        sendable::<crate::device::SplitQueue>();
        sendable::<crate::device::ParsedRequest>();
        sendable::<crate::device::RequestParser>();
    }

    #[test]
    fn keeps_a_second_connection_out_of_the_private_listener() {
        let (listener, _stream) = private_connection().unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let second = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let result = connect(&second, &getsockname(&listener).unwrap());
        assert_eq!(result, Err(rustix::io::Errno::AGAIN));
    }
}

//! Serving: all disks of the process, from the command line or a configuration file to the end.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::board::Board;
use super::control_socket::ControlSocket;
use super::disk::{Place, serve_disk};
use super::metrics_http;
use super::registry::Registry;
use crate::config::{DiskName, ManagementSettings, ServeSettings, ServedDisk};
use crate::exit::{ExitCode, Failure};
use crate::log_writer;
use crate::sandbox::{self, Policy, Trespasser, trespass};

/// Serves until SIGTERM or SIGINT, or until the one front-end of a connected socket has gone.
///
/// A disk that fails ends alone; with the last one the process ends, with the first failure.
pub(super) fn serve(settings: ServeSettings) -> Result<(), Failure> {
    // Before the runtime opens descriptors of its own.
    raise_descriptor_limit();
    let policy = Policy::of(&settings);
    let mode = settings.management.sandbox.mode;
    let claimed = settings.disks.into_iter().map(Claimed::new);
    let disks = claimed.collect::<Result<Vec<_>, _>>()?;
    // Before there is another thread: binding changes the process's umask for a moment.
    let windows = Windows::open(settings.management)?;
    // Before there is another thread, again: each inherits it.
    sandbox::enter(mode, &policy)?;
    log_writer::start_writing().map_err(|error| {
        Failure::new(
            ExitCode::Other,
            format!("cannot start writing the log: {error}"),
        )
    })?;
    let runtime = super::runtime()?;
    let result = runtime.block_on(serve_disks(disks, windows));
    // Logins in progress are of no use any more.
    runtime.shutdown_background();
    result
}

/// Where others can look into the process.
struct Windows {
    control_socket: Option<ControlSocket>,
    metrics: Option<TcpListener>,
}

impl Windows {
    fn open(settings: ManagementSettings) -> Result<Self, Failure> {
        let metrics = settings.metrics_address.map(metrics_http::bind);
        Ok(Self {
            control_socket: ControlSocket::bind(settings.control_socket)?,
            metrics: metrics.transpose()?,
        })
    }

    /// They are answered from now on.
    fn serve(&mut self, registry: &Arc<Registry>) -> Result<(), Failure> {
        if let Some(socket) = &mut self.control_socket {
            socket.serve(Arc::clone(registry))?;
        }
        match self.metrics.take() {
            Some(listener) => metrics_http::serve(listener, Arc::clone(registry)),
            None => Ok(()),
        }
    }
}

/// A disk whose socket is ours.
struct Claimed {
    disk: ServedDisk,
    place: Place,
    board: Arc<Board>,
}

impl Claimed {
    fn new(disk: ServedDisk) -> Result<Self, Failure> {
        let place = Place::claim(disk.socket.clone(), &disk.disk)?;
        let board = Arc::new(Board::new(&disk));
        Ok(Self { disk, place, board })
    }

    async fn serve(self, stop: Stop) -> (DiskName, Result<(), Failure>) {
        let Self { disk, place, board } = self;
        let result = serve_disk(disk.disk, place, stop, &board).await;
        board.ended(&result);
        (disk.name, result)
    }
}

/// Each ring takes a few descriptors, each memory region one: a guest with 64 queues and hot-added
/// memory can need more than the usual soft limit of 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!("the limit of open files stays at {current:?}: {error}");
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed =
            |error| Failure::new(ExitCode::Other, format!("cannot watch signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Tells a disk that it is to end.
#[derive(Clone, Debug)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the disk is to end.
    pub(super) async fn asked(&mut self) {
        // When nobody can ask any more the process is ending, too.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}

async fn serve_disks(claimed: Vec<Claimed>, mut windows: Windows) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    trespass_everywhere();
    let boards = claimed.iter().map(|claimed| Arc::clone(&claimed.board));
    let registry = Arc::new(Registry::new(boards.collect()));
    windows.serve(&registry)?;
    let (stop, asked) = watch::channel(false);
    let is_only = claimed.len() == 1;
    let mut disks = JoinSet::new();
    for claimed in claimed {
        disks.spawn(claimed.serve(Stop(asked.clone())));
    }
    let mut result = Ok(());
    if disks.is_empty() {
        log::warn!("the configuration has no disk yet: nothing is served");
        let name = signals.wait().await;
        log::info!("{name}: ending");
        return result;
    }
    loop {
        tokio::select! {
            name = signals.wait() => {
                log::info!("{name}: ending");
                stop.send_replace(true);
            }
            ended = disks.join_next() => match ended {
                None => return result,
                Some(Ok((_, Ok(())))) => {}
                Some(Ok((name, Err(failure)))) => {
                    if !is_only {
                        log_end(&name, &failure);
                    }
                    result = result.and(Err(failure));
                }
                // A panic ends the process before this.
                Some(Err(error)) => log::error!("a disk has ended: {error}"),
            },
        }
    }
}

/// Nothing, but in a debug build that is told to.
fn trespass_everywhere() {
    trespass(Trespasser::Main);
    tokio::spawn(async { trespass(Trespasser::Worker) });
    tokio::task::spawn_blocking(|| trespass(Trespasser::Blocking));
}

fn log_end(name: &DiskName, failure: &Failure) {
    log::error!("disk {} is not served: {failure}", name.as_str());
}

//! Serving: all disks of the process, from the command line or a configuration file to the end.

use std::net::TcpListener;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

use super::control_socket::ControlSocket;
use super::fleet::{End, Fleet};
use super::metrics_http;
use super::notify;
use super::plan::Source;
use super::portals::Portals;
use super::registry::Registry;
use super::service::{Service, log_changes};
use crate::config::{ManagementSettings, ServeSettings};
use crate::exit::{ExitCode, Failure};
use crate::log_writer;
use crate::sandbox::{self, Policy, Trespasser, trespass};

/// Serves until SIGTERM or SIGINT.
///
/// The disk of a command line ends the process when it fails, or when the one front-end of a connected
/// socket has gone. Of those of a configuration each fails alone, and the process goes on.
pub(super) fn serve(settings: ServeSettings) -> Result<(), Failure> {
    // Before the runtime opens descriptors of its own.
    raise_descriptor_limit();
    let policy = Policy::of(&settings);
    let mode = settings.management.sandbox.mode;
    // Before there is another thread: each inherits it.
    sandbox::enter(mode, &policy)?;
    log_writer::start_writing().map_err(|error| {
        Failure::new(
            ExitCode::Other,
            format!("cannot start writing the log: {error}"),
        )
    })?;
    let runtime = super::runtime()?;
    let result = runtime.block_on(serve_disks(settings));
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
    fn serve(&mut self, registry: &Arc<Registry>, service: &Arc<Service>) -> Result<(), Failure> {
        if let Some(socket) = &mut self.control_socket {
            socket.serve(Arc::clone(service))?;
        }
        match self.metrics.take() {
            Some(listener) => metrics_http::serve(listener, Arc::clone(registry)),
            None => Ok(()),
        }
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

/// The signals that ask for something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// That of a service only: else it ends the process, as when a terminal is closed.
    hang_up: Option<Signal>,
}

/// What a signal asks for.
enum Asked {
    End,
    Reload,
}

impl Signals {
    fn new(is_service: bool) -> Result<Self, Failure> {
        let watch = |kind| {
            let failed = |e| Failure::new(ExitCode::Other, format!("cannot watch signals: {e}"));
            signal(kind).map_err(failed)
        };
        let hang_up = is_service.then(|| watch(SignalKind::hangup()));
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hang_up: hang_up.transpose()?,
        })
    }

    async fn next(&mut self) -> Asked {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => log::info!("SIGTERM: ending"),
            _ = self.interrupt.recv() => log::info!("SIGINT: ending"),
            _ = hang_up => {
                log::info!("SIGHUP: reading the configuration again");
                return Asked::Reload;
            }
        }
        Asked::End
    }
}

type Ends = UnboundedReceiver<End>;

/// The disk of a command line: its end is that of the process.
async fn serve_one(fleet: &Fleet, signals: &mut Signals, mut ends: Ends) -> Result<(), Failure> {
    loop {
        tokio::select! {
            _ = signals.next() => {
                notify::stopping();
                fleet.end();
            }
            end = ends.recv() => return end.map_or(Ok(()), |end| end.result),
        }
    }
}

/// Nothing, but in a debug build that is told to.
fn trespass_everywhere() {
    trespass(Trespasser::Main);
    tokio::spawn(async { trespass(Trespasser::Worker) });
    tokio::task::spawn_blocking(|| trespass(Trespasser::Blocking));
}

/// The disks of a service, which come and go, until it is told to end.
async fn serve_many(fleet: &Arc<Fleet>, service: &Arc<Service>, signals: &mut Signals, ends: Ends) {
    tokio::spawn(follow(Arc::clone(fleet), ends));
    while let Asked::Reload = signals.next().await {
        let service = Arc::clone(service);
        tokio::spawn(async move { service.reload().await });
    }
    notify::stopping();
    fleet.end();
    fleet.ended().await;
}

/// Says what has failed, and takes up what could not be done before.
async fn follow(fleet: Arc<Fleet>, mut ends: Ends) {
    while let Some(end) = ends.recv().await {
        if let Err(failure) = &end.result {
            log::error!("disk {} is not served: {failure}", end.name.as_str());
        }
        log_changes("a guest has gone", &fleet.follow(&end).await);
    }
}

async fn serve_disks(settings: ServeSettings) -> Result<(), Failure> {
    let is_service = settings.configuration.is_some();
    // First: whoever sees us at a socket may send them.
    let mut signals = Signals::new(is_service)?;
    trespass_everywhere();
    let mut windows = Windows::open(settings.management.clone())?;
    let registry = Arc::new(Registry::new());
    let (fleet, ends) = Fleet::new(Arc::clone(&registry));
    let fleet = Arc::new(fleet);
    let portals = Portals::new(Arc::clone(&fleet), Arc::clone(&registry));
    let portals = Arc::new(portals);
    let service = Arc::new(Service::new(
        Arc::clone(&registry),
        Arc::clone(&fleet),
        Arc::clone(&portals),
        settings.management,
        settings.configuration,
    ));
    let started = fleet.apply(Source::File, settings.disks).await;
    started.map_err(first)?;
    portals.set(settings.portals).await;
    windows.serve(&registry, &service)?;
    notify::watch(&registry);
    if is_service {
        serve_many(&fleet, &service, &mut signals, ends).await;
        return Ok(());
    }
    serve_one(&fleet, &mut signals, ends).await
}

/// There is one line for why the process ends.
fn first(failures: Vec<Failure>) -> Failure {
    let none = || Failure::new(ExitCode::Other, "the disks cannot be served");
    failures.into_iter().next().unwrap_or_else(none)
}

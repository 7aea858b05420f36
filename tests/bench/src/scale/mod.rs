//! The verb `scale`: whether a request, and doing nothing, cost the same with many disks.
//!
//! Each disk is a process with a socket of its own, or all of them are one process; all are on the same
//! LUN, which is only read. One client thread drives all disks at once.

mod fleet;
mod report;
pub(crate) mod text;

use std::time::{Duration, SystemTime};

use crate::cli::ScaleOptions;
use crate::client::{Load, Operation, Order, Window};
use crate::failure::Failure;
use crate::measure::machine::Machine;
use crate::parts::server::Digests;
use crate::parts::{Pinning, ServerOptions, Target, pin};
use crate::progress::Progress;
use crate::quiet;
use crate::round::Round;
use crate::stage::Programs;
use crate::workspace::Workspace;
use fleet::{Fleet, Processes};
use report::{DisksReport, QueuesReport, ScaleReport};

const REQUEST_BYTES: u32 = 4096;
/// Unmeasured, before each load.
const WARM_UP: Duration = Duration::from_millis(500);

/// Measures what `options` ask for.
///
/// # Errors
/// When a part fails or the machine is busy.
pub(crate) fn run(options: &ScaleOptions) -> Result<ScaleReport, Failure> {
    let workspace = Workspace::new()?;
    let pinning = options.parts.pinning();
    let programs = Programs {
        back_end: options.parts.back_end()?,
        back_end_arguments: options.back_end_arguments.clone(),
        peer: options.parts.peer.clone(),
    };
    let target = Target::start(&options.target, pinning.target)?;
    pin::pin_this_thread(pinning.client)?;
    let run = Run {
        options,
        server_options: server_options(options, &programs, pinning),
        target,
        workspace,
        progress: Progress::new(),
    };
    let mut report = header(options, &programs, pinning);
    for disks in &options.disks {
        report.disks.push(run.measure_disks(*disks)?);
    }
    for queues in &options.queues {
        report.queues.push(run.measure_queues(*queues)?);
    }
    Ok(report)
}

/// What all steps have in common.
struct Run<'a> {
    options: &'a ScaleOptions,
    server_options: ServerOptions,
    target: Target,
    workspace: Workspace,
    progress: Progress,
}

impl Run<'_> {
    /// So many disks: silent first, since memory is that of processes that have done little.
    fn measure_disks(&self, disks: u16) -> Result<DisksReport, Failure> {
        let name = format!("disks {disks}");
        let load = self.load(1);
        let mut fleet = self.start(disks, &load)?;
        fleet.use_briefly()?;
        let time = Duration::from_secs_f64(self.options.idle_seconds);
        let idle = quiet::measure(&name, &self.progress, || {
            Ok(fleet.watch_silent(time, &self.target))
        })?;
        let load = self.measure_load(&name, &mut fleet, &load)?;
        Ok(DisksReport { disks, idle, load })
    }

    /// One disk with so many queues, in a process that has never had more.
    fn measure_queues(&self, queues: u16) -> Result<QueuesReport, Failure> {
        let name = format!("queues {queues}");
        let load = self.load(queues);
        let mut fleet = self.start(1, &load)?;
        let load = self.measure_load(&name, &mut fleet, &load)?;
        Ok(QueuesReport { queues, load })
    }

    fn start(&self, disks: u16, load: &Load) -> Result<Fleet, Failure> {
        let processes = if self.options.one_process {
            Processes::One {
                share_sessions: self.options.share_sessions,
            }
        } else {
            Processes::Many
        };
        Fleet::start(
            (disks, processes),
            (self.options.subject, &self.server_options),
            self.target.url(),
            self.workspace.directory(),
            load,
        )
    }

    fn measure_load(&self, name: &str, fleet: &mut Fleet, load: &Load) -> Result<Round, Failure> {
        let window = Window {
            warm_up: WARM_UP,
            length: Duration::from_secs_f64(self.options.seconds),
        };
        let round = quiet::measure(name, &self.progress, || {
            let round = fleet.measure(load, &self.target, window)?;
            Ok((round.activity.clone(), round))
        })?;
        let (iops, cpu_us) = (round.iops, round.server_cpu_us);
        self.progress.say(format_args!(
            "{name}: {iops:.0} IOPS, {cpu_us:.2} us of a processor per request"
        ));
        Ok(round)
    }

    fn load(&self, queues: u16) -> Load {
        Load {
            operation: Operation::Read,
            order: Order::Random,
            request_bytes: REQUEST_BYTES,
            depth: self.options.depth,
            queues,
        }
    }
}

fn server_options(options: &ScaleOptions, programs: &Programs, pinning: Pinning) -> ServerOptions {
    ServerOptions {
        back_end: programs.back_end.clone(),
        back_end_arguments: programs.back_end_arguments.clone(),
        peer: programs.peer.clone(),
        digests: Digests::Off,
        queues: options.most_queues(),
        cpu: pinning.back_end,
    }
}

/// A report of nothing yet.
fn header(options: &ScaleOptions, programs: &Programs, pinning: Pinning) -> ScaleReport {
    ScaleReport {
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        machine: Machine::here(),
        pinning,
        target: options.target.to_string(),
        subject: options.subject,
        version: programs.version(options.subject),
        back_end_arguments: programs.back_end_arguments.clone(),
        depth: options.depth,
        seconds: options.seconds,
        one_process: options.one_process,
        share_sessions: options.share_sessions,
        disks: Vec::new(),
        queues: Vec::new(),
    }
}

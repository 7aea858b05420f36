//! The whole benchmark: every target, every case, everybody in turn.

use std::time::{Duration, SystemTime};

use vhost_user_iscsi::url::TargetUrl;

use crate::case::{Arm, Case, Variant};
use crate::cli::RunOptions;
use crate::client::{Client, Window};
use crate::demands;
use crate::failure::Failure;
use crate::floors;
use crate::idle;
use crate::measure::machine::Machine;
use crate::measure::syscalls::Counter;
use crate::parts::{Subject, TargetName, pin};
use crate::progress::Progress;
use crate::quiet;
use crate::report::{ArmReport, CaseReport, IdleReport, Report, TargetReport};
use crate::round::{self, Round};
use crate::stage::{Programs, Stage};
use crate::workspace::Workspace;

/// Unmeasured before each round, as a share of it.
const WARM_UP_SHARE: f64 = 0.25;
/// The name by which `--case` chooses the silent guest.
const IDLE: &str = "idle";

/// Everything that a run needs to know.
struct Run<'a> {
    options: &'a RunOptions,
    programs: Programs,
    counter: Option<Counter>,
    window: Window,
    rounds: u32,
    progress: Progress,
}

/// Measures what `options` ask for, and judges it.
///
/// # Errors
/// When a part fails or the machine is busy.
pub(crate) fn run(options: &RunOptions) -> Result<Report, Failure> {
    check_choice(options)?;
    let workspace = Workspace::new()?;
    let run = Run::new(options)?;
    let pinning = options.parts.pinning();
    let mut report = run.header();
    pin::pin_this_thread(pinning.client)?;
    for name in options.targets() {
        run.progress.say(format_args!("starting the target {name}"));
        let mut stage = Stage::new(&name, &run.programs, pinning, workspace.directory())?;
        let target = run.measure_target(&mut stage, &name)?;
        report.verdicts.extend(demands::judge(&target));
        report.targets.push(target);
    }
    Ok(report)
}

/// Says so when no case is chosen, rather than report nothing.
fn check_choice(options: &RunOptions) -> Result<(), Failure> {
    let targets = options.targets();
    let names: Vec<String> = targets
        .iter()
        .flat_map(|target| options.cases(target))
        .map(|case| case.name())
        .chain([IDLE.to_owned()])
        .collect();
    if names.iter().any(|name| options.chooses(name)) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "no case has a name like that; there are {}",
        names.join(" ")
    )))
}

impl<'a> Run<'a> {
    fn new(options: &'a RunOptions) -> Result<Self, Failure> {
        let counter = if options.no_syscalls {
            None
        } else {
            Some(Counter::find()?)
        };
        let seconds = options.seconds();
        Ok(Self {
            options,
            programs: Programs {
                back_end: options.parts.back_end()?,
                back_end_arguments: options.back_end_arguments.clone(),
                peer: options.parts.peer.clone(),
            },
            counter,
            window: Window {
                warm_up: Duration::from_secs_f64(seconds * WARM_UP_SHARE),
                length: Duration::from_secs_f64(seconds),
            },
            rounds: options.rounds(),
            progress: Progress::new(),
        })
    }

    /// A report of nothing yet.
    fn header(&self) -> Report {
        Report {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine::here(),
            pinning: self.options.parts.pinning(),
            back_end_version: self.programs.version(Subject::Ours),
            back_end_arguments: self.programs.back_end_arguments.clone(),
            peer_version: self.programs.version(Subject::Peer),
            peer: self.programs.peer.clone(),
            rounds: self.rounds,
            seconds: self.window.length.as_secs_f64(),
            quick: self.options.quick,
            syscall_counter: self.counter,
            targets: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    fn measure_target(
        &self,
        stage: &mut Stage<'_>,
        name: &TargetName,
    ) -> Result<TargetReport, Failure> {
        let mut target = TargetReport {
            name: name.to_string(),
            cases: Vec::new(),
            idle: Vec::new(),
        };
        // First, since memory is that of processes that have done little.
        if self.options.chooses(IDLE) {
            target.idle = idle::measure(stage, self.options.idle_time())?;
            target
                .idle
                .iter()
                .for_each(|idle| self.tell_idle(name, idle));
        }
        let cases = self.options.cases(name).into_iter();
        for case in cases.filter(|case| self.options.chooses(&case.name())) {
            let case = self.measure_case(stage, &case)?;
            self.tell(name, &case);
            target.cases.push(case);
        }
        Ok(target)
    }

    fn measure_case(&self, stage: &mut Stage<'_>, case: &Case) -> Result<CaseReport, Failure> {
        let mut report = empty_report(case);
        if let Some(reason) = self.obstacle(stage, case)? {
            report.failed = Some(reason.to_owned());
            return Ok(report);
        }
        for arm in case.arms() {
            stage.prepare(arm)?;
        }
        report.arms = match case.variant {
            Variant::Inflight => self.measure_in_one_server(stage, case)?,
            _ => self.measure_arms(stage, case)?,
        };
        let url = TargetUrl::parse(stage.target().url())
            .map_err(|error| Failure::usage(error.to_string()))?;
        report.floors = floors::measure(&url, case, self.window).unwrap_or_else(|reason| {
            self.progress
                .say(format_args!("{}: no bare initiator: {reason}", report.name));
            Vec::new()
        });
        Ok(report)
    }

    /// Why a case cannot be measured, if it cannot.
    fn obstacle(
        &self,
        stage: &mut Stage<'_>,
        case: &Case,
    ) -> Result<Option<&'static str>, Failure> {
        Ok(match case.variant {
            Variant::BusyPoll if !self.programs.can_poll() => {
                Some("this back-end has no busy-poll")
            }
            Variant::Inflight => {
                let ours = Arm::plain(Subject::Ours);
                stage.prepare(ours)?;
                let client = stage.connect(ours, &case.load)?;
                let missing = !client.has_inflight_region();
                missing.then_some("this back-end has no inflight region")
            }
            _ => None,
        })
    }

    /// Runs all arms of a case in turn, as many times as there are rounds.
    fn measure_arms(&self, stage: &Stage<'_>, case: &Case) -> Result<Vec<ArmReport>, Failure> {
        let arms = case.arms();
        let connect = |arm: &Arm| Ok((*arm, stage.connect(*arm, &case.load)?));
        let mut clients: Vec<(Arm, Client)> = arms.iter().map(connect).collect::<Result<_, _>>()?;
        let mut reports: Vec<_> = clients
            .iter()
            .map(|(arm, client)| empty_arm(*arm, client))
            .collect();
        for _ in 0..case.rounds(self.rounds) {
            for ((arm, client), report) in clients.iter_mut().zip(&mut reports) {
                report
                    .rounds
                    .push(self.quiet_round(stage, case, *arm, client)?);
            }
        }
        if let Some(counter) = self.counter {
            for ((arm, client), report) in clients.iter_mut().zip(&mut reports) {
                let server = stage.server(*arm);
                let calls = round::count_syscalls(client, server, self.window, counter)?;
                report.syscalls = Some(calls);
            }
        }
        Ok(reports)
    }

    /// The same for arms that share a server, which serves one client at a time: each connects anew for
    /// each round. What a connection is given by chance, such as the pages of its memory, is so a
    /// matter of one round, not of all rounds of an arm: the median takes it out.
    fn measure_in_one_server(
        &self,
        stage: &Stage<'_>,
        case: &Case,
    ) -> Result<Vec<ArmReport>, Failure> {
        let arms = case.arms();
        let report = |arm: &Arm| Ok(empty_arm(*arm, &stage.connect(*arm, &case.load)?));
        let mut reports = arms.iter().map(report).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..case.rounds(self.rounds) {
            for (arm, report) in arms.iter().zip(&mut reports) {
                let mut client = stage.connect(*arm, &case.load)?;
                let round = self.quiet_round(stage, case, *arm, &mut client)?;
                report.rounds.push(round);
            }
        }
        if let Some(counter) = self.counter {
            for (arm, report) in arms.iter().zip(&mut reports) {
                let mut client = stage.connect(*arm, &case.load)?;
                let server = stage.server(*arm);
                let calls = round::count_syscalls(&mut client, server, self.window, counter)?;
                report.syscalls = Some(calls);
            }
        }
        Ok(reports)
    }

    /// One round, repeated while something else was running.
    fn quiet_round(
        &self,
        stage: &Stage<'_>,
        case: &Case,
        arm: Arm,
        client: &mut Client,
    ) -> Result<Round, Failure> {
        let parts = (stage.server(arm), stage.target());
        let mut measure = || round::measure(client, &case.load, parts, self.window);
        if self.options.quick {
            return measure();
        }
        quiet::measure(&case.name(), &self.progress, || {
            measure().map(|round| (round.activity.clone(), round))
        })
    }

    fn tell(&self, target: &TargetName, case: &CaseReport) {
        if let Some(cost) = case.inflight_cost() {
            self.progress
                .say(format_args!("{target} {}: {cost}", case.name));
            return;
        }
        let Some(ratio) = case.ratio(|round| round.server_cpu_us) else {
            let reason = case.failed.as_deref().unwrap_or("not measured");
            self.progress
                .say(format_args!("{target} {}: {reason}", case.name));
            return;
        };
        let median = |subject, value: fn(&Round) -> f64| case.median(subject, value).unwrap_or(0.0);
        let of = |subject| {
            let iops = median(subject, |round| round.iops);
            let cpu_us = median(subject, |round| round.server_cpu_us);
            format!("{subject} {iops:.0} IOPS {cpu_us:.2} us")
        };
        self.progress.say(format_args!(
            "{target} {}: {}, {}, CPU ratio {ratio:.2}",
            case.name,
            of(Subject::Ours),
            of(Subject::Peer)
        ));
    }

    fn tell_idle(&self, target: &TargetName, idle: &IdleReport) {
        self.progress.say(format_args!(
            "{target} idle: {} {:.3} % of a CPU, {:.1} MiB",
            idle.subject,
            idle.cpu_share * 100.0,
            round::as_f64(idle.anonymous_bytes) / f64::from(1 << 20)
        ));
    }
}

fn empty_report(case: &Case) -> CaseReport {
    CaseReport {
        name: case.name(),
        operation: case.load.operation.to_string(),
        request_bytes: case.load.request_bytes,
        depth: case.load.depth,
        queues: case.load.queues,
        busy_poll: case.variant == Variant::BusyPoll,
        arms: Vec::new(),
        floors: Vec::new(),
        failed: None,
    }
}

fn empty_arm(arm: Arm, client: &Client) -> ArmReport {
    ArmReport {
        subject: arm.subject,
        digests: arm.digests,
        features: client.features(),
        inflight_region: client.has_inflight_region(),
        rounds: Vec::new(),
        syscalls: None,
    }
}

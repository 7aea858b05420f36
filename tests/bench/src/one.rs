//! The verb `one`: a single measurement, one line.

use std::time::Duration;

use crate::cli::OneOptions;
use crate::client::{InflightRegion, Load, Window};
use crate::failure::Failure;
use crate::measure::syscalls::Counter;
use crate::parts::server::Digests;
use crate::parts::{Server, ServerOptions, Target, pin};
use crate::round::{self, Round};
use crate::stage;
use crate::workspace::Workspace;

/// Unmeasured, before each measurement.
const WARM_UP: Duration = Duration::from_millis(300);

/// Measures as `options` say and prints the line.
///
/// # Errors
/// When a part fails.
#[allow(clippy::print_stdout, reason = "the result of the verb")]
pub(crate) fn run(options: &OneOptions) -> Result<(), Failure> {
    let workspace = Workspace::new()?;
    let pinning = options.parts.pinning();
    let load = Load {
        operation: options.case.operation,
        order: options.case.order,
        request_bytes: options.case.request_bytes,
        depth: options.depth,
        queues: options.queues,
    };
    let window = Window {
        warm_up: WARM_UP,
        length: Duration::from_secs_f64(options.seconds),
    };
    let target = Target::start(&options.target, pinning.target)?;
    let server_options = ServerOptions {
        back_end: options.parts.back_end()?,
        back_end_arguments: options.back_end_arguments.clone(),
        peer: options.parts.peer.clone(),
        digests: Digests::Off,
        queues: options.queues,
        cpu: pinning.back_end,
    };
    let server = Server::start(
        options.subject,
        target.url(),
        workspace.directory(),
        &server_options,
    )?;
    pin::pin_this_thread(pinning.client)?;
    let region = if options.no_inflight {
        InflightRegion::LeftOut
    } else {
        InflightRegion::Taken
    };
    let mut client = stage::connect(&server, &server.sockets()[0], &load, region)?;
    let round = round::measure(&mut client, &load, (&server, &target), window)?;
    let syscalls = if options.syscalls {
        let counter = Counter::find()?;
        Some(round::count_syscalls(
            &mut client,
            &server,
            window,
            counter,
        )?)
    } else {
        None
    };
    println!("{}", line(&round, syscalls));
    Ok(())
}

/// The result as one line.
fn line(round: &Round, syscalls: Option<f64>) -> String {
    let target = round
        .target_cpu_us
        .map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    let syscalls = syscalls.map_or_else(String::new, |count| {
        format!("  syscalls/request {count:.3}")
    });
    format!(
        "{:.0} IOPS  {:.0} MB/s  p50 {:.1}  p99 {:.1}  p99.9 {:.1} us  \
         CPU us/request: back-end {:.2}  target {target}  client {:.2}  \
         switches/request {:.3}  kicks/request {:.3}{syscalls}  others {:.1} % of a CPU",
        round.iops,
        round.megabytes_per_second,
        round.p50_us,
        round.p99_us,
        round.p999_us,
        round.server_cpu_us,
        round.client_cpu_us,
        round.server_switches,
        round.kicks,
        (round.activity.others + round.activity.steal) * 100.0,
    )
}

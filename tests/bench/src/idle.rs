//! What a guest costs that is connected and silent.

use std::thread;
use std::time::{Duration, Instant};

use crate::case::Arm;
use crate::client::{Client, Load, Operation, Order, Window};
use crate::failure::Failure;
use crate::measure::process::{Usage, anonymous_bytes};
use crate::parts::Subject;
use crate::report::IdleReport;
use crate::stage::Stage;

const QUEUES: u16 = 4;
/// After the last request, until it counts: what is adaptive comes to rest.
const SETTLE: Duration = Duration::from_secs(1);
/// Every queue is used before, so that what is made on first use is there.
const USE: Window = Window {
    warm_up: Duration::ZERO,
    length: Duration::from_millis(200),
};

/// Watches both servers for `time`, each with a guest of 4 queues that have all been used.
///
/// # Errors
/// When a server fails.
pub(crate) fn measure(stage: &mut Stage<'_>, time: Duration) -> Result<Vec<IdleReport>, Failure> {
    let arms = [Subject::Ours, Subject::Peer].map(Arm::plain);
    let mut clients = Vec::new();
    for arm in arms {
        stage.prepare(arm)?;
        clients.push(connect_and_use(stage, arm)?);
    }
    thread::sleep(SETTLE);
    let begin = Instant::now();
    let usage = || arms.map(|arm| Usage::of(stage.server(arm).pid()));
    let before = usage();
    thread::sleep(time);
    let after = usage();
    let elapsed = begin.elapsed();
    drop(clients);
    let of_arm = |(index, arm): (usize, &Arm)| {
        let used = Duration::from_nanos((after[index] - before[index]).cpu_ns);
        IdleReport {
            subject: arm.subject,
            queues: QUEUES,
            seconds: elapsed.as_secs_f64(),
            cpu_share: used.as_secs_f64() / elapsed.as_secs_f64(),
            anonymous_bytes: anonymous_bytes(stage.server(*arm).pid()),
        }
    };
    Ok(arms.iter().enumerate().map(of_arm).collect())
}

fn connect_and_use(stage: &Stage<'_>, arm: Arm) -> Result<Client, Failure> {
    let load = Load {
        operation: Operation::Read,
        order: Order::Random,
        request_bytes: 4096,
        depth: 32,
        queues: QUEUES,
    };
    let mut client = stage.connect(arm, &load)?;
    client
        .run(USE, &mut |_| ())
        .map_err(|error| stage.server(arm).failure(error))?;
    Ok(client)
}

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
pub(crate) const USE: Window = Window {
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
    let watched = watch(&arms.map(|arm| stage.server(arm).pid()), time);
    drop(clients);
    let of_arm = |(arm, used): (&Arm, &Usage)| IdleReport {
        subject: arm.subject,
        queues: QUEUES,
        seconds: watched.elapsed.as_secs_f64(),
        cpu_share: watched.share(*used),
        anonymous_bytes: anonymous_bytes(stage.server(*arm).pid()),
    };
    Ok(arms.iter().zip(&watched.used).map(of_arm).collect())
}

/// What silent processes used.
pub(crate) struct Watched {
    /// How long they were watched.
    pub(crate) elapsed: Duration,
    /// What each used meanwhile.
    pub(crate) used: Vec<Usage>,
}

impl Watched {
    /// Processor time used as a share of one processor.
    pub(crate) fn share(&self, used: Usage) -> f64 {
        Duration::from_nanos(used.cpu_ns).as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

/// Lets processes that have just been used come to rest, then watches them for `time`.
pub(crate) fn watch(pids: &[u32], time: Duration) -> Watched {
    thread::sleep(SETTLE);
    let usages = || pids.iter().map(|pid| Usage::of(*pid));
    let begin = Instant::now();
    let before: Vec<Usage> = usages().collect();
    thread::sleep(time);
    let used = usages().zip(before).map(|(after, before)| after - before);
    Watched {
        used: used.collect(),
        elapsed: begin.elapsed(),
    }
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

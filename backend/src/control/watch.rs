//! Looks at a disk's LUN while it is served: when the target tells that it has changed, and every now
//! and then, for targets that do not tell.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use iscsi_core::disk::facts::LunFacts;
use iscsi_core::disk::probe::Probe;
use iscsi_core::disk::record::DiskRecord;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::attached::Attached;
use crate::engine::InspectionError;

/// The pause between two looks, whatever the target tells: each costs it a dozen commands.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a look that came to nothing.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Looks for as long as somebody may want it. `outdated` brings the lanes that were told of a change,
/// each once until the next look.
pub(super) async fn watch(disk: Arc<Attached>, mut outdated: UnboundedReceiver<usize>) {
    // The lane that is to look because a look came to nothing.
    let mut again = None;
    let mut due = after(disk.settings.capacity_poll);
    loop {
        let told = tokio::select! {
            biased;
            () = until(again.and(after(Some(RETRY_PAUSE)))) => again.take(),
            told = outdated.recv() => match told {
                Some(lane) => Some(lane),
                None => return,
            },
            () = until(due) => None,
        };
        due = after(disk.settings.capacity_poll);
        disk.engine.facts_are_read();
        // They are answered by this look, too.
        while outdated.try_recv().is_ok() {}
        let looked = match told {
            Some(lane) => disk.look(lane).await,
            None => disk.review().await,
        };
        if told.is_some() {
            again = told.filter(|_| looked.is_break());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// When a time from now on will have passed.
fn after(time: Option<Duration>) -> Option<Instant> {
    time.map(|time| Instant::now() + time)
}

/// For ever, when there is no point in time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Attached {
    /// Asks the little that a target may change without a word, and all of it when that has changed.
    async fn review(self: &Arc<Self>) -> ControlFlow<()> {
        let known = self.found().await;
        match self.inspect(0, Probe::review(known.clone())).await {
            Ok(seen) if seen.facts == known => ControlFlow::Continue(()),
            Ok(_) => self.look(0).await,
            Err(error) => {
                let target = &self.settings.target;
                log::debug!("{target}: the LUN was not looked at: {error}");
                ControlFlow::Continue(())
            }
        }
    }

    /// Asks everything. Breaks off when it should be tried again.
    async fn look(self: &Arc<Self>, lane: usize) -> ControlFlow<()> {
        match self.inspect(lane, Probe::new()).await {
            Ok(seen) => {
                self.judge(seen.facts).await;
                ControlFlow::Continue(())
            }
            // The next login looks.
            Err(InspectionError::NoSession) => ControlFlow::Continue(()),
            Err(error) => {
                log::warn!(
                    "{}: the target tells of a change of the LUN, and does not say which: {error}; \
                     trying again",
                    self.settings.target
                );
                ControlFlow::Break(())
            }
        }
    }

    /// Bytes must never go to another disk.
    async fn judge(self: &Arc<Self>, found: LunFacts) {
        let record = DiskRecord::of(&found);
        if self.engine.expected_disk().accepts(&record) {
            self.learn(found).await;
        } else {
            self.engine.refuse(&record);
        }
    }
}

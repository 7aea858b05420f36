//! Which disk, and which session of it, a line of the log is about: known where a thread or a task
//! begins, so that no line has to say it.
//!
//! It costs something when a line is written only: nothing on the path of a request.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

/// A disk, or sessions that disks share, perhaps one of them, or nothing in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogContext {
    /// The name of the disk.
    pub(crate) disk: Option<Arc<str>>,
    /// The target of sessions that disks share.
    pub(crate) target: Option<Arc<str>>,
    /// Which session of it.
    pub(crate) session: Option<usize>,
}

thread_local! {
    static OF_THREAD: RefCell<LogContext> = RefCell::default();
}

tokio::task_local! {
    static OF_TASK: LogContext;
}

impl LogContext {
    /// A disk.
    pub(crate) fn of_disk(name: &str) -> Self {
        Self {
            disk: Some(name.into()),
            ..Self::default()
        }
    }

    /// The sessions that disks share to a target.
    pub(crate) fn of_target(name: &str) -> Self {
        Self {
            target: Some(name.into()),
            ..Self::default()
        }
    }

    /// The same, and one of its sessions.
    pub(crate) fn with_session(self, session: usize) -> Self {
        Self {
            session: Some(session),
            ..self
        }
    }

    /// What this task is about, else what this thread is about.
    pub(crate) fn current() -> Self {
        let of_thread = || OF_THREAD.try_with(|context| context.borrow().clone());
        let found = OF_TASK.try_with(Self::clone);
        // While a thread ends there is none any more.
        found.unwrap_or_else(|_| of_thread().unwrap_or_default())
    }

    /// What `future` logs is about this. A task that it starts has to be told anew.
    pub(crate) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        OF_TASK.scope(self, future)
    }

    /// What this thread logs from now on is about this.
    pub(crate) fn enter_thread(&self) {
        let context = self.clone();
        // As above: then nothing is logged any more either.
        let _ = OF_THREAD.try_with(|current| current.replace(context));
    }

    /// What `log` logs on this thread, which is no task's, is about this.
    pub(crate) fn about(&self, log: impl FnOnce()) {
        let context = self.clone();
        let former = OF_THREAD.try_with(|current| current.replace(context));
        log();
        if let Ok(former) = former {
            former.enter_thread();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_says_more_than_its_thread() {
        let disk = |name: &str| LogContext::of_disk(name);
        std::thread::spawn(move || {
            assert_eq!(LogContext::current(), LogContext::default());
            disk("thread").with_session(3).enter_thread();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let inner = runtime.block_on(disk("task").scope(async { LogContext::current() }));
            assert_eq!(inner, disk("task"));
            assert_eq!(LogContext::current(), disk("thread").with_session(3));
            disk("line").about(|| assert_eq!(LogContext::current(), disk("line")));
            assert_eq!(LogContext::current(), disk("thread").with_session(3));
        })
        .join()
        .unwrap();
    }
}

//! What a change of the set of disks has come to: plain data, made by `control`, sent over the control
//! socket, rendered by `cli`.
//!
//! The names of the fields are a promise to programs (`docs/control-protocol.md`).

use serde::{Deserialize, Serialize};

/// The disks by what became of them, each by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Everything that is wrong, each with its place. With any of it nothing has changed.
    #[serde(default)]
    pub problems: Vec<String>,
    /// New, and started.
    #[serde(default)]
    pub added: Vec<String>,
    /// Ended, and gone.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Ended, and started with other settings.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Had ended by itself, and is started once more.
    #[serde(default)]
    pub restarted: Vec<String>,
    /// Serves on with its former settings, although it should not.
    #[serde(default)]
    pub kept: Vec<NamedReason>,
    /// Is wanted, and not served.
    #[serde(default)]
    pub failed: Vec<NamedReason>,
    /// How many were left alone.
    #[serde(default)]
    pub unchanged: usize,
    /// Settings that differ, and count after a restart of the process only.
    #[serde(default)]
    pub after_restart: Vec<String>,
}

/// A disk, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedReason {
    /// Its name.
    pub name: String,
    /// In words.
    pub reason: String,
}

impl NamedReason {
    /// A name and a reason.
    pub fn new(name: &str, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}

impl Changes {
    /// Without those that were left alone, or only tried.
    pub fn without_unchanged(self) -> Self {
        Self {
            unchanged: 0,
            kept: Vec::new(),
            failed: Vec::new(),
            ..self
        }
    }

    /// These, and what another source's disks came to.
    pub fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self.added.extend(other.added);
        self.removed.extend(other.removed);
        self.changed.extend(other.changed);
        self.restarted.extend(other.restarted);
        self.kept.extend(other.kept);
        self.failed.extend(other.failed);
        self.unchanged += other.unchanged;
        self.after_restart.extend(other.after_restart);
        self
    }

    /// In words, a line for each kind of them; empty when nothing has changed.
    pub fn lines(&self) -> Vec<String> {
        let lists = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &self.changed),
            ("started again", &self.restarted),
        ];
        let lists = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let mut lines: Vec<_> = lists
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
        let kept = self.kept.iter().map(|kept| ("kept as it was", kept));
        let failed = self.failed.iter().map(|failed| ("not served", failed));
        let reasons = kept.chain(failed);
        lines.extend(
            reasons
                .map(|(what, NamedReason { name, reason })| format!("{what}: {name} ({reason})")),
        );
        if !self.after_restart.is_empty() {
            let keys = self.after_restart.join(", ");
            lines.push(format!(
                "counts after a restart of the process only: {keys}"
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_said() {
        let mut changes = Changes {
            unchanged: 7,
            ..Changes::default()
        };
        assert_eq!(changes.lines(), [""; 0]);
        changes.added = vec!["a".to_owned(), "b".to_owned()];
        changes.kept = vec![NamedReason::new("c", "a guest uses it")];
        assert_eq!(
            changes.lines(),
            ["added: a, b", "kept as it was: c (a guest uses it)"]
        );
    }
}

//! Text in two columns, in named groups.

use std::fmt::Write;

use crate::escape::escape_control_characters;

/// Labels with their values.
pub(super) type Rows = Vec<(&'static str, String)>;

/// Groups of labelled values, aligned with each other.
#[derive(Default)]
pub(super) struct Table {
    groups: Vec<Group>,
}

struct Group {
    title: String,
    rows: Rows,
}

impl Table {
    /// Adds a group. Values may hold a target's text: it is made safe to print.
    pub(super) fn group(&mut self, title: impl Into<String>, rows: Rows) {
        let title = title.into();
        self.groups.push(Group { title, rows });
    }

    /// The whole as text with a final newline.
    pub(super) fn render(&self) -> String {
        let labels = self.groups.iter().flat_map(|group| &group.rows);
        let width = labels
            .map(|(label, _)| label.len())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for (index, group) in self.groups.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let title = escape_control_characters(&group.title);
            let _ = writeln!(text, "{separator}{title}");
            for (label, value) in &group.rows {
                let value = escape_control_characters(value);
                let _ = writeln!(text, "{}", format!("  {label:width$}  {value}").trim_end());
            }
        }
        text
    }
}

//! What is wrong with a file, each with its line.

use std::fmt;
use std::path::PathBuf;

use crate::exit::Failure;

/// Something wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Problem {
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Problems {
    /// The file.
    pub path: PathBuf,
    /// At least one, in the order of the lines.
    pub problems: Vec<Problem>,
}

impl Problems {
    /// All of them.
    pub(super) fn lines(&self) -> Vec<String> {
        self.problems
            .iter()
            .map(|problem| self.line_of(problem))
            .collect()
    }

    fn line_of(&self, problem: &Problem) -> String {
        let path = self.path.display();
        match problem.line {
            0 => format!("{path}: {}", problem.message),
            line => format!("{path}:{line}: {}", problem.message),
        }
    }
}

impl fmt::Display for Problems {
    /// The first one, for there is one line for a failure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(first) = self.problems.first() {
            f.write_str(&self.line_of(first))?;
        }
        match self.problems.len() {
            0 | 1 => Ok(()),
            count => write!(f, " (and {} more: the verb check says all)", count - 1),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(problems.to_string())
    }
}

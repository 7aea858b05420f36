//! What the verbs have in common that ask a serving process.

use std::path::PathBuf;

use clap::Args;
use serde::de::DeserializeOwned;

use super::Control;
use crate::control_protocol::{DEFAULT_PATH, Request};
use crate::exit::{ExitCode, Failure};

/// Whom to ask, and how to show what comes.
#[derive(Args, Debug)]
pub(super) struct AskArgs {
    /// The control socket of the process that serves
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    control_socket: PathBuf,

    /// Print a JSON document
    #[arg(long)]
    pub(super) json: bool,
}

impl AskArgs {
    /// Asks, and reads the answer.
    pub(super) fn ask<T: DeserializeOwned>(
        &self,
        control: &dyn Control,
        request: &Request,
    ) -> Result<T, Failure> {
        let result = control.ask(&self.control_socket, request)?;
        serde_json::from_value(result).map_err(|error| {
            Failure::new(
                ExitCode::Other,
                format!(
                    "the answer at {} cannot be read ({error}): is the process that serves of \
                     another version?",
                    self.control_socket.display()
                ),
            )
        })
    }
}

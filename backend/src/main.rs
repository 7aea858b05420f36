//! The binary `vhost-user-iscsi`: runs the command line, shows a failure, exits with its code.

use std::io::Write;
use std::process::ExitCode;

use vhost_user_iscsi::cli;
use vhost_user_iscsi::control::Initiator;
use vhost_user_iscsi::exit;
use vhost_user_iscsi::system::System;

fn main() -> ExitCode {
    let system = System::real();
    match cli::run(
        std::env::args_os(),
        &system,
        &Initiator,
        &mut std::io::stdout(),
    ) {
        Ok(()) => exit::ExitCode::Success.into(),
        Err(failure) => {
            // Nobody is left to be told when stderr is gone.
            let _ = writeln!(std::io::stderr(), "vhost-user-iscsi: {failure}");
            failure.code.into()
        }
    }
}

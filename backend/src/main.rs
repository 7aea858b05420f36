//! The binary `vhost-user-iscsi`: runs the command line, shows a failure, exits with its code.

use std::process::ExitCode;

use vhost_user_iscsi::cli;
use vhost_user_iscsi::control::Initiator;
use vhost_user_iscsi::exit;
use vhost_user_iscsi::log_writer;
use vhost_user_iscsi::sandbox;
use vhost_user_iscsi::system::System;

fn main() -> ExitCode {
    sandbox::gain_no_privileges();
    let system = System::real();
    match cli::run(
        std::env::args_os(),
        &system,
        &Initiator,
        &mut std::io::stdout(),
    ) {
        Ok(()) => {
            log_writer::finish();
            exit::ExitCode::Success.into()
        }
        Err(failure) => {
            log_writer::say_at_the_end(&format!("vhost-user-iscsi: {failure}"));
            failure.code.into()
        }
    }
}

//! The binary `vhost-user-iscsi`: runs the command line, shows a failure, exits with its code.

use std::io::Write;
use std::process::ExitCode;

use vhost_user_iscsi::cli::{self, Control};
use vhost_user_iscsi::config::{DiscoverSettings, ProbeSettings, ServeSettings};
use vhost_user_iscsi::exit::{self, Failure};
use vhost_user_iscsi::report::{DiscoveredPortal, ProbeReport};
use vhost_user_iscsi::system::System;

fn main() -> ExitCode {
    let system = System::real();
    match cli::run(
        std::env::args_os(),
        &system,
        &NotBuilt,
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

/// Stands in for the control plane.
struct NotBuilt;

impl NotBuilt {
    fn failure() -> Failure {
        Failure::new(exit::ExitCode::Other, "not built yet")
    }
}

impl Control for NotBuilt {
    fn discover(&self, _: DiscoverSettings) -> Result<Vec<DiscoveredPortal>, Failure> {
        Err(Self::failure())
    }

    fn probe(&self, _: ProbeSettings) -> Result<ProbeReport, Failure> {
        Err(Self::failure())
    }

    fn serve(&self, _: ServeSettings) -> Result<(), Failure> {
        Err(Self::failure())
    }
}

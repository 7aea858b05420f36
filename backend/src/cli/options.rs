//! Options that several verbs share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use iscsi_core::login::settings::DigestPreference;
use log::LevelFilter;

use super::logging::{Format, parse_format};
use super::values::{parse_credential, parse_digest, parse_level, parse_login_timeout};
use crate::config::InitiatorSettings;
use crate::credentials::{ChapOptions, SecretPlace, chap_settings};
use crate::exit::Failure;
use crate::initiator_name::initiator_name;
use crate::secret::CredentialName;
use crate::system::System;
use crate::url::{self, TargetUrl, UrlError};

/// How to log in to a target.
#[derive(Args, Debug)]
#[command(next_help_heading = "Login")]
pub(super) struct InitiatorArgs {
    /// Our name; else that of /etc/iscsi/initiatorname.iscsi, else one derived from the machine
    #[arg(long, value_name = "IQN")]
    initiator_name: Option<String>,

    /// Time for connect, login and the look at the LUN together
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_login_timeout)]
    login_timeout: Duration,

    /// Our CHAP user; else that of the URL, else LIBISCSI_CHAP_USERNAME
    #[arg(long, value_name = "NAME")]
    chap_user: Option<String>,

    /// A file with our CHAP secret that only we can read; else LIBISCSI_CHAP_PASSWORD
    #[arg(long, value_name = "FILE")]
    chap_secret_file: Option<PathBuf>,

    /// The same as a credential of systemd, by its name
    #[arg(
        long,
        value_name = "NAME",
        value_parser = parse_credential,
        conflicts_with = "chap_secret_file"
    )]
    chap_secret_credential: Option<CredentialName>,

    /// The target's CHAP user (mutual CHAP); else that of the URL, else
    /// LIBISCSI_CHAP_TARGET_USERNAME
    #[arg(long, value_name = "NAME")]
    chap_target_user: Option<String>,

    /// A file with the target's CHAP secret; else LIBISCSI_CHAP_TARGET_PASSWORD
    #[arg(long, value_name = "FILE")]
    chap_target_secret_file: Option<PathBuf>,

    /// The same as a credential of systemd, by its name
    #[arg(
        long,
        value_name = "NAME",
        value_parser = parse_credential,
        conflicts_with = "chap_target_secret_file"
    )]
    chap_target_secret_credential: Option<CredentialName>,

    /// Checksums over headers: none, crc32c, prefer or avoid (the default)
    #[arg(long, value_name = "WHEN", value_parser = parse_digest)]
    header_digest: Option<DigestPreference>,

    /// Checksums over data: none, crc32c, prefer or avoid (the default)
    #[arg(long, value_name = "WHEN", value_parser = parse_digest)]
    data_digest: Option<DigestPreference>,
}

impl InitiatorArgs {
    /// Checks them, together with what the URL says.
    pub(super) fn settings(
        &self,
        url: Option<&TargetUrl>,
        system: &System<'_>,
    ) -> Result<InitiatorSettings, Failure> {
        let chap = chap_settings(&self.chap_options(), url, system)?;
        let from_url = |key: fn(&TargetUrl) -> Option<DigestPreference>| url.and_then(key);
        let header_digest = self.header_digest.or(from_url(|url| url.header_digest));
        let data_digest = self.data_digest.or(from_url(|url| url.data_digest));
        Ok(InitiatorSettings {
            name: initiator_name(self.initiator_name.as_deref(), system)?,
            chap,
            header_digest: header_digest.unwrap_or_default(),
            data_digest: data_digest.unwrap_or_default(),
            login_timeout: self.login_timeout,
        })
    }

    /// The files that `settings` reads secrets from.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        let files = [&self.chap_secret_file, &self.chap_target_secret_file];
        files.into_iter().flatten().cloned()
    }

    fn chap_options(&self) -> ChapOptions {
        ChapOptions {
            user: self.chap_user.clone(),
            secret: place(&self.chap_secret_file, &self.chap_secret_credential),
            target_user: self.chap_target_user.clone(),
            target_secret: place(
                &self.chap_target_secret_file,
                &self.chap_target_secret_credential,
            ),
        }
    }
}

/// Where a secret is; clap lets only one of them be given.
fn place(file: &Option<PathBuf>, credential: &Option<CredentialName>) -> Option<SecretPlace> {
    let file = file.clone().map(SecretPlace::File);
    file.or_else(|| credential.clone().map(SecretPlace::Credential))
}

/// How much to log.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub(super) struct LogArgs {
    /// off, error, warn, info, debug or trace; else info when serving, warn with a verb
    #[arg(long, value_name = "LEVEL", global = true, value_parser = parse_level)]
    log_level: Option<LevelFilter>,

    /// Log one level more, each time it is given
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "log_level")]
    verbose: u8,

    /// text, json or journald; else journald when stderr is the journal, and text when it is not
    #[arg(long, value_name = "FORMAT", global = true, value_parser = parse_format)]
    log_format: Option<Format>,
}

impl LogArgs {
    /// How to write the lines; `None` for what stderr is.
    pub(super) fn format(&self) -> Option<Format> {
        self.log_format
    }

    /// The level to log at. A verb answers on stdout and needs no company on stderr; a server's
    /// changes of state are what its log is for.
    pub(super) fn level(&self, has_verb: bool) -> LevelFilter {
        let base = if has_verb {
            LevelFilter::Warn
        } else {
            LevelFilter::Info
        };
        let more = (0..self.verbose.min(3)).fold(base, |level, _| level.increment_severity());
        self.log_level.unwrap_or(more)
    }
}

/// Parses the URL of a disk.
///
/// This is not clap's business: its messages repeat a value, and this one may hold a secret.
pub(super) fn parse_url(text: &str) -> Result<TargetUrl, Failure> {
    TargetUrl::parse(text).map_err(|error| match error {
        UrlError::SecretOfUser | UrlError::SecretOfTarget => {
            Failure::usage(format!("the URL is not accepted: {error}"))
        }
        error => Failure::usage(format!(
            "the URL is not valid: {error} (expected {})",
            url::SYNTAX
        )),
    })
}

//! Who we are to the target and the target to us: CHAP settings from options, URL and environment.
//!
//! An option wins over the URL, the URL over the environment, for each of the four values alone.

use std::ffi::OsString;
use std::path::PathBuf;

use iscsi_core::login::settings::{ChapAlgorithm, ChapCredentials, ChapSettings, Secret};

use crate::exit::Failure;
use crate::secret::{
    CredentialName, SecretError, read_credential, read_secret_file, secret_from_environment,
};
use crate::system::System;
use crate::url::{TargetUrl, is_user};

/// libiscsi's name for the variable with CHAP_N of the initiator.
pub const USER_VARIABLE: &str = "LIBISCSI_CHAP_USERNAME";
/// libiscsi's name for the variable with the initiator's secret.
pub const SECRET_VARIABLE: &str = "LIBISCSI_CHAP_PASSWORD";
/// libiscsi's name for the variable with CHAP_N of the target.
pub const TARGET_USER_VARIABLE: &str = "LIBISCSI_CHAP_TARGET_USERNAME";
/// libiscsi's name for the variable with the target's secret.
pub const TARGET_SECRET_VARIABLE: &str = "LIBISCSI_CHAP_TARGET_PASSWORD";

/// A shorter secret can be guessed from one overheard login (RFC 7143 section 9.2.1: 96 bits).
const SHORT_SECRET_LENGTH_BYTES: usize = 12;

/// Where a secret is: what an option says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretPlace {
    /// A file that only we can read.
    File(PathBuf),
    /// A credential that systemd hands over.
    Credential(CredentialName),
}

impl SecretPlace {
    fn read(&self, system: &System<'_>) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => read_secret_file(path),
            Self::Credential(name) => read_credential(name, system),
        }
    }
}

/// What the command line says about CHAP.
#[derive(Clone, Debug, Default)]
pub struct ChapOptions {
    /// `--chap-user`.
    pub user: Option<String>,
    /// `--chap-secret-file` or `--chap-secret-credential`.
    pub secret: Option<SecretPlace>,
    /// `--chap-target-user`.
    pub target_user: Option<String>,
    /// `--chap-target-secret-file` or `--chap-target-secret-credential`.
    pub target_secret: Option<SecretPlace>,
}

/// Puts the CHAP settings together; `None` when nothing asks for CHAP.
///
/// # Errors
/// [`Failure`] with code `Access` for a secret that cannot be read, `Usage` for values that do not
/// fit together.
pub fn chap_settings(
    options: &ChapOptions,
    url: Option<&TargetUrl>,
    system: &System<'_>,
) -> Result<Option<ChapSettings>, Failure> {
    let initiator = one_side(&INITIATOR, options, url, system)?;
    let target = one_side(&TARGET, options, url, system)?;
    let auth = url.and_then(|url| url.auth);
    match (initiator, target) {
        (None, Some(_)) => Err(Failure::usage(
            "the target is to prove itself (mutual CHAP), but there is no CHAP user and secret \
             for us: give --chap-user and --chap-secret-file as well",
        )),
        (None, None) if auth.is_some() => Err(Failure::usage(
            "auth= in the URL asks for CHAP, but there is no CHAP user and secret: give \
             --chap-user and --chap-secret-file",
        )),
        (None, None) => Ok(None),
        (Some(initiator), target) => {
            refuse_identical_secrets(&initiator, target.as_ref())?;
            let algorithms = auth.map_or(ChapAlgorithm::ALL.to_vec(), |auth| vec![auth]);
            Ok(Some(ChapSettings {
                initiator,
                target,
                algorithms,
            }))
        }
    }
}

/// Where the values of one side come from.
struct Side {
    whose: &'static str,
    user_option: &'static str,
    secret_option: &'static str,
    user_variable: &'static str,
    secret_variable: &'static str,
    option: fn(&ChapOptions) -> (Option<&String>, Option<&SecretPlace>),
    url_user: fn(&TargetUrl) -> Option<&String>,
}

const INITIATOR: Side = Side {
    whose: "our",
    user_option: "--chap-user",
    secret_option: "--chap-secret-file",
    user_variable: USER_VARIABLE,
    secret_variable: SECRET_VARIABLE,
    option: |options| (options.user.as_ref(), options.secret.as_ref()),
    url_user: |url| url.user.as_ref(),
};

const TARGET: Side = Side {
    whose: "the target's",
    user_option: "--chap-target-user",
    secret_option: "--chap-target-secret-file",
    user_variable: TARGET_USER_VARIABLE,
    secret_variable: TARGET_SECRET_VARIABLE,
    option: |options| (options.target_user.as_ref(), options.target_secret.as_ref()),
    url_user: |url| url.target_user.as_ref(),
};

fn one_side(
    side: &Side,
    options: &ChapOptions,
    url: Option<&TargetUrl>,
    system: &System<'_>,
) -> Result<Option<ChapCredentials>, Failure> {
    let (user, secret_place) = (side.option)(options);
    let user = match user.or_else(|| url.and_then(side.url_user)) {
        Some(user) => Some(user.clone()),
        None => user_from_environment(side, system)?,
    };
    let secret = match secret_place {
        Some(place) => place.read(system).map(Some),
        None => secret_from_environment(system, side.secret_variable),
    };
    pair(side, user, secret.map_err(secret_failure)?)
}

/// A file that cannot be used and a variable that cannot be used are the same kind of trouble.
fn secret_failure(error: SecretError) -> Failure {
    Failure::access(error.to_string())
}

fn user_from_environment(side: &Side, system: &System<'_>) -> Result<Option<String>, Failure> {
    let name = side.user_variable;
    let not_text = |_: OsString| Failure::usage(format!("{name} is not UTF-8"));
    system
        .variable(name)
        .map(OsString::into_string)
        .transpose()
        .map_err(not_text)
}

fn pair(
    side: &Side,
    user: Option<String>,
    secret: Option<Secret>,
) -> Result<Option<ChapCredentials>, Failure> {
    let Side {
        whose,
        user_option,
        secret_option,
        user_variable,
        secret_variable,
        ..
    } = side;
    match (user, secret) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::usage(format!(
            "there is {whose} CHAP user but no secret: give {secret_option} or set {secret_variable}"
        ))),
        (None, Some(_)) => Err(Failure::usage(format!(
            "there is {whose} CHAP secret but no user: give {user_option} or set {user_variable}"
        ))),
        (Some(name), Some(_)) if !is_user(&name) => Err(Failure::usage(format!(
            "{whose} CHAP user has 1 to 255 bytes and no control characters"
        ))),
        (Some(name), Some(secret)) => {
            if secret.expose().len() < SHORT_SECRET_LENGTH_BYTES {
                log::info!("{whose} CHAP secret has fewer than {SHORT_SECRET_LENGTH_BYTES} bytes");
            }
            Ok(Some(ChapCredentials { name, secret }))
        }
    }
}

/// RFC 7143 section 9.2.1 forbids it: who overhears one side's answer could play the other.
fn refuse_identical_secrets(
    initiator: &ChapCredentials,
    target: Option<&ChapCredentials>,
) -> Result<(), Failure> {
    match target {
        Some(target) if target.secret.expose() == initiator.secret.expose() => Err(Failure::usage(
            "our CHAP secret and the target's are the same: mutual CHAP needs two (RFC 7143 9.2.1)",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::exit::ExitCode;

    const URL: &str = "iscsi://h/iqn.2001-04.com.example/0";

    /// A command line, a URL and an environment in short: `u` a user, `s` a secret's content,
    /// `tu` and `ts` the target's.
    #[derive(Default)]
    struct Given {
        options: &'static [(&'static str, &'static str)],
        url: &'static str,
        variables: &'static [(&'static str, &'static str)],
    }

    fn look<'a>(pairs: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
        pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    fn settle(given: &Given) -> Result<Option<ChapSettings>, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let file = |key: &str| {
            look(given.options, key).map(|content| {
                let path = directory.path().join(key);
                fs::write(&path, content).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
                path
            })
        };
        let options = ChapOptions {
            user: look(given.options, "u").map(str::to_owned),
            secret: file("s").map(SecretPlace::File),
            target_user: look(given.options, "tu").map(str::to_owned),
            target_secret: file("ts").map(SecretPlace::File),
        };
        let url = TargetUrl::parse(if given.url.is_empty() { URL } else { given.url }).unwrap();
        let variable = |name: &str| look(given.variables, name).map(OsString::from);
        chap_settings(
            &options,
            Some(&url),
            &System::fake(&variable, Path::new("/")),
        )
    }

    fn usage_error(given: &Given) -> String {
        let failure = settle(given).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        failure.message
    }

    #[test]
    fn nothing_given_means_no_chap() {
        assert!(settle(&Given::default()).unwrap().is_none());
    }

    #[test]
    fn an_option_wins_over_the_url_and_the_url_over_the_environment() {
        let variables = &[(USER_VARIABLE, "env"), (SECRET_VARIABLE, "env secret")];
        let url = "iscsi://url@h/iqn.2001-04.com.example/0";
        let name = |given: &Given| settle(given).unwrap().unwrap().initiator.name;
        assert_eq!(
            name(&Given {
                variables,
                ..Given::default()
            }),
            "env"
        );
        assert_eq!(
            name(&Given {
                variables,
                url,
                ..Given::default()
            }),
            "url"
        );
        let options = &[("u", "option"), ("s", "option secret")];
        let chap = settle(&Given {
            options,
            url,
            variables,
        })
        .unwrap()
        .unwrap();
        assert_eq!(chap.initiator.name, "option");
        assert_eq!(chap.initiator.secret.expose(), b"option secret");
    }

    #[test]
    fn offers_every_algorithm_unless_the_url_names_one() {
        let options = &[("u", "me"), ("s", "mine")];
        let chap = settle(&Given {
            options,
            ..Given::default()
        })
        .unwrap()
        .unwrap();
        assert_eq!(chap.algorithms, ChapAlgorithm::ALL);
        let url = "iscsi://h/iqn.2001-04.com.example/0?auth=sha1";
        let chap = settle(&Given {
            options,
            url,
            ..Given::default()
        })
        .unwrap()
        .unwrap();
        assert_eq!(chap.algorithms, [ChapAlgorithm::Sha1]);
    }

    #[test]
    fn mutual_chap_takes_both_pairs() {
        let options = &[("u", "me"), ("s", "mine"), ("ts", "its")];
        let url = "iscsi://h/iqn.2001-04.com.example/0?target_user=it";
        let chap = settle(&Given {
            options,
            url,
            ..Given::default()
        })
        .unwrap()
        .unwrap();
        let target = chap.target.unwrap();
        assert_eq!(
            (target.name.as_str(), target.secret.expose()),
            ("it", &b"its"[..])
        );
    }

    #[test]
    fn refuses_half_a_pair_saying_what_is_missing() {
        for (options, missing) in [
            (
                &[("u", "me")][..],
                "give --chap-secret-file or set LIBISCSI_CHAP_PASSWORD",
            ),
            (
                &[("s", "mine")],
                "give --chap-user or set LIBISCSI_CHAP_USERNAME",
            ),
            (
                &[("u", "me"), ("s", "mine"), ("tu", "it")],
                "give --chap-target-secret-file",
            ),
            (
                &[("u", "me"), ("s", "mine"), ("ts", "its")],
                "give --chap-target-user",
            ),
            (
                &[("tu", "it"), ("ts", "its")],
                "give --chap-user and --chap-secret-file as well",
            ),
        ] {
            let message = usage_error(&Given {
                options,
                ..Given::default()
            });
            assert!(message.contains(missing), "{message}");
        }
    }

    #[test]
    fn refuses_a_user_of_the_url_without_a_secret() {
        let url = "iscsi://me@h/iqn.2001-04.com.example/0";
        usage_error(&Given {
            url,
            ..Given::default()
        });
    }

    #[test]
    fn refuses_auth_without_credentials_rather_than_logging_in_without_chap() {
        let url = "iscsi://h/iqn.2001-04.com.example/0?auth=md5";
        assert!(
            usage_error(&Given {
                url,
                ..Given::default()
            })
            .contains("auth=")
        );
    }

    #[test]
    fn refuses_identical_secrets_without_showing_them() {
        let options = &[
            ("u", "me"),
            ("s", "hunter2"),
            ("tu", "it"),
            ("ts", "hunter2\n"),
        ];
        let message = usage_error(&Given {
            options,
            ..Given::default()
        });
        assert!(message.contains("are the same") && !message.contains("hunter2"));
    }

    #[test]
    fn refuses_a_user_that_cannot_be_sent() {
        for user in ["", "a\nb"] {
            let options: &'static [_] = if user.is_empty() {
                &[("u", ""), ("s", "mine")]
            } else {
                &[("u", "a\nb"), ("s", "mine")]
            };
            usage_error(&Given {
                options,
                ..Given::default()
            });
        }
    }

    #[test]
    fn a_missing_secret_file_is_an_access_failure() {
        let options = ChapOptions {
            user: Some("me".to_owned()),
            secret: Some(SecretPlace::File(PathBuf::from("/nonexistent/secret"))),
            ..ChapOptions::default()
        };
        let system = System::fake(&|_| None, Path::new("/"));
        let failure = chap_settings(&options, None, &system).unwrap_err();
        assert_eq!(failure.code, ExitCode::Access);
        assert!(failure.message.contains("/nonexistent/secret"));
    }
}

//! What is said over the control socket: a JSON object on a line is a request, another one the answer
//! (`docs/control-protocol.md`). Both sides of it are in this program: `control` answers, the verbs ask.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::exit::{ExitCode, Failure};
use crate::limits::Limits;

/// Where the control socket is unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/vhost-user-iscsi/control";

/// A request: what is asked for, by its verb, and what belongs to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A [`ServiceStatus`](crate::status::ServiceStatus).
    Status {
        /// The name of the disk; all of them without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<String>,
    },
    /// A [`ServiceStats`](crate::stats::ServiceStats).
    Stats {
        /// The name of the disk; all of them without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disk: Option<String>,
    },
    /// A [`DiskLimits`](crate::limits::DiskLimits), after what is asked for has been done.
    Limits {
        /// The name of the disk.
        disk: String,
        /// The limits that it is to have from now on, all of them; without this nothing is changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set: Option<Box<Limits>>,
    },
    /// The configuration is to be read again; [`Changes`](crate::changes::Changes).
    Reload {},
    /// One more disk; [`Changes`](crate::changes::Changes).
    Add {
        /// The settings of a `[[disk]]`. No secret is among them, only the paths of their files.
        settings: Map<String, Value>,
    },
    /// One disk less; [`Changes`](crate::changes::Changes).
    Remove {
        /// Its name.
        disk: String,
        /// Also when a guest uses it.
        #[serde(default)]
        force: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Whether there is a result, or an error.
    pub ok: bool,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it cannot be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<AnswerError>,
}

/// Why a request is not answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerError {
    /// In words.
    pub message: String,
    /// The exit code for it.
    pub code: u8,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// What a request looks like. Nothing of what came is repeated: it may be anything.
    pub fn parse(line: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(line).map_err(|error| {
            Failure::usage(match error.classify() {
                serde_json::error::Category::Data => {
                    "a request is an object with \"verb\", and what belongs to that: \"status\" and \
                     \"stats\" take \"disk\", a name; \"limits\" takes \"disk\" and \"set\", an object; \"reload\" takes nothing; \"add\" takes \
                     \"settings\", an object; \"remove\" takes \"disk\" and \"force\", true or false"
                        .to_owned()
                }
                _ => format!(
                    "the request is no JSON object on one line: it goes wrong at byte {}",
                    error.column()
                ),
            })
        })
    }
}

impl From<Result<Value, Failure>> for Answer {
    fn from(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(result) => Self {
                ok: true,
                result: Some(result),
                error: None,
            },
            Err(failure) => Self {
                ok: false,
                result: None,
                error: Some(AnswerError {
                    message: failure.message,
                    code: failure.code.number(),
                }),
            },
        }
    }
}

impl From<Answer> for Result<Value, Failure> {
    fn from(answer: Answer) -> Self {
        match (answer.ok, answer.result, answer.error) {
            (true, Some(result), _) => Ok(result),
            (false, _, Some(error)) => {
                let mut codes = ExitCode::ALL.into_iter();
                let code = codes.find(|code| code.number() == error.code);
                Err(Failure::new(code.unwrap_or(ExitCode::Other), error.message))
            }
            _ => Err(Failure::new(
                ExitCode::Other,
                "the control socket's answer holds neither a result nor an error: is the process that \
                 serves of another version?",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_and_what_is_none_is_said_without_a_word_of_it() {
        let status = Request::Status {
            disk: Some("a".to_owned()),
        };
        let line = serde_json::to_vec(&status).unwrap();
        assert_eq!(line, br#"{"verb":"status","disk":"a"}"#);
        assert_eq!(Request::parse(&line), Ok(status));
        let limits = Request::parse(br#"{"verb":"limits","disk":"a","set":{}}"#);
        let set = Some(Box::default());
        let disk = "a".to_owned();
        assert_eq!(limits, Ok(Request::Limits { disk, set }));
        for line in [
            "{\"verb\":\"limits\",\"disk\":\"a\",\"set\":{\"hunter2\":1}}",
            "{\"verb\":\"limits\",\"set\":{}}",
            "",
            "x",
            "[]",
            "{}",
            "{\"verb\":\"hunter2\"}",
            "{\"verb\":\"status\",\"hunter2\":1}",
            "{\"verb\":\"status\"} hunter2",
            "{\"verb\":\"reload\",\"hunter2\":1}",
            "{\"verb\":\"add\"}",
            "{\"verb\":\"add\",\"settings\":\"hunter2\"}",
            "{\"verb\":\"remove\",\"force\":true}",
            "{\"verb\":\"remove\",\"disk\":\"a\",\"force\":\"hunter2\"}",
            "\"hunter2\"",
            "hunter2",
        ] {
            let failure = Request::parse(line.as_bytes()).unwrap_err();
            assert!(!failure.message.contains("hunter2"), "{failure}");
        }
        let deep = "[".repeat(60_000);
        assert!(Request::parse(deep.as_bytes()).is_err());
        assert!(Request::parse(&[0xff, 0xfe, 0x00]).is_err());
    }

    #[test]
    fn what_changes_disks_is_read_as_it_is_documented() {
        let read = |line: &str| Request::parse(line.as_bytes()).unwrap();
        assert_eq!(read(r#"{"verb":"reload"}"#), Request::Reload {});
        let disk = "a".to_owned();
        let force = false;
        assert_eq!(
            read(r#"{"verb":"remove","disk":"a"}"#),
            Request::Remove { disk, force }
        );
        let Request::Add { settings } = read(r#"{"verb":"add","settings":{"sessions":2}}"#) else {
            panic!("another request");
        };
        assert_eq!(settings["sessions"], 2);
    }

    #[test]
    fn an_error_keeps_its_code_on_the_way() {
        let failure = Failure::new(ExitCode::NotFound, "there is no disk of that name");
        let answer = Answer::from(Err(failure.clone()));
        assert_eq!(Result::from(answer), Err(failure));
    }
}

//! What strangers ask a serving process: a line on the control socket, or a request of HTTP.

use vhost_user_iscsi::control_protocol::Request;
use vhost_user_iscsi::http_head::{is_whole, judge};

use crate::Input;

/// What stands for a secret: no message may repeat it.
const SECRET: &str = "hunter2";

/// The first byte says which of the two; the rest is it.
pub(crate) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    if input.byte().is_multiple_of(2) {
        control_line(input.rest())
    } else {
        http_head(input.rest())
    }
}

fn control_line(line: &[u8]) -> u64 {
    match Request::parse(line) {
        Ok(request) => {
            let line = serde_json::to_vec(&request).expect("a request is JSON");
            let again = Request::parse(&line);
            // Of a fraction the last digit may differ; none is a setting.
            match request {
                Request::Add { .. } => assert!(again.is_ok()),
                request => assert_eq!(again, Ok(request)),
            }
            1
        }
        Err(failure) => {
            assert!(!failure.message.is_empty() && !failure.message.contains(SECRET));
            0
        }
    }
}

fn http_head(head: &[u8]) -> u64 {
    match judge(head) {
        Ok(_) => {
            assert!(is_whole(head) && head.windows(8).any(|part| part == b"/metrics"));
            1
        }
        Err(status) => {
            let code = status.split(' ').next().and_then(|code| code.parse().ok());
            assert!(
                code.is_some_and(|code: u16| (400..600).contains(&code)),
                "{status}"
            );
            0
        }
    }
}

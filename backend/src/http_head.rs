//! The head of an HTTP request, as far as it counts here: its first line (RFC 9112 section 3).

/// The longest head of a request: what a scraper sends takes a few hundred bytes.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Whether the empty line has come that ends it.
pub fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|window| window == b"\r\n\r\n")
}

/// What is wanted of the one thing that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The metrics.
    Get,
    /// What would be said about them.
    Head,
}

/// What is asked for, or the status that refuses it (RFC 9112 section 3).
pub fn judge(head: &[u8]) -> Result<Method, &'static str> {
    if !is_whole(head) {
        return Err("431 Request Header Fields Too Large");
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts.as_slice() else {
        return Err("400 Bad Request");
    };
    if !matches!(*version, b"HTTP/1.1" | b"HTTP/1.0") {
        return Err("505 HTTP Version Not Supported");
    }
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    match (*method, path) {
        (b"GET", b"/metrics") => Ok(Method::Get),
        (b"HEAD", b"/metrics") => Ok(Method::Head),
        (b"GET" | b"HEAD", _) => Err("404 Not Found"),
        _ => Err("405 Method Not Allowed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(line: &str) -> Result<Method, &'static str> {
        judge(format!("{line}\r\nHost: x\r\n\r\n").as_bytes())
    }

    #[test]
    fn one_path_is_there_and_two_methods() {
        assert_eq!(judged("GET /metrics HTTP/1.1"), Ok(Method::Get));
        assert_eq!(judged("GET /metrics?name=x HTTP/1.0"), Ok(Method::Get));
        assert_eq!(judged("HEAD /metrics HTTP/1.1"), Ok(Method::Head));
        for (line, status) in [
            ("GET / HTTP/1.1", 404),
            ("GET /metrics/ HTTP/1.1", 404),
            ("POST /metrics HTTP/1.1", 405),
            ("get /metrics HTTP/1.1", 405),
            ("GET /metrics HTTP/2", 505),
            ("GET /metrics", 400),
            ("GET  /metrics HTTP/1.1", 400),
            ("", 400),
            ("\u{1}\u{2}", 400),
        ] {
            let refused = judged(line).unwrap_err();
            assert!(
                refused.starts_with(&status.to_string()),
                "{line:?}: {refused}"
            );
        }
        assert!(
            judge(b"GET /metrics HTTP/1.1\r\n")
                .unwrap_err()
                .starts_with("431")
        );
    }
}

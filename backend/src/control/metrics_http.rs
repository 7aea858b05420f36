//! Metrics over HTTP: `GET /metrics`, and nothing else.
//!
//! Made by hand: of HTTP/1.1 it needs one line of the request, and each answer is whole and ends the
//! connection. A library for it would be ten crates, and threads or bounds of its own.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::registry::Registry;
use crate::exit::{ExitCode, Failure};
use crate::http_head::{MAX_HEAD_BYTES, Method, is_whole, judge};
use crate::metrics::CONTENT_TYPE;

/// How many requests there may be at once.
const MAX_CONNECTIONS: usize = 8;

/// How long a connection may take, from its beginning to the end of the answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Binds the address.
pub(super) fn bind(address: SocketAddr) -> Result<StdListener, Failure> {
    StdListener::bind(address).map_err(|error| {
        Failure::access(format!(
            "cannot listen at the metrics-address {address}: {error}; choose another port, or an \
             address of this machine"
        ))
    })
}

/// Answers requests from now on, until the runtime ends.
pub(super) fn serve(listener: StdListener, registry: Arc<Registry>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(ExitCode::Other, error.to_string());
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    if let Ok(address) = listener.local_addr() {
        log::info!("metrics are at http://{address}/metrics");
    }
    tokio::spawn(accept(listener, registry));
    Ok(())
}

async fn accept(listener: TcpListener, registry: Arc<Registry>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Those beyond wait in the kernel's queue: each of the others ends within its time.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let registry = Arc::clone(&registry);
                tokio::spawn(async move {
                    let _ = timeout(TIME_LIMIT, converse(stream, &registry)).await;
                    drop(place);
                });
            }
            Err(error) => {
                log::error!("metrics: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, registry: &Registry) {
    let Some(head) = read_head(&mut stream).await else {
        return;
    };
    let answer = answer(&head, registry);
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// Up to the empty line, or as much as is read of it at most. `None` when the other side ends before.
async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(1024);
    while !is_whole(&head) && head.len() < MAX_HEAD_BYTES {
        let room = (MAX_HEAD_BYTES - head.len()) as u64;
        match stream.take(room).read_buf(&mut head).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
    Some(head)
}

fn answer(head: &[u8], registry: &Registry) -> String {
    match judge(head) {
        Ok(method) => {
            let body = registry.metrics();
            response("200 OK", CONTENT_TYPE, &body, method == Method::Head)
        }
        Err(status) => {
            let body = format!("{status}\n");
            response(status, "text/plain; charset=utf-8", &body, false)
        }
    }
}

fn response(status: &str, content_type: &str, body: &str, is_head: bool) -> String {
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let length_bytes = body.len();
    let body = if is_head { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length_bytes}\r\n\
         {allow}Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_head_has_the_length_and_not_the_body() {
        let answer = response("200 OK", "text/plain", "12345", true);
        assert!(answer.contains("Content-Length: 5\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

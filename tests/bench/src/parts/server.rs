//! Those that are measured: our back-end and the peer.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use vhost_user_iscsi::url::TargetUrl;
use vhost_user_iscsi_tests::process::Process;
use vhost_user_iscsi_tests::wait;

use super::{pin, template};
use crate::failure::Failure;

/// How long a socket may take to appear: the session is made first.
const START_LIMIT: Duration = Duration::from_secs(20);
/// What stands for `{header_digest}` unless a case asks for digests.
const NO_DIGEST: &str = "none";
const DIGEST: &str = "crc32c";

/// The peer unless the command line names another.
pub(crate) const PEER: &str = "qemu-storage-daemon \
    --blockdev driver=iscsi,node-name=disk,transport=tcp,portal={portal},target={target},\
lun={lun},header-digest={header_digest} \
    --export type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},\
addr.type=unix,addr.path={socket}";

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// Our back-end.
    Ours,
    /// The peer.
    Peer,
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
        })
    }
}

/// Digests of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Digests {
    /// None.
    #[default]
    Off,
    /// CRC32C of headers.
    Header,
    /// CRC32C of headers and data.
    Both,
}

/// How to start a server.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// The program of our back-end.
    pub(crate) back_end: PathBuf,
    /// Further arguments of our back-end.
    pub(crate) back_end_arguments: Vec<String>,
    /// The command line of the peer.
    pub(crate) peer: String,
    /// Digests of its session.
    pub(crate) digests: Digests,
    /// Queues that the peer is told to have.
    pub(crate) queues: u16,
    /// The processor it runs on.
    pub(crate) cpu: Option<usize>,
}

/// A running back-end or peer; dropped, it is killed.
pub(crate) struct Server {
    subject: Subject,
    process: Process,
    /// One for each disk.
    sockets: Vec<PathBuf>,
}

impl Server {
    /// Starts it on `url` with its socket in `directory`; returns when the socket is there.
    ///
    /// # Errors
    /// When the program is missing or ends; the message holds what it wrote to stderr.
    pub(crate) fn start(
        subject: Subject,
        url: &str,
        directory: &Path,
        options: &ServerOptions,
    ) -> Result<Self, Failure> {
        let socket = free_name(directory, subject, "sock");
        let words = match subject {
            Subject::Ours => our_command(url, &socket, options),
            Subject::Peer => peer_command(url, &socket, options)?,
        };
        Self::launch(subject, &words, vec![socket], options)
    }

    /// Starts our back-end with a disk for each of `urls`, by a configuration file; returns when every
    /// socket is there.
    ///
    /// # Errors
    /// When the program is missing or ends; the message holds what it wrote to stderr.
    pub(crate) fn start_service(
        urls: &[String],
        share_sessions: bool,
        directory: &Path,
        options: &ServerOptions,
    ) -> Result<Self, Failure> {
        let directory = free_name(directory, Subject::Ours, "service");
        fs::create_dir(&directory)
            .map_err(|error| Failure::part(format!("{}: {error}", directory.display())))?;
        let sockets: Vec<_> = (0..urls.len())
            .map(|disk| directory.join(format!("{disk}.sock")))
            .collect();
        let file = directory.join("config.toml");
        let mut text = format!("share-sessions = {share_sessions}\n");
        text += &configuration(urls, &sockets, options);
        fs::write(&file, text)
            .map_err(|error| Failure::part(format!("{}: {error}", file.display())))?;
        let words = [
            &options.back_end.display().to_string(),
            "--log-level=warn",
            "serve",
            "--config",
            &file.display().to_string(),
        ];
        let words = words.map(str::to_owned);
        Self::launch(Subject::Ours, &words, sockets, options)
    }

    fn launch(
        subject: Subject,
        words: &[String],
        sockets: Vec<PathBuf>,
        options: &ServerOptions,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let hint = match subject {
            Subject::Ours => "build it: cargo build --release --package vhost-user-iscsi",
            Subject::Peer => "install the Debian packages qemu-utils and qemu-block-extra",
        };
        let process = pin::on(options.cpu, || Process::start(&mut command, hint))?;
        let mut server = Self {
            subject,
            process,
            sockets,
        };
        server.wait_sockets()?;
        Ok(server)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its sockets, one for each disk.
    pub(crate) fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// A failure of this server, with what it wrote to stderr.
    pub(crate) fn failure(&self, what: impl fmt::Display) -> Failure {
        let mut message = format!("{}: {what}", self.subject);
        for line in self.process.stderr.all() {
            message.push_str("\n  | ");
            message.push_str(&line);
        }
        Failure::part(message)
    }

    fn wait_sockets(&mut self) -> Result<(), Failure> {
        let seen = wait::until(START_LIMIT, || match self.process.exit_status() {
            Some(status) => Some(Err(status)),
            None => {
                let mut sockets = self.sockets.iter();
                sockets.all(|socket| socket.exists()).then_some(Ok(()))
            }
        });
        match seen {
            Some(Ok(())) => Ok(()),
            Some(Err(status)) => {
                self.process.stderr.to_end(Duration::from_secs(1));
                Err(self.failure(format_args!("it ended ({status}) instead of serving")))
            }
            None => Err(self.failure(format_args!("no socket within {START_LIMIT:?}"))),
        }
    }
}

/// A name that no file has: one process may follow another.
fn free_name(directory: &Path, subject: Subject, kind: &str) -> PathBuf {
    let names = (0..).map(|number: u32| directory.join(format!("{subject}-{number}.{kind}")));
    names
        .into_iter()
        .find(|path| !path.exists())
        .expect("a free name")
}

fn our_command(url: &str, socket: &Path, options: &ServerOptions) -> Vec<String> {
    let mut words = vec![
        options.back_end.display().to_string(),
        "--log-level".to_owned(),
        "warn".to_owned(),
        "--blk-file".to_owned(),
        url.to_owned(),
        "--socket-path".to_owned(),
        socket.display().to_string(),
    ];
    let digest = |on| if on { DIGEST } else { NO_DIGEST };
    if options.digests != Digests::Off {
        words.extend(["--header-digest", digest(true)].map(str::to_owned));
        let data = digest(options.digests == Digests::Both);
        words.extend(["--data-digest", data].map(str::to_owned));
    }
    words.extend(options.back_end_arguments.iter().cloned());
    words
}

/// A configuration file of disks that differ in their URLs and sockets only. Options of the command line
/// are no part of it.
fn configuration(urls: &[String], sockets: &[PathBuf], options: &ServerOptions) -> String {
    let digest = |on| if on { DIGEST } else { NO_DIGEST };
    let mut text = format!(
        "header-digest = '{}'\ndata-digest = '{}'\n",
        digest(options.digests != Digests::Off),
        digest(options.digests == Digests::Both),
    );
    for (url, socket) in urls.iter().zip(sockets) {
        let _ = write!(
            text,
            "[[disk]]\nsocket-path = '{}'\nurl = '{url}'\n",
            socket.display()
        );
    }
    text
}

fn peer_command(url: &str, socket: &Path, options: &ServerOptions) -> Result<Vec<String>, Failure> {
    let parts = TargetUrl::parse(url).map_err(|error| Failure::usage(format!("{url}: {error}")))?;
    let digest = if options.digests == Digests::Off {
        NO_DIGEST
    } else {
        DIGEST
    };
    let values = [
        ("socket", &*socket.display().to_string()),
        ("url", url),
        ("portal", &*parts.portal.to_string()),
        ("target", parts.target.as_str()),
        ("lun", &*parts.lun.to_string()),
        ("queues", &*options.queues.to_string()),
        ("header_digest", digest),
    ];
    template::fill(&options.peer, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_told_the_parts_of_the_url() {
        let options = ServerOptions {
            back_end: PathBuf::from("back-end"),
            back_end_arguments: Vec::new(),
            peer: PEER.to_owned(),
            digests: Digests::Header,
            queues: 4,
            cpu: None,
        };
        let url = "iscsi://127.0.0.1:3260/iqn.2026-11.test.example:disk/1?header_digest=none";
        let words = peer_command(url, Path::new("/tmp/s"), &options).unwrap();
        assert_eq!(words.len(), 5);
        for part in [
            "portal=127.0.0.1:3260,",
            "target=iqn.2026-11.test.example:disk,",
            "lun=1,",
        ] {
            assert!(words[2].contains(part), "{part} is not in {}", words[2]);
        }
        assert!(words[2].ends_with("header-digest=crc32c"));
        assert!(words[4].contains("num-queues=4,") && words[4].ends_with("addr.path=/tmp/s"));
        assert!(peer_command("iscsi://127.0.0.1", Path::new("/tmp/s"), &options).is_err());
    }
}

//! Serving, what the program does without a verb.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nix::unistd::Group;

use super::limit_options::LimitArgs;
use super::options::{InitiatorArgs, parse_url};
use super::values::{
    OptionalTime, parse_1_to_64, parse_capacity_poll, parse_command_timeout, parse_fd,
    parse_io_timeout, parse_mode, parse_poll_limit, parse_queue_size, parse_serial,
};
use crate::config::{
    DiskName, DiskSettings, QueueSize, Serial, ServedDisk, SocketPath, SocketPathSettings,
    SocketSettings, default_sessions,
};
use crate::exit::Failure;
use crate::system::System;

/// All are optional to clap: with a verb none is needed, without one `settings` says what is
/// missing.
#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    /// Listen on a UNIX socket at this path
    #[arg(long, value_name = "PATH", conflicts_with = "fd")]
    socket_path: Option<PathBuf>,

    /// Use this inherited socket instead, listening or connected
    #[arg(long, value_name = "N", value_parser = parse_fd, allow_negative_numbers = true)]
    fd: Option<i32>,

    /// The disk: iscsi://[user@]host[:port]/target-iqn/lun[?key=value&…]
    #[arg(long, value_name = "URL")]
    blk_file: Option<String>,

    /// Offer the disk read-only
    #[arg(long)]
    read_only: bool,

    /// The most virtqueues that a guest may use, up to 64
    #[arg(long, value_name = "N", default_value = "64", value_parser = parse_1_to_64)]
    num_queues: u16,

    /// The largest ring that is accepted: a power of two
    #[arg(long, value_name = "N", default_value = "32768", value_parser = parse_queue_size)]
    queue_size: QueueSize,

    /// The most iSCSI sessions to open: queues beyond them share [default: 4, but no more than
    /// processors]
    #[arg(long, value_name = "N", value_parser = parse_1_to_64)]
    sessions: Option<u16>,

    /// Share the sessions with the other disks of this process that lie behind the same target, want
    /// the same, and have their sockets in the same directory
    #[arg(long, conflicts_with = "fd")]
    share_sessions: bool,

    /// Look for work for up to this time before sleeping, while that pays; 0 for never
    #[arg(long, value_name = "N", default_value = "50", value_parser = parse_poll_limit)]
    poll_max_us: Duration,

    /// How long a command may be unanswered before it is ended and sent again: forever, or a time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_command_timeout)]
    command_timeout: OptionalTime,

    /// End a late command by a LOGICAL UNIT RESET where nothing else does: it ends the commands of
    /// other hosts, too
    #[arg(long)]
    lun_reset: bool,

    /// How long requests wait for lost storage before they fail: forever, 0, or a time such as 2m
    #[arg(long, value_name = "TIME", default_value = "forever", value_parser = parse_io_timeout)]
    io_timeout: OptionalTime,

    /// How often to look whether the LUN has grown, for targets that do not tell: never, or a time
    /// such as 5m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_capacity_poll)]
    capacity_poll: OptionalTime,

    /// Let a flush succeed although the target has told of a loss of power after the writes before
    /// it: for a write cache with a battery
    #[arg(long)]
    ignore_power_loss: bool,

    /// The serial that the guest sees, instead of the LUN's own: up to 20 ASCII characters
    #[arg(long, value_name = "TEXT", value_parser = parse_serial)]
    serial: Option<Serial>,

    /// Keep trying while the target cannot be reached at start, instead of failing
    #[arg(long)]
    wait_for_target: bool,

    /// The socket's permission bits
    #[arg(
        long,
        value_name = "MODE",
        default_value = "0660",
        value_parser = parse_mode,
        conflicts_with = "fd"
    )]
    socket_mode: u32,

    /// The socket's group, by name or number
    #[arg(long, value_name = "GROUP", conflicts_with = "fd")]
    socket_group: Option<String>,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    initiator: InitiatorArgs,
}

impl ServeArgs {
    /// Checks all of it. The socket comes first, since nothing secret is needed to judge it.
    pub(super) fn settings(&self, system: &System<'_>) -> Result<ServedDisk, Failure> {
        let (socket, url) = self.required()?;
        let target = parse_url(url)?;
        let disk = DiskSettings {
            initiator: self.initiator.settings(Some(&target), system)?,
            target,
            read_only: self.read_only,
            num_queues: self.num_queues,
            queue_size: self.queue_size,
            sessions: self.sessions.unwrap_or_else(default_sessions),
            share_sessions: self.share_sessions,
            poll_limit: self.poll_max_us,
            command_timeout: self.command_timeout.0,
            lun_reset: self.lun_reset,
            io_timeout: self.io_timeout.0,
            capacity_poll: self.capacity_poll.0,
            ignore_power_loss: self.ignore_power_loss,
            serial: self.serial.clone(),
            limits: self.limits.limits()?,
            wait_for_target: self.wait_for_target,
        };
        Ok(ServedDisk {
            name: DiskName::of_socket(&socket),
            disk,
            socket,
        })
    }

    /// The files that `settings` read secrets from.
    pub(super) fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        self.initiator.secret_files()
    }

    fn required(&self) -> Result<(SocketSettings, &str), Failure> {
        let socket = match (&self.socket_path, self.fd) {
            (Some(path), _) => SocketSettings::Path(self.socket_path_settings(path.clone())?),
            (None, Some(fd)) => SocketSettings::Fd(fd),
            (None, None) => {
                return Err(Failure::usage(
                    "give --socket-path PATH or --fd N; try --help",
                ));
            }
        };
        match &self.blk_file {
            Some(url) => Ok((socket, url)),
            None => Err(Failure::usage(
                "give --blk-file URL, the disk to serve; try --help",
            )),
        }
    }

    fn socket_path_settings(&self, path: PathBuf) -> Result<SocketPathSettings, Failure> {
        Ok(SocketPathSettings {
            path: SocketPath::new(path).map_err(|error| Failure::access(error.to_string()))?,
            mode: self.socket_mode,
            group_id: self
                .socket_group
                .as_deref()
                .map(|group| group_id("--socket-group", group))
                .transpose()?,
        })
    }
}

/// chown(2) takes this number as "leave the group alone".
const NO_GROUP_ID: u32 = u32::MAX;

/// A group by its number or its name, as `option` gives it.
pub(super) fn group_id(option: &str, text: &str) -> Result<u32, Failure> {
    if let Some(number) = text.parse().ok().filter(|number| *number != NO_GROUP_ID) {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(Failure::usage(format!(
            "{option}: there is no such group on this machine"
        ))),
        Err(error) => Err(Failure::usage(format!(
            "{option}: looking it up failed: {error}"
        ))),
    }
}

//! A real target for tests: tgt, on loopback, with a control socket of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::Process;
use crate::wait;

/// Named in every failure to start one of its programs.
const HINT: &str = "install the Debian package tgt";
/// How long tgtd may take until its portal is open.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Ports that are tried: one that was free may be taken by the time tgtd binds it.
const PORT_ATTEMPTS: usize = 5;
/// The control port only names the control socket, and each instance has a directory for that.
const CONTROL_PORT: &str = "1";
/// tgtd's own default.
const IO_THREADS: u16 = 16;

/// A running tgtd with its configuration; dropped, it is killed and its files are removed.
pub struct Tgt {
    directory: TempDir,
    port: u16,
    io_threads: u16,
    process: Option<Process>,
    /// Every command that built the configuration, in order, for a restart.
    commands: Vec<Vec<String>>,
    targets: u32,
}

/// A target inside a [`Tgt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// tgt's number for it.
    pub tid: u32,
    /// Its name.
    pub iqn: String,
}

/// How tgt stores a LUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// A sparse file, read and written by I/O threads.
    #[default]
    Rdwr,
    /// The same file by Linux AIO.
    Aio,
    /// Answers at once; data is undefined.
    Null,
}

/// What a LUN is like.
#[derive(Clone, Debug, Default)]
pub struct LunOptions {
    /// Where the data is.
    pub backing: Backing,
    /// Thin provisioned: UNMAP is supported.
    pub thin: bool,
    /// VPD page 0x80.
    pub serial: Option<String>,
    /// Write protected.
    pub read_only: bool,
    /// Block size, 512 when not given.
    pub block_bytes: Option<u32>,
    /// WCE of the caching mode page; tgt's default is on.
    pub write_cache: Option<bool>,
}

impl Tgt {
    /// Starts tgtd with its default of 16 I/O threads.
    ///
    /// # Panics
    /// When tgt is not installed or does not come up.
    pub fn start() -> Self {
        Self::start_with_io_threads(IO_THREADS)
    }

    /// Starts tgtd with as many I/O threads: with one, LUN files are served in order.
    pub fn start_with_io_threads(io_threads: u16) -> Self {
        let mut tgt = Self {
            directory: TempDir::with_prefix("tgt-").expect("a temporary directory"),
            port: 0,
            io_threads,
            process: None,
            commands: Vec::new(),
            targets: 0,
        };
        let started = (0..PORT_ATTEMPTS).any(|_| tgt.try_start_on(free_port()));
        assert!(started, "tgtd does not come up on any port");
        tgt
    }

    /// The process id of tgtd.
    ///
    /// # Panics
    /// When it was killed.
    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("tgtd is running").id()
    }

    /// The loopback port of its portal.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn portal(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of a LUN.
    pub fn url(&self, target: &Target, lun: u16) -> String {
        format!("iscsi://{}/{}/{lun}", self.portal(), target.iqn)
    }

    /// One target with one LUN 1 of `size_bytes`, open to all; the shortest way to a disk.
    pub fn disk(&mut self, size_bytes: u64, options: &LunOptions) -> Target {
        let target = self.target("iqn.2026-11.test.example:disk");
        self.lun(&target, 1, size_bytes, options);
        self.allow_all(&target);
        target
    }

    /// Makes a target that nobody may use yet.
    pub fn target(&mut self, iqn: &str) -> Target {
        self.targets += 1;
        let target = Target {
            tid: self.targets,
            iqn: iqn.to_owned(),
        };
        self.admin(&target, "target", "new", &["--targetname", iqn]);
        target
    }

    /// Lets every initiator in.
    pub fn allow_all(&mut self, target: &Target) {
        self.admin(target, "target", "bind", &["--initiator-address", "ALL"]);
    }

    /// Lets one initiator name in.
    pub fn allow_name(&mut self, target: &Target, initiator_name: &str) {
        self.admin(
            target,
            "target",
            "bind",
            &["--initiator-name", initiator_name],
        );
    }

    /// Makes a LUN; LUN 0 is tgt's controller.
    pub fn lun(&mut self, target: &Target, lun: u16, size_bytes: u64, options: &LunOptions) {
        let file = self.lun_file(target, lun);
        File::create(&file)
            .and_then(|file| file.set_len(size_bytes))
            .expect("a LUN's file");
        let (number, file) = (lun.to_string(), file.display().to_string());
        let block = options.block_bytes.unwrap_or(512).to_string();
        let store = match options.backing {
            Backing::Rdwr => "rdwr",
            Backing::Aio => "aio",
            Backing::Null => "null",
        };
        let arguments = [
            "--lun",
            &number,
            "-b",
            &file,
            "--bstype",
            store,
            "--blocksize",
            &block,
        ];
        self.admin(target, "logicalunit", "new", &arguments);
        for parameter in parameters(options) {
            self.lun_parameter(target, lun, &parameter);
        }
    }

    /// Sets a parameter of a LUN, `name=value`.
    pub fn lun_parameter(&mut self, target: &Target, lun: u16, parameter: &str) {
        let number = lun.to_string();
        self.admin(
            target,
            "logicalunit",
            "update",
            &["--lun", &number, "--params", parameter],
        );
    }

    /// Makes the file of a LUN longer or shorter, and has tgt look at it anew, for it does not do so by
    /// itself. It says nothing to initiators. Commands meanwhile meet a LUN that is not ready.
    ///
    /// # Panics
    /// When the file cannot be resized, or tgt does not want to.
    pub fn resize_lun(&mut self, target: &Target, lun: u16, size_bytes: u64) {
        let path = self.lun_file(target, lun);
        let file = File::options().write(true).open(&path);
        file.and_then(|file| file.set_len(size_bytes))
            .expect("a LUN's file");
        for parameter in ["online=0", &format!("path={}", path.display()), "online=1"] {
            self.lun_parameter(target, lun, parameter);
        }
    }

    /// Removes a LUN.
    pub fn delete_lun(&mut self, target: &Target, lun: u16) {
        self.admin(
            target,
            "logicalunit",
            "delete",
            &["--lun", &lun.to_string()],
        );
    }

    /// The file behind a LUN.
    pub fn lun_file(&self, target: &Target, lun: u16) -> PathBuf {
        self.directory
            .path()
            .join(format!("target-{}-lun-{lun}", target.tid))
    }

    /// Sets a negotiation key or another parameter of the target (`InitialR2T`, `No`).
    pub fn set(&mut self, target: &Target, name: &str, value: &str) {
        self.admin(
            target,
            "target",
            "update",
            &["--name", name, "--value", value],
        );
    }

    /// Answers logins to `target` with a redirect to a loopback port.
    ///
    /// `reason` is `Temporary` or `Permanent`.
    pub fn redirect(&mut self, target: &Target, port: u16, reason: &str) {
        self.set(target, "RedirectAddress", "127.0.0.1");
        self.set(target, "RedirectPort", &port.to_string());
        self.set(target, "RedirectReason", reason);
    }

    /// Demands CHAP of the initiator. `tgtadm` takes a secret in no other way than this.
    pub fn chap_incoming(&mut self, target: &Target, user: &str, secret: &str) {
        self.account(target, user, secret, &[]);
    }

    /// Authenticates the target to the initiator.
    pub fn chap_outgoing(&mut self, target: &Target, user: &str, secret: &str) {
        self.account(target, user, secret, &["--outgoing"]);
    }

    fn account(&mut self, target: &Target, user: &str, secret: &str, direction: &[&str]) {
        let new = [
            "--mode",
            "account",
            "--op",
            "new",
            "--user",
            user,
            "--password",
            secret,
        ];
        self.record(&new);
        let bind = [&["--user", user], direction].concat();
        self.admin(target, "account", "bind", &bind);
    }

    /// Runs `tgtadm` on a target and remembers it for a restart.
    fn admin(&mut self, target: &Target, mode: &str, operation: &str, arguments: &[&str]) {
        let tid = target.tid.to_string();
        let common = ["--mode", mode, "--op", operation, "--tid", &tid];
        self.record(&[&common, arguments].concat());
    }

    fn record(&mut self, arguments: &[&str]) {
        let arguments: Vec<_> = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        self.tgtadm(&arguments)
            .unwrap_or_else(|error| panic!("tgtadm {arguments:?}: {error}"));
        self.commands.push(arguments);
    }

    /// Kills tgtd: connections break, LUN files stay.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again after [`Tgt::kill`], on the same port, with the same configuration.
    pub fn restart(&mut self) {
        self.kill();
        let started = (0..PORT_ATTEMPTS).any(|_| self.try_start_on(self.port));
        assert!(started, "tgtd does not come up again on port {}", self.port);
        for command in &self.commands {
            self.tgtadm(command)
                .unwrap_or_else(|error| panic!("tgtadm {command:?}: {error}"));
        }
    }

    /// Stops it without a word (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Tgt::pause`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        self.process
            .as_mut()
            .expect("tgtd is running")
            .signal(signal);
    }

    /// Bytes that it has read and written since it was started, connections and LUN files together:
    /// they grow as long as somebody uses it.
    ///
    /// # Panics
    /// When it was killed.
    pub fn moved_bytes(&self) -> u64 {
        let counts = std::fs::read_to_string(format!("/proc/{}/io", self.id()));
        let counts = counts.expect("/proc/PID/io");
        let moved = counts.lines().filter_map(|line| {
            let (name, bytes) = line.split_once(": ")?;
            ["rchar", "wchar"].contains(&name).then_some(bytes)
        });
        moved.filter_map(|bytes| bytes.parse::<u64>().ok()).sum()
    }

    /// What `tgtadm --op show --mode target` prints: LUNs, sessions, connections.
    pub fn show(&self) -> String {
        let arguments = ["--mode", "target", "--op", "show"].map(str::to_owned);
        self.tgtadm(&arguments)
            .unwrap_or_else(|error| panic!("tgtadm show: {error}"))
    }

    /// How many sessions all its targets have.
    pub fn sessions(&self) -> usize {
        self.show()
            .lines()
            .filter(|line| line.trim_start().starts_with("I_T nexus: "))
            .count()
    }

    fn try_start_on(&mut self, port: u16) -> bool {
        let portal = format!("portal=127.0.0.1:{port}");
        let threads = self.io_threads.to_string();
        let mut command = Command::new("tgtd");
        command.args(["-f", "-C", CONTROL_PORT, "-t", &threads, "--iscsi", &portal]);
        command.env("TGT_IPC_SOCKET", self.ipc());
        self.process = Some(Process::start(&mut command, HINT));
        self.port = port;
        wait::until(START_LIMIT, || self.look()).unwrap_or(false)
    }

    /// Whether the portal is open; `None` when that is not decided yet.
    fn look(&mut self) -> Option<bool> {
        if self.process.as_mut()?.exit_status().is_some() {
            return Some(false);
        }
        let show = ["--mode", "portal", "--op", "show"].map(str::to_owned);
        let portals = self.tgtadm(&show).ok()?;
        portals.contains(&self.portal()).then_some(true)
    }

    fn tgtadm(&self, arguments: &[String]) -> Result<String, String> {
        let mut command = Command::new("tgtadm");
        command
            .args(["-C", CONTROL_PORT, "--lld", "iscsi"])
            .args(arguments);
        command.env("TGT_IPC_SOCKET", self.ipc());
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("tgtadm: {error}; {HINT}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    fn ipc(&self) -> PathBuf {
        self.directory.path().join("control")
    }
}

/// What `tgtadm --params` wants for these options.
fn parameters(options: &LunOptions) -> Vec<String> {
    let mut parameters = Vec::new();
    parameters.extend(
        options
            .serial
            .iter()
            .map(|serial| format!("scsi_sn={serial}")),
    );
    parameters.extend(options.thin.then(|| "thin_provisioning=1".to_owned()));
    parameters.extend(options.read_only.then(|| "readonly=1".to_owned()));
    parameters.extend(options.write_cache.map(caching_page));
    parameters
}

/// The caching mode page (SBC-4, 6.5.6) with WCE as wanted, in tgtadm's notation.
fn caching_page(write_cache: bool) -> String {
    let wce = if write_cache { "0x14" } else { "0x10" };
    format!("mode_page=8:0:18:{wce}:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0")
}

/// A loopback port that is free right now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    listener.local_addr().expect("a bound socket").port()
}

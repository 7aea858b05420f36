//! A daemon with a configuration file and a control socket, whose disks come and go.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::config_file::ConfigFile;
use crate::control_socket::{ControlSocket, exchange};
use crate::daemon::{Daemon, Output};
use crate::frontend::Frontend;
use crate::model::{Mix, Model, random_mix};
use crate::served::SOON;
use crate::wait;

/// The daemon, its file and its control socket.
pub struct Service {
    /// The daemon.
    pub daemon: Daemon,
    /// Its file; to be written anew with [`Service::rewrite`].
    pub config: ConfigFile,
    /// Its control socket.
    pub control: ControlSocket,
    /// The file before its first disk.
    top: String,
    /// What the disks hold on which a guest has worked.
    models: Mutex<HashMap<String, Model>>,
}

impl Service {
    /// Starts it with the disks that `disks` writes into the file.
    pub fn start(disks: impl FnOnce(&mut ConfigFile)) -> Self {
        Self::with(|_| {}, disks)
    }

    /// The same with further settings at the top.
    ///
    /// # Panics
    /// When its control socket is not there soon.
    pub fn with(top: impl FnOnce(&mut ConfigFile), disks: impl FnOnce(&mut ConfigFile)) -> Self {
        let mut config = ConfigFile::new();
        let control = config.control_socket();
        top(&mut config);
        let top = config.text.clone();
        disks(&mut config);
        let daemon = config.start();
        let service = Self {
            daemon,
            config,
            control,
            top,
            models: Mutex::default(),
        };
        let answers = wait::until(SOON, || UnixStream::connect(service.control.path()).ok());
        assert!(answers.is_some(), "{:#?}", service.daemon.log());
        service
    }

    /// Writes the file anew, with these disks instead of the former ones.
    pub fn rewrite(&mut self, disks: impl FnOnce(&mut ConfigFile)) {
        self.config.text = self.top.clone();
        disks(&mut self.config);
        self.config.write();
    }

    /// Runs a verb that asks at the control socket.
    pub fn verb(&self, arguments: &[&str]) -> Output {
        self.control.verb(arguments)
    }

    /// Runs a verb that has to succeed; its document.
    ///
    /// # Panics
    /// When it fails; the message holds what it and the daemon said.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.verb(&[arguments, &["--json"]].concat());
        assert_eq!(
            output.code,
            Some(0),
            "{}{}, {:#?}",
            output.stdout,
            output.stderr,
            self.daemon.log()
        );
        serde_json::from_str(&output.stdout).expect("a document")
    }

    /// Sends a line, and reads the answer to it.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn ask(&self, line: &[u8]) -> Value {
        self.control.ask(line)
    }

    /// The status of all disks.
    ///
    /// # Panics
    /// When nobody tells it soon.
    pub fn disks(&self) -> Vec<Value> {
        // Others may have taken all places, and have just gone.
        let disks = wait::until(SOON, || {
            let answer = exchange(&mut self.control.connect(), b"{\"verb\":\"status\"}\n").ok()?;
            answer["result"]["disks"].as_array().cloned()
        });
        disks.unwrap_or_else(|| panic!("no status: {:#?}", self.daemon.log()))
    }

    /// The names of all disks, in the order of the status.
    pub fn names(&self) -> Vec<String> {
        let name = |disk: &Value| disk["name"].as_str().map(str::to_owned);
        self.disks().iter().filter_map(name).collect()
    }

    /// The status of one disk; `null` when there is none.
    pub fn disk(&self, name: &str) -> Value {
        let found = self.disks().into_iter().find(|disk| disk["name"] == name);
        found.unwrap_or_default()
    }

    /// Waits until the status of a disk is as wanted.
    ///
    /// # Panics
    /// When it is not soon.
    pub fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = wait::until(SOON, || Some(self.disk(name)).filter(&wanted));
        found.unwrap_or_else(|| panic!("{:#}, {:#?}", self.disk(name), self.daemon.log()))
    }

    /// Waits until a disk is served.
    ///
    /// # Panics
    /// When it is not soon.
    pub fn until_served(&self, name: &str) -> Value {
        self.until(name, |disk| disk["state"] == "serving")
    }

    /// Connects to a disk as soon as its socket is there; the status knows of it and its queues then.
    ///
    /// # Panics
    /// When there is none soon.
    pub fn guest(&self, name: &str) -> Frontend {
        let guest = self.config.connect(&self.daemon, name);
        let no_queues = Value::Array(Vec::new());
        self.until(name, |disk| {
            !disk["front_end"].is_null() && disk["queues"] != no_queues
        });
        guest
    }

    /// While `change` happens, a guest's requests are answered as ever, every read is judged, and
    /// nothing of its disk is lost or made again.
    ///
    /// # Panics
    /// When that is not so.
    pub fn while_a_guest_works_on<T>(&self, name: &str, change: impl FnOnce() -> T) -> T {
        let mut guest = self.guest(name);
        let before = history(&self.until_served(name));
        let is_over = AtomicBool::new(false);
        let mut models = self.models.lock().expect("no test has failed yet");
        let model = models.entry(name.to_owned()).or_default();
        let result = thread::scope(|scope| {
            let _over = SetOnDrop(&is_over);
            scope.spawn(|| work(&mut guest, model, &is_over));
            change()
        });
        assert_eq!(
            history(&self.disk(name)),
            before,
            "{:#?}",
            self.daemon.log()
        );
        result
    }
}

/// Ends the work also when what it accompanies has failed.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two mixes at least, the last of them after it is over.
fn work(guest: &mut Frontend, model: &mut Model, is_over: &AtomicBool) {
    for seed in 1.. {
        let is_last = is_over.load(Ordering::Relaxed);
        let mix = Mix {
            seed,
            steps: 100,
            range: 0..4096,
            max_sectors: 64,
            ..Mix::default()
        };
        random_mix(guest, model, &mix);
        if is_last && seed > 1 {
            return;
        }
    }
}

/// What would change if a disk were touched: its front-end, its sessions and their logins.
fn history(disk: &Value) -> Value {
    let sessions = disk["sessions"].as_array().cloned().unwrap_or_default();
    let session = |session: &Value| {
        let of = |field: &str| session[field].clone();
        Value::Array(vec![
            of("isid"),
            of("reconnects"),
            session["login"]["at"].clone(),
            of("last_error"),
        ])
    };
    let sessions = sessions.iter().map(session).collect();
    Value::Array(vec![
        disk["since"].clone(),
        disk["front_end"]["connected_since"].clone(),
        Value::Array(sessions),
    ])
}

//! QEMU's command line, or a list of its URLs: `iscsi://…`, `-drive`, `-blockdev`, `-iscsi`, `-object
//! secret`. Everything else on it is the guest's, and none of our business.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use zeroize::Zeroizing;

use super::credentials::{Credentials, Origin, Stated};
use super::disk_names::of_lun;
use super::found::{Disk, Found, Place, Scope, Value};
use super::iscsi_url::{self, ImportedUrl};
use super::qemu_options::{self, Options, Word};
use super::source::Source;
use crate::exit::Failure;
use crate::url::TargetUrl;

/// What QEMU calls itself unless it is told otherwise; the guest's UUID or name goes behind it.
const INITIATOR_NAME_PREFIX: &str = "iqn.2008-11.org.linux-kvm";

/// Options that belong to QEMU's side of a disk: how the guest sees it, caches, throttles, and the like.
const OF_QEMU: &str = "it is of QEMU's block layer or of the device: the guest now gets the disk from \
                       vhost-user-blk-pci; see docs/operating.md, QEMU";

/// What QEMU's limits begin with, the old names included.
const THROTTLING: [&str; 3] = ["throttling.", "iops", "bps"];
const LIMITS: &str = "QEMU cannot limit a vhost-user disk: give the [[disk]] iops-total, bps-total and so on, \
                      which mean the same";

/// Options that say which disk it is; what is left of an option's list after them is left out.
const KNOWN: [&str; 17] = [
    "driver",
    "transport",
    "portal",
    "target",
    "lun",
    "user",
    "password",
    "password-secret",
    "initiator-name",
    "header-digest",
    "timeout",
    "filename",
    "file",
    "node-name",
    "id",
    "read-only",
    "readonly",
];

/// Reads a text.
pub(super) fn read(source: &Source, found: &mut Found) -> Result<(), Failure> {
    let words = qemu_options::words(source)?;
    let mut reading = Reading {
        secrets: HashMap::new(),
        iscsi: Vec::new(),
        formats: Vec::new(),
        guest: None,
        found,
    };
    // A secret, and what is said of all disks, may stand behind the disk.
    for (option, argument) in options(&words) {
        reading.prepare(option, argument)?;
    }
    let before = reading.found.disks.len();
    for (option, argument) in options(&words) {
        reading.disk(option, argument)?;
    }
    let is_new = reading.found.disks.len() > before;
    match is_new || !reading.found.remarks.is_empty() {
        true => Ok(()),
        false => Err(source
            .at(0)
            .failure("there is no disk in it: neither an iscsi:// URL nor driver=iscsi")),
    }
}

/// The options with their arguments; a word by itself has no option.
fn options(words: &[Word]) -> impl Iterator<Item = (&str, &Word)> {
    let before = [None].into_iter().chain(words.iter().map(Some));
    before.zip(words).map(|(before, word)| {
        let option = before.and_then(|before| before.text.strip_prefix('-'));
        let option = option.map_or("", |option| option.trim_start_matches('-'));
        (option, word)
    })
}

struct Reading<'a> {
    /// `-object secret`, by their names.
    secrets: HashMap<String, (Origin, Place)>,
    /// `-iscsi`, each with its place.
    iscsi: Vec<(Options, Place)>,
    /// Drivers of formats over other nodes: the node, the driver, and where.
    formats: Vec<(String, String)>,
    /// `-uuid`, else `-name`.
    guest: Option<String>,
    found: &'a mut Found,
}

impl Reading<'_> {
    /// What has to be known before the disks are read.
    fn prepare(&mut self, option: &str, argument: &Word) -> Result<(), Failure> {
        match option {
            "object" => {
                let options = qemu_options::options(argument, "qom-type")?;
                self.secret(&options, &argument.place);
            }
            "iscsi" => {
                let options = qemu_options::options(argument, "id")?;
                self.iscsi.push((options, argument.place.clone()));
            }
            "blockdev" => {
                let options = qemu_options::options(argument, "driver")?;
                if let (Some(driver), Some(file)) = (options.get("driver"), options.get("file")) {
                    self.formats.push((file.clone(), driver.clone()));
                }
            }
            "uuid" => self.guest = Some(argument.text.clone()),
            "name" if self.guest.is_none() => {
                let options = qemu_options::options(argument, "guest")?;
                self.guest = options.get("guest").cloned();
            }
            _ => {}
        }
        Ok(())
    }

    fn secret(&mut self, options: &Options, place: &Place) {
        let is_secret = options.get("qom-type").is_some_and(|kind| kind == "secret");
        let Some(id) = options.get("id").filter(|_| is_secret) else {
            return;
        };
        let is_base64 = options
            .get("format")
            .is_some_and(|format| format == "base64");
        let origin = match (options.get("data"), options.get("file")) {
            _ if options.contains_key("keyid") => {
                let message = "this secret is encrypted with another: decrypt it by hand";
                self.found.remark(place.clone(), message);
                Origin::Elsewhere
            }
            (Some(data), _) => decoded(data, is_base64),
            (None, Some(_)) if is_base64 => {
                let message =
                    "this secret's file is in base64, which ours may not be: decode it (base64 -d)";
                self.found.remark(place.clone(), message);
                Origin::Elsewhere
            }
            (None, Some(file)) => Origin::File(PathBuf::from(file)),
            (None, None) => Origin::Elsewhere,
        };
        self.secrets.insert(id.clone(), (origin, place.clone()));
    }

    /// A disk, if that is what the argument is.
    fn disk(&mut self, option: &str, argument: &Word) -> Result<(), Failure> {
        let place = &argument.place;
        match option {
            "drive" => {
                let options = qemu_options::options(argument, "file")?;
                self.drive(&options, place)
            }
            "blockdev" => {
                let options = qemu_options::options(argument, "driver")?;
                self.block_device(&options, place)
            }
            "object" | "iscsi" | "name" | "uuid" => Ok(()),
            _ if iscsi_url::is_url(&argument.text) => {
                self.url(&argument.text, &Options::new(), place)
            }
            _ => Ok(()),
        }
    }

    fn drive(&mut self, options: &Options, place: &Place) -> Result<(), Failure> {
        let format = options.get("format").or(options.get("driver"));
        match (options.get("file"), format.map(String::as_str)) {
            (Some(file), Some("raw" | "iscsi")) if iscsi_url::is_url(file) => {
                self.url(file, options, place)
            }
            (Some(file), None) if iscsi_url::is_url(file) => {
                let message =
                    "no format= is given, so QEMU guesses: this is right for raw disks only";
                self.url(file, options, place)?;
                self.last_scope().remark(place.clone(), message);
                Ok(())
            }
            (Some(file), Some(_)) if iscsi_url::is_url(file) => {
                self.refuse_format(place);
                Ok(())
            }
            _ => self.block_device(options, place),
        }
    }

    /// `driver=iscsi`, on top or below a `raw`.
    fn block_device(&mut self, options: &Options, place: &Place) -> Result<(), Failure> {
        let driver = |key: &str| options.get(key).map(String::as_str);
        let format = driver("driver").or(driver("format"));
        let inner: Options = match (format, driver("file.driver")) {
            (Some("iscsi"), _) => options.clone(),
            (Some("raw") | None, Some("iscsi")) => below_file(options),
            (Some(_), Some("iscsi")) => {
                self.refuse_format(place);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let is_format = |(node, driver): &(String, String)| {
            let is_ours = options.get("node-name") == Some(node);
            is_ours && !matches!(driver.as_str(), "raw" | "throttle" | "copy-on-read")
        };
        if self.formats.iter().any(is_format) {
            self.refuse_format(place);
            return Ok(());
        }
        match inner.get("filename") {
            Some(url) if iscsi_url::is_url(url) => self.url(url, &inner, place),
            _ => self.portal_and_target(&inner, place),
        }
    }

    fn refuse_format(&mut self, place: &Place) {
        let message = "this disk holds an image in a format of QEMU's (qcow2 or another), which a guest would \
                       see as such: not taken over; convert it to raw (qemu-img convert -O raw) first";
        self.found.remark(place.clone(), message);
    }

    /// A disk by its URL, with what stands beside it.
    fn url(&mut self, url: &str, options: &Options, place: &Place) -> Result<(), Failure> {
        let imported = iscsi_url::parse(url, place, self.found)?;
        let general = self.iscsi_options(imported.url.target.as_str());
        let mut own = options.clone();
        own.retain(|key, _| !matches!(key.as_str(), "file" | "filename"));
        let general = general.map(|(options, place)| (options.clone(), place.clone()));
        self.add(imported, &own, general, place)
    }

    /// A disk by the options that a URL stands for.
    fn portal_and_target(&mut self, options: &Options, place: &Place) -> Result<(), Failure> {
        let part = |key: &str| {
            let missing = || place.failure(&format!("driver=iscsi without {key}="));
            options.get(key).map(String::as_str).ok_or_else(missing)
        };
        let lun = options.get("lun").map_or("0", String::as_str);
        let text = format!("iscsi://{}/{}/{lun}", part("portal")?, part("target")?);
        let url = TargetUrl::parse(&text).map_err(|error| {
            place.failure(&format!("portal, target and lun make no URL: {error}"))
        })?;
        let mut scope = Scope::default();
        if options.get("transport").is_some_and(|name| name != "tcp") {
            let message = "only TCP is known, which the target has to listen on, too";
            scope.remark(place.clone(), message);
        }
        let imported = ImportedUrl {
            text: url.to_string(),
            url,
            credentials: Credentials::default(),
            scope,
        };
        self.add(imported, options, None, place)
    }

    /// The `-iscsi` of a target, else the first one: as QEMU looks them up.
    fn iscsi_options(&self, target: &str) -> Option<&(Options, Place)> {
        let is_its = |(options, _): &&(Options, Place)| {
            options
                .get("id")
                .is_some_and(|id| id.eq_ignore_ascii_case(target))
        };
        self.iscsi.iter().find(is_its).or(self.iscsi.first())
    }

    fn add(
        &mut self,
        imported: ImportedUrl,
        options: &Options,
        general: Option<(Options, Place)>,
        place: &Place,
    ) -> Result<(), Failure> {
        let ImportedUrl {
            url,
            text,
            mut credentials,
            scope,
        } = imported;
        let mut disk = Disk {
            name: of_lun(url.target.as_str(), url.lun),
            url: text,
            scope,
            place: place.clone(),
        };
        let general = general.as_ref().map(|(options, place)| (options, place));
        // What stands beside the URL counts more than what is said of all.
        for (options, place) in general.into_iter().chain([(options, place)]) {
            settings(options, place, &mut disk.scope);
            self.leave_out(options, place);
        }
        for (options, place) in [Some((options, place)), general].into_iter().flatten() {
            credentials = credentials.or(&self.credentials(options, place));
        }
        if let Some(name) = options.get("node-name").or(options.get("id")) {
            name.clone_into(&mut disk.name);
        }
        disk.scope.chap = credentials.settle(&mut self.found.secrets, &mut disk.scope.remarks);
        if !disk.scope.settings.contains_key("initiator-name") {
            self.say_who_qemu_was(&mut disk);
        }
        self.found.add_disk(disk)
    }

    fn credentials(&self, options: &Options, place: &Place) -> Credentials {
        let by_name = options.get("password-secret").map(|id| {
            let known = self.secrets.get(id).cloned();
            let (origin, place) = known.unwrap_or((Origin::Elsewhere, place.clone()));
            Stated::new(origin, &place)
        });
        let password = options.get("password");
        let password = password.map(|text| Stated::new(Origin::of_text(text), place));
        let user = options.get("user");
        Credentials {
            user: user.map(|user| Stated::new(user.clone(), place)),
            secret: by_name.or(password),
            ..Credentials::default()
        }
    }

    /// A target may know QEMU by the name that it had.
    fn say_who_qemu_was(&self, disk: &mut Disk) {
        let Some(guest) = &self.guest else {
            return;
        };
        let name = format!("{INITIATOR_NAME_PREFIX}:{guest}");
        let message = format!(
            "QEMU called itself {name}: where the target lets in by name, set initiator-name to it"
        );
        disk.scope.remark(disk.place.clone(), message);
    }

    fn leave_out(&mut self, options: &Options, place: &Place) {
        let unknown = options.keys().filter(|key| !KNOWN.contains(&key.as_str()));
        let unknown = unknown.filter(|key| !key.starts_with("file."));
        for key in unknown {
            let is_limit = THROTTLING.iter().any(|prefix| key.starts_with(prefix));
            let reason = if is_limit { LIMITS } else { OF_QEMU };
            self.found.leave_out(key, place, reason);
        }
    }

    /// The scope of the disk that was added last.
    fn last_scope(&mut self) -> &mut Scope {
        match self.found.disks.last_mut() {
            Some(disk) => &mut disk.scope,
            None => &mut self.found.defaults,
        }
    }
}

/// The options of the node below, with the name and the switches of the one above.
fn below_file(options: &Options) -> Options {
    let below = options.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix("file.")?;
        Some((key.to_owned(), value.clone()))
    });
    let above = ["node-name", "id", "read-only", "readonly"].into_iter();
    let above = above.filter_map(|key| Some((key.to_owned(), options.get(key)?.clone())));
    below.chain(above).collect()
}

/// What a secret's `data=` holds.
fn decoded(data: &str, is_base64: bool) -> Origin {
    if !is_base64 {
        return Origin::of_text(data);
    }
    match base64::engine::general_purpose::STANDARD.decode(data) {
        Ok(bytes) => Origin::Bytes(Zeroizing::new(bytes)),
        Err(_) => Origin::Elsewhere,
    }
}

/// What `-iscsi` and `driver=iscsi` say beside the place of the disk.
fn settings(options: &Options, place: &Place, scope: &mut Scope) {
    for (key, value) in options {
        match key.as_str() {
            "initiator-name" => scope.set("initiator-name", value),
            "header-digest" => match digest(value) {
                Some(digest) => scope.set("header-digest", digest),
                None => scope.remark(place.clone(), "this header-digest is not known: left out"),
            },
            "timeout" => match value.parse() {
                Ok(seconds) => {
                    let time = Some(Duration::from_secs(seconds)).filter(|time| !time.is_zero());
                    scope.set_command_timeout(time, place);
                }
                Err(_) => scope.remark(place.clone(), "timeout is no number: left out"),
            },
            "read-only" | "readonly" if matches!(value.as_str(), "on" | "yes" | "true") => {
                scope.settings.insert("read-only", Value::On);
            }
            _ => {}
        }
    }
}

/// QEMU's words for what may be offered.
fn digest(text: &str) -> Option<&'static str> {
    match text {
        "crc32c" => Some("crc32c"),
        "none" => Some("none"),
        "crc32c-none" => Some("prefer"),
        "none-crc32c" => Some("avoid"),
        _ => None,
    }
}

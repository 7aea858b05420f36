//! Section 5: the configuration file, whose keys are the options of serving.

use std::io;

use clap::{Arg, ArgAction, Command};
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::PROGRAM;
use crate::pages::see_also;

/// The page.
pub(crate) const NAME: &str = "vhost-user-iscsi.toml";

/// Options of the command line that are no keys.
const NO_KEYS: [&str; 4] = ["fd", "help", "version", "print-capabilities"];
/// The option that has another name here.
const BLK_FILE: &str = "blk-file";
const URL: &str = "url";
/// Keys of a disk alone.
const OWN: [&str; 2] = ["socket-path", URL];
/// The options under this heading are of the process.
const MANAGEMENT: &str = "Management";

/// A key of the file.
pub(crate) struct Key {
    /// As it is written.
    pub(crate) name: String,
    option: Arg,
}

impl Key {
    fn is_of_process(&self) -> bool {
        self.option.get_help_heading() == Some(MANAGEMENT)
    }

    fn is_of_one_disk(&self) -> bool {
        OWN.contains(&self.name.as_str())
    }
}

/// The keys that are options, too, in the order of the command line.
pub(crate) fn keys(program: &Command) -> Vec<Key> {
    let key = |option: &Arg| {
        let name = option.get_long().filter(|long| !NO_KEYS.contains(long))?;
        let name = if name == BLK_FILE { URL } else { name };
        (!option.is_global_set()).then(|| Key {
            name: name.to_owned(),
            option: option.clone(),
        })
    };
    program.get_arguments().filter_map(key).collect()
}

pub(crate) fn page(program: &Command) -> io::Result<Vec<u8>> {
    let mut roff = Roff::new();
    let source = format!("{PROGRAM} {}", program.get_version().unwrap_or_default());
    let title = NAME.to_uppercase();
    let manual = "iSCSI disks for virtual machines";
    roff.control("TH", [title.as_str(), "5", "", &source, manual]);
    section(&mut roff, "NAME", NAME_LINE);
    section(&mut roff, "DESCRIPTION", DESCRIPTION);
    let keys = keys(program);
    roff.control("SH", ["KEYS OF THE PROCESS"]);
    roff.text([roman("They stand at the top only.")]);
    describe(&mut roff, keys.iter().filter(|key| key.is_of_process()));
    roff.control("SH", ["KEYS OF A DISK"]);
    roff.text([roman("They stand in a [[disk]] only.")]);
    term(&mut roff, "name", "NAME", NAME_HELP);
    describe(&mut roff, keys.iter().filter(|key| key.is_of_one_disk()));
    roff.control("SH", ["KEYS OF DISKS"]);
    roff.text([roman(
        "They stand in a [[disk]], or at the top as the default of all.",
    )]);
    let is_shared = |key: &&Key| !key.is_of_process() && !key.is_of_one_disk();
    describe(&mut roff, keys.iter().filter(is_shared));
    roff.control("SH", ["KEYS OF A PORTAL"]);
    roff.text([roman(
        "They stand in a [[portal]], of which every LUN becomes a disk; rediscover and socket-directory \
         may stand at the top, too. The keys of disks may stand there for all its disks.",
    )]);
    for (key, value, help) in PORTAL {
        term(&mut roff, key, value, help);
    }
    example(&mut roff);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    let verbs = ["vhost-user-iscsi-serve", "vhost-user-iscsi-check"];
    see_also(&[(PROGRAM, "1"), (verbs[0], "1"), (verbs[1], "1")]).to_writer(&mut page)?;
    Ok(page)
}

const NAME_LINE: &[&str] = &["vhost-user-iscsi.toml - the disks that vhost-user-iscsi serves"];

const DESCRIPTION: &[&str] = &[
    "vhost-user-iscsi.service reads /etc/vhost-user-iscsi/config.toml, \
     vhost-user-iscsi@NAME.service reads /etc/vhost-user-iscsi/disks/NAME.toml. Both are TOML. The \
     keys are the long options of vhost-user-iscsi(1), with url for --blk-file. Keys at the top are \
     defaults; a [[disk]] overrides them and says what is its own.",
    "Texts and times stand in quotes, numbers may do without, switches are true or false. There is no \
     key for a secret: secrets stand in files of their own, or are credentials of systemd.",
    "vhost-user-iscsi check says everything that is wrong with a file.",
];

const NAME_HELP: &str = "What people call the disk; else the name of its socket, without .sock";

/// Keys that are no options, their values, and what they mean.
const PORTAL: [(&str, &str, &str); 5] = [
    (
        "address",
        "\"HOST[:PORT]\"",
        "The portal; an IPv6 address in brackets",
    ),
    (
        "include",
        "[PATTERN, ...]",
        "Only targets whose name matches one of them; * is any characters [default: all]",
    ),
    (
        "exclude",
        "[PATTERN, ...]",
        "No targets whose name matches one of them, whatever include says",
    ),
    (
        "rediscover",
        "TIME",
        "How long after a discovery the next one comes, from 1s to 1day [default: 1m]",
    ),
    (
        "socket-directory",
        "PATH",
        "Where the sockets of its disks are, at most 37 bytes [default: where the control socket is]",
    ),
];

const EXAMPLE: &str = "\
chap-user = \"host1\"
chap-secret-file = \"/etc/vhost-user-iscsi/secrets/array1\"

[[disk]]
name = \"root\"
socket-path = \"/run/vhost-user-iscsi/root.sock\"
url = \"iscsi://192.0.2.1/iqn.2001-04.com.example:disk/1\"
io-timeout = \"2m\"

[[portal]]
address = \"192.0.2.2\"
exclude = [\"*:backup*\"]";

fn section(roff: &mut Roff, heading: &str, paragraphs: &[&str]) {
    roff.control("SH", [heading]);
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*paragraph)]);
    }
}

fn example(roff: &mut Roff) {
    roff.control("SH", ["EXAMPLE"]);
    roff.control("nf", []);
    for line in EXAMPLE.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn describe<'a>(roff: &mut Roff, keys: impl Iterator<Item = &'a Key>) {
    for key in keys {
        let help = key.option.get_help().map(ToString::to_string);
        let mut help = help.unwrap_or_default();
        if let [default] = key.option.get_default_values()
            && !is_switch(&key.option)
        {
            help += &format!(" [default: {}]", default.to_string_lossy());
        }
        term(roff, &key.name, &value_of(&key.option), &help);
    }
}

fn term(roff: &mut Roff, key: &str, value: &str, help: &str) {
    roff.control("TP", []);
    roff.text([bold(key), roman(" = "), italic(value)]);
    roff.text([roman(help)]);
}

fn is_switch(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::SetTrue)
}

fn value_of(option: &Arg) -> String {
    match option.get_value_names() {
        Some([name, ..]) if !is_switch(option) => name.to_string(),
        _ => "true|false".to_owned(),
    }
}

//! Section 1: the program, and a page for each verb.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::PROGRAM;

/// Each page with the name of its file.
pub(crate) fn pages(program: &Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = vec![(format!("{PROGRAM}.1"), program_page(program)?)];
    for verb in program.get_subcommands() {
        let name = format!("{PROGRAM}-{}", verb.get_name());
        let mut page = Vec::new();
        man(verb.clone().display_name(&name), &name, program).render(&mut page)?;
        see_also(&[(PROGRAM, "1"), (crate::config_page::NAME, "5")]).to_writer(&mut page)?;
        pages.push((format!("{name}.1"), page));
    }
    Ok(pages)
}

/// A page of this version of the program. It has no date, to be the same whenever it is written.
fn man(command: Command, title: &str, program: &Command) -> Man {
    let version = program.get_version().unwrap_or_default();
    Man::new(command)
        .title(title.to_uppercase())
        .source(format!("{PROGRAM} {version}"))
        .manual("iSCSI disks for virtual machines")
}

fn program_page(program: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = man(program.clone(), PROGRAM, program);
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    for (heading, entries) in SECTIONS {
        list(heading, entries).to_writer(&mut page)?;
    }
    let pages = program.get_subcommands().map(|verb| verb.get_name());
    let pages: Vec<_> = pages.map(|verb| format!("{PROGRAM}-{verb}")).collect();
    let mut also: Vec<_> = pages.iter().map(|page| (page.as_str(), "1")).collect();
    also.push((crate::config_page::NAME, "5"));
    also.push(("systemd.exec", "5"));
    see_also(&also).to_writer(&mut page)?;
    Ok(page)
}

/// What the command line's definition does not say; docs/operating.md has all of it.
const SECTIONS: [(&str, &[(&str, &str)]); 3] = [
    (
        "FILES",
        &[
            (
                "/etc/vhost-user-iscsi/config.toml",
                "The disks of vhost-user-iscsi.service.",
            ),
            (
                "/etc/vhost-user-iscsi/disks/NAME.toml",
                "The disk of vhost-user-iscsi@NAME.service, in the same format.",
            ),
            (
                "/run/vhost-user-iscsi/control",
                "The control socket of vhost-user-iscsi.service.",
            ),
            (
                "/etc/iscsi/initiatorname.iscsi",
                "The initiator's name, unless it is given. Without it the name is derived from \
                 /etc/machine-id.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "LIBISCSI_CHAP_USERNAME, LIBISCSI_CHAP_PASSWORD",
                "Our CHAP user and secret, where neither an option nor the URL says.",
            ),
            (
                "LIBISCSI_CHAP_TARGET_USERNAME, LIBISCSI_CHAP_TARGET_PASSWORD",
                "Those of the target.",
            ),
            (
                "CREDENTIALS_DIRECTORY",
                "Where the options for credentials find them; set by systemd.",
            ),
            (
                "RUNTIME_DIRECTORY",
                "Where the control socket of a service is, unless told otherwise; set by systemd.",
            ),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "None of the cases below."),
            (
                "2",
                "The command line, the URL or the configuration cannot be used.",
            ),
            ("4", "Refused, closed, unresolvable, or not iSCSI."),
            ("5", "The target has a problem of its own."),
            ("8", "No answer in time."),
            (
                "13",
                "A secret, a socket path or the metrics address cannot be used.",
            ),
            ("19", "The login was refused."),
            ("21", "No such target, no such LUN, or not a disk."),
            ("24", "CHAP or the authorisation failed."),
        ],
    ),
];

fn list(heading: &str, entries: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    for (term, text) in entries {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*text)]);
    }
    roff
}

/// The section that names other pages.
pub(crate) fn see_also(pages: &[(&str, &str)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    for (index, (page, section)) in pages.iter().enumerate() {
        let comma = if index + 1 < pages.len() { "," } else { "" };
        roff.text([bold(*page), roman(format!("({section}){comma}"))]);
    }
    roff
}

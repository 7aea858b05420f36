//! `import`: what people have for other initiators, turned into our configuration file.
//!
//! Each kind of file has a reader that fills in what it [`Found`]; what has no counterpart becomes a
//! remark there, with its reason, and nothing is dropped without a word. Then what all disks have in
//! common moves to the top, names are given, and the whole is written as TOML. No secret gets into
//! it: it names files, and says where the secret stood.

mod credentials;
mod disk_names;
mod found;
mod iscsi_url;
mod kind;
mod open_iscsi;
mod qemu;
mod qemu_options;
mod render;
mod secret_files;
mod settle;
mod sfnet;
mod sfnet_portals;
mod source;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::print;
use crate::exit::Failure;
use found::Found;
use kind::Kind;
use source::Source;

/// The arguments of `import`.
#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// Files to read, directories to walk (/etc/iscsi), or - for the standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// What the files are, instead of what they look like: sfnet, open-iscsi, initiator-name or qemu
    #[arg(long, value_name = "KIND", value_parser = kind::parse)]
    from: Option<Kind>,

    /// Write the secrets into new files in this directory, which only their owner can read
    #[arg(long, value_name = "DIRECTORY")]
    secrets_directory: Option<PathBuf>,
}

pub(super) fn run(arguments: &ImportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let sources = source::read_all(&arguments.files)?;
    let mut found = Found::default();
    for source in &sources {
        read(source, arguments.from, &mut found)?;
    }
    settle::settle(&mut found);
    let directory = secret_files::directory(arguments.secrets_directory.as_deref())?;
    let paths = secret_files::paths(&found.secrets, &directory);
    if arguments.secrets_directory.is_some() {
        secret_files::write(&found.secrets, &paths, &directory)?;
    }
    let is_written = arguments.secrets_directory.is_some();
    print(out, &render::render(&found, &paths, is_written))
}

/// Reads one file into `found`.
fn read(source: &Source, forced: Option<Kind>, found: &mut Found) -> Result<(), Failure> {
    let kind = forced.or_else(|| kind::recognise(&source.text));
    match kind {
        Some(Kind::Sfnet) => sfnet::read(source, found)?,
        Some(Kind::OpenIscsi) => open_iscsi::read(source, found)?,
        Some(Kind::InitiatorName) => open_iscsi::read_initiator_name(source, found)?,
        Some(Kind::Qemu) => qemu::read(source, found)?,
        // A directory may hold anything: what was not read is said, and the rest counts.
        None if source.is_from_directory => {
            found.remark(
                source.at(0),
                "it is none of the kinds that are known: not read",
            );
        }
        None => {
            return Err(source.at(0).failure(
                "it is neither an iscsi.conf, an iscsid.conf, a node record, an initiatorname.iscsi nor \
                 anything of QEMU with an iscsi:// URL or driver=iscsi: say what it is with --from",
            ));
        }
    }
    found.sources.push(source.name.clone());
    Ok(())
}

#[cfg(test)]
mod tests;

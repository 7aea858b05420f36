//! The in-memory target as a program: prints its portal when it is ready, runs until it is ended.
//!
//! What it offers by default suits a benchmark: it takes large segments and bursts and as many
//! commands as any initiator has. A LUN with `:null` neither stores nor gathers data.

use clap::Parser;
use iscsi_test_target::{ChapConfig, Disk, LunConfig, TargetConfig, TestTarget, Thin, read_secret};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// An in-memory iSCSI target for tests. Prints `ADDRESS:PORT` when it is ready.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where to listen; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Its iSCSI name; may be given several times
    #[arg(long)]
    target_name: Vec<String>,
    /// A logical unit: NUMBER:SIZE[:block=4096][:thin][:null][:ro][:serial=TEXT]; SIZE in bytes or
    /// with K, M, G or T. Default: LUN 0 of 64 MiB
    #[arg(long = "lun", value_parser = parse_lun)]
    luns: Vec<(u16, LunConfig)>,
    /// The user name the initiator must give
    #[arg(long, requires = "chap_secret_file")]
    chap_user: Option<String>,
    /// The file with that user's secret
    #[arg(long, requires = "chap_user")]
    chap_secret_file: Option<PathBuf>,
    /// The user name with which the target answers a challenge (mutual CHAP)
    #[arg(long, requires_all = ["chap_target_secret_file", "chap_user"])]
    chap_target_user: Option<String>,
    /// The file with the target's own secret
    #[arg(long, requires = "chap_target_user")]
    chap_target_secret_file: Option<PathBuf>,
    /// The MaxRecvDataSegmentLength it declares
    #[arg(long, default_value_t = 262_144)]
    max_recv_data_segment_length: u32,
    /// MaxBurstLength
    #[arg(long, default_value_t = 16_773_120)]
    max_burst_length: u32,
    /// FirstBurstLength
    #[arg(long, default_value_t = 262_144)]
    first_burst_length: u32,
    /// MaxOutstandingR2T
    #[arg(long, default_value_t = 8)]
    max_outstanding_r2t: u32,
    /// Answers InitialR2T with Yes
    #[arg(long)]
    initial_r2t: bool,
    /// Answers ImmediateData with No
    #[arg(long)]
    no_immediate_data: bool,
    /// Commands in the CmdSN window
    #[arg(long, default_value_t = 256)]
    cmd_sn_window: u32,
}

#[allow(
    clippy::print_stdout,
    reason = "the portal line is what callers wait for"
)]
fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let target = TestTarget::start(configuration(Options::parse())?)?;
    println!("{}", target.portal());
    loop {
        std::thread::park();
    }
}

fn configuration(options: Options) -> Result<TargetConfig, Box<dyn Error>> {
    let mut config = TargetConfig {
        listen: options.listen,
        // There is nobody who could ask for them.
        keep_events: false,
        ..TargetConfig::default()
    };
    let own = &mut config.negotiation;
    own.max_recv_data_segment_length = Some(options.max_recv_data_segment_length);
    own.max_burst_length = options.max_burst_length;
    own.first_burst_length = options.first_burst_length;
    own.max_outstanding_r2t = options.max_outstanding_r2t;
    own.cmd_sn_window = options.cmd_sn_window;
    own.initial_r2t = options.initial_r2t;
    own.immediate_data = !options.no_immediate_data;
    config.chap = chap(&options)?;
    if !options.target_name.is_empty() {
        config.target_names = options.target_name;
    }
    if !options.luns.is_empty() {
        config.luns = BTreeMap::from_iter(options.luns);
    }
    Ok(config)
}

fn chap(options: &Options) -> Result<Option<ChapConfig>, Box<dyn Error>> {
    let (Some(user), Some(file)) = (&options.chap_user, &options.chap_secret_file) else {
        return Ok(None);
    };
    let secret = |path: &PathBuf| {
        read_secret(path).map_err(|error| format!("secret file {}: {error}", path.display()))
    };
    let mut chap = ChapConfig::new(user, secret(file)?);
    if let (Some(user), Some(file)) = (&options.chap_target_user, &options.chap_target_secret_file)
    {
        chap = chap.mutual(user, secret(file)?);
    }
    Ok(Some(chap))
}

fn parse_lun(text: &str) -> Result<(u16, LunConfig), String> {
    let mut parts = text.split(':');
    let number = parts
        .next()
        .and_then(|n| n.parse().ok())
        .filter(|n| *n < 16_384);
    let number = number.ok_or("a LUN starts with its number, 0 to 16383")?;
    let size = parts
        .next()
        .and_then(parse_size)
        .ok_or("the size is bytes, or ends in K, M, G, T")?;
    let mut lun = LunConfig::of_bytes(size);
    for part in parts {
        apply(&mut lun, part)?;
    }
    Ok((number, lun))
}

fn apply(lun: &mut LunConfig, part: &str) -> Result<(), String> {
    match part.split_once('=').unwrap_or((part, "")) {
        ("block", "512") => lun.block_bytes = 512,
        ("block", "4096") => (lun.block_bytes, lun.physical_exponent) = (4096, 0),
        ("thin", "") => lun.thin = Some(Thin::default()),
        ("null", "") => lun.disk = Some(Arc::new(Disk::null())),
        ("ro", "") => lun.write_protected = true,
        ("serial", serial) => lun.serial = Some(serial.to_owned()),
        _ => {
            return Err(format!(
                "{part}: expected block=512, block=4096, thin, null, ro, serial="
            ));
        }
    }
    Ok(())
}

fn parse_size(text: &str) -> Option<u64> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units
        .iter()
        .find_map(|(letter, shift)| Some((text.strip_suffix(*letter)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, &0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_luns_with_all_their_parts() {
        let (number, lun) = parse_lun("16383:2T:block=4096:thin:null").unwrap();
        assert_eq!(
            (number, lun.capacity_bytes, lun.block_bytes),
            (16_383, 2 << 40, 4096)
        );
        assert!(lun.thin.is_some() && lun.disk.is_some());
    }

    #[test]
    fn refuses_luns_out_of_range_and_unknown_parts() {
        for text in [
            "16384:1M",
            "x:1M",
            "0",
            "0:1X",
            "0:99999999999T",
            "0:1M:thick",
        ] {
            assert!(parse_lun(text).is_err(), "{text}");
        }
    }
}

//! Writes the seeds into a corpus: a directory per target, a file per seed.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let given = env::args_os().nth(1);
    let corpus = given.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus").into());
    for seed in vhost_user_iscsi_fuzz_harness::seeds::all() {
        let directory = Path::new(&corpus).join(seed.target);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(format!("seed-{}", seed.name)), &seed.bytes)?;
    }
    Ok(())
}

//! A LUN that grows under a guest's load: the guest's kernel shows the new size without a reboot, and
//! the load goes on; one that shrinks is refused.

use std::time::Duration;

use iscsi_test_target::{LunConfig, Sense};
use vhost_user_iscsi_tests::served::{Served, one_lun};

use super::run::Launch;

const MIB: u64 = 1 << 20;
const FORMER: u64 = 256 * MIB;
const LARGER: u64 = 320 * MIB;
/// The guest's boot included.
const LOAD_LIMIT: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(10);

/// Verified load on the former size, while the size changes; then the new range is used.
const SCRIPT: &str = r#"
set -euo pipefail
sectors() { cat /sys/block/vda/size; }
complaints() { dmesg | grep -E 'I/O error|is not a head|blocked for more than'; }
echo "begins with $(sectors) sectors"
fio --name=load --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=8 --size=64M \
    --rw=randwrite --bsrange=4k-128k --verify=crc32c --verify_fatal=1 --do_verify=1 \
    --time_based --runtime=20 --minimal --output=/tmp/fio.out &
load=$!
echo "waits for growth"
until [[ $(sectors) == "$WANTED" ]]; do
    kill -0 "$load" 2>/dev/null || { echo "the load ended first"; exit 1; }
    sleep 0.1
done
echo "grown to $(sectors) sectors"
lsblk --bytes --noheadings --output NAME,SIZE /dev/vda
dd if=/dev/urandom of=/tmp/pattern bs=1M count=16 status=none
dd if=/tmp/pattern of=/dev/vda bs=1M seek="$FIRST_MIB" oflag=direct status=none
dd if=/dev/vda of=/tmp/back bs=1M skip="$FIRST_MIB" count=16 iflag=direct status=none
cmp /tmp/pattern /tmp/back
if complaints; then exit 1; fi
echo "the new range is used"
# Whoever sends commands is told.
for _ in {1..100}; do
    dd if=/dev/vda of=/dev/null bs=4k count=1 iflag=direct status=none
    sleep 0.1
done
echo "after the shrinking: $(sectors) sectors"
wait "$load" || { cat /tmp/fio.out; exit 1; }
echo "fio verified the load"
# Whoever looks for filesystems reads the last sectors, which are gone. Nothing else has failed.
complaints | grep -oE 'dev vda, sector [0-9]+' | awk -v end="$((FIRST_MIB * 2048))" '$4 < end' >/tmp/failed || true
if [[ -s /tmp/failed ]]; then cat /tmp/failed; exit 1; fi
"#;

#[test]
fn a_lun_that_grows_under_load_is_larger_in_the_guest_without_a_reboot() {
    let served = Served::new(one_lun(LunConfig::of_bytes(FORMER)));
    let change = |bytes| {
        assert!(served.target.set_capacity_bytes(0, bytes));
        served
            .target
            .push_unit_attention_to_all(0, Sense::CAPACITY_CHANGED);
    };
    let guest = Launch::new(&[served.daemon.socket()])
        .args(&["--with-fio", "--vcpus", "2", "--num-queues", "2"])
        .env("WANTED", &(LARGER / 512).to_string())
        .env("FIRST_MIB", &(FORMER / MIB).to_string())
        .lines(SCRIPT)
        .start();
    guest.wait_line("waits for growth", LOAD_LIMIT);
    change(LARGER);
    guest.wait_line(&format!("grown to {} sectors", LARGER / 512), LOAD_LIMIT);
    guest.wait_line("the new range is used", LOAD_LIMIT);
    change(FORMER);
    served.daemon.wait_log("has shrunk to", SOON);
    let printed = guest.finish();
    for line in [
        format!("after the shrinking: {} sectors", LARGER / 512),
        "fio verified the load".to_owned(),
        format!("vda  {LARGER}"),
    ] {
        assert!(printed.contains(&line), "no {line:?} in {printed}");
    }
}

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_user_iscsi_fuzz_harness::run("questions", data));

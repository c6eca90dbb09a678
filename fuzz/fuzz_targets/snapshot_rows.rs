#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_raft::fuzzing::targets(), "snapshot_rows", data)
});

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyviz::fuzzing::run("raft_messages", data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_kv::fuzzing::targets(), "kv_command", data)
});

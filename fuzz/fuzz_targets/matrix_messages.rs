#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_peer::fuzzing::targets(), "matrix_messages", data)
});

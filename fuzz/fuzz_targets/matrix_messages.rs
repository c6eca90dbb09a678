#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_server::fuzzing::targets(), "matrix_messages", data)
});

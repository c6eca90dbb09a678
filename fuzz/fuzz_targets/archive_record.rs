#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_core::fuzzing::targets(), "archive_record", data)
});

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_catalog::fuzzing::targets(), "catalog_command", data)
});

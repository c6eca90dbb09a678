#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keyviz_testkit::fuzz::run(keyviz_cli::load::fuzzing::targets(), "trace_file", data)
});

//! Traces, as a fuzz target.

use super::trace::Trace;
use keyviz_testkit::fuzz::Target;

/// The decoders of this crate.
pub fn targets() -> Vec<Target> {
    vec![Target { name: "trace_file", run, corpus }]
}

fn run(data: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    std::fs::write(file.path(), data).expect("the temporary folder is writable");
    let trace = Trace::open(file.path()).expect("the file exists");
    for skip_bad in [false, true] {
        let _ = trace.check(skip_bad);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let text = b"t_s,op,key,value_bytes\n0,write,\"a,b\",10\n0.5,read,a,\n7,delete,hex:ff,0\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text).expect("memory takes it");
    vec![text.to_vec(), gzip.finish().expect("memory takes it")]
}

#[cfg(test)]
#[test]
fn fuzz_no_decoder_panics_whatever_it_is_given() {
    keyviz_testkit::fuzz::check(targets());
}

use std::io::Write;

use super::*;

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    file.write_all(content).expect("the temporary folder is writable");
    file
}

fn check(content: &str, skip_bad: bool) -> Result<Census, String> {
    let file = file(content.as_bytes());
    let path = file.path().display().to_string();
    let checked = Trace::open(file.path()).and_then(|trace| trace.check(skip_bad));
    checked.map_err(|error| error.to_string().replace(&path, "TRACE"))
}

#[test]
fn lines_become_operations() {
    let file =
        file(b"t_s,op,key,value_bytes\n0,write,\"a,b\",10\n0.5,read,a,\n7,delete,hex:ff,0\n");
    let trace = Trace::open(file.path()).expect("the file exists");
    let lines: Vec<_> = trace.lines().expect("the header is right").map(Result::unwrap).collect();
    let line = |at_s, kind, key: &'static [u8], value_bytes| TraceLine {
        at_s,
        kind,
        key: Bytes::from_static(key),
        value_bytes,
    };
    let expected = [
        line(0.0, TraceKind::Write, b"a,b", 10),
        line(0.5, TraceKind::Read, b"a", 0),
        line(7.0, TraceKind::Delete, b"\xff", 0),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_gzipped_trace_is_read_whatever_it_is_called() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"t_s,op,key,value_bytes\n0,read,a,1\n").expect("a vector takes everything");
    let file = file(&gz.finish().expect("a vector takes everything"));
    let trace = Trace::open(file.path()).expect("the file exists");
    assert_eq!(trace.check(false).expect("it is right"), Census { operations: 1, bad: 0 });
}

#[test]
fn a_gzipped_trace_that_was_cut_off_is_an_error() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let lines = "0,read,a,1\n".repeat(100_000);
    gz.write_all(b"t_s,op,key,value_bytes\n").expect("a vector takes everything");
    gz.write_all(lines.as_bytes()).expect("a vector takes everything");
    let whole = gz.finish().expect("a vector takes everything");
    let file = file(&whole[..whole.len() / 2]);
    let error = Trace::open(file.path()).expect("the file exists").check(true).unwrap_err();
    assert!(matches!(error, TraceError::Read { .. }), "{error}");
}

#[test]
fn a_bad_line_is_named_with_its_number() {
    let lines = |line: &str| check(&format!("t_s,op,key,value_bytes\n0,read,a,1\n{line}\n"), false);
    let fault = |line: &str| lines(line).unwrap_err();
    let named = |what: &str| format!("TRACE: line 3: {what} (--skip-bad skips it)");
    assert_eq!(fault("0,read,a"), named("3 fields, expected 4"));
    assert_eq!(fault("0,read,a,1,2"), named("5 fields, expected 4"));
    assert_eq!(fault("x,read,a,1"), named("t_s \"x\" is not a number of seconds from 0"));
    assert_eq!(fault("-1,read,a,1"), named("t_s \"-1\" is not a number of seconds from 0"));
    assert_eq!(fault("NaN,read,a,1"), named("t_s \"NaN\" is not a number of seconds from 0"));
    assert_eq!(fault("0,get,a,1"), named("op \"get\" is none of read, write, delete"));
    assert_eq!(fault("0,read,,1"), named("key: a key has at least 1 byte"));
    assert_eq!(fault("0,write,hex:00,1"), named("key: keys that begin with \\x00 are reserved"));
    assert_eq!(fault("0,write,a,"), named("value_bytes \"\" is not a number from 0 to 1048576"));
    let large = "value_bytes \"1048577\" is not a number from 0 to 1048576";
    assert_eq!(fault("0,write,a,1048577"), named(large));
    assert!(lines("0,read,a,1048577").is_ok());
}

#[test]
fn bad_lines_are_counted_where_they_are_skipped() {
    let content = "t_s,op,key,value_bytes\n0,read,a,1\nnonsense\n0,write,b,x\n1,write,b,1\n";
    assert_eq!(check(content, true), Ok(Census { operations: 2, bad: 2 }));
}

#[test]
fn a_trace_needs_its_header() {
    let error = "TRACE: line 1 is not the header t_s,op,key,value_bytes";
    assert_eq!(check("0,read,a,1\n", false), Err(error.into()));
    assert_eq!(check("", true), Err(error.into()));
    assert_eq!(check("t_s,op,key,value_bytes\n", false), Ok(Census::default()));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Trace::open(Path::new("/nonexistent/trace.csv")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the trace /nonexistent/trace.csv: "), "{error}");
    let error = Trace::open(Path::new("/")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the trace /: "), "{error}");
}

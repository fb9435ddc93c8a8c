//! Sweeps: a session cut after every byte, and with every byte changed.

use crate::samples;
use crate::session::{noise, record, replay, unwrap, wrap};

const BODY: &[u8] = b"From: me\n\nA body of a few words, and of a few words more.\n";

#[test]
fn a_whole_session_is_read() {
    let (responses, body) = replay(&record(BODY)).expect("whole");
    assert_eq!(responses, samples::responses());
    assert_eq!(body, BODY);
}

#[test]
fn every_cut_of_the_stream_is_an_error() {
    let stream = record(BODY);
    for cut in 0..stream.len() {
        assert!(
            replay(&stream[..cut]).is_err(),
            "cut at {cut} of {}",
            stream.len()
        );
    }
}

#[test]
fn every_cut_of_the_frames_is_an_error() {
    let inner = unwrap(&record(BODY));
    for cut in 0..inner.len() {
        assert!(
            replay(&wrap(&inner[..cut])).is_err(),
            "cut at {cut} of {}",
            inner.len()
        );
    }
}

#[test]
fn every_changed_byte_of_the_stream_is_an_error_or_a_value() {
    let stream = record(BODY);
    for (at, mask) in flips(&stream) {
        let mut stream = stream.clone();
        stream[at] ^= mask;
        let _ = replay(&stream);
    }
}

#[test]
fn every_changed_byte_of_the_frames_is_an_error_or_a_value() {
    let inner = unwrap(&record(BODY));
    for (at, mask) in flips(&inner) {
        let mut inner = inner.clone();
        inner[at] ^= mask;
        let _ = replay(&wrap(&inner));
    }
}

fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    (0..bytes.len()).flat_map(|at| [1, 2, 0x10, 0x80, 0xff].map(|mask| (at, mask)))
}

#[test]
fn a_long_session_is_read_and_its_cuts_are_errors() {
    let body = noise(700_000);
    let stream = record(&body);
    assert_eq!(replay(&stream).expect("whole").1, body);
    for cut in (0..stream.len()).step_by(9_973) {
        assert!(
            replay(&stream[..cut]).is_err(),
            "cut at {cut} of {}",
            stream.len()
        );
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    let mut stream = record(BODY);
    stream.extend(b"Connection to host closed.\r\n");
    assert!(replay(&stream).is_err());
}

//! Sweeps: a session cut after every byte, and with every byte changed.

use protocol::Result;
use protocol::frame::{Frame, FrameReader};

use crate::session::{self, noise, record, replay, unwrap, wrap};

const BODY: &[u8] = b"From: me\n\nA body of a few words, and of a few words more.\n";

#[test]
fn a_whole_session_is_read() {
    let (responses, body) = replay(&record(BODY)).expect("whole");
    assert_eq!(responses, session::responses());
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
fn every_changed_byte_of_the_stream_is_an_error_or_changes_nothing() {
    let stream = record(BODY);
    let said = replay(&stream).expect("whole");
    for (at, mask) in flips(&stream) {
        let mut stream = stream.clone();
        stream[at] ^= mask;
        if let Ok(heard) = replay(&stream) {
            assert_eq!(heard, said, "byte {at} changed by {mask:#x}");
        }
    }
}

#[test]
fn every_changed_byte_of_the_frames_is_an_error() {
    let inner = unwrap(&record(BODY));
    for (at, mask) in flips(&inner) {
        let mut inner = inner.clone();
        inner[at] ^= mask;
        assert!(
            replay(&wrap(&inner)).is_err(),
            "byte {at} changed by {mask:#x}"
        );
    }
}

/// The reader gives what stands before the changed byte's frame and then an error: no other message, kind or length.
#[test]
fn no_changed_byte_of_the_frames_comes_out_as_something_else() {
    let inner = unwrap(&record(BODY));
    let (said, end) = read_all(&wrap(&inner));
    end.expect("whole");
    let ends: Vec<usize> = said
        .iter()
        .scan(0, |end, frame| {
            let (Frame::Message(bytes) | Frame::Body { bytes, .. }) = frame;
            *end += HEADER_BYTES + bytes.len();
            Some(*end)
        })
        .collect();
    assert_eq!(ends.last(), Some(&inner.len()), "every byte is in a frame");
    for (at, mask) in flips(&inner) {
        let mut inner = inner.clone();
        inner[at] ^= mask;
        let (heard, end) = read_all(&wrap(&inner));
        let whole = ends.partition_point(|&end| end <= at);
        assert_eq!(heard, said[..whole], "byte {at} changed by {mask:#x}");
        assert!(end.is_err(), "byte {at} changed by {mask:#x}");
    }
}

/// Length, kind and check.
const HEADER_BYTES: usize = 9;

/// All frames up to the end or the first error, and which of them it was.
fn read_all(stream: &[u8]) -> (Vec<Frame>, Result<()>) {
    let mut reader = FrameReader::new(stream);
    let mut frames = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn flips(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    (0..bytes.len())
        .flat_map(|at| [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff].map(|mask| (at, mask)))
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

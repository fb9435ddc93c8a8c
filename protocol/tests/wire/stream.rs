//! Flushing, counting, and limits against a hostile peer.

use std::io::{BufReader, Read, Write};
use std::thread;

use protocol::codec::MESSAGE_BYTES_MAX;
use protocol::frame::{Effort, FRAME_BYTES_MAX, Frame, FrameReader, FrameWriter, WINDOW_LOG_MAX};
use protocol::{Error, Request, Response};
use zstd::stream::raw::CParameter;

use crate::samples;
use crate::session::{noise, unwrap, wrap};

/// One frame as it lies inside the compression; its check is right for these bytes, whatever length it claims.
fn frame(kind: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    let check = crc32fast::hash(&[&[kind], bytes].concat());
    [
        &length.to_le_bytes()[..],
        &[kind],
        &check.to_le_bytes(),
        bytes,
    ]
    .concat()
}

#[test]
fn frames_lie_in_the_stream_as_documented() {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    writer.message(&Request::Finish).expect("writes");
    writer.body_chunk(b"ab", false).expect("writes");
    writer.body_chunk(b"", true).expect("writes");
    writer.finish().expect("ends");
    let wanted = [frame(1, 1, &[4]), frame(2, 2, b"ab"), frame(3, 0, b"")].concat();
    assert_eq!(unwrap(&stream), wanted);
}

#[test]
fn both_ends_may_wait_for_each_other_after_a_flush() {
    let (agent_reader, client_writer) = std::io::pipe().expect("a pipe");
    let (client_reader, agent_writer) = std::io::pipe().expect("a pipe");
    let agent = thread::spawn(move || {
        let mut reader = FrameReader::new(agent_reader);
        let mut writer = FrameWriter::new(agent_writer);
        while let Some(frame) = reader.next().expect("a frame") {
            match frame {
                Frame::Message(_) => writer.message(&samples::responses()[0]).expect("writes"),
                Frame::Body { bytes, last } => writer.body_chunk(&bytes, last).expect("writes"),
            }
            writer.flush().expect("flushes");
        }
    });
    let mut reader = FrameReader::new(BufReader::new(client_reader));
    let mut writer = FrameWriter::new(client_writer);
    for length in [0, 1, 5, 100, 40_000, 300_000, 131_072, 1_000_000, 3] {
        writer.message(&Request::Finish).expect("writes");
        writer.flush().expect("flushes");
        assert_eq!(
            reader.message::<Response>().expect("answer"),
            samples::responses()[0]
        );
        writer.body_chunk(&noise(length), true).expect("writes");
        writer.flush().expect("flushes");
        let wanted = Frame::Body {
            bytes: noise(length),
            last: true,
        };
        assert_eq!(reader.next().expect("answer"), Some(wanted));
    }
    writer.finish().expect("ends");
    drop(writer);
    agent.join().expect("the agent ends");
}

/// Gives one byte at a time, and counts.
struct Trickle<'a>(&'a [u8], u64);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.len().min(buffer.len()).min(1);
        let got = self.0.read(&mut buffer[..length])?;
        self.1 += got as u64;
        Ok(got)
    }
}

#[test]
fn both_ends_count_the_bytes_on_the_wire() {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    writer.flush().expect("flushes");
    writer.body_chunk(&noise(10_000), true).expect("writes");
    assert_eq!(writer.bytes_written(), 0, "there was nothing to flush");
    writer.flush().expect("flushes");
    writer.finish().expect("ends");
    let written = writer.bytes_written();
    drop(writer);
    assert_eq!(written, stream.len() as u64);

    let mut reader = FrameReader::new(Trickle(&stream, 0));
    while reader.next().expect("a frame").is_some() {}
    assert_eq!(reader.bytes_read(), written);
}

#[test]
fn a_short_exchange_costs_few_bytes_on_the_wire() {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    for response in [&samples::responses()[0], &samples::responses()[7]] {
        writer.message(response).expect("writes");
    }
    writer.finish().expect("ends");
    assert!(
        writer.bytes_written() < 200,
        "{} bytes",
        writer.bytes_written()
    );
}

#[test]
fn every_effort_is_read_in_one_stream() {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    let bodies: Vec<_> = (1..8).map(|step| noise(step * 100_000)).collect();
    for (body, effort) in bodies.iter().zip(
        [Effort::Dense, Effort::Fast, Effort::Light]
            .into_iter()
            .cycle(),
    ) {
        writer.set_effort(effort);
        writer.body_chunk(body, true).expect("writes");
    }
    writer.finish().expect("ends");
    drop(writer);
    let mut reader = FrameReader::new(&stream[..]);
    for body in bodies {
        assert_eq!(
            reader.next().expect("a frame"),
            Some(Frame::Body {
                bytes: body,
                last: true
            })
        );
    }
    assert_eq!(reader.next().expect("the end"), None);
}

#[test]
fn what_was_said_megabytes_ago_costs_little() {
    let mut writer = FrameWriter::new(std::io::sink());
    for _ in 0..4 {
        writer.body_chunk(&noise(5_000_000), true).expect("writes");
    }
    writer.finish().expect("ends");
    assert!(
        writer.bytes_written() < 5_200_000,
        "{} bytes",
        writer.bytes_written()
    );
}

#[test]
fn a_long_piece_is_cut_into_frames() {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    writer
        .body_chunk(&vec![b'x'; 2 * FRAME_BYTES_MAX + 1], true)
        .expect("writes");
    writer.finish().expect("ends");
    drop(writer);
    let mut reader = FrameReader::new(&stream[..]);
    for (length, is_last) in [
        (FRAME_BYTES_MAX, false),
        (FRAME_BYTES_MAX, false),
        (1, true),
    ] {
        let Some(Frame::Body { bytes, last }) = reader.next().expect("a frame") else {
            panic!("no body");
        };
        assert_eq!((bytes.len(), last), (length, is_last));
    }
}

#[test]
fn a_message_over_the_limit_is_not_sent() {
    let mut writer = FrameWriter::new(Vec::new());
    let why = "x".repeat(MESSAGE_BYTES_MAX);
    let sent = writer.message(&Response::NoBody { why });
    assert!(matches!(sent, Err(Error::TooLong { .. })), "{sent:?}");
}

#[test]
fn lengths_over_the_limit_are_refused_before_the_bytes_come() {
    let over = u32::try_from(FRAME_BYTES_MAX).expect("fits") + 1;
    let message_over = u32::try_from(MESSAGE_BYTES_MAX).expect("fits") + 1;
    for (kind, length) in [(1, message_over), (2, over), (3, over), (3, u32::MAX)] {
        let stream = wrap(&frame(kind, length, b"some"));
        let refused = FrameReader::new(&stream[..]).next();
        assert!(matches!(refused, Err(Error::TooLong { .. })), "{refused:?}");
    }
}

#[test]
fn an_unknown_kind_hints_at_the_versions() {
    for kind in [0, 4, 255] {
        let stream = wrap(&frame(kind, 1, b"x"));
        let refused = FrameReader::new(&stream[..]).next().expect_err("unknown");
        assert!(refused.to_string().contains("version"), "{refused}");
    }
}

#[test]
fn a_wrong_check_says_that_the_frame_was_corrupted() {
    for at in [4, 5, 8, 9, 10] {
        let mut corrupted = frame(2, 2, b"ab");
        corrupted[at] ^= 1;
        let stream = wrap(&corrupted);
        let refused = FrameReader::new(&stream[..]).next().expect_err("corrupted");
        let is_told =
            matches!(&refused, Error::Malformed(why) if why == "a frame was corrupted on its way");
        assert!(is_told, "byte {at}: {refused:?}");
    }
}

#[test]
fn a_body_is_no_message_and_an_end_is_none() {
    let stream = wrap(&frame(3, 1, b"x"));
    let mut reader = FrameReader::new(&stream[..]);
    assert!(matches!(
        reader.message::<Request>(),
        Err(Error::Malformed(_))
    ));
    assert!(matches!(reader.message::<Request>(), Err(Error::Io(_))));
}

#[test]
fn a_window_over_the_limit_is_refused() {
    for (window_log, is_taken) in [(WINDOW_LOG_MAX, true), (WINDOW_LOG_MAX + 1, false)] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder
            .set_parameter(CParameter::WindowLog(window_log))
            .expect("a window");
        encoder.write_all(&frame(3, 1, b"x")).expect("compresses");
        let stream = encoder.finish().expect("ends");
        assert_eq!(
            FrameReader::new(&stream[..]).next().is_ok(),
            is_taken,
            "{window_log}"
        );
    }
}

#[test]
fn a_bomb_comes_out_in_pieces_under_the_limit() {
    let piece = frame(
        2,
        u32::try_from(FRAME_BYTES_MAX).expect("fits"),
        &vec![0; FRAME_BYTES_MAX],
    );
    let stream = wrap(&piece.repeat(64));
    assert!(stream.len() < 64 << 10, "{} bytes", stream.len());
    let mut reader = FrameReader::new(&stream[..]);
    let mut count = 0;
    while let Some(Frame::Body { bytes, last: false }) = reader.next().expect("a frame") {
        assert_eq!(bytes.len(), FRAME_BYTES_MAX);
        count += 1;
    }
    assert_eq!(count, 64);
}

#[test]
fn what_is_no_zstd_is_malformed_and_not_a_lost_connection() {
    let refused = FrameReader::new(&b"Last login: yesterday\n"[..]).next();
    assert!(matches!(refused, Err(Error::Malformed(_))), "{refused:?}");
}

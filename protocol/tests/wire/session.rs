//! A recorded answer of an agent, and a reader that insists on all of it.

use protocol::frame::{FRAME_BYTES_MAX, Frame, FrameReader, FrameWriter};
use protocol::{Error, Response, Result, codec};

use crate::samples;

/// Everything that an agent may say; the last message is `Finished`.
pub(crate) fn responses() -> Vec<Response> {
    let (end, mut all): (Vec<_>, Vec<_>) = samples::responses()
        .into_iter()
        .partition(|response| matches!(response, Response::Finished { .. }));
    all.extend(end);
    all
}

/// The same, with a body of several pieces.
pub(crate) fn record(body: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    for response in responses() {
        if matches!(response, Response::Finished { .. }) {
            let (half, rest) = body.split_at(body.len() / 2);
            writer.body_chunk(half, false).expect("writes");
            writer.flush().expect("flushes");
            writer.body_chunk(rest, false).expect("writes");
            writer.body_chunk(b"", true).expect("writes");
        }
        writer.message(&response).expect("writes");
    }
    writer.finish().expect("ends");
    drop(writer);
    stream
}

/// Reads a recorded answer to its clean end; the explicit last message must be there.
pub(crate) fn replay(stream: &[u8]) -> Result<(Vec<Response>, Vec<u8>)> {
    let mut reader = FrameReader::new(stream);
    let (mut responses, mut body) = (Vec::new(), Vec::new());
    while let Some(frame) = reader.next()? {
        match frame {
            Frame::Message(bytes) => {
                assert!(bytes.len() <= codec::MESSAGE_BYTES_MAX);
                responses.push(codec::decode(&bytes)?);
            }
            Frame::Body { bytes, .. } => {
                assert!(bytes.len() <= FRAME_BYTES_MAX);
                body.extend(bytes);
            }
        }
    }
    match responses.last() {
        Some(Response::Finished { .. }) => Ok((responses, body)),
        _ => Err(Error::Malformed("no explicit end".into())),
    }
}

/// The frames inside the compression.
pub(crate) fn unwrap(stream: &[u8]) -> Vec<u8> {
    zstd::decode_all(stream).expect("a stream of ours")
}

/// Compresses bytes that may be no frames at all.
pub(crate) fn wrap(inner: &[u8]) -> Vec<u8> {
    zstd::encode_all(inner, 1).expect("compresses")
}

/// Bytes that compress badly.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64, <https://en.wikipedia.org/wiki/Xorshift>
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

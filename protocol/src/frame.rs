//! Frames on a byte stream: length, kind, limit and compression.
//!
//! One direction is a sequence of zstd frames, read as one stream; its content is a sequence of our frames, each a
//! length (u32 LE), a kind (u8), a check (4 bytes) and that many bytes. Works on any blocking `Read` and `Write`; it must never know of
//! pipes, of what the messages mean, or of their order, which is [`crate::message`].
//!
//! Most runs say a few hundred bytes, some many gigabytes. The large window with long-distance matching wants 1.0 ms
//! for its tables before the first byte is out (1.6 ms with a window of 2^25); level 3 with tables of 96 KiB wants
//! 0.09 ms (measured: release build, fresh process, 200 bytes, zstd 1.5.7). So a stream starts with the small tables
//! and goes on in a second zstd frame with the large ones when it turns out to be long.

use std::io::{ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zstd::stream::raw::{
    CParameter, DParameter, Decoder, Encoder, InBuffer, Operation as _, OutBuffer,
};

use crate::codec::{self, check_length};
use crate::{Error, Result};

/// The most bytes that follow a frame's kind; checked before anything is allocated.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The largest zstd window that is accepted, as a power of two: 32 MiB.
pub const WINDOW_LOG_MAX: u32 = 25;

const HEADER_BYTES: usize = 9;
const KIND_MESSAGE: u8 = 1;
const KIND_BODY_MORE: u8 = 2;
const KIND_BODY_LAST: u8 = 3;

/// Compressed bytes are handed on by this many.
const OUTPUT_BYTES: usize = 64 << 10;
/// And taken in by this many at most: who reads a wide pipe reads seldom.
const INPUT_BYTES: usize = 256 << 10;
/// A stream that gets longer than this is no short exchange any more, and gets its tables.
///
/// What was said before is not found again after: with 16 KiB, 600 KB of new mail take 1 to 3 % more than one stream
/// of `zstd -3`; with 256 KiB it was up to 22 %.
const START_BYTES_MAX: u64 = 16 << 10;

/// How hard a long stream is compressed.
///
/// Measured on 180 MB of generated mail, one core: dense gives ratio 3.02 at 200 MB/s, fast 2.37 at 490 MB/s, and
/// both are read at 1,450 MB/s. Dense has a window of 2^24: 2^25 saved nothing there and takes 16 MiB more at both
/// ends, 2^23 costs 0.4 % more bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Effort {
    /// Few bytes: level 3 with long-distance matching, for links slower than the processor.
    #[default]
    Dense,
    /// Little work: level 1, for fast networks.
    Fast,
    /// Hardly any: level -100 finds long repetitions only, for pipes and whatever is as fast as they are.
    Light,
}

/// One frame as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// An encoded message, for [`codec::decode`].
    Message(Vec<u8>),
    /// A piece of a body.
    Body {
        /// The bytes; a last piece may be empty.
        bytes: Vec<u8>,
        /// Whether the body ends here.
        last: bool,
    },
}

/// Writes one direction: frames, compressed into one stream. After an error the stream is broken for good.
pub struct FrameWriter<W: Write> {
    writer: W,
    encoder: Encoder<'static>,
    /// Compressed bytes that were not handed to the writer yet; never grows past its capacity.
    output: Vec<u8>,
    effort: Effort,
    /// For what the encoder is set up; `None` is the start of a stream.
    tuned: Option<Effort>,
    taken_bytes: u64,
    written_bytes: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Starts a stream; nothing is written before the first flush.
    #[must_use]
    pub fn new(writer: W) -> FrameWriter<W> {
        let mut encoder = Encoder::new(0).expect("zstd allocates its context");
        tune(&mut encoder, None).expect("zstd knows these parameters");
        FrameWriter {
            writer,
            encoder,
            output: Vec::with_capacity(OUTPUT_BYTES),
            effort: Effort::default(),
            tuned: None,
            taken_bytes: 0,
            written_bytes: 0,
        }
    }

    /// Compresses like this from the next frame on, where the stream is long enough to matter.
    pub fn set_effort(&mut self, effort: Effort) {
        self.effort = effort;
    }

    /// Adds a message.
    ///
    /// # Errors
    /// When it is over [`codec::MESSAGE_BYTES_MAX`] long, or the stream cannot be written.
    pub fn message<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<()> {
        let bytes = codec::encode(message);
        check_length("Message", bytes.len(), codec::MESSAGE_BYTES_MAX)?;
        self.frame(KIND_MESSAGE, &bytes)
    }

    /// Adds a piece of a body, of any length.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn body_chunk(&mut self, bytes: &[u8], last: bool) -> Result<()> {
        let mut rest = bytes;
        while rest.len() > FRAME_BYTES_MAX {
            let (piece, after) = rest.split_at(FRAME_BYTES_MAX);
            self.frame(KIND_BODY_MORE, piece)?;
            rest = after;
        }
        self.frame(if last { KIND_BODY_LAST } else { KIND_BODY_MORE }, rest)
    }

    /// Hands on everything so far: the peer can read it without waiting for more.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        loop {
            let at = self.output.len();
            let mut output = OutBuffer::around_pos(&mut self.output, at);
            let left = self.encoder.flush(&mut output)?;
            self.drain()?;
            if left == 0 {
                return Ok(self.writer.flush()?);
            }
        }
    }

    /// Ends the stream and flushes it; nothing can be added after.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        self.end_zstd_frame()?;
        Ok(self.writer.flush()?)
    }

    /// What the stream is written to.
    #[must_use]
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// How many compressed bytes were handed on so far.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.written_bytes
    }

    fn frame(&mut self, kind: u8, bytes: &[u8]) -> Result<()> {
        let length = u32::try_from(bytes.len()).expect("a frame is short");
        let is_long = self.taken_bytes + u64::from(length) > START_BYTES_MAX;
        if is_long && self.tuned != Some(self.effort) {
            self.end_zstd_frame()?;
            tune(&mut self.encoder, Some(self.effort))?;
            self.tuned = Some(self.effort);
        }
        let [a, b, c, d] = length.to_le_bytes();
        let [w, x, y, z] = check(kind, bytes);
        self.compress(&[a, b, c, d, kind, w, x, y, z])?;
        self.compress(bytes)
    }

    fn compress(&mut self, bytes: &[u8]) -> Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            let at = self.output.len();
            self.encoder
                .run(&mut input, &mut OutBuffer::around_pos(&mut self.output, at))?;
            if self.output.len() == self.output.capacity() {
                self.drain()?;
            }
        }
        self.taken_bytes += bytes.len() as u64;
        Ok(())
    }

    fn end_zstd_frame(&mut self) -> Result<()> {
        loop {
            let at = self.output.len();
            let mut output = OutBuffer::around_pos(&mut self.output, at);
            let left = self.encoder.finish(&mut output, true)?;
            self.drain()?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    fn drain(&mut self) -> Result<()> {
        self.writer.write_all(&self.output)?;
        self.written_bytes += self.output.len() as u64;
        self.output.clear();
        Ok(())
    }
}

/// Sets an encoder up for its next zstd frame; 0 stands for what zstd takes at that level.
fn tune(encoder: &mut Encoder, effort: Option<Effort>) -> std::io::Result<()> {
    let (level, window, hash, chain) = match effort {
        None => (3, 18, 14, 13),
        Some(Effort::Dense) => (3, 24, 0, 0),
        Some(Effort::Fast) => (1, 0, 0, 0),
        Some(Effort::Light) => (-100, 0, 0, 0),
    };
    encoder.set_parameter(CParameter::CompressionLevel(level))?;
    encoder.set_parameter(CParameter::WindowLog(window))?;
    encoder.set_parameter(CParameter::HashLog(hash))?;
    encoder.set_parameter(CParameter::ChainLog(chain))?;
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(
        effort == Some(Effort::Dense),
    ))
}

/// Reads one direction: takes the stream apart into frames.
pub struct FrameReader<R: Read> {
    reader: R,
    decoder: Decoder<'static>,
    /// Compressed bytes; `input[start..end]` were not decoded yet.
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// Whether a zstd frame has begun and not ended, so that the stream must not end here.
    is_open: bool,
    read_bytes: u64,
}

impl<R: Read> FrameReader<R> {
    /// Starts with the stream's first byte.
    #[must_use]
    pub fn new(reader: R) -> FrameReader<R> {
        let mut decoder = Decoder::new().expect("zstd allocates its context");
        decoder
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .expect("zstd knows its parameters");
        FrameReader {
            reader,
            decoder,
            input: vec![0; INPUT_BYTES].into(),
            start: 0,
            end: 0,
            is_open: false,
            read_bytes: 0,
        }
    }

    /// Reads the next frame as soon as the peer has flushed it; `None` where the stream ends between two frames.
    ///
    /// # Errors
    /// When the stream breaks off, is no stream of frames, or holds one that is too long or of an unknown kind.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would not end at the first error"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let mut header = [0; HEADER_BYTES];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            HEADER_BYTES => {}
            _ => return Err(broken_off()),
        }
        let [a, b, c, d, kind, w, x, y, z] = header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let limit = match kind {
            KIND_MESSAGE => codec::MESSAGE_BYTES_MAX,
            KIND_BODY_MORE | KIND_BODY_LAST => FRAME_BYTES_MAX,
            _ => return Err(unknown_kind(kind)),
        };
        check_length("Frame", length, limit)?;
        let mut bytes = vec![0; length];
        if self.fill(&mut bytes)? < length {
            return Err(broken_off());
        }
        if check(kind, &bytes) != [w, x, y, z] {
            return Err(Error::Malformed(
                "a frame was corrupted on its way".to_owned(),
            ));
        }
        Ok(Some(match kind {
            KIND_MESSAGE => Frame::Message(bytes),
            _ => Frame::Body {
                bytes,
                last: kind == KIND_BODY_LAST,
            },
        }))
    }

    /// Reads the next frame, which must be a message.
    ///
    /// # Errors
    /// As [`FrameReader::next`]; and when the stream ends, or a body or another message comes.
    pub fn message<T: DeserializeOwned>(&mut self) -> Result<T> {
        match self.next()? {
            Some(Frame::Message(bytes)) => codec::decode(&bytes),
            Some(Frame::Body { .. }) => Err(Error::Malformed(
                "a body came where a message was due".into(),
            )),
            None => Err(broken_off()),
        }
    }

    /// Whether the next frame, or its beginning, was read from the stream already.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.start < self.end
    }

    /// How many compressed bytes were taken in so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read_bytes
    }

    /// Fills `target` with decoded bytes; gives less only where the stream ends.
    fn fill(&mut self, target: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < target.len() {
            match self.decode(&mut target[filled..])? {
                0 => break,
                got => filled += got,
            }
        }
        Ok(filled)
    }

    /// Decodes at least one byte; 0 only at the end of the stream.
    fn decode(&mut self, target: &mut [u8]) -> Result<usize> {
        loop {
            // The decoder may hold bytes that had no room last time: it is asked before the peer is waited for.
            if self.start < self.end || self.is_open {
                let mut input = InBuffer::around(&self.input[self.start..self.end]);
                let mut output = OutBuffer::around(&mut *target);
                let result = self.decoder.run(&mut input, &mut output);
                let (used, got) = (input.pos(), output.pos());
                self.start += used;
                self.is_open =
                    result.map_err(|error| Error::Malformed(format!("compression: {error}")))? > 0;
                if got > 0 {
                    return Ok(got);
                }
            }
            if self.start == self.end && self.read()? == 0 {
                return if self.is_open {
                    Err(broken_off())
                } else {
                    Ok(0)
                };
            }
        }
    }

    fn read(&mut self) -> Result<usize> {
        loop {
            match self.reader.read(&mut self.input) {
                Ok(got) => {
                    (self.start, self.end) = (0, got);
                    self.read_bytes += got as u64;
                    return Ok(got);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The CRC-32 of a frame's kind and payload: a byte that was corrupted on a link below ssh's own checks, or in a memory, is
/// an error and not another flag or another name.
fn check(kind: u8, bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(bytes);
    hasher.finalize().to_le_bytes()
}

fn broken_off() -> Error {
    Error::Io(std::io::Error::new(
        ErrorKind::UnexpectedEof,
        "the other end broke off",
    ))
}

fn unknown_kind(kind: u8) -> Error {
    Error::Malformed(format!(
        "frame of unknown kind {kind}, possibly a version incompatibility between maildir-sync and its server"
    ))
}

//! How both ends find each other: the agent's greeting, versions, and the hello in one word.
//!
//! Uncompressed and before all frames, so that it stays readable whatever later versions do. A shell banner before the
//! greeting is skipped and kept for the error. Knows nothing of how the command is run; the conversation goes on in
//! [`crate::frame`].

use std::io::{self, BufRead, Write};

use crate::codec::{self, check_length};
use crate::message::Hello;
use crate::{Error, Result};

/// The agent's first bytes.
///
/// No shell banner contains them: text holds no NUL, and a terminal in between, which would also destroy the frames,
/// turns `\n` into `\r\n` and so destroys the magic first.
pub const MAGIC: &[u8] = b"\0maildir-sync\0\r\n\n";
/// The oldest protocol version that this build speaks.
pub(crate) const VERSION_MIN: u16 = 1;
/// The newest protocol version that this build speaks.
pub const VERSION_MAX: u16 = 1;
/// The oldest and the newest version that this build speaks.
pub const VERSIONS: (u16, u16) = (VERSION_MIN, VERSION_MAX);
/// What a hello begins with, so that no other word is taken for one: `true` is valid base64.
pub const HELLO_PREFIX: &str = "hello-";
/// The longest hello, in characters.
pub(crate) const HELLO_BYTES_MAX: usize = 2048;
/// How much may come before the magic, in bytes.
pub(crate) const NOISE_BYTES_MAX: usize = 64 << 10;

/// Why no conversation came about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other end is not our agent, or did not get as far as to say so.
    #[error("{}", no_magic(noise))]
    NoMagic {
        /// What it said instead.
        noise: Vec<u8>,
    },
    /// Both ends are too far apart in age.
    #[error(
        "No common protocol version: this side speaks {}, the other side {}; install the same release on both",
        range(*ours),
        range(*theirs)
    )]
    Version {
        /// Our oldest and newest version.
        ours: (u16, u16),
        /// Theirs.
        theirs: (u16, u16),
    },
    /// The word of the command is no hello.
    #[error("Invalid hello: {0}")]
    BadHello(String),
    /// The stream failed.
    #[error("Connection lost in the handshake: {0}")]
    Io(#[from] io::Error),
}

/// What the agent's first bytes say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// The oldest and the newest version that the agent speaks.
    pub versions: (u16, u16),
    /// What stood before the magic, a shell banner for example.
    pub noise: Vec<u8>,
}

/// Writes the magic and our version range.
///
/// # Errors
/// When the stream cannot be written.
pub fn write_greeting(writer: &mut impl Write) -> io::Result<()> {
    let (min, max) = VERSIONS;
    writer.write_all(&[MAGIC, &min.to_le_bytes(), &max.to_le_bytes()].concat())
}

/// Reads up to the end of the greeting and not one byte further.
///
/// # Errors
/// When the stream ends or fails, or 64 KiB go by, before a whole greeting.
pub fn read_greeting(reader: &mut impl BufRead) -> std::result::Result<Greeting, HandshakeError> {
    let mut noise = Vec::new();
    while !noise.ends_with(MAGIC) {
        let mut byte = [0];
        if noise.len() == NOISE_BYTES_MAX + MAGIC.len() || !read_whole(reader, &mut byte)? {
            return Err(HandshakeError::NoMagic { noise });
        }
        noise.push(byte[0]);
    }
    noise.truncate(noise.len() - MAGIC.len());
    let mut versions = [0; 4];
    if !read_whole(reader, &mut versions)? {
        return Err(HandshakeError::NoMagic { noise });
    }
    let [a, b, c, d] = versions;
    let versions = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
    Ok(Greeting { versions, noise })
}

/// Whether all of `bytes` could be read before the stream ended.
fn read_whole(reader: &mut impl BufRead, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The highest version in both ranges.
#[must_use]
pub fn choose_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let version = ours.1.min(theirs.1);
    (version >= ours.0.max(theirs.0)).then_some(version)
}

/// Writes the hello as one word of `[A-Za-z0-9_-]`, safe in any shell.
///
/// # Errors
/// When it is over 2 KiB long.
pub fn hello_word(hello: &Hello) -> Result<String> {
    let word = HELLO_PREFIX.to_owned() + &base64::encode(&codec::encode(hello));
    check_length("Hello", word.len(), HELLO_BYTES_MAX)?;
    Ok(word)
}

/// Reads a hello, of a newer client too: what it says after the fields known here is passed over.
///
/// # Errors
/// When the client's versions and ours have nothing in common, or the word is no hello.
pub fn parse_hello(word: &str) -> Result<Hello> {
    check_length("Hello", word.len(), HELLO_BYTES_MAX)?;
    let coded = word.strip_prefix(HELLO_PREFIX);
    let coded = coded.ok_or_else(|| bad_hello("it does not begin as one"))?;
    let bytes =
        base64::decode(coded).ok_or_else(|| bad_hello("not base64 as a client writes it"))?;
    let (theirs, _) = codec::decode_prefix(&bytes).map_err(bad_hello)?;
    if choose_version(VERSIONS, theirs).is_none() {
        return Err(HandshakeError::Version {
            ours: VERSIONS,
            theirs,
        }
        .into());
    }
    let (hello, used) = codec::decode_prefix(&bytes).map_err(bad_hello)?;
    if used < bytes.len() && theirs.1 <= VERSION_MAX {
        return Err(bad_hello("bytes are left over"));
    }
    Ok(hello)
}

fn bad_hello(why: impl ToString) -> Error {
    HandshakeError::BadHello(why.to_string()).into()
}

/// The longest part of the noise that an error quotes, in bytes.
const QUOTE_BYTES_MAX: usize = 200;

fn no_magic(noise: &[u8]) -> String {
    let quoted = crate::bytes::escape(&noise[..noise.len().min(QUOTE_BYTES_MAX)]);
    match noise.len() {
        0 => "No answer from maildir-sync-server: the connection ended without a byte".into(),
        1..=QUOTE_BYTES_MAX => {
            format!("No answer from maildir-sync-server, but this: \"{quoted}\"")
        }
        _ => format!("No answer from maildir-sync-server, but this: \"{quoted}\" …"),
    }
}

fn range((min, max): (u16, u16)) -> String {
    if min == max {
        min.to_string()
    } else {
        format!("{min} to {max}")
    }
}

/// Base64 for URLs (RFC 4648 §5) without padding, strict: every byte string has exactly one text.
mod base64 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for group in bytes.chunks(3) {
            let bits = group
                .iter()
                .fold(0, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - group.len()));
            for index in 0..=group.len() {
                text.push(char::from(
                    ALPHABET[(bits >> (18 - 6 * index) & 63) as usize],
                ));
            }
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
        for group in text.as_bytes().chunks(4) {
            let mut bits = 0;
            for &char in group {
                bits = bits << 6
                    | u32::try_from(ALPHABET.iter().position(|&one| one == char)?).ok()?;
            }
            let [_, decoded @ ..] = (bits << (6 * (4 - group.len()))).to_be_bytes();
            let (whole, rest) = decoded.split_at(group.len() - 1);
            // One character alone holds no byte, and bits past the last byte must be zero.
            if whole.is_empty() || rest.iter().any(|&byte| byte != 0) {
                return None;
            }
            bytes.extend_from_slice(whole);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PathBytes;

    fn hello(versions: (u16, u16), path_bytes: usize) -> Hello {
        Hello {
            versions,
            features: 0,
            path: PathBytes::new(&vec![b'p'; path_bytes]).expect("a path"),
            client: "me".into(),
            expect: None,
            cursor: None,
            dry_run: false,
            checksum: false,
            adopt: false,
            timeout: 60,
        }
    }

    fn word_of(bytes: &[u8]) -> String {
        HELLO_PREFIX.to_owned() + &base64::encode(bytes)
    }

    fn greeting_after(noise: &[u8]) -> Vec<u8> {
        let mut bytes = noise.to_vec();
        write_greeting(&mut bytes).expect("writes");
        bytes
    }

    #[test]
    fn noise_is_passed_over_and_kept_and_what_follows_is_not_touched() {
        let noises: [&[u8]; 6] = [
            b"",
            b"Welcome to host\r\n",
            b"\0",
            b"\0maildir-sync\0\r\n",
            b"\0maildir-sync\0maildir-sync\0\r\0\0\0",
            &[b'x'; NOISE_BYTES_MAX],
        ];
        for noise in noises {
            let bytes = [&greeting_after(noise)[..], b"stream"].concat();
            let mut reader = io::BufReader::with_capacity(7, &bytes[..]);
            let greeting = read_greeting(&mut reader).expect("a greeting");
            assert_eq!(
                greeting,
                Greeting {
                    versions: VERSIONS,
                    noise: noise.to_vec()
                }
            );
            let mut rest = String::new();
            io::Read::read_to_string(&mut reader, &mut rest).expect("reads");
            assert_eq!(rest, "stream");
        }
    }

    #[test]
    fn every_cut_of_a_greeting_is_no_answer() {
        let bytes = greeting_after(b"motd");
        for cut in 0..bytes.len() {
            let error = read_greeting(&mut &bytes[..cut]).expect_err("too short");
            assert!(matches!(error, HandshakeError::NoMagic { .. }), "{error}");
        }
    }

    #[test]
    fn too_much_noise_is_quoted_short_and_escaped() {
        let noise = [&b"\x1b[2Jmotd"[..], &[b'x'; NOISE_BYTES_MAX]].concat();
        let error = read_greeting(&mut &greeting_after(&noise)[..]).expect_err("too much");
        let text = error.to_string();
        assert!(text.contains("\\x1b[2Jmotdxxx"), "{text}");
        assert!(text.len() < 300, "{text}");
    }

    #[test]
    fn a_terminal_in_between_destroys_the_magic() {
        let cooked: Vec<u8> = greeting_after(b"")
            .split_inclusive(|&byte| byte == b'\n')
            .flat_map(|line| match line {
                [text @ .., b'\n'] => [text, b"\r\n"].concat(),
                text => text.to_vec(),
            })
            .collect();
        assert!(read_greeting(&mut &cooked[..]).is_err());
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let table = [
            ((1, 1), (1, 1), Some(1)),
            ((1, 3), (2, 5), Some(3)),
            ((2, 5), (1, 3), Some(3)),
            ((1, 2), (3, 4), None),
            ((3, 4), (1, 2), None),
            ((1, 9), (5, 4), None),
        ];
        for (ours, theirs, version) in table {
            assert_eq!(choose_version(ours, theirs), version, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_hello_of_a_newer_client_is_understood_as_far_as_possible() {
        let newer = |versions, more: &[u8]| {
            let bytes = [&codec::encode(&hello(versions, 3))[..], more].concat();
            parse_hello(&word_of(&bytes))
        };
        assert_eq!(
            newer((1, 2), b"new field").expect("understood"),
            hello((1, 2), 3)
        );
        let left_over = newer((1, 1), b"new field").expect_err("no such field");
        assert!(left_over.to_string().contains("left over"), "{left_over}");

        let other = codec::encode(&((2_u16, 3_u16), "quite another layout"));
        for refused in [newer((2, 3), b""), parse_hello(&word_of(&other))] {
            let error = refused.expect_err("nothing in common");
            let theirs = match error {
                Error::Handshake(HandshakeError::Version { theirs, .. }) => theirs,
                other => panic!("{other}"),
            };
            assert_eq!(theirs, (2, 3));
        }
    }

    #[test]
    fn words_that_are_no_hello_are_refused() {
        let word = hello_word(&hello((1, 1), 3)).expect("short");
        for cut in 0..word.len() {
            assert!(parse_hello(&word[..cut]).is_err(), "cut at {cut}");
        }
        for word in [
            "",
            "A",
            "AQ==",
            "AQ E",
            "AQ+/",
            "\u{e9}AQE",
            &"A".repeat(2049),
        ] {
            assert!(parse_hello(word).is_err(), "{word}");
            assert!(parse_hello(&format!("{HELLO_PREFIX}{word}")).is_err());
        }
        assert!(hello_word(&hello((1, 1), 1024)).is_ok());
        let talker = Hello {
            client: "x".repeat(1000),
            ..hello((1, 1), 1024)
        };
        assert!(matches!(hello_word(&talker), Err(Error::TooLong { .. })));
    }

    /// Whatever else people have executed is no hello, of no version.
    #[test]
    fn a_command_is_no_hello_though_it_reads_as_base64() {
        for word in ["true", "uptime", "hostname", "ls", "maildir-sync-server"] {
            let error = parse_hello(word).expect_err("no hello");
            assert!(
                matches!(&error, Error::Handshake(HandshakeError::BadHello(_))),
                "{word}: {error}"
            );
        }
        let bare = hello_word(&hello((1, 1), 3)).expect("short");
        assert!(parse_hello(bare.trim_start_matches(HELLO_PREFIX)).is_err());
    }

    #[test]
    fn base64_is_that_of_rfc_4648_without_padding() {
        // RFC 4648 §10, and the two characters that URLs change.
        let vectors: [(&[u8], &str); 8] = [
            (b"", ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg"),
            (b"fooba", "Zm9vYmE"),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff\xfe", "-__-"),
        ];
        for (bytes, text) in vectors {
            assert_eq!(base64::encode(bytes), text);
            assert_eq!(base64::decode(text).as_deref(), Some(bytes));
        }
        for text in ["Zh", "Zm9", "Z", "Zm9vY", "Zg==", "Zg\n"] {
            assert_eq!(base64::decode(text), None, "{text}");
        }
    }
}

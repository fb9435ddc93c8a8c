//! An agent that means no good: it says what it is told to say, by the book (`docs/protocol.md`) and nothing of ours.
//!
//! `agent-lies refusal FILE`: refuses the client with the words of the file. Other words behind them (the hello) are
//! passed over.

use std::io::{Read, Write, stdin, stdout};

/// zstd's magic, a header without content size, and a window of 8 MiB (RFC 8878).
const ZSTD_START: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let messages = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["refusal", file, ..] => {
            let why = std::fs::read_to_string(file).expect("the words are there");
            vec![[&[1, 1][..], &text(&why)].concat()]
        }
        ref other => panic!("unknown words {other:?}"),
    };
    let mut out = b"\0maildir-sync\0\r\n\n\x01\0\x01\0".to_vec();
    out.extend(ZSTD_START);
    for message in messages {
        out.extend(raw_block(&frame(&message)));
    }
    let sent = stdout().write_all(&out).and_then(|()| stdout().flush());
    sent.expect("the client reads");
    let _ = stdin().read_to_end(&mut Vec::new());
}

/// A frame with one message.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    let checked = [&[1][..], message].concat();
    let parts = [
        &length.to_le_bytes()[..],
        &[1],
        &crc32(&checked).to_le_bytes(),
        message,
    ];
    parts.concat()
}

/// A block of a zstd frame that is not compressed, and not the last.
fn raw_block(bytes: &[u8]) -> Vec<u8> {
    let header = u32::try_from(bytes.len() << 3).expect("short");
    [&header.to_le_bytes()[..3], bytes].concat()
}

/// The check of zlib (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 251);
    [&[length.expect("short")][..], text.as_bytes()].concat()
}

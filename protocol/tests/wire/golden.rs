//! The bytes of version 1, which no change of ours may alter: `tests/golden-v1.txt`.
//!
//! They and `docs/protocol.md` name the same variants by the same numbers.

use std::fmt::Debug;
use std::slice;

use protocol::Request;
use protocol::bytes::hex;
use protocol::codec::{decode, encode};
use protocol::frame::FrameWriter;
use protocol::handshake::{self, MAGIC, VERSION_MAX, hello_word, parse_hello};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::samples;
use crate::session::unwrap;

const GOLDEN: &str = include_str!("../golden-v1.txt");
const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

#[test]
fn every_message_of_version_1_has_its_golden_bytes() {
    assert_eq!(
        VERSION_MAX, 1,
        "a new version needs golden bytes of its own"
    );
    let mut lines = Lines::default();
    lines.add("Hello", &[samples::hello(), samples::hello_first()]);
    lines.add("Welcome", &[samples::welcome()]);
    lines.add("Entry", &[samples::entry()]);
    lines.add("Change", &[samples::change()]);
    lines.add_all("Request", &samples::requests());
    lines.add_all("Response", &samples::responses());
    lines.add_all("Op", &samples::ops());
    lines.add_all("Outcome", &samples::outcomes());
    lines.add_all("Rights", &samples::RIGHTS);
    lines.add_all("Listing", &samples::LISTINGS);
    lines.add_all("Source", &samples::sources());
    lines.add_all("Reason", &samples::REASONS);
    lines.add_all("Consent", &samples::CONSENTS);
    lines.add_all("RefusalKind", &samples::REFUSALS);
    assert!(
        lines.0 == GOLDEN,
        "the encoding changed; it is now:\n{}",
        lines.0
    );
}

/// The fixture as the code of today would write it: `name hex`, one sample a line.
#[derive(Default)]
struct Lines(String);

impl Lines {
    /// Adds values of one type, and checks that each is read back.
    fn add<T>(&mut self, name: &str, values: &[T])
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        for value in values {
            let bytes = encode(value);
            assert_eq!(&decode::<T>(&bytes).expect("decodes"), value);
            self.0 += &format!("{name} {}\n", hex(&bytes));
        }
    }

    /// Adds one value of every variant of an enum, in order of their numbers.
    fn add_all<T>(&mut self, name: &str, values: &[T])
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        for (number, value) in values.iter().enumerate() {
            let text = format!("{value:?}");
            let variant = text.split(|char: char| !char.is_alphanumeric()).next();
            assert_eq!(usize::from(encode(value)[0]), number, "{text}");
            self.add(
                &format!("{name}::{}", variant.expect("a name")),
                slice::from_ref(value),
            );
        }
        // serde itself tells how many variants there are: one without a sample cannot be forgotten.
        let number = u8::try_from(values.len()).expect("few variants");
        let error = decode::<T>(&[number]).expect_err("there is no such variant");
        let known = format!("variant index 0 <= i < {number}");
        assert!(
            error.to_string().contains(&known),
            "a variant of {name} has no sample: {error}"
        );
    }
}

#[test]
fn the_greeting_and_the_hello_have_their_golden_bytes() {
    let mut greeting = Vec::new();
    handshake::write_greeting(&mut greeting).expect("writes");
    assert_eq!(greeting, [MAGIC, &[1, 0, 1, 0]].concat());
    assert_eq!(MAGIC, b"\0maildir-sync\0\r\n\n");

    let word = hello_word(&samples::hello_first()).expect("short");
    assert_eq!(word, "hello-AQEAAAltZUBsYXB0b3AAAAABADw");
    assert!(DOCUMENT.contains(&word));
    assert_eq!(parse_hello(&word).expect("a hello"), samples::hello_first());
}

#[test]
fn the_frame_of_a_finish_has_its_golden_bytes() {
    let mut stream = Vec::new();
    let mut writer = FrameWriter::new(&mut stream);
    writer.message(&Request::Finish).expect("writes");
    writer.finish().expect("ends");
    drop(writer);
    assert_eq!(hex(&unwrap(&stream)), "0100000001a7e7af5f04");
    assert!(DOCUMENT.contains("`01000000 01 a7e7af5f 04`"));
}

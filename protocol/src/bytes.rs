//! Byte strings on the wire, in printed text and in paths that were typed.
//!
//! Names of mail files are bytes, never `String`; serde's derive would send them one by one, so the newtypes of this
//! crate are sent as byte strings by the macro below and validated as they arrive.

use std::fmt::Write as _;

/// Shows bytes for people as one line: UTF-8 as it is, what moves the cursor or reorders the line, and invalid bytes, as
/// `\xNN`. What was escaped stays as it is when it is escaped again.
///
/// Source: rsync's CWE-117, where a file name wrote its own log lines.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if is_control(char) {
                let mut utf8 = [0; 4];
                for byte in char.encode_utf8(&mut utf8).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// C0, DEL and C1; the separators that some terminals take for a new line; and what reorders a line of text.
fn is_control(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// So much of a text from the other end is read by people; a message of it could hold hundreds of times as much.
const TEXT_BYTES_MAX: usize = 2048;

/// Reads text that people will see: whatever the other end sends becomes one line that does nothing to a terminal.
///
/// # Errors
/// When it is no text.
pub fn escaped<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut text: String = serde::Deserialize::deserialize(deserializer)?;
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    Ok(escape(text.as_bytes()))
}

/// Whether a part of a path is what a shell would replace: `$NAME` or `${NAME}`.
#[must_use]
pub fn is_variable(part: &[u8]) -> bool {
    let name = part.strip_prefix(b"$").and_then(<[u8]>::first);
    name.is_some_and(|&start| start.is_ascii_alphabetic() || b"_{".contains(&start))
}

/// Writes bytes as lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads exactly `N` bytes of hexadecimal; anything else is `None`.
#[must_use]
pub fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |char: u8| char::from(char).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// Gives a newtype over `Vec<u8>` its serde: a byte string, validated by `Self::new` on arrival.
macro_rules! serde_as_bytes {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.as_bytes())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                        f.write_str(stringify!($name))
                    }
                    fn visit_bytes<E: serde::de::Error>(
                        self,
                        bytes: &[u8],
                    ) -> std::result::Result<$name, E> {
                        $name::new(bytes).map_err(E::custom)
                    }
                    fn visit_byte_buf<E: serde::de::Error>(
                        self,
                        bytes: Vec<u8>,
                    ) -> std::result::Result<$name, E> {
                        $name::new(&bytes).map_err(E::custom)
                    }
                }
                deserializer.deserialize_byte_buf(Visitor)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(&$crate::bytes::escape(self.as_bytes()))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                write!(f, "{:?}", $crate::bytes::escape(self.as_bytes()))
            }
        }
    };
}
pub(crate) use serde_as_bytes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_invalid_bytes_are_escaped() {
        assert_eq!(escape(b"plain \xc3\xa9"), "plain \u{e9}");
        assert_eq!(escape(b"a\nb\x1b[31m\xff"), "a\\x0ab\\x1b[31m\\xff");
        let controls = "\0\u{1f}\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}";
        for char in controls.chars() {
            let shown = escape(char.to_string().as_bytes());
            assert!(shown.starts_with("\\x"), "{char:?}: {shown}");
            assert_eq!(escape(shown.as_bytes()), shown, "once is enough");
        }
        assert_eq!(escape("\u{202e}".as_bytes()), "\\xe2\\x80\\xae");
    }

    #[test]
    fn hexadecimal_is_read_back() {
        assert_eq!(
            unhex::<3>(hex(&[0, 171, 255]).as_bytes()),
            Some([0, 171, 255])
        );
        assert_eq!(unhex::<2>(b"00ab1"), None);
        assert_eq!(unhex::<2>(b"00gg"), None);
    }
}

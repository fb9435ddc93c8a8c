//! IMAP's modified UTF-7, in which Dovecot and Courier write folder names to disk (RFC 3501 §5.1.3).
//!
//! Knows text and bytes, nothing of folders; [`crate::merge::mapping`] decides which names are read this way.

/// RFC 4648's alphabet with `,` in place of `/`.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// Writes text in its one canonical encoding: printable ASCII as itself, `&` as `&-`, every other run as one shift.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut run = Vec::new();
    for char in text.chars() {
        match char {
            '&' => {
                end_run(&mut bytes, &mut run);
                bytes.extend_from_slice(b"&-");
            }
            ' '..='~' => {
                end_run(&mut bytes, &mut run);
                bytes.extend(char.encode_utf8(&mut [0; 4]).bytes());
            }
            _ => run.extend(
                char.encode_utf16(&mut [0; 2])
                    .iter()
                    .flat_map(|unit| unit.to_be_bytes()),
            ),
        }
    }
    end_run(&mut bytes, &mut run);
    bytes
}

/// Reads text back; `None` unless the bytes are exactly what [`encode`] writes for it.
///
/// Other encodings of the same text are refused, because two names on disk must not become one folder.
pub(crate) fn decode(bytes: &[u8]) -> Option<String> {
    let mut pieces = bytes.split(|&byte| byte == b'&');
    let mut text = String::from_utf8(pieces.next()?.to_vec()).ok()?;
    for piece in pieces {
        let end = piece.iter().position(|&byte| byte == b'-')?;
        match &piece[..end] {
            b"" => text.push('&'),
            shifted => text.push_str(&read_run(shifted)?),
        }
        text.push_str(std::str::from_utf8(&piece[end + 1..]).ok()?);
    }
    // Catches at one place whatever was read too kindly: shifted ASCII, two shifts in a row, spare bits, raw UTF-8.
    (encode(&text) == bytes).then_some(text)
}

/// Appends a pending run of UTF-16 as one shift, and empties it.
fn end_run(bytes: &mut Vec<u8>, run: &mut Vec<u8>) {
    if run.is_empty() {
        return;
    }
    bytes.push(b'&');
    for group in run.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        let sextets =
            [bits >> 18, bits >> 12, bits >> 6, bits].map(|sextet| ALPHABET[sextet as usize & 63]);
        bytes.extend_from_slice(&sextets[..=group.len()]);
    }
    bytes.push(b'-');
    run.clear();
}

/// Reads what stands between `&` and `-`; spare bits are left to the caller's comparison.
fn read_run(shifted: &[u8]) -> Option<String> {
    let (mut units, mut bits, mut bit_count) = (Vec::new(), 0u32, 0);
    for byte in shifted {
        let sextet = ALPHABET.iter().position(|char| char == byte)?;
        // At most 15 bits are pending before these 6, so nothing overflows.
        bits = bits << 6 | u32::try_from(sextet).ok()?;
        bit_count += 6;
        if bit_count >= 16 {
            bit_count -= 16;
            units.push(u16::try_from(bits >> bit_count).ok()?);
            bits &= (1 << bit_count) - 1;
        }
    }
    String::from_utf16(&units).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_names_are_read_and_written() {
        for (bytes, text) in [
            // RFC 3501 §5.1.3.
            (
                &b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"[..],
                "~peter/mail/\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}",
            ),
            (
                b"&U,BTF2XlZyyKng-",
                "\u{53f0}\u{5317}\u{65e5}\u{672c}\u{8a9e}",
            ),
            (b"&Jjo-!", "\u{263a}!"),
            (b"", ""),
            (b"INBOX", "INBOX"),
            (b"R&-D", "R&D"),
            (b"&-&-", "&&"),
            (b"a-b, +c", "a-b, +c"),
            (b"Entw&APw-rfe", "Entw\u{fc}rfe"),
            (b"&AOk-&-", "\u{e9}&"),
            (
                b"&BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1-",
                "\u{41e}\u{442}\u{43f}\u{440}\u{430}\u{432}\u{43b}\u{435}\u{43d}\u{43d}\u{44b}\u{435}",
            ),
            (b"e&AwE-", "e\u{301}"),
            (b"&2D3cEg-", "\u{1f412}"),
            (b"&AAoAfw-", "\n\u{7f}"),
        ] {
            assert_eq!(
                decode(bytes).as_deref(),
                Some(text),
                "{}",
                bytes.escape_ascii()
            );
            assert_eq!(encode(text), bytes, "{text}");
        }
    }

    #[test]
    fn whatever_is_not_canonical_is_refused() {
        for bytes in [
            &b"&Jjo!"[..],         // RFC 3501: no shift back before the end of the name
            b"&U,BTFw-&ZeVnLIqe-", // RFC 3501: a superfluous shift
            b"A&B",                // no shift at all
            b"&",
            b"&AGE-",           // ASCII that can stand for itself
            b"&AC8-",           // the separator, hidden
            b"&ACY-",           // `&` is written `&-`
            b"&APx-",           // spare bits that are not zero
            b"&APwA-",          // half a unit more
            b"&AP-",            // half a unit less
            b"&APw=-",          // padding
            b"&U/BTFw-",        // the other alphabet
            b"&2D0-",           // half a surrogate pair
            b"&3BLYPQ-",        // a pair the wrong way round
            b"Entw\xc3\xbcrfe", // raw UTF-8
            b"Entw\xfcrfe",     // raw Latin-1
            b"&-\xfc",
            b"a\nb", // a control character has to be shifted
        ] {
            assert_eq!(decode(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(text in "\\PC*|[&\\-a\u{e9}\u{65e5}\u{1f412}\n/,]*") {
            let bytes = encode(&text);
            prop_assert!(bytes.iter().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(decode(&bytes), Some(text));
        }

        #[test]
        fn what_is_read_is_written_alike(bytes in "([&\\-,A-Za-z0-9]|&A[A-Z]w-){0,12}") {
            if let Some(text) = decode(bytes.as_bytes()) {
                prop_assert_eq!(encode(&text), bytes.as_bytes());
            }
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}

//! Dovecot's keywords: what the letters `a`-`z` of a folder are called.
//!
//! A letter means nothing by itself. Dovecot gives the keywords of each folder letters in the order in which they are
//! first used there, so the same keyword has another letter in the next folder, and on the next server.
//! Source: Dovecot's `maildir-keywords.c`, and its documentation of the file `dovecot-keywords`.

use serde::{Deserialize, Serialize};

use crate::bytes::{escape, serde_as_bytes};
use crate::{Error, Flags, Result};

/// The name of one keyword, in bytes. Dovecot does not tell upper case from lower.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyword(Box<[u8]>);
serde_as_bytes!(Keyword);

impl Keyword {
    /// Takes a name.
    ///
    /// # Errors
    /// When it is empty, over 255 bytes long, or holds NUL or a newline.
    pub fn new(bytes: &[u8]) -> Result<Keyword> {
        let why = if bytes.is_empty() {
            "it is empty"
        } else if bytes.len() > 255 {
            "it is over 255 bytes long"
        } else if bytes.iter().any(|byte| matches!(byte, 0 | b'\n')) {
            "it holds NUL or a newline"
        } else {
            return Ok(Keyword(bytes.into()));
        };
        Err(Error::Name {
            what: "keyword",
            name: escape(bytes),
            why,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn is(&self, other: &Keyword) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

/// What the letters of one folder are called; by letter, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u8, Keyword)>")]
pub struct Keywords(Vec<(u8, Keyword)>);

impl TryFrom<Vec<(u8, Keyword)>> for Keywords {
    type Error = &'static str;

    fn try_from(names: Vec<(u8, Keyword)>) -> std::result::Result<Keywords, &'static str> {
        let is_letter = |(letter, _): &(u8, Keyword)| letter.is_ascii_lowercase();
        if names.iter().all(is_letter) && names.is_sorted_by(|one, next| one.0 < next.0) {
            Ok(Keywords(names))
        } else {
            Err("keywords that are not in the order of their letters")
        }
    }
}

impl Keywords {
    /// Reads the file as Dovecot does: a line holds the letter's number, `0` for `a`, a space, and the name. It passes
    /// over lines that it cannot read, and so does this. `None` where no line of a file that is not empty can be read.
    #[must_use]
    pub fn parse(file: &[u8]) -> Option<Keywords> {
        let mut names: Vec<(u8, Keyword)> = Vec::new();
        for line in file.split(|&byte| byte == b'\n') {
            if let Some((letter, name)) = read_line(line) {
                names.retain(|(known, _)| *known != letter);
                names.push((letter, name));
            }
        }
        names.sort();
        (file.is_empty() || !names.is_empty()).then_some(Keywords(names))
    }

    /// The letters that have a name.
    #[must_use]
    pub fn letters(&self) -> Flags {
        let letters: Vec<u8> = self.0.iter().map(|(letter, _)| *letter).collect();
        Flags::from_letters(&letters)
    }

    /// The letter's name.
    fn name(&self, letter: u8) -> Option<&Keyword> {
        let found = self.0.iter().find(|(known, _)| *known == letter);
        found.map(|(_, name)| name)
    }

    /// The letter that Dovecot writes for a name: the last one, should there be several.
    fn letter(&self, name: &Keyword) -> Option<u8> {
        let mut from_last = self.0.iter().rev();
        let found = from_last.find(|(_, known)| known.is(name));
        found.map(|(letter, _)| *letter)
    }

    /// Writes letters that mean what one folder's file says as another folder's file has them. What that one has no name
    /// for, or no letter, is left out. Where neither has such a file letters mean nothing, and stay as they are.
    #[must_use]
    pub fn translate(from: Option<&Keywords>, to: Option<&Keywords>, letters: Flags) -> Flags {
        let own = letters.keywords();
        if from == to || own.is_empty() {
            return letters;
        }
        let written = own.letters().into_iter().filter_map(|letter| {
            let name = from?.name(letter)?;
            to?.letter(name)
        });
        let written: Vec<u8> = written.collect();
        letters.with(Flags::KEYWORDS, Flags::from_letters(&written))
    }
}

fn read_line(line: &[u8]) -> Option<(u8, Keyword)> {
    let at = line.iter().position(|&byte| byte == b' ')?;
    let number: u8 = std::str::from_utf8(&line[..at]).ok()?.parse().ok()?;
    let letter = (number < 26).then_some(b'a' + number)?;
    Some((letter, Keyword::new(&line[at + 1..]).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(file: &str) -> Keywords {
        Keywords::parse(file.as_bytes()).expect("it can be read")
    }

    fn translated(from: &Option<Keywords>, to: &Option<Keywords>, letters: &str) -> String {
        let letters = Flags::from_letters(letters.as_bytes());
        let written = Keywords::translate(from.as_ref(), to.as_ref(), letters);
        String::from_utf8(written.letters()).expect("letters")
    }

    #[test]
    fn letters_are_written_as_the_other_folder_has_them() {
        let one = Some(table("0 Work\n1 $Forwarded\n2 NonJunk\n"));
        let other = Some(table("0 Junk\n3 WORK\n25 $forwarded\n"));
        assert_eq!(translated(&one, &other, "Sab"), "Sdz");
        assert_eq!(translated(&one, &other, "FSc"), "FS", "it has none of it");
        assert_eq!(translated(&one, &other, "q"), "", "nobody named it");
        assert_eq!(translated(&one, &None, "Sab"), "S");
        assert_eq!(translated(&None, &other, "Sab"), "S");
        assert_eq!(translated(&None, &None, "Sab"), "Sab");
        assert_eq!(translated(&one, &one, "Sabq"), "Sabq");
    }

    #[test]
    fn the_file_is_read_as_dovecot_reads_it() {
        let odd =
            "converted\n0 A b\n26 Far\n-1 x\n1\n2 \nzz y\n3 Once\n3 Twice\n4 A B\n99999999999 z";
        let read = table(odd);
        let names: Vec<(char, String)> = (read.0.iter())
            .map(|(letter, name)| (char::from(*letter), escape(name.as_bytes())))
            .collect();
        let expected = [('a', "A b"), ('d', "Twice"), ('e', "A B")];
        assert_eq!(
            names,
            expected.map(|(letter, name)| (letter, name.to_owned()))
        );
        let (read, other) = (Some(read), Some(table("7 a B\n")));
        assert_eq!(translated(&read, &other, "a"), "h");
        assert_eq!(translated(&other, &read, "h"), "e", "the last one");
        assert_eq!(table(""), Keywords::default());
        for broken in ["\n", "no number", "\0\0\0\0", "26 Far\n27 Farther\n"] {
            assert_eq!(Keywords::parse(broken.as_bytes()), None, "{broken:?}");
        }
    }

    #[test]
    fn what_comes_over_the_wire_is_in_order_and_named() {
        let name = |bytes: &[u8]| Keyword(bytes.into());
        for wrong in [
            vec![(b'b', name(b"x")), (b'a', name(b"y"))],
            vec![(b'a', name(b"x")), (b'a', name(b"y"))],
            vec![(b'A', name(b"x"))],
            vec![(b'a', name(b""))],
            vec![(b'a', name(b"x\n1 y"))],
            vec![(b'a', name(&[b'x'; 256]))],
        ] {
            let bytes = crate::codec::encode(&wrong);
            assert!(
                crate::codec::decode::<Keywords>(&bytes).is_err(),
                "{wrong:?}"
            );
        }
        let right = table("0 Work\n25 $Forwarded\n");
        let bytes = crate::codec::encode(&right);
        assert_eq!(
            crate::codec::decode::<Keywords>(&bytes).expect("right"),
            right
        );
    }
}

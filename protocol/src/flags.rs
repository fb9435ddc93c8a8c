//! The letters after `:2,`, as a set.

use serde::{Deserialize, Serialize};

/// A set of flag letters, `A`-`Z` and `a`-`z`.
///
/// What letters mean is nobody's business here; of the keywords `a`-`z` it is [`crate::Keywords`]'s. Source: maildir(5), <https://cr.yp.to/proto/maildir.html>.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "u64")]
pub struct Flags(u64);

/// Bits that are no letter are dropped: two sets that look alike must be equal.
impl From<u64> for Flags {
    fn from(bits: u64) -> Flags {
        Flags::from_bits(bits)
    }
}

impl Flags {
    /// No flags.
    pub const EMPTY: Flags = Flags(0);
    /// Every letter there is.
    pub const ALL: Flags = Flags((1 << 52) - 1);
    /// `a`-`z`, Dovecot's keywords.
    pub const KEYWORDS: Flags = Flags(((1 << 26) - 1) << 26);

    /// Collects the letters among `letters`; other bytes are not flags.
    #[must_use]
    pub fn from_letters(letters: &[u8]) -> Flags {
        Flags(
            letters
                .iter()
                .filter_map(|&letter| bit(letter))
                .fold(0, |set, bit| set | bit),
        )
    }

    /// The letters in ASCII order, as maildir(5) wants them written.
    #[must_use]
    pub fn letters(self) -> Vec<u8> {
        (b'A'..=b'Z')
            .chain(b'a'..=b'z')
            .filter(|&letter| self.contains(letter))
            .collect()
    }

    /// Whether the letter is in the set.
    #[must_use]
    pub fn contains(self, letter: u8) -> bool {
        bit(letter).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The letters in either set.
    #[must_use]
    pub fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The letters in exactly one of both sets.
    #[must_use]
    pub fn difference(self, other: Flags) -> Flags {
        Flags(self.0 ^ other.0)
    }

    /// The letters in both sets.
    #[must_use]
    pub fn intersection(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }

    /// The keywords in the set.
    #[must_use]
    pub fn keywords(self) -> Flags {
        self.intersection(Flags::KEYWORDS)
    }

    /// How many letters there are.
    #[must_use]
    pub fn count(self) -> u64 {
        u64::from(self.0.count_ones())
    }

    /// This set with the letters of `mask` taken from `other`.
    #[must_use]
    pub fn with(self, mask: Flags, other: Flags) -> Flags {
        Flags((self.0 & !mask.0) | (other.0 & mask.0))
    }

    /// Whether no letter is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set as a number, for storing: bit 0 is `A`, bit 26 is `a`.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set of a stored number; bits that are no letter are dropped.
    #[must_use]
    pub fn from_bits(bits: u64) -> Flags {
        Flags(bits & Flags::ALL.0)
    }
}

fn bit(letter: u8) -> Option<u64> {
    match letter {
        b'A'..=b'Z' => Some(1 << (letter - b'A')),
        b'a'..=b'z' => Some(1 << (26 + letter - b'a')),
        _ => None,
    }
}

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{{{}}}", crate::bytes::escape(&self.letters()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_come_back_sorted_and_once() {
        assert_eq!(Flags::from_letters(b"SFaS1,").letters(), b"FSa");
        assert_eq!(Flags::ALL.letters().len(), 52);
        assert_eq!(
            Flags::ALL.keywords().letters(),
            (b'a'..=b'z').collect::<Vec<_>>()
        );
        assert_eq!(Flags::from_letters(b"SaZz").count(), 4);
        assert_eq!(Flags::from_bits(u64::MAX), Flags::ALL);
    }

    #[test]
    fn with_takes_only_the_masked_letters() {
        let set =
            Flags::from_letters(b"FS").with(Flags::from_letters(b"RS"), Flags::from_letters(b"R"));
        assert_eq!(set, Flags::from_letters(b"FR"));
    }
}

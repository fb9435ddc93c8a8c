//! The values that reconcile works on: a message as base and both sides know it.
//!
//! Plain data. Places use the archive's own folder numbers, so that a renamed folder is one changed name and not a
//! change of every message in it.

use protocol::fingerprint::Form;
use protocol::{Digest, Entry, Flags, Unique};
use serde::{Deserialize, Serialize};

/// Which replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Side {
    /// The one here.
    Local,
    /// The server's.
    Remote,
}

impl Side {
    /// Both, the local one first.
    pub const BOTH: [Side; 2] = [Side::Local, Side::Remote];

    /// What it is called before people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Side::Local => "here",
            Side::Remote => "there",
        }
    }

    /// The one across.
    #[must_use]
    pub fn other(self) -> Side {
        match self {
            Side::Local => Side::Remote,
            Side::Remote => Side::Local,
        }
    }
}

/// The archive's own number of a folder; the same for both sides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Fid(pub u32);

/// A name that a message should have got on a side, and that another file had.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// The side.
    pub side: Side,
    /// Where the message should have been.
    pub place: Place,
    /// Whether it was there already, with other flags.
    pub was_there: bool,
}

impl Taken {
    /// The name of a place, for a message that is seen on a side, or is not.
    #[must_use]
    pub fn of(side: Side, place: &Place, seen: Option<&Seen>) -> Taken {
        Taken {
            side,
            place: place.clone(),
            was_there: seen.is_some_and(|seen| seen.place == *place),
        }
    }
}

/// Where a message is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The folder.
    pub folder: Fid,
    /// The unique name.
    pub unique: Unique,
    /// The running number among files of the same unique name, mostly 0.
    pub copy: u16,
}

/// The number under which a side's journal reported a message. It is stored as a plain number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub enum Seq {
    /// This one.
    Known(u64),
    /// The side's numbers began anew since: no journal reaches it, so nothing is later.
    Unknown,
}

impl Seq {
    /// How an unknown one is stored. No journal comes so far.
    const UNKNOWN: u64 = i64::MAX.cast_unsigned();

    /// Whether it is known, and lower than another one.
    #[must_use]
    pub fn is_before(self, other: u64) -> bool {
        matches!(self, Seq::Known(seq) if seq < other)
    }
}

impl From<u64> for Seq {
    fn from(stored: u64) -> Seq {
        match stored {
            Seq::UNKNOWN => Seq::Unknown,
            seq => Seq::Known(seq),
        }
    }
}

impl From<Seq> for u64 {
    fn from(seq: Seq) -> u64 {
        match seq {
            Seq::Known(seq) => seq,
            Seq::Unknown => Seq::UNKNOWN,
        }
    }
}

/// A message as one side was last seen to hold it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Where it is.
    pub place: Place,
    /// What it is; its info is what the file bears.
    pub entry: Entry,
    /// Its flags in common letters, see [`crate::merge::letters`].
    pub flags: Flags,
    /// What the file shall bear for them; another thing than it bears where a program moved it that did not translate.
    pub owed: Flags,
    /// The number under which the side's journal reported it.
    pub seq: Seq,
    /// It went and came back since base: that counts like a move.
    pub touched: bool,
}

/// What both sides agreed on. Presence is agreed wherever there is a base; a field is only once both sides were seen to
/// hold the same value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Base {
    /// The place, if agreed.
    pub place: Option<Place>,
    /// New or cur, if agreed.
    pub in_new: Option<bool>,
    /// The flags, where agreed, in common letters of the place's folder.
    pub flags: Flags,
    /// The letters that are not agreed.
    pub open: Flags,
    /// The bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// What both sides agreed on; none for a message that only one side ever had.
    pub base: Option<Base>,
    /// The message here.
    pub local: Option<Seen>,
    /// The message there.
    pub remote: Option<Seen>,
    /// The message here is a copy of the server's that was made over IMAP, and gets its bytes.
    pub copy: Option<CopyOf>,
}

/// The bytes of which a message is a copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CopyOf {
    /// Their digest.
    pub digest: Digest,
    /// How they are made of the copy, if they can be.
    pub form: Option<Form>,
}

/// What a message shall be, on both sides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Where.
    pub place: Place,
    /// In `new` or in `cur`.
    pub in_new: bool,
    /// With which flags, in common letters.
    pub flags: Flags,
    /// With which bytes.
    pub digest: Digest,
}

impl Seen {
    /// A message whose letters are common ones.
    #[must_use]
    pub fn new(place: Place, entry: Entry, seq: Seq) -> Seen {
        let flags = entry.flags();
        Seen {
            place,
            entry,
            flags,
            owed: flags,
            seq,
            touched: false,
        }
    }

    /// The four fields that are merged.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            place: self.place.clone(),
            in_new: self.entry.in_new,
            flags: self.flags,
            digest: self.entry.digest,
        }
    }
}

impl Base {
    /// The folder whose letters the flags are in.
    #[must_use]
    pub fn folder(&self, remote: &Seen) -> Fid {
        self.place.as_ref().unwrap_or(&remote.place).folder
    }
}

impl Record {
    /// What a side was last seen to hold.
    #[must_use]
    pub fn seen(&self, side: Side) -> Option<&Seen> {
        match side {
            Side::Local => self.local.as_ref(),
            Side::Remote => self.remote.as_ref(),
        }
    }

    /// The same, to be changed.
    pub fn seen_mut(&mut self, side: Side) -> &mut Option<Seen> {
        match side {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
    }

    /// Whether both sides hold exactly what is agreed.
    #[must_use]
    pub fn is_agreed(&self) -> bool {
        let (Some(base), Some(local), Some(remote)) = (&self.base, &self.local, &self.remote)
        else {
            return false;
        };
        let (here, there) = (local.state(), remote.state());
        let is_written = |seen: &Seen| seen.owed == seen.entry.flags();
        here == there
            && is_written(local)
            && is_written(remote)
            && base.open.is_empty()
            && base.place.as_ref() == Some(&here.place)
            && (base.in_new, base.flags, base.digest)
                == (Some(here.in_new), here.flags, here.digest)
    }

    /// The bytes of which the message here is a copy, as long as neither side changed its own.
    #[must_use]
    pub fn copied(&self) -> Option<&CopyOf> {
        let (base, here, there) = (
            self.base.as_ref()?,
            self.local.as_ref()?,
            self.remote.as_ref()?,
        );
        let copy = self.copy.as_ref()?;
        let is_so = here.entry.digest == base.digest
            && here.entry.digest != copy.digest
            && there.entry.digest == copy.digest;
        is_so.then_some(copy)
    }

    /// Whether nothing is known of it any more.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_none() && self.remote.is_none()
    }

    /// Whether a side holds damaged bytes instead of what was agreed.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        let base = self.base.as_ref().map(|base| base.digest);
        let seen = [self.local.as_ref(), self.remote.as_ref()]
            .into_iter()
            .flatten();
        base.is_some_and(|base| {
            seen.into_iter()
                .any(|seen| seen.entry.damaged && seen.entry.digest != base)
        })
    }

    /// Whether exactly one side has it.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.local.is_some() != self.remote.is_some()
    }

    /// Every folder in which it was seen or agreed.
    pub fn folders(&self) -> impl Iterator<Item = Fid> {
        let base = self.base.as_ref().and_then(|base| base.place.as_ref());
        let seen = [self.local.as_ref(), self.remote.as_ref()]
            .into_iter()
            .flatten()
            .map(|seen| &seen.place);
        base.into_iter().chain(seen).map(|place| place.folder)
    }
}

//! Places in the tree that could not be looked at: what is missing elsewhere may have gone there (I2).
//!
//! *What holds*: such a place holds deletions back, unless it looks as it did when nothing that was known was missing
//! anywhere. Whatever went since then did not go there: a directory that receives something gets another stamp.
//!
//! *How it is kept*: a scan after which nothing waits remembers what each of these places looked like, if that was older than
//! the scan and the timestamp granularity. So a place that nobody can read for years holds back what went in the very scan that saw it
//! first, and nothing later. `docs/state.md` has the essay.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::index::Index;
use crate::path::join;
use crate::root::Root;

/// The places that a scan has met so far.
pub(crate) struct Unseen {
    /// What such places looked like when nothing was missing.
    before: BTreeMap<Vec<u8>, i64>,
    now: BTreeMap<Vec<u8>, UnseenPlace>,
}

/// One place.
struct UnseenPlace {
    /// Stands for everything that its stamps say.
    mark: i64,
    newest_ns: i64,
    /// The path under which it is reported.
    reported: String,
}

impl Unseen {
    pub(crate) fn load(index: &Index) -> Result<Unseen> {
        Ok(Unseen {
            before: index.unseen()?,
            now: BTreeMap::new(),
        })
    }

    /// Begins anew, for another pass.
    pub(crate) fn clear(&mut self) {
        self.now.clear();
    }

    /// Takes in that a place could not be looked at; `reported` is the path of the problem that says so.
    pub(crate) fn add(&mut self, root: &Root, path: &[u8], reported: &str) {
        // What is in `cur` and `new` is seen by their own stamps only.
        let looked = [
            root.look(path),
            root.look(&join(path, &[b"cur"])),
            root.look(&join(path, &[b"new"])),
        ];
        let looked = looked.map(std::io::Result::ok);
        let times = looked.iter().flatten().map(|(_, stamp)| stamp.newest_ns());
        let place = UnseenPlace {
            newest_ns: times.max().unwrap_or(0),
            mark: mark(format!("{looked:?}").as_bytes()),
            reported: reported.to_owned(),
        };
        self.now.insert(path.to_vec(), place);
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// The reported paths of the places to which something that is missing may have gone.
    pub(crate) fn holding(&self) -> impl Iterator<Item = &str> {
        let is_known =
            |path: &Vec<u8>, place: &UnseenPlace| self.before.get(path) == Some(&place.mark);
        let holding = self.now.iter();
        holding
            .filter(move |(path, place)| !is_known(path, place))
            .map(|(_, place)| place.reported.as_str())
    }

    /// Whether one that holds has changed so lately that its stamp proves nothing yet.
    pub(crate) fn is_fresh(&self, before_ns: i64) -> bool {
        let fresh = |(path, place): (&Vec<u8>, &UnseenPlace)| {
            place.newest_ns >= before_ns && self.before.get(path) != Some(&place.mark)
        };
        self.now.iter().any(fresh)
    }

    /// Remembers what the places look like after a scan in which nothing is missing; `before_ns` is when it began, less the
    /// timestamp granularity.
    pub(crate) fn remember(&self, index: &Index, before_ns: i64) -> Result<()> {
        let proven = self
            .now
            .iter()
            .filter(|(_, place)| place.newest_ns < before_ns);
        let proven: BTreeMap<_, _> = proven
            .map(|(path, place)| (path.clone(), place.mark))
            .collect();
        if proven == self.before {
            return Ok(());
        }
        index.replace_unseen(&proven)
    }
}

fn mark(text: &[u8]) -> i64 {
    let digest = blake3::hash(text);
    let (first, _) = digest.as_bytes().split_first_chunk().expect("32 bytes");
    i64::from_le_bytes(*first)
}

//! Messages whose letters are not what their files bear: moved or copied by a program that did not translate them, or in a
//! folder whose letters have come to be called otherwise.

use std::collections::HashSet;

use protocol::{Digest, Entry, Flags, Info};

use super::{Work, WorkSet};
use crate::merge::agreed::{Agreed, Stored};
use crate::merge::folders::Folders;
use crate::merge::record::{Fid, Record, Seen, Seq, Side};

impl WorkSet {
    /// A message that a side lost, as it is seen in another place there.
    pub fn moved(&self, index: usize, side: Side, seen: Seen) -> Seen {
        let work = &self.all[index];
        let agreed = work.record.base.as_ref().and_then(|base| {
            let place = base.place.clone()?;
            let bears = (self.letters).own(side, place.folder, base.flags, Flags::EMPTY);
            let entry = Entry {
                info: Info::of(bears),
                ..seen.entry.clone()
            };
            Some(Seen {
                flags: base.flags,
                ..Seen::new(place, entry, Seq::Known(0))
            })
        });
        // It is back in its agreed folder, with the letters that it had there: no folder in between has cost it one.
        let is_back = agreed.as_ref().is_some_and(|agreed| {
            agreed.place.folder == seen.place.folder
                && agreed.entry.flags().keywords() == seen.entry.flags().keywords()
        });
        let last = work.lost[side as usize].as_deref().cloned();
        let old = last.filter(|_| !is_back).or(agreed);
        match old {
            Some(old) => self.letters.next(side, &old, seen),
            None => seen,
        }
    }

    /// What is new here was reported before the server said what it calls its letters.
    pub fn letter_unmatched(&mut self) {
        for seen in &mut self.unmatched[Side::Local as usize] {
            *seen = self.letters.first(Side::Local, seen.clone());
        }
    }

    /// Gives letters their meaning where it is another one than their files say: in copies that were not translated, and in
    /// folders whose letters came to be called otherwise.
    ///
    /// # Errors
    /// When what is agreed cannot be read.
    pub fn mend_letters<A: Agreed>(
        &mut self,
        agreed: &A,
        folders: &Folders,
    ) -> Result<(), A::Error> {
        self.letter_copies(agreed)?;
        self.letter_again(agreed, &self.letters.changed(folders))
    }

    /// Finds copies made by a program that did not translate their letters: they bear the very letters of a known message
    /// with the same bytes, in another folder.
    fn letter_copies<A: Agreed>(&mut self, agreed: &A) -> Result<(), A::Error> {
        if self.letters.is_plain() {
            return Ok(());
        }
        for side in Side::BOTH {
            let copies: Vec<usize> = (0..self.all.len())
                .filter(|&index| may_be_copy(&self.all[index], side))
                .collect();
            let sources = self.sources(agreed, side, &copies)?;
            for index in copies {
                let Some(seen) = self.all[index].record.seen_mut(side) else {
                    continue;
                };
                let source = sources.iter().find(|source| is_copy(seen, source));
                if let Some(source) = source {
                    *seen = self.letters.copied(side, source, seen);
                }
            }
        }
        Ok(())
    }

    /// What a side is known to hold of the same bytes as these.
    fn sources<A: Agreed>(
        &self,
        agreed: &A,
        side: Side,
        copies: &[usize],
    ) -> Result<Vec<Seen>, A::Error> {
        let digests: HashSet<Digest> = (copies.iter())
            .filter_map(|&index| Some(self.all[index].record.seen(side)?.entry.digest))
            .collect();
        let mut sources = Vec::new();
        for digest in &digests {
            let alike = agreed.with_digest(digest)?.into_iter();
            let alike = alike.filter_map(|record| record.seen(side).cloned());
            sources.extend(alike.filter(|seen| !self.is_claimed(&seen.place)));
        }
        let known = self.all.iter().filter(|work| work.record.base.is_some());
        let known = known.filter_map(|work| work.record.seen(side));
        let known = known.filter(|seen| digests.contains(&seen.entry.digest));
        sources.extend(known.cloned());
        sources.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(sources)
    }

    /// Looks again at the messages of folders whose letters have come to be called otherwise.
    fn letter_again<A: Agreed>(&mut self, agreed: &A, folders: &[Fid]) -> Result<(), A::Error> {
        for folder in folders {
            let records = agreed.in_folder(*folder)?.into_iter();
            let bearing = records.filter(bears_keywords);
            for seen in bearing.filter_map(|record| record.local) {
                self.claim(agreed, Side::Local, &seen.place)?;
            }
        }
        for work in &mut self.all {
            for side in Side::BOTH {
                let Some(seen) = work.record.seen_mut(side) else {
                    continue;
                };
                if folders.contains(&seen.place.folder) {
                    let again = self.letters.again(side, seen);
                    work.is_dirty |= again != *seen;
                    *seen = again;
                }
            }
        }
        Ok(())
    }
}

fn bears_keywords(record: &Record) -> bool {
    let mut seen = [&record.local, &record.remote].into_iter().flatten();
    seen.any(|seen| !seen.flags.union(seen.entry.flags()).keywords().is_empty())
}

/// Whether only this side has a message, with keywords and since this run: later it has been looked at.
fn may_be_copy(work: &Work, side: Side) -> bool {
    if work.stored != Stored::Nowhere {
        return false;
    }
    let seen = work.record.seen(side);
    let bears = seen.is_some_and(|seen| !seen.owed.keywords().is_empty());
    bears && work.record.base.is_none() && work.record.is_single()
}

fn is_copy(seen: &Seen, source: &Seen) -> bool {
    source.entry.digest == seen.entry.digest
        && source.place.folder != seen.place.folder
        && source.entry.flags().keywords() == seen.entry.flags().keywords()
}

//! How base follows what both sides come to hold alike. Flags are compared as [`Letters`] translates them.

use protocol::Flags;

use crate::merge::letters::Letters;
use crate::merge::record::{Base, Fid, Record, Seen, Side};

impl Base {
    /// What two sides have in common; the digest must be.
    #[must_use]
    pub fn common(local: &Seen, remote: &Seen, letters: &Letters) -> Base {
        let (from, to) = (local.place.folder, remote.place.folder);
        let here = letters.carry(Side::Remote, local.flags, from, to);
        let there = remote.flags;
        Base {
            place: (local.place == remote.place).then(|| local.place.clone()),
            in_new: (local.entry.in_new == remote.entry.in_new).then_some(local.entry.in_new),
            flags: here.intersection(there),
            open: here.difference(there),
            digest: local.entry.digest,
            size: local.entry.size,
        }
    }

    /// Takes over whatever both sides now hold alike.
    pub fn agree(&mut self, local: &Seen, remote: &Seen, letters: &Letters) {
        let before = self.clone();
        if local.place == remote.place {
            self.place = Some(local.place.clone());
        }
        if local.entry.in_new == remote.entry.in_new {
            self.in_new = Some(local.entry.in_new);
        }
        self.carry(before.folder(remote), self.folder(remote), letters);
        let [here, there] = [local, remote].map(|seen| {
            let from = seen.place.folder;
            letters.carry(Side::Remote, seen.flags, from, self.folder(remote))
        });
        let alike = Flags::ALL.difference(here.difference(there));
        self.flags = self.flags.with(alike, here);
        self.open = self.open.with(alike, Flags::EMPTY);
        if local.entry.digest == remote.entry.digest {
            (self.digest, self.size) = (local.entry.digest, local.entry.size);
        }
    }

    /// Writes the flags as another folder has them.
    pub fn carry(&mut self, from: Fid, to: Fid, letters: &Letters) {
        self.flags = letters.carry(Side::Remote, self.flags, from, to);
        self.open = letters.carry(Side::Remote, self.open, from, to);
    }
}

impl Record {
    /// Brings base up to what both sides are now seen to hold; a message that is gone on both sides loses it.
    pub fn agree(&mut self, letters: &Letters) {
        self.follow(letters);
        match (&self.local, &self.remote) {
            (Some(local), Some(remote)) => match &mut self.base {
                Some(base) => base.agree(local, remote, letters),
                None if local.entry.digest == remote.entry.digest => {
                    self.base = Some(Base::common(local, remote, letters))
                }
                None => {}
            },
            (None, None) => self.base = None,
            (Some(_), None) | (None, Some(_)) => {}
        }
        if self.copied().is_none() {
            self.copy = None;
        }
        if self.is_agreed() {
            for side in Side::BOTH {
                if let Some(seen) = self.seen_mut(side) {
                    seen.touched = false;
                }
            }
        }
    }

    /// What a side has no letter for it neither sets nor clears: there it is as on the other side.
    fn follow(&mut self, letters: &Letters) {
        if let (Some(local), Some(remote)) = (&mut self.local, &self.remote)
            && local.place.folder == remote.place.folder
            && local.flags != remote.flags
        {
            let foreign = letters.foreign(Side::Local, local.place.folder);
            local.flags = local.flags.with(foreign, remote.flags);
        }
    }
}

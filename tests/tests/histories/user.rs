//! What users, mail readers and delivery agents do.

use std::collections::BTreeSet;

use harness::digest_hex;

use super::oracle::Place;
use super::{FOLDERS, History, Killed};

/// Something that somebody does to a replica.
type UserStep = fn(&mut History, usize);

/// What happens, with its weight.
const STEPS: &[(usize, UserStep)] = &[
    (16, History::deliver),
    (6, History::store),
    (3, History::deliver_duplicate),
    (16, History::flag),
    (9, History::new_or_cur),
    (12, History::move_one),
    (3, History::move_there_and_back),
    (5, History::copy),
    (11, History::delete),
    (3, History::use_name_again),
    (3, History::put_back),
    (7, History::rewrite),
    (2, History::make_folder),
    (2, History::rename_folder),
    (2, History::remove_folder),
    (3, History::change_mode),
    (3, History::save_in_an_editor),
];

impl History {
    pub(super) fn user_step(&mut self) {
        let replica = self.any_replica();
        let crowded = self.count(replica) > 45;
        let mut dice = self.rng.below(STEPS.iter().map(|(weight, _)| weight).sum());
        // Guards and adoption count messages: small trees keep them out of what is not about them.
        if crowded && dice < STEPS[..3].iter().map(|(weight, _)| weight).sum() {
            return self.delete(replica);
        }
        for (weight, step) in STEPS {
            if dice < *weight {
                return step(self, replica);
            }
            dice -= weight;
        }
    }

    fn count(&mut self, replica: usize) -> usize {
        self.view(replica).messages.len()
    }

    fn any_message(&mut self, replica: usize) -> Option<(Place, bool)> {
        let view = self.view(replica);
        let (message, _) = self.rng.pick(&view.messages)?;
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names of histories are ASCII");
        Some((
            (text(&message.folder), text(&message.unique)),
            message.in_new,
        ))
    }

    fn any_folder(&mut self, replica: usize) -> String {
        let there: Vec<&str> = FOLDERS
            .iter()
            .copied()
            .filter(|folder| self.tree(replica).has_folder(folder))
            .collect();
        (*self.rng.pick(&there).expect("INBOX is always there")).to_owned()
    }

    fn any_flags(&mut self) -> String {
        ["", "S", "S", "F", "FS", "RS", "PRS", "T", "ST", "Sa"][self.rng.below(10)].to_owned()
    }

    fn bytes(&self, replica: usize, (folder, unique): &Place) -> Vec<u8> {
        self.tree(replica).read(folder, unique)
    }

    /// Files are only taken away through here, so that the oracle knows.
    fn take(&mut self, replica: usize, place: &Place) -> Vec<u8> {
        let bytes = self.bytes(replica, place);
        let digest = digest_hex(&bytes);
        let is_brought = self.was_killed(replica, &digest, place, |killed| &killed.brought);
        self.oracle
            .removed(&digest, place, is_brought || !self.adopting.is_empty());
        self.taken.push((place.clone(), bytes.clone()));
        bytes
    }

    /// Whether a killed run did something to a body at a place of a replica, of which its archive has not heard yet.
    fn was_killed(
        &self,
        replica: usize,
        digest: &str,
        place: &Place,
        did: impl Fn(&Killed) -> &BTreeSet<(String, Place)>,
    ) -> bool {
        let done = (digest.to_owned(), place.clone());
        let killed = self.killed.iter();
        killed
            .filter(|killed| killed.replica == replica)
            .any(|killed| did(killed).contains(&done))
    }

    fn make(&mut self, replica: usize, place: &Place, bytes: &[u8], in_new: bool) {
        let digest = digest_hex(bytes);
        self.oracle.made(replica, &digest, place);
        if self.was_killed(replica, &digest, place, |killed| &killed.replaced) {
            self.oracle.replaced_again(&digest);
        }
        let (folder, unique) = place;
        if in_new {
            self.tree(replica).deliver(folder, unique, bytes);
        } else {
            let flags = self.any_flags();
            self.tree(replica).store(folder, unique, &flags, bytes);
        }
    }

    pub(super) fn deliver(&mut self, replica: usize) {
        let place = (self.any_folder(replica), self.fresh_unique());
        self.note(format!("{replica}: deliver {place:?}"));
        let bytes = self.fresh_bytes();
        self.make(replica, &place, &bytes, true);
    }

    fn store(&mut self, replica: usize) {
        let place = (self.any_folder(replica), self.fresh_unique());
        self.note(format!("{replica}: store {place:?}"));
        let bytes = self.fresh_bytes();
        self.make(replica, &place, &bytes, false);
    }

    /// The same message arrives once more, as by a list and directly.
    fn deliver_duplicate(&mut self, replica: usize) {
        let from = self.any_replica();
        let Some((place, _)) = self.any_message(from) else {
            return;
        };
        let bytes = self.bytes(from, &place);
        let place = (self.any_folder(replica), self.fresh_unique());
        self.note(format!(
            "{replica}: deliver a duplicate of {:.12} as {place:?}",
            digest_hex(&bytes)
        ));
        self.make(replica, &place, &bytes, true);
    }

    fn flag(&mut self, replica: usize) {
        let Some(((folder, unique), _)) = self.any_message(replica) else {
            return;
        };
        let flags = self.any_flags();
        self.note(format!("{replica}: flag {folder}/{unique} {flags:?}"));
        self.tree(replica).set_flags(&folder, &unique, &flags);
    }

    fn new_or_cur(&mut self, replica: usize) {
        let Some(((folder, unique), in_new)) = self.any_message(replica) else {
            return;
        };
        self.note(format!(
            "{replica}: {folder}/{unique} to {}",
            if in_new { "cur" } else { "new" }
        ));
        if in_new {
            let flags = self.any_flags();
            self.tree(replica).to_cur(&folder, &unique, &flags);
        } else {
            self.tree(replica).to_new(&folder, &unique);
        }
    }

    fn move_one(&mut self, replica: usize) {
        let Some((place, _)) = self.any_message(replica) else {
            return;
        };
        let unique = if self.rng.chance(40) {
            self.fresh_unique()
        } else {
            place.1.clone()
        };
        let to = (self.any_folder(replica), unique);
        if self.tree(replica).has(&to.0, &to.1) {
            return;
        }
        let digest = digest_hex(&self.bytes(replica, &place));
        self.note(format!(
            "{replica}: move {digest:.12} from {place:?} to {to:?}"
        ));
        self.oracle.moved(&digest, !self.adopting.is_empty());
        self.tree(replica).rename(&place.0, &place.1, &to.0, &to.1);
    }

    /// Away and back again: nothing has happened.
    fn move_there_and_back(&mut self, replica: usize) {
        let Some(((folder, unique), _)) = self.any_message(replica) else {
            return;
        };
        let (other, name) = (self.any_folder(replica), self.fresh_unique());
        self.note(format!(
            "{replica}: {folder}/{unique} to {other}/{name} and back"
        ));
        self.tree(replica).rename(&folder, &unique, &other, &name);
        self.tree(replica).rename(&other, &name, &folder, &unique);
    }

    fn copy(&mut self, replica: usize) {
        let Some((place, _)) = self.any_message(replica) else {
            return;
        };
        let to = (self.any_folder(replica), self.fresh_unique());
        let digest = digest_hex(&self.bytes(replica, &place));
        self.note(format!(
            "{replica}: copy {digest:.12} from {place:?} to {to:?}"
        ));
        self.oracle.made(replica, &digest, &to);
        if self.rng.chance(30) {
            self.tree(replica).link(&place.0, &place.1, &to.0, &to.1);
        } else {
            self.tree(replica).copy(&place.0, &place.1, &to.0, &to.1);
        }
    }

    fn delete(&mut self, replica: usize) {
        let Some((place, _)) = self.any_message(replica) else {
            return;
        };
        let bytes = self.take(replica, &place);
        self.note(format!(
            "{replica}: delete {:.12} at {place:?}",
            digest_hex(&bytes)
        ));
        self.tree(replica).delete(&place.0, &place.1);
    }

    /// Another message under the name of one that was deleted.
    fn use_name_again(&mut self, replica: usize) {
        let Some((place, _)) = self.any_message(replica) else {
            return;
        };
        let old = self.take(replica, &place);
        self.tree(replica).delete(&place.0, &place.1);
        let bytes = self.fresh_bytes();
        let (old, new) = (digest_hex(&old), digest_hex(&bytes));
        self.note(format!(
            "{replica}: {place:?} was {old:.12} and is used again for {new:.12}"
        ));
        self.make(replica, &place, &bytes, false);
    }

    /// What was taken away comes back by a user's hand, where it was or elsewhere.
    fn put_back(&mut self, replica: usize) {
        let Some((place, bytes)) = self.rng.pick(&self.taken).cloned() else {
            return;
        };
        let tree = self.tree(replica);
        if self.has_seconds || !tree.has_folder(&place.0) || tree.has(&place.0, &place.1) {
            return;
        }
        self.note(format!(
            "{replica}: put {:.12} back at {place:?}",
            digest_hex(&bytes)
        ));
        self.make(replica, &place, &bytes, false);
    }

    fn rewrite(&mut self, replica: usize) {
        if let Some((place, _)) = self.any_message(replica) {
            self.rewrite_this(replica, place);
        }
    }

    fn rewrite_this(&mut self, replica: usize, place: Place) {
        let old = self.take(replica, &place);
        let bytes = self.fresh_bytes();
        let (old, new) = (digest_hex(&old), digest_hex(&bytes));
        self.note(format!(
            "{replica}: rewrite {place:?} from {old:.12} to {new:.12}"
        ));
        self.oracle.made(replica, &new, &place);
        // In place, unless the file has another name elsewhere: that is another message.
        let links = self.links(replica, &place);
        if links == 1 && self.rng.chance(50) {
            self.tree(replica).edit(&place.0, &place.1, &bytes);
        } else {
            self.tree(replica).replace(&place.0, &place.1, &bytes);
        }
    }

    /// What moves a file's ctime and nothing else.
    fn change_mode(&mut self, replica: usize) {
        use std::os::unix::fs::PermissionsExt;
        let Some((place, _)) = self.any_message(replica) else {
            return;
        };
        let mode = [0o600, 0o640, 0o644][self.rng.below(3)];
        self.note(format!("{replica}: chmod {mode:o} {place:?}"));
        let path = self.tree(replica).path(&place.0, &place.1);
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("its mode can be set");
    }

    /// An editor keeps the old text beside the message while it is open, writes the new one over it or in its place, and takes
    /// the old one away in the end; somebody syncs in between.
    fn save_in_an_editor(&mut self, replica: usize) {
        let Some((place, _)) = self.any_message(replica) else {
            return;
        };
        let path = self.tree(replica).path(&place.0, &place.1);
        let mut beside = path.clone().into_os_string();
        beside.push("~");
        std::fs::copy(&path, &beside).expect("the old text is kept");
        self.note(format!("{replica}: an editor opens {place:?}"));
        let client = if replica == 0 {
            self.any_client()
        } else {
            replica
        };
        self.one_sync(client);
        // Where it was moved or deleted meanwhile, the old text is all that is left there.
        if path.exists() {
            self.rewrite_this(replica, place);
            self.one_sync(client);
        }
        // It goes where its folder goes.
        let name = std::path::Path::new(&beside).file_name();
        for folder in FOLDERS {
            for part in ["cur", "new"] {
                let dir = self.tree(replica).dir(folder).join(part);
                let _ = std::fs::remove_file(dir.join(name.expect("it has a name")));
            }
        }
    }

    fn links(&self, replica: usize, place: &Place) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(self.tree(replica).path(&place.0, &place.1))
            .expect("message is there")
            .nlink()
    }

    fn make_folder(&mut self, replica: usize) {
        let folder = FOLDERS[self.rng.below(FOLDERS.len())];
        self.note(format!("{replica}: make {folder}"));
        self.tree(replica).make_folder(folder);
    }

    fn rename_folder(&mut self, replica: usize) {
        let from = self.any_folder(replica);
        let to = FOLDERS[self.rng.below(FOLDERS.len())];
        if from == "INBOX" || self.tree(replica).has_folder(to) {
            return;
        }
        self.note(format!("{replica}: rename {from} to {to}"));
        for (message, _) in self.view(replica).messages {
            if message.folder == from.as_bytes() {
                self.oracle
                    .moved(&message.digest, !self.adopting.is_empty());
            }
        }
        self.tree(replica).rename_folder(&from, to);
    }

    fn remove_folder(&mut self, replica: usize) {
        let folder = self.any_folder(replica);
        if folder == "INBOX" {
            return;
        }
        self.note(format!("{replica}: remove {folder}"));
        for (message, _) in self.view(replica).messages {
            if message.folder == folder.as_bytes() {
                let unique =
                    String::from_utf8(message.unique).expect("names of histories are ASCII");
                let _ = self.take(replica, &(folder.clone(), unique));
            }
        }
        self.tree(replica).remove_folder(&folder);
    }
}

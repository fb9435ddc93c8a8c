//! What a run leaves for a later one, and why.

use std::collections::{HashMap, HashSet};

use crate::merge::filter::Scope;
use crate::merge::folder::Folder;
use crate::merge::plan::{Limits, Why};
use crate::merge::record::{Fid, Side};
use crate::report::waiting::Waiting;
use crate::run::session::Session;

/// What is known of a run's end.
pub(super) struct Left {
    /// What the run might do.
    pub(super) limits: Limits,
    /// Why messages wait, by their index.
    pub(super) waits: HashMap<usize, (Why, bool)>,
    /// Messages that a dry run would deal with.
    pub(super) messages: HashSet<usize>,
    /// Folders that it would deal with.
    pub(super) folders: HashSet<Fid>,
    /// Folders that changed while the run was under way.
    pub(super) stale: HashSet<Fid>,
    /// Why all others wait.
    pub(super) otherwise: Why,
    /// How many others there are that were not taken in.
    pub(super) unlisted: u64,
}

impl Left {
    /// What is left after a run.
    pub(super) fn after(
        limits: Limits,
        waits: HashMap<usize, (Why, bool)>,
        otherwise: Why,
    ) -> Left {
        Left {
            limits,
            waits,
            messages: HashSet::new(),
            folders: HashSet::new(),
            stale: HashSet::new(),
            otherwise,
            unlisted: 0,
        }
    }

    /// Counts the messages and folders that are not as they shall be on both sides.
    pub(super) fn waiting(&self, session: &Session) -> Vec<Waiting> {
        let filter = &session.account.filter;
        let is_known = |id: Fid| {
            let scope = session.folders.scope(filter, id);
            !matches!(scope, Scope::Excluded | Scope::Placeless)
        };
        let works = session.set.all.iter().enumerate();
        let messages = works.filter(|(index, work)| {
            !work.record.is_empty()
                && !work.record.is_agreed()
                && !self.messages.contains(index)
                && work.record.folders().any(is_known)
        });
        let messages = messages.map(|(index, _)| {
            let wait = self.waits.get(&index);
            wait.copied().unwrap_or((self.otherwise, false))
        });
        let folders = session
            .folders
            .iter()
            .filter(|(id, folder)| folder.differs() && is_known(*id) && !self.folders.contains(id));
        let folders = folders.map(|(id, folder)| {
            let is_chosen = session.folders.scope(filter, id) == Scope::Included;
            let why = match self.stale.contains(&id) {
                true => Why::Changed,
                false => self.folder(folder, is_chosen),
            };
            (why, false)
        });
        let unlisted = (0..self.unlisted).map(|_| (self.otherwise, false));
        Waiting::count(messages.chain(folders).chain(unlisted))
    }

    fn folder(&self, folder: &Folder, is_chosen: bool) -> Why {
        let absent = Side::BOTH
            .into_iter()
            .find(|side| folder.on(*side).is_none());
        let (side, removes) = match absent {
            Some(side) if folder.base.is_none() => (side, false),
            Some(side) => (side.other(), true),
            None if folder.is_renamed(Side::Local) => (Side::Remote, false),
            None => (Side::Local, false),
        };
        match self
            .limits
            .forbid_kind(side, removes, absent.is_some() && !removes)
        {
            Some(why) => why,
            None if !is_chosen => Why::NotChosen,
            None if self.otherwise != Why::Changed => self.otherwise,
            None if removes => Why::Filled,
            None => Why::NoPlace(side),
        }
    }
}

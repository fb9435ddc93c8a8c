//! The beginning of a stream: the folders are made here, and which of theirs are wanted is said.

use protocol::message::{Course, Listing};
use protocol::{Cursor, FolderChange, Op, Outcome, Request, Response};

use super::Progressed;
use crate::endpoint::{Endpoint, unexpected};
use crate::merge::filter::Scope;
use crate::merge::record::{Fid, Side};
use crate::run::failure::Failure;
use crate::run::session::Session;

impl Session<'_> {
    /// Makes the folders here, and says which of theirs are wanted.
    pub(super) fn begin_stream(&mut self) -> Result<(Progressed, Vec<Course>), Failure> {
        let (folders, cursor) = self.streamed_folders()?;
        self.archive.begin()?;
        let begun = self.take_streamed_folders(&folders, cursor);
        self.archive.end(begun)?;
        let filter = &self.account.filter;
        let is_wanted = |id: Fid| self.folders.scope(filter, id) == Scope::Included;
        let ops = self.folders.makings(Side::Local, &is_wanted);
        let plain: Vec<Op> = ops.iter().map(|(_, op)| op.clone()).collect();
        if !plain.is_empty() {
            self.local.request(Request::Apply(plain));
            let outcomes = match self.local.response()? {
                Response::Outcomes(outcomes) => outcomes,
                other => return Err(unexpected(&other).into()),
            };
            for ((id, op), outcome) in ops.iter().zip(&outcomes) {
                if matches!(outcome, Outcome::Made { .. }) {
                    self.folders.done(Side::Local, *id, op, outcome);
                }
            }
        }
        self.archive.begin()?;
        let saved = self.folders.save(&self.archive);
        self.archive.end(saved)?;
        let progressed: Progressed = self.archive.get(Progressed::KEY)?.unwrap_or_default();
        let courses = self.courses(&progressed);
        Ok((progressed, courses))
    }

    /// The folders that the agent names before it is asked which are wanted.
    fn streamed_folders(&mut self) -> Result<(Vec<FolderChange>, Cursor), Failure> {
        let mut folders = Vec::new();
        loop {
            match self.link.response()? {
                Response::Folders(more) => folders.extend(more),
                Response::Listed(listed) if listed.from == Listing::Folders => {
                    return Ok((folders, listed.cursor));
                }
                other => return Err(unexpected(&other).into()),
            }
        }
    }

    fn take_streamed_folders(
        &mut self,
        folders: &[FolderChange],
        cursor: Cursor,
    ) -> Result<(), Failure> {
        let known = self.archive.get::<Cursor>("remote_cursor")?;
        if known.is_none_or(|known| known.index != cursor.index) {
            self.begin_new_life(Side::Remote)?;
        }
        self.set.letters = self.archive.get("letters")?.unwrap_or_default();
        self.take_folders(Side::Remote, folders);
        let ours = self.local.lock().live_folders()?;
        self.take_folders(Side::Local, &ours);
        self.folders.part_names(&self.account.filter);
        self.set.letters.place(&self.folders);
        self.archive.set("letters", &self.set.letters.stored())?;
        if known.is_none() {
            self.archive.set("remote_cursor", &cursor)?;
            self.archive.set("local_cursor", &self.promised)?;
            self.archive.set(Progressed::KEY, &Progressed::default())?;
        }
        Ok(self.folders.save(&self.archive)?)
    }

    /// What is still to come of each folder that both sides have, INBOX first.
    fn courses(&self, progressed: &Progressed) -> Vec<Course> {
        let filter = &self.account.filter;
        let mut wanted: Vec<(bool, Fid, Course)> = self
            .folders
            .iter()
            .filter(|(id, folder)| {
                folder.local.is_some()
                    && self.folders.scope(filter, *id) == Scope::Included
                    && !progressed.ended.contains(id)
            })
            .filter_map(|(id, folder)| {
                let folder = (folder.remote.as_ref()?.number, folder.name().is_inbox());
                let last = progressed.last.as_ref().filter(|(last, _)| *last == id);
                let after = last.map(|(_, unique)| unique.clone());
                let (number, is_inbox) = folder;
                let course = Course {
                    folder: number,
                    after,
                };
                Some((!is_inbox, id, course))
            })
            .collect();
        wanted.sort_by_key(|(is_other, id, course)| (course.after.is_none(), *is_other, *id));
        wanted.into_iter().map(|(.., course)| course).collect()
    }
}

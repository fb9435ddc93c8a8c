//! Properties of the merge as a whole, over trees that are maps: no Maildir is touched, and no archive.
//!
//! A case is a base that both sides agreed on, and what the users of each side did to it. `World` plays both replicas and
//! the executor: every step must find what it expects, and no place may be taken.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::convert::Infallible;

use crate::merge::agreed::{Agreed, Asked, Stored};
use crate::merge::filter::Filter;
use crate::merge::fold::{Work, WorkSet};
use crate::merge::folders::Folders;
use crate::merge::letters::Letters;
use crate::merge::plan::{Direction, Limits, Plan, Step};
use crate::merge::record::{Base, Fid, Place, Record, Seen, Seq, Side};
use crate::merge::{Answers, Merge, join, pair, plan, settle};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use protocol::entry::{Change, FolderChange};
use protocol::message::{At, Rights, Source};
use protocol::{Digest, Entry, Flags, FolderDir, Info, Op, Unique};

/// What each side adds to the common number of a folder to make its own.
const FOLDER_NUMBERS: [u32; 2] = [0, 10];

type Checked = Result<(), TestCaseError>;
type Tree = BTreeMap<Place, Mail>;
type Reports = Vec<(Side, Change)>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Mail {
    in_new: bool,
    flags: Flags,
    digest: Digest,
}

impl Mail {
    fn entry(&self) -> Entry {
        Entry {
            in_new: self.in_new,
            info: Info::of(self.flags),
            digest: self.digest,
            size: 9,
            mtime_ns: i64::from(self.digest.as_bytes()[0]),
            damaged: false,
        }
    }

    fn seen(&self, place: &Place, seq: u64) -> Seen {
        Seen::new(place.clone(), self.entry(), Seq::Known(seq))
    }
}

/// A message as a case gives it; all but the folder are small numbers, so that they meet.
#[derive(Clone, Copy, Debug)]
struct Letter {
    folder: u32,
    name: u8,
    body: u8,
    flags: u8,
    in_new: bool,
}

impl Letter {
    fn place(&self) -> Place {
        Place {
            folder: Fid(self.folder),
            unique: unique(self.name),
            copy: 0,
        }
    }

    fn mail(&self) -> Mail {
        Mail {
            in_new: self.in_new,
            flags: flags(self.flags),
            digest: digest(self.body),
        }
    }
}

fn unique(name: u8) -> Unique {
    Unique::new(format!("u{name}").as_bytes()).expect("a valid name")
}

fn digest(body: u8) -> Digest {
    Digest::of(&[body])
}

fn flags(bits: u8) -> Flags {
    let letters = b"FST".iter().enumerate();
    let set = letters.filter(|(at, _)| bits >> at & 1 == 1);
    Flags::from_letters(&set.map(|(_, letter)| *letter).collect::<Vec<_>>())
}

/// What a user does to one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Touch {
    Keep,
    Flags(u8),
    Flip,
    Move(u32),
    Rename(u8),
    Edit(u8),
    EditMove(u8, u32),
    Delete,
    /// Away and back, with a scan in between.
    Return,
}

/// What the users of one side do: to each message in order of places, then turn a ring of names, then deliver.
#[derive(Clone, Debug)]
struct Edits {
    touches: Vec<Touch>,
    ring: Vec<usize>,
    new: Vec<Letter>,
    /// A scan saw every place empty before another message took it.
    is_rescanned: bool,
}

#[derive(Clone, Debug)]
struct Case {
    base: Vec<Letter>,
    edits: [Edits; 2],
    seed: u64,
}

impl Case {
    fn mirrored(&self) -> Case {
        let [local, remote] = self.edits.clone();
        Case {
            edits: [remote, local],
            ..self.clone()
        }
    }
}

#[derive(Clone, Copy)]
struct Row {
    mail: Mail,
    seq: u64,
    born: u64,
}

/// One side: what it holds, and its journal's number.
#[derive(Default)]
struct Replica {
    rows: BTreeMap<Place, Row>,
    /// What is gone, and when.
    gone: BTreeMap<Place, Row>,
    number: u64,
}

impl Replica {
    fn put(&mut self, place: Place, mail: Mail, born: Option<u64>) {
        self.number += 1;
        let (seq, born) = (self.number, born.unwrap_or(self.number));
        self.gone.remove(&place);
        self.rows.insert(place, Row { mail, seq, born });
    }

    fn take(&mut self, place: &Place) -> Option<Row> {
        let row = self.rows.remove(place)?;
        self.number += 1;
        let seq = self.number;
        self.gone.insert(place.clone(), Row { seq, ..row });
        Some(row)
    }

    /// What the journal reports to an archive that knows all up to a number.
    fn since(&self, side: Side, number: u64) -> Reports {
        let both = [(&self.rows, false), (&self.gone, true)];
        let all = both.map(|(rows, gone)| rows.iter().map(move |(place, row)| (place, row, gone)));
        let news = all
            .into_iter()
            .flatten()
            .filter(|(_, row, _)| row.seq > number);
        let mut reported: Reports = news
            .map(|(place, row, gone)| (side, change(side, place, row, gone)))
            .collect();
        reported.sort_by_key(|(_, change)| change.seq);
        reported
    }

    fn tree(&self) -> Tree {
        self.rows
            .iter()
            .map(|(place, row)| (place.clone(), row.mail))
            .collect()
    }

    /// Plays the users; returns what the journal reports of it.
    fn edit(&mut self, side: Side, edits: &Edits) -> Reports {
        let mut now = self
            .rows
            .iter()
            .map(|(at, row)| (at.clone(), (Some(at.clone()), row.mail)))
            .collect();
        let mut reborn = BTreeSet::new();
        for (place, touch) in self.rows.keys().zip(&edits.touches) {
            touch.apply(place, &mut now, &mut reborn);
        }
        turn(&mut now, &edits.ring);
        for letter in &edits.new {
            now.entry(letter.place()).or_insert((None, letter.mail()));
        }
        let newcomers = now
            .iter()
            .filter(|(at, (origin, _))| origin.as_ref() != Some(at));
        reborn.extend(
            newcomers
                .filter(|_| edits.is_rescanned)
                .map(|(at, _)| at.clone()),
        );
        let now = now
            .into_iter()
            .map(|(place, (_, mail))| (place, mail))
            .collect();
        self.report(side, &now, &reborn)
    }

    /// Makes the tree what it is now, and reports every place that changed.
    fn report(&mut self, side: Side, now: &Tree, reborn: &BTreeSet<Place>) -> Reports {
        let mut reported = Vec::new();
        let places: BTreeSet<Place> = self.rows.keys().chain(now.keys()).cloned().collect();
        for place in places {
            let old = self.rows.get(&place).map(|row| (row.mail, row.born));
            let Some(mail) = now.get(&place) else {
                self.take(&place);
                reported.push((side, change(side, &place, &self.gone[&place], true)));
                continue;
            };
            if old.is_some_and(|(old, _)| old == *mail) && !reborn.contains(&place) {
                continue;
            }
            let born = old
                .map(|(_, born)| born)
                .filter(|_| !reborn.contains(&place));
            self.put(place.clone(), *mail, born);
            reported.push((side, change(side, &place, &self.rows[&place], false)));
        }
        reported
    }
}

fn change(side: Side, place: &Place, row: &Row, gone: bool) -> Change {
    Change {
        seq: row.seq,
        born: row.born,
        folder: place.folder.0 + FOLDER_NUMBERS[side as usize],
        unique: place.unique.clone(),
        copy: place.copy,
        gone,
        lost: false,
        entry: row.mail.entry(),
    }
}

type Now = BTreeMap<Place, (Option<Place>, Mail)>;

impl Touch {
    fn apply(self, place: &Place, now: &mut Now, reborn: &mut BTreeSet<Place>) {
        let Some((origin, mut mail)) = now.remove(place) else {
            return;
        };
        let mut target = place.clone();
        match self {
            Touch::Keep => {}
            Touch::Flags(bits) => mail.flags = flags(bits),
            Touch::Flip => mail.in_new = !mail.in_new,
            Touch::Move(folder) => target.folder = Fid(folder),
            Touch::Rename(name) => target.unique = unique(name),
            Touch::Edit(body) => mail.digest = digest(body),
            Touch::EditMove(body, folder) => {
                (mail.digest, target.folder) = (digest(body), Fid(folder))
            }
            Touch::Delete => return,
            Touch::Return => drop(reborn.insert(place.clone())),
        }
        let target = if now.contains_key(&target) {
            place.clone()
        } else {
            target
        };
        now.insert(target, (origin, mail));
    }

    /// Whether it beats a deletion.
    fn is_strong(self) -> bool {
        matches!(
            self,
            Touch::Move(_) | Touch::Rename(_) | Touch::Edit(_) | Touch::Return
        )
    }
}

/// Each message of the ring takes the place of the next.
fn turn(now: &mut Now, ring: &[usize]) {
    let all: Vec<Place> = now.keys().cloned().collect();
    let chosen: BTreeSet<usize> = ring
        .iter()
        .filter(|_| !all.is_empty())
        .map(|at| at % all.len())
        .collect();
    let mut mails: Vec<_> = chosen
        .iter()
        .filter_map(|&at| now.remove(&all[at]))
        .collect();
    let by = usize::from(!mails.is_empty());
    mails.rotate_left(by);
    now.extend(chosen.into_iter().map(|at| all[at].clone()).zip(mails));
}

/// What is remembered: the agreed records by their places, and all others.
#[derive(Clone, Default)]
struct Memory {
    agreed: BTreeMap<Place, Record>,
    pending: BTreeMap<i64, Record>,
    last: i64,
    /// What a run that was killed had asked.
    asked: Vec<Asked>,
    /// Up to which number of each side it knows all.
    known_to: [u64; 2],
}

impl Agreed for Memory {
    type Error = Infallible;

    fn at(&self, place: &Place) -> Result<Option<Record>, Infallible> {
        Ok(self.agreed.get(place).cloned())
    }

    fn in_folder(&self, folder: Fid) -> Result<Vec<Record>, Infallible> {
        let all = self.agreed.iter();
        let here = all.filter(|(place, _)| place.folder == folder);
        Ok(here.map(|(_, record)| record.clone()).collect())
    }

    fn with_digest(&self, digest: &Digest) -> Result<Vec<Record>, Infallible> {
        let is_alike = |record: &&Record| {
            let base = record.base.as_ref();
            base.is_some_and(|base| base.digest == *digest)
        };
        Ok(self.agreed.values().filter(is_alike).cloned().collect())
    }

    fn is_none(&self) -> Result<bool, Infallible> {
        Ok(self.agreed.is_empty())
    }
}

impl Memory {
    fn load(&mut self) -> WorkSet {
        let mut set = WorkSet::default();
        for (id, record) in &self.pending {
            set.add(Work {
                record: record.clone(),
                stored: Stored::Pending(*id),
                ..Work::default()
            });
        }
        for asked in std::mem::take(&mut self.asked) {
            let Ok(()) = set.add_asked(self, asked);
        }
        set
    }

    fn store(&mut self, set: &mut WorkSet, index: usize) {
        let (stored, record) = set.settle(index);
        match stored {
            Stored::Agreed(place) => drop(self.agreed.remove(place)),
            Stored::Pending(id) => drop(self.pending.remove(id)),
            Stored::Nowhere => {}
        }
        let kept = match stored {
            Stored::Pending(id) => Some(*id),
            _ => None,
        };
        let record = record.clone();
        let stored = self.put(record, kept);
        set.stored(index, stored);
    }

    fn ask(&mut self, side: Side, step: &Step, set: &WorkSet) {
        let work = &set.all[step.index];
        self.asked.push(Asked {
            side,
            stored: work.stored.clone(),
            record: work.record.clone(),
            target: step.target.clone(),
        });
    }

    fn put(&mut self, record: Record, kept: Option<i64>) -> Stored {
        let seen = record.local.as_ref().filter(|_| record.is_agreed());
        if let Some(place) = seen.map(|seen| seen.place.clone()) {
            self.agreed.insert(place.clone(), record);
            return Stored::Agreed(place);
        }
        if record.is_empty() {
            return Stored::Nowhere;
        }
        self.last += i64::from(kept.is_none());
        let id = kept.unwrap_or(self.last);
        self.pending.insert(id, record);
        Stored::Pending(id)
    }
}

/// Both sides and what they agreed on.
struct World {
    memory: Memory,
    folders: Folders,
    sides: [Replica; 2],
    order: [Side; 2],
}

impl World {
    fn new(base: &[Letter], seed: u64) -> World {
        let mut folders = Folders::default();
        for side in Side::BOTH {
            let dir = |dir: &str| FolderDir::new(dir.as_bytes()).expect("a directory");
            let dirs = (1..).zip(["", ".A", ".B"]);
            let reported: Vec<_> = dirs
                .map(|(id, text)| (id + FOLDER_NUMBERS[side as usize], dir(text)))
                .map(|(id, dir)| FolderChange {
                    seq: 1,
                    id,
                    dir,
                    gone: false,
                    keywords: None,
                })
                .collect();
            folders.fold(side, &reported);
        }
        folders.agree();
        let order = [Side::BOTH, [Side::Remote, Side::Local]][usize::from(seed % 2 == 1)];
        let mut world = World {
            memory: Memory::default(),
            folders,
            sides: Default::default(),
            order,
        };
        base.iter().for_each(|letter| world.agree_on(letter));
        world
    }

    fn agree_on(&mut self, letter: &Letter) {
        let (place, mail) = (letter.place(), letter.mail());
        if self.sides[0].rows.contains_key(&place) {
            return;
        }
        self.sides
            .iter_mut()
            .for_each(|side| side.put(place.clone(), mail, None));
        let [local, remote] = [0, 1].map(|at: usize| mail.seen(&place, self.sides[at].number));
        let base = Some(Base::common(&local, &remote, &Letters::default()));
        let record = Record {
            base,
            local: Some(local),
            remote: Some(remote),
            copy: None,
        };
        self.memory.put(record, None);
    }

    fn edit(&mut self, edits: &[Edits; 2]) -> Reports {
        let reported =
            Side::BOTH.map(|side| self.sides[side as usize].edit(side, &edits[side as usize]));
        reported.concat()
    }

    fn trees(&self) -> [Tree; 2] {
        [self.sides[0].tree(), self.sides[1].tree()]
    }

    /// One run, as the session and the executor do it; returns how many steps it took.
    fn run(&mut self, direction: Direction, reported: &Reports) -> Result<usize, TestCaseError> {
        self.run_within(
            Limits {
                direction,
                rights: Rights::All,
                no_delete: false,
                is_unguarded: false,
                is_first: false,
                body_max: None,
            },
            reported,
        )
    }

    fn run_within(&mut self, limits: Limits, reported: &Reports) -> Result<usize, TestCaseError> {
        self.run_until(limits, reported, WHOLE)
    }

    fn run_until(
        &mut self,
        limits: Limits,
        reported: &Reports,
        cuts: [Cut; 2],
    ) -> Result<usize, TestCaseError> {
        let mut set = self.memory.load();
        let plan = self
            .merge(&mut set, reported, limits)
            .expect("it is in memory");
        let steps = plan.steps.iter().flatten();
        let sent = steps.filter(|step| matches!(&step.op, Op::Create { body, .. } | Op::Update { body: Some(body), .. } if matches!(body.source, Source::Body { .. })));
        prop_assert!(limits.body_max.is_none() || sent.count() == 0);
        let folder_ops = plan.before.iter().chain(&plan.after).flatten().count();
        prop_assert_eq!(folder_ops, 0);
        for side in self.order {
            let steps = &plan.steps[side as usize];
            for step in steps.iter().take(cuts[side as usize].stored) {
                self.carry_out(side, step, &mut set)
                    .map_err(|error| match error {
                        TestCaseError::Reject(_) => error,
                        _ => TestCaseError::fail(format!("{error}\nin {side:?} {:#?}", plan.steps)),
                    })?;
            }
        }
        store(&mut self.memory, &mut set, false);
        for side in self.order {
            let Cut {
                stored,
                asked,
                done,
            } = cuts[side as usize];
            for (at, step) in plan.steps[side as usize]
                .iter()
                .skip(stored)
                .take(asked)
                .enumerate()
            {
                self.memory.ask(side, step, &set);
                if at < done {
                    self.apply(side, step)?;
                }
            }
        }
        Ok(plan.steps.iter().flatten().count())
    }

    /// A run of the archive at hand, with what it does not know yet; returns how many steps it took.
    fn catch_up(&mut self, cuts: [Cut; 2]) -> Result<usize, TestCaseError> {
        let reported = Side::BOTH
            .map(|side| self.sides[side as usize].since(side, self.memory.known_to[side as usize]));
        let is_first = self.memory.is_none() == Ok(true) && self.memory.pending.is_empty();
        if is_first && cuts != WHOLE {
            return Ok(0); // It is reported all of it once more.
        }
        self.memory.known_to = [0, 1].map(|side: usize| self.sides[side].number);
        let steps = self.run_until(
            Limits {
                direction: Direction::Sync,
                rights: Rights::All,
                no_delete: false,
                is_unguarded: false,
                is_first: false,
                body_max: None,
            },
            &reported.concat(),
            cuts,
        )?;
        if cuts == WHOLE {
            self.memory.known_to = [0, 1].map(|side: usize| self.sides[side].number);
        }
        Ok(steps)
    }

    /// The product's own merge. Nothing is asked of a side in between: no folder is included again, no message is a copy or
    /// cut short.
    fn merge(
        &mut self,
        set: &mut WorkSet,
        reported: &Reports,
        limits: Limits,
    ) -> Result<Plan, Infallible> {
        let (memory, folders) = (&mut self.memory, &mut self.folders);
        let is_first = memory.agreed.is_empty() && memory.pending.is_empty();
        for (side, change) in reported {
            let folder = folders.find(*side, change.folder);
            let folder = folder.expect("all folders are known");
            set.fold(memory, *side, folder, change)?;
        }
        let filter = Filter::default();
        let mut merge = Merge {
            set,
            folders,
            agreed: memory,
            filter: &filter,
            is_first,
            is_retold: is_first,
        };
        let settled = settle(&mut merge)?;
        let paired = pair(&mut merge, settled);
        let no_answers = [Answers::default(), Answers::default()];
        let joined = join(&mut merge, paired, no_answers)?;
        store(memory, set, is_first);
        let mut planner = plan(set, folders, &filter, joined, limits);
        planner.lay_out(memory, &HashSet::new())
    }

    /// Carries out a step, and stores its outcome.
    fn carry_out(&mut self, side: Side, step: &Step, set: &mut WorkSet) -> Checked {
        self.find_bytes(side, step, set)?;
        let made = self.apply(side, step)?;
        set.unlink(step.index, side);
        if let Some(seen) = made {
            set.link(step.index, side, seen);
        }
        self.memory.store(set, step.index);
        Ok(())
    }

    /// Applies a step to a side, insisting on what it expects; returns what is there then.
    fn apply(&mut self, side: Side, step: &Step) -> Result<Option<Seen>, TestCaseError> {
        let (from, to, body) = match &step.op {
            Op::Create {
                at,
                in_new,
                info,
                body,
            } => (None, Some((at, *in_new, info.flags())), Some(body)),
            Op::Update {
                at,
                expect,
                to,
                in_new,
                flags,
                body,
                ..
            } => (
                Some((at, expect)),
                Some((to, *in_new, *flags)),
                body.as_ref(),
            ),
            Op::Retire { at, expect, .. } => (Some((at, expect)), None, None),
            _ => return Err(TestCaseError::fail("a folder operation among the steps")),
        };
        let mut old = None;
        if let Some((at, expect)) = from {
            let place = self.place(side, at);
            let Some(row) = self.sides[side as usize].take(&place) else {
                return Err(TestCaseError::fail(format!("nothing at {place:?}")));
            };
            let expected = (expect.in_new, expect.flags, expect.digest);
            prop_assert_eq!((row.mail.in_new, row.mail.flags, row.mail.digest), expected);
            old = Some((place, row));
        }
        let mut made = None;
        if let Some((at, in_new, flags)) = to {
            let place = self.place(side, at);
            let replica = &mut self.sides[side as usize];
            // A fresh name may be that of an agreed message: then the next run finds another one.
            prop_assume!(!self.memory.agreed.contains_key(&place));
            prop_assert!(!replica.rows.contains_key(&place), "{:?} is taken", place);
            let digest = body
                .map(|body| body.digest)
                .or(old.as_ref().map(|(_, row)| row.mail.digest));
            let mail = Mail {
                in_new,
                flags,
                digest: digest.expect("a created message has a body"),
            };
            let born = old
                .filter(|(from, _)| *from == place)
                .map(|(_, row)| row.born);
            replica.put(place.clone(), mail, born);
            let seen = mail.seen(&place, replica.number);
            prop_assert_eq!(step.target.as_ref(), Some(&seen.state()));
            made = Some(seen);
        }
        Ok(made)
    }

    /// The bytes must be where the step takes them from.
    fn find_bytes(&self, side: Side, step: &Step, set: &WorkSet) -> Checked {
        let Some(body) = step.op.new_body() else {
            return Ok(());
        };
        let (side, place) = match &body.source {
            Source::Remade(_) => return Err(TestCaseError::fail("nothing here is a copy")),
            Source::Copy(at) => (side, Some(self.place(side, at))),
            Source::Body { .. } => {
                let source = set.all[step.index].record.seen(side.other());
                (side.other(), source.map(|seen| seen.place.clone()))
            }
        };
        let row = place.and_then(|place| self.sides[side as usize].rows.get(&place));
        prop_assert_eq!(
            row.map(|row| row.mail.digest),
            Some(body.digest),
            "no such bytes"
        );
        Ok(())
    }

    fn place(&self, side: Side, at: &At) -> Place {
        let mut folders = self.folders.iter();
        let found =
            folders.find(|(_, folder)| folder.on(side).is_some_and(|held| held.dir == at.folder));
        let (folder, _) = found.expect("all folders are known");
        Place {
            folder,
            unique: at.unique.clone(),
            copy: at.copy,
        }
    }
}

fn store(memory: &mut Memory, set: &mut WorkSet, is_first: bool) {
    for index in 0..set.all.len() {
        let record = &set.all[index].record;
        let waits = is_first && record.base.is_none() && record.is_single();
        if set.all[index].is_dirty && !waits {
            memory.store(set, index);
        }
    }
}

fn letter(names: u8, bodies: u8) -> impl Strategy<Value = Letter> {
    let parts = (1u32..=3, 0..names, 0..bodies, 0u8..8, any::<bool>());
    parts.prop_map(|(folder, name, body, flags, in_new)| Letter {
        folder,
        name,
        body,
        flags,
        in_new,
    })
}

fn touch() -> impl Strategy<Value = Touch> {
    prop_oneof![
        3 => Just(Touch::Keep),
        1 => (0u8..8).prop_map(Touch::Flags),
        1 => Just(Touch::Flip),
        2 => (1u32..=3).prop_map(Touch::Move),
        2 => (0u8..5).prop_map(Touch::Rename),
        2 => (0u8..6).prop_map(Touch::Edit),
        1 => (0u8..6, 1u32..=3).prop_map(|(body, folder)| Touch::EditMove(body, folder)),
        2 => Just(Touch::Delete),
        1 => Just(Touch::Return),
    ]
}

fn edits() -> impl Strategy<Value = Edits> {
    let ring = prop_oneof![2 => Just(Vec::new()), 1 => vec(0usize..8, 2..5)];
    (
        vec(touch(), 6),
        ring,
        vec(letter(5, 6), 0..3),
        any::<bool>(),
    )
        .prop_map(|(touches, ring, new, is_rescanned)| Edits {
            touches,
            ring,
            new,
            is_rescanned,
        })
}

/// Names and bytes from small pools: equal bytes, taken names and every conflict.
fn wild() -> impl Strategy<Value = Case> {
    (
        vec(letter(4, 4), 0..6),
        [edits(), edits()],
        vec(letter(5, 6), 0..2),
        any::<u64>(),
    )
        .prop_map(|(base, mut edits, both, seed)| {
            edits.iter_mut().for_each(|edits| edits.new.extend(&both));
            Case { base, edits, seed }
        })
}

/// Every message has its own bytes and name, and the server has no tie to break.
fn calm() -> impl Strategy<Value = Case> {
    wild().prop_map(|mut case| {
        (0..)
            .zip(&mut case.base)
            .for_each(|(at, letter)| (letter.name, letter.body) = (at, at));
        case.base.sort_by_key(Letter::place); // Touches go by the order of places.
        for (side, edits) in (0..).zip(&mut case.edits) {
            edits.ring.clear();
            let new = (100 + 50 * side..).zip(&mut edits.new);
            new.for_each(|(at, letter)| (letter.name, letter.body) = (at, at));
            let letters = case.base.iter().zip(&mut edits.touches);
            letters.for_each(|(letter, touch)| *touch = tame(*touch, letter, 20 + 20 * side));
        }
        let [local, remote] = &mut case.edits;
        for (here, there) in local.touches.iter().zip(&mut remote.touches) {
            if is_tie(*here, *there) {
                *there = Touch::Keep;
            }
        }
        case
    })
}

/// The same kind of touch, but to a name, a folder or bytes that nobody has.
fn tame(touch: Touch, letter: &Letter, own: u8) -> Touch {
    let (fresh, elsewhere) = (own + letter.name, letter.folder % 3 + 1);
    match touch {
        Touch::Move(_) => Touch::Move(elsewhere),
        Touch::Rename(_) => Touch::Rename(fresh),
        Touch::Edit(_) => Touch::Edit(fresh),
        Touch::EditMove(..) => Touch::EditMove(fresh, elsewhere),
        other => other,
    }
}

fn rights() -> impl Strategy<Value = Rights> {
    prop_oneof![
        Just(Rights::ReadOnly),
        Just(Rights::AppendOnly),
        Just(Rights::NoDelete),
        Just(Rights::All)
    ]
}

/// How far a run comes on one side before it is killed: how many steps are stored, how many more were asked for, and how many
/// of those done.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Cut {
    stored: usize,
    asked: usize,
    done: usize,
}

/// It is not killed.
const WHOLE: [Cut; 2] = [Cut {
    stored: usize::MAX,
    asked: 0,
    done: 0,
}; 2];

fn cut() -> impl Strategy<Value = Cut> {
    (0usize..4, 0usize..4, 0usize..4).prop_map(|(stored, asked, done)| Cut {
        stored,
        asked,
        done,
    })
}

/// What users do to a pair, and a run of either of two archives.
fn acts() -> impl Strategy<Value = Vec<([Edits; 2], usize, [Cut; 2])>> {
    let cuts = prop_oneof![1 => Just(WHOLE), 2 => [cut(), cut()]];
    vec(([edits(), edits()], 0usize..2, cuts), 0..4)
}

fn is_tie(here: Touch, there: Touch) -> bool {
    let is_move = |touch| matches!(touch, Touch::Move(_) | Touch::Rename(_));
    let is_edit = |touch| matches!(touch, Touch::Edit(_));
    let takes_name = |one, other: Touch| {
        matches!(one, Touch::EditMove(..))
            && (other.is_strong() || matches!(other, Touch::EditMove(..)))
    };
    (is_move(here) && is_move(there))
        || (is_edit(here) && is_edit(there))
        || takes_name(here, there)
        || takes_name(there, here)
}

/// What the two users of a calm case leave of one message.
fn left_of(body: u8, here: Touch, there: Touch) -> Vec<u8> {
    let edit = |touch| match touch {
        Touch::Edit(new) => Some(new),
        _ => None,
    };
    let is_gone = |touch| matches!(touch, Touch::Delete | Touch::EditMove(..));
    let edited = edit(here).or(edit(there)).unwrap_or(body);
    let stays = match (is_gone(here), is_gone(there)) {
        (true, true) => false,
        (true, false) => there.is_strong(),
        (false, true) => here.is_strong(),
        (false, false) => true,
    };
    let moved = [here, there].into_iter().filter_map(|touch| match touch {
        Touch::EditMove(new, _) => Some(new),
        _ => None,
    });
    moved.chain(stays.then_some(edited)).collect()
}

fn counts<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    all.into_iter()
        .for_each(|one| *counts.entry(one).or_default() += 1);
    counts
}

fn digests(tree: &Tree) -> BTreeMap<Digest, usize> {
    counts(tree.values().map(|mail| mail.digest))
}

/// Runs a case in these directions, with the changes in this order; both sides must be equal then.
fn outcome(
    case: &Case,
    directions: &[Direction],
    arrange: impl Fn(&mut Reports),
) -> Result<Tree, TestCaseError> {
    let mut world = World::new(&case.base, case.seed);
    let mut reported = world.edit(&case.edits);
    arrange(&mut reported);
    for direction in directions {
        world.run(*direction, &std::mem::take(&mut reported))?;
    }
    check_settled(&mut world)
}

/// Both sides are alike, nothing is pending, and neither the next run nor one without memory finds anything to do.
fn check_settled(world: &mut World) -> Result<Tree, TestCaseError> {
    let [here, there] = world.trees();
    prop_assert_eq!(&here, &there);
    prop_assert_eq!(&world.memory.pending, &BTreeMap::new());
    let agreed = world.memory.agreed.len();
    prop_assert_eq!(agreed, here.len(), "a message is not remembered");
    prop_assert_eq!(world.run(Direction::Sync, &Reports::new())?, 0);
    let mut stranger = World::new(&[], 0);
    let reported =
        Side::BOTH.map(|side| stranger.sides[side as usize].report(side, &here, &BTreeSet::new()));
    prop_assert_eq!(stranger.run(Direction::Sync, &reported.concat())?, 0);
    Ok(here)
}

fn sync(case: &Case) -> Result<Tree, TestCaseError> {
    outcome(case, &[Direction::Sync], |_| {})
}

/// Fisher and Yates with a small generator: the seed is in the case, so that it shrinks and prints.
fn shuffle(reported: &mut Reports, mut seed: u64) {
    for at in (1..reported.len()).rev() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        reported.swap(at, (seed >> 33) as usize % (at + 1));
    }
}

/// Of equal bytes may only go what a side took away; what came on a side stays.
fn check_kept(base: &Tree, sides: &[Tree; 2], after: &Tree) -> Checked {
    let [base, here, there, after] = [base, &sides[0], &sides[1], after].map(digests);
    let all: BTreeSet<Digest> = base
        .keys()
        .chain(here.keys())
        .chain(there.keys())
        .copied()
        .collect();
    for digest in all {
        let [base, here, there, after] =
            [&base, &here, &there, &after].map(|counts| counts.get(&digest).copied().unwrap_or(0));
        let came = here.saturating_sub(base).max(there.saturating_sub(base));
        let gone = base.saturating_sub(here) + base.saturating_sub(there);
        let least = (base + came).saturating_sub(gone);
        prop_assert!(
            after >= least,
            "{:?}: {} of {}, here {}, there {}, before {}",
            digest,
            after,
            least,
            here,
            there,
            base
        );
        prop_assert!(after <= base.max(here + there), "{:?} multiplied", digest);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_run_converges_and_loses_no_bytes(case in wild()) {
        let mut world = World::new(&case.base, case.seed);
        let base = world.sides[0].tree();
        let reported = world.edit(&case.edits);
        let sides = world.trees();
        world.run(Direction::Sync, &reported)?;
        check_kept(&base, &sides, &check_settled(&mut world)?)?;
    }

    #[test]
    fn exactly_what_users_left_is_left(case in calm()) {
        let touches = case.edits[0].touches.iter().zip(&case.edits[1].touches);
        let old = case.base.iter().zip(touches).flat_map(|(letter, (here, there))| left_of(letter.body, *here, *there));
        let new = case.edits.iter().flat_map(|edits| &edits.new).map(|letter| letter.body);
        prop_assert_eq!(digests(&sync(&case)?), counts(old.chain(new).map(digest)));
    }

    #[test]
    fn mirrored_users_get_the_mirrored_result(case in calm()) {
        prop_assert_eq!(sync(&case)?, sync(&case.mirrored())?);
    }

    #[test]
    fn mirrored_users_keep_the_same_messages_whoever_breaks_the_tie(case in wild()) {
        let [one, other] = [sync(&case)?, sync(&case.mirrored())?];
        prop_assert_eq!(counts(one.values()), counts(other.values()));
    }

    #[test]
    fn the_order_in_which_changes_are_told_does_not_matter(case in wild()) {
        let shuffled = outcome(&case, &[Direction::Sync], |reported| shuffle(reported, case.seed))?;
        prop_assert_eq!(sync(&case)?, shuffled);
    }

    #[test]
    fn pull_and_push_in_any_order_end_where_sync_does(case in wild()) {
        let expected = sync(&case)?;
        let halves = [Direction::Pull, Direction::Push];
        prop_assert_eq!(&expected, &outcome(&case, &halves, |_| {})?);
        prop_assert_eq!(&expected, &outcome(&case, &[halves[1], halves[0]], |_| {})?);
    }

    #[test]
    fn users_who_go_on_after_half_a_run_are_merged(case in wild(), later in [edits(), edits()], pulls in any::<bool>()) {
        let mut world = World::new(&case.base, case.seed);
        let reported = world.edit(&case.edits);
        world.run(if pulls { Direction::Pull } else { Direction::Push }, &reported)?;
        let reported = world.edit(&later);
        world.run(Direction::Sync, &reported)?;
        check_settled(&mut world)?;
    }

    #[test]
    fn what_was_not_allowed_is_made_up_for(case in wild(), rights in rights(), no_delete in any::<bool>(), is_narrow in any::<bool>()) {
        let mut world = World::new(&case.base, case.seed);
        let base = world.sides[0].tree();
        let reported = world.edit(&case.edits);
        let sides = world.trees();
        let body_max = is_narrow.then_some(0);
        world.run_within(Limits { direction: Direction::Sync, rights, no_delete, is_unguarded: false, is_first: false, body_max }, &reported)?;
        world.run(Direction::Sync, &Reports::new())?;
        check_kept(&base, &sides, &check_settled(&mut world)?)?;
    }

    #[test]
    fn rings_of_names_turn(mut case in calm(), ring in vec(0usize..6, 2..6), side in 0usize..2) {
        for edits in &mut case.edits {
            edits.new.clear();
            edits.touches.iter_mut().filter(|touch| !matches!(touch, Touch::Flags(_) | Touch::Flip)).for_each(|touch| *touch = Touch::Keep);
        }
        case.edits[side].ring = ring;
        let mut world = World::new(&case.base, case.seed);
        world.edit(&case.edits);
        let turned = world.sides[side].tree().into_iter().map(|(place, mail)| (place, mail.digest)).collect::<Vec<_>>();
        let after = sync(&case)?.into_iter().map(|(place, mail)| (place, mail.digest)).collect::<Vec<_>>();
        prop_assert_eq!(turned, after);
    }

    #[test]
    fn a_second_archive_finds_done_what_the_first_one_did(base in vec(letter(3, 2), 0..5), acts in acts(), seed in any::<u64>()) {
        let mut world = World::new(&base, seed);
        world.memory.known_to = [0, 1].map(|side: usize| world.sides[side].number);
        let mut memories = [world.memory.clone(), world.memory.clone()];
        for (edits, archive, cuts) in acts {
            world.edit(&edits);
            std::mem::swap(&mut world.memory, &mut memories[archive]);
            world.catch_up(cuts)?;
            std::mem::swap(&mut world.memory, &mut memories[archive]);
        }
        let [first, second] = memories;
        world.memory = first;
        world.catch_up(WHOLE)?;
        check_settled(&mut world)?;
        world.memory = second;
        prop_assert_eq!(world.catch_up(WHOLE)?, 0);
        check_settled(&mut world)?;
    }
}

#[test]
fn no_two_messages_get_one_fresh_name() -> Checked {
    let place = |unique: Unique| Place {
        folder: Fid(1),
        unique,
        copy: 0,
    };
    let taken = [unique(0), unique(0).fresh(&digest(4), 3)].map(place);
    let tree = |bodies: [u8; 2]| -> Tree {
        let mails = bodies.map(|body| Mail {
            in_new: false,
            flags: flags(0),
            digest: digest(body),
        });
        taken.iter().cloned().zip(mails).collect()
    };
    let mut world = World::new(&[], 0);
    let mut reported = world.sides[0].report(Side::Local, &tree([4, 4]), &BTreeSet::new());
    reported.extend(world.sides[1].report(Side::Remote, &tree([0, 1]), &BTreeSet::new()));
    world.run(Direction::Sync, &reported)?;
    prop_assert_eq!(check_settled(&mut world)?.len(), 4);
    Ok(())
}

//! Carrying out a batch of operations, each with what it expects to find.
//!
//! # The order (I1, I4, I5)
//! *What holds*: a kill at any point leaves every message in full under its old name, its new one, or in the trash.
//! 1. New bodies are written into `tmp`, checked against their digests, and made durable.
//! 2. What is about to happen is recorded in the index (`pending`), durably: so the next run knows where to look for what a
//!    kill left half done.
//! 3. The operations are carried out, one after the other; no rename overwrites a file.
//! 4. The directories are made durable, then the rows are committed, what counts for the guard is counted, and `pending`
//!    is emptied, in the same transaction.
//!
//! *How the next run restores it*: [`crate::recover`].
//!
//! Each step is a file here, and hands on what the next one needs: [`mod@prepare`], [`mod@begin`], then [`message`] and [`folder`].

use std::collections::BTreeSet;
use std::io;

use protocol::{Op, Outcome};

use crate::error::Result;
use crate::index::Index;
use crate::time::now_secs;
use crate::written::Written;

pub(crate) mod across;
mod begin;
mod expect;
pub(crate) mod folder;
mod lookup;
mod message;
mod naming;
mod op;
pub(crate) mod pending;
mod prepare;
pub(crate) mod site;
mod step;

use begin::{Begun, InTrash, begin};
use expect::expected;
use folder::{make_folder, remove_folder, rename_folder};
use lookup::Lookup;
use message::{create, put_moved, rename, replace, retire};
use naming::{Target, entry_of};
use op::counted;
use prepare::{Ready, prepare};
use site::Site;
use step::{Step, Stop, failed};

/// Carries out a batch; `bodies` has one body, or why it could not be had, for each operation whose source is
/// [`protocol::message::Source::Body`], in order. `made` are the folders that were made in this run.
pub(crate) fn apply(
    index: &Index,
    made: &mut BTreeSet<u32>,
    site: &mut Site,
    ops: &[Op],
    bodies: Vec<io::Result<Written>>,
) -> Result<Vec<Outcome>> {
    let mut lookup = Lookup::of(index, made, site.root(), ops)?;
    let ready = prepare(&lookup, site, ops, bodies);
    let batch = begin(&lookup, site, ops, ready)?;
    index.begin()?;
    let mut outcomes = Vec::with_capacity(ops.len());
    for begun in &batch {
        outcomes.push(match carry_out(&mut lookup, site, begun) {
            Ok(outcome) | Err(Stop::Outcome(outcome)) => outcome,
            Err(Stop::Fatal(error)) => return Err(error),
        });
    }
    site.root().clear_asides();
    site.flush()?;
    commit(index, ops, &outcomes)?;
    for (begun, outcome) in batch.iter().zip(&outcomes) {
        begun.ready.forget(site.root(), outcome);
    }
    Ok(outcomes)
}

/// Carries out one operation.
fn carry_out(lookup: &mut Lookup, site: &mut Site, begun: &Begun) -> Step<Outcome> {
    if let Ready::No(outcome) = &begun.ready {
        return Ok(outcome.clone());
    }
    if let InTrash::Closed { why } = &begun.in_trash {
        return failed(why.clone());
    }
    let name = begun.in_trash.name();
    let seq = match begun.op {
        Op::MakeFolder { dir } => {
            let folder = make_folder(lookup, &site.held, dir)?;
            return Ok(Outcome::Made { folder });
        }
        Op::RenameFolder { number, from, to } => rename_folder(lookup, site, *number, from, to)?,
        Op::RemoveFolder { number, dir } => remove_folder(lookup, site, *number, dir, name)?,
        Op::Create {
            at,
            in_new,
            info,
            body,
        } => {
            let file = begun.ready.file()?;
            let entry = entry_of(*in_new, info.clone(), body, &file.stamp);
            create(lookup, site, at, body, entry, file)?
        }
        Op::Update {
            at,
            expect,
            to,
            in_new,
            flags,
            body,
            consent: _,
        } => {
            let message = expected(lookup, &site.held, at, expect)?;
            let target = Target::new(to, *in_new, *flags);
            let mut moved = rename(lookup, site, message, &target)?;
            if let Some(body) = body {
                replace(site, &mut moved, body, begun.ready.file(), name)?;
            }
            put_moved(lookup, site.root(), moved)?
        }
        Op::Retire { at, expect, .. } => {
            let message = expected(lookup, &site.held, at, expect)?;
            retire(lookup, site, message, name)?
        }
    };
    Ok(Outcome::Done { seq })
}

/// Ends the batch in the index: its rows, what counts for the guard, and that nothing is under way.
fn commit(index: &Index, ops: &[Op], outcomes: &[Outcome]) -> Result<()> {
    index.clear_pending()?;
    index.count_deleted(now_secs(), counted(ops, outcomes))?;
    index.commit()
}

#[cfg(test)]
mod tests;

//! The merge: from what both sides told to what has to be done.
//!
//! In this order, which [`crate::run::session`] plays and nobody else:
//!
//! 1. Take in ([`fold`]): each side's changes come into the records that the archive has of them ([`record`]). What no record
//!    claims is loose.
//! 2. Pair ([`pair`], [`copies`]): a loose message is one that a side moved, one that the other side has, too, or new.
//! 3. Reconcile ([`reconcile`]): base, here and there become what each message shall be. Deletion is decided there and nowhere
//!    else.
//! 4. Plan ([`plan`]): what has to be done on each side, in an order that works.
//! 5. Guard ([`guard`]): what is too much to delete unasked.
//!
//! Folders go along: which they are ([`folders`]), what they are called ([`naming`]), and which directory here stands for which
//! there ([`mapping`], `utf7`). [`letters`] says what Dovecot's keywords mean in each.
//!
//! It must never know disks, connections or clocks. What it needs of the archive is handed to it.

pub mod copies;
pub mod fold;
pub mod folders;
pub mod guard;
pub mod letters;
pub mod mapping;
pub mod naming;
pub mod pair;
pub mod plan;
pub mod reconcile;
pub mod record;
mod utf7;

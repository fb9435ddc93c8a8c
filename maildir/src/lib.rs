//! One Maildir replica on disk: what is in it, what changed, and how it is changed without losing anything.
//!
//! Only here do `cur`, `new` and `tmp` appear. It must never know of peers, connections or merging. Start reading at
//! [`Replica`]; then [`scan`] for how changes are found, [`apply`] for how they are made, [`index`] and [`marker`] for
//! what is remembered. `docs/state.md` says why.
#![expect(
    rustdoc::private_intra_doc_links,
    reason = "the reading order leads into the rooms"
)]

mod apply;
mod aside;
mod batch_age;
mod body;
mod clock;
mod discover;
mod disk;
pub mod durable;
mod error;
mod folder_scan;
mod granularity;
mod hash;
mod held;
mod inbox;
mod index;
mod journal;
mod keywords;
mod listing;
mod lock;
mod marker;
mod pairing;
mod partial;
mod path;
mod places;
pub mod private;
mod random;
mod receiver;
mod record;
mod recover;
mod relaxed;
mod rename;
mod replica;
mod root;
mod scan;
mod scanner;
mod sender;
mod shared;
mod sorted;
mod stamp;
mod stream;
mod time;
mod timed;
mod touched;
mod trash;
mod unseen;
pub mod watch;
mod written;

pub use batch_age::BatchAge;
pub use body::{Bodies, CHUNK_BYTES, Located, SMALL_BYTES_MAX};
pub use discover::check_dir;
pub use error::{Error, Result, is_busy, remedy};
pub use index::has_hot_journal;
pub use lock::Lock;
pub use marker::MARKER_NAME;
pub use random::random;
pub use receiver::{BATCHES_AHEAD, Received, Receiver};
pub use replica::{Options, Replica};
pub use scan::Scan;
pub use sender::{
    Outlet, Report, list_folders, locate, report, report_fingerprints, report_prefixes, send_body,
};
pub use shared::Shared;
pub use stream::{FolderStream, Streamed};
pub use timed::{Heard, Pulse, Timed};
pub use trash::{LOG_NAME, Trashed};

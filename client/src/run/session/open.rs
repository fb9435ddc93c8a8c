//! The local side as an account means it, and what the hello says of it.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use maildir::{Lock, Options, Replica, Scan};
use protocol::Cursor;
use protocol::message::{Hello, PathBytes, ROUNDS, STREAM, Welcome};

use crate::archive::Archive;
use crate::config::Account;
use crate::config::address::Address;
use crate::endpoint::Bell;
use crate::endpoint::link::{Link, LinkError};
use crate::endpoint::local::Local;
use crate::endpoint::stop::Stop;
use crate::endpoint::transport::ConnectOptions;
use crate::merge::plan::Direction;
use crate::merge::record::Side;
use crate::report::progress::Progress;
use crate::run::attempt;
use crate::run::failure::Failure;
use crate::run::kept::{Kept, Resting};
use crate::run::known::{self, Pair};
use crate::run::stream::Progressed;

/// How long a connection that is being made is given to let go of the terminal.
const LETTING_GO: Duration = Duration::from_secs(1);
/// For how long the network of a machine that has slept is waited for, and how often it is tried meanwhile.
const WAKING_UP: Duration = Duration::from_secs(20);
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What may be asked of the agent.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    /// Further rounds on the same connection.
    rounds: bool,
    /// All bodies, with the first list.
    bodies: bool,
}

/// What an account's two places are expected to be, before the server has answered.
pub(super) struct Expected<'a> {
    account: &'a Account,
    hint: Option<Pair>,
    archive: Option<Archive>,
    continues_here: bool,
    changes_here: bool,
    wants: Wants,
    pub(super) local: Local,
    pub(super) placeholder: Option<PlaceholderRoot>,
    pub(super) lock: Option<Lock>,
}

type Opened = Result<(Link, Welcome), LinkError>;

/// What is called before a run begins, while nothing is locked. With an error it does not.
pub(super) type Before<'b> = &'b mut dyn FnMut() -> Result<(), Failure>;

/// Both sides, once they are reached.
pub(super) type Reached<'a> = (Expected<'a>, (Link, Welcome, Scan));

/// How it stands with a round that waits.
enum Look {
    /// It is due.
    Due(Scan),
    /// Neither side has anything new.
    Nothing,
    /// It was asked with what does not hold any more: another run was here meanwhile.
    Elsewhere,
}

/// Reaches both sides: by a connection that was kept, where there is one. Nothing where a round is not due.
pub(super) fn reach<'a>(
    account: &'a Account,
    direction: Direction,
    options: &ConnectOptions,
    progress: &Progress,
    kept: &mut Option<&mut Kept>,
    before: Before,
) -> Result<Option<Reached<'a>>, Failure> {
    let bell = kept
        .as_ref()
        .map_or_else(Bell::default, |kept| kept.bell.clone());
    let wants = Wants {
        rounds: kept.is_some(),
        // Who streams has no say in what comes.
        bodies: kept.as_ref().is_none_or(|kept| kept.body_max.is_none()),
    };
    let find = || Expected::find(account, direction, &bell, wants, &options.stop);
    let mut is_asked = false;
    if let Some(kept) = kept {
        while let Some(resting) = &kept.resting {
            let expected = find()?;
            match expected.look(resting, kept, &options.stop)? {
                Look::Nothing => return Ok(None),
                Look::Elsewhere => kept.resting = None,
                // It must not be locked while a hook runs, and may have changed by then.
                Look::Due(_) if account.hooks.pre.is_some() && !is_asked => {
                    drop(expected);
                    before()?;
                    is_asked = true;
                }
                Look::Due(scan) => {
                    kept.held = scan.held;
                    let Some(resting) = kept.resting.take() else {
                        break;
                    };
                    let (link, welcome) = resting.begin(kept.whole)?;
                    return Ok(Some((expected, (link, welcome, scan))));
                }
            }
        }
    }
    if !is_asked {
        before()?;
    }
    let mut expected = find()?;
    let met = expected.meet(options, progress)?;
    Ok(Some((expected, met)))
}

/// What happens while both sides are opened.
enum Met {
    Opened(Box<Opened>),
    Scanned(maildir::Result<Scan>),
    Stopped,
}

impl<'a> Expected<'a> {
    /// Locks the account, opens the local replica, and the archive that the account had last time.
    pub(super) fn find(
        account: &'a Account,
        direction: Direction,
        bell: &Bell,
        wants: Wants,
        stop: &Stop,
    ) -> Result<Expected<'a>, Failure> {
        let lock = if account.dry_run {
            None
        } else {
            Some(known::lock(account)?)
        };
        let hint = known::find(account).filter(|_| !account.adopt);
        let (local, placeholder) = open_local(account, hint, direction)?;
        let known = hint.filter(|pair| {
            pair.local == local.id() && Archive::exists(&account.state_dir, pair.local, pair.remote)
        });
        let archive = known
            .map(|pair| Archive::open(&account.state_dir, pair.local, pair.remote, account.dry_run))
            .transpose()?;
        let cursor = match &archive {
            Some(archive) => archive.get::<Cursor>("local_cursor")?,
            None => None,
        };
        let continues_here = match cursor {
            Some(cursor) => local.continues(cursor.tag)?,
            None => true,
        };
        Ok(Expected {
            account,
            hint,
            archive,
            continues_here,
            changes_here: direction.changes(Side::Local),
            wants,
            local: Local::new(local, bell, stop),
            placeholder,
            lock,
        })
    }

    fn hello(&self) -> Result<Hello, Failure> {
        let cursor = match &self.archive {
            Some(archive) if self.continues_here => archive.get::<Cursor>("remote_cursor")?,
            Some(_) | None => None,
        };
        let streams = if self.streams()? { STREAM } else { 0 };
        let rounds = if self.wants.rounds { ROUNDS } else { 0 };
        Ok(Hello {
            features: streams | rounds,
            ..hello(self.account, self.hint, cursor)?
        })
    }

    /// Looks whether the round that waits on a connection is due: either side has anything new, or it is to be a `whole` one.
    fn look(&self, resting: &Resting, kept: &Kept, stop: &Stop) -> Result<Look, Failure> {
        if !resting.is_asked_with(&self.hello()?) {
            return Ok(Look::Elsewhere);
        }
        let scan = self.scan(kept.whole, kept.written.clone(), stop)?;
        // How much is held back is worth saying, too, though the index has nothing new.
        let is_news = scan.held != kept.held || self.has_news()?;
        let is_due = kept.whole || resting.has_begun() || is_news;
        Ok(if is_due {
            Look::Due(scan)
        } else {
            Look::Nothing
        })
    }

    /// Whether anything changed here since the last run.
    fn has_news(&self) -> Result<bool, Failure> {
        let archive = self.archive.as_ref();
        let cursor = archive.map(|archive| archive.get::<Cursor>("local_cursor"));
        Ok(match cursor.transpose()?.flatten() {
            Some(cursor) => self.local.lock().has_news(&cursor)?,
            None => true,
        })
    }

    /// Looks at the tree here. When we are asked to end, it is not waited for: it is made to be cut off.
    fn scan(
        &self,
        has_slice: bool,
        written: BTreeSet<Vec<u8>>,
        stop: &Stop,
    ) -> Result<Scan, Failure> {
        let (sender, ended) = channel();
        let (scanning, local) = (sender.clone(), self.local.shared());
        std::thread::spawn(move || {
            let scanned = local.lock().look(has_slice, &written);
            scanning.send(Some(scanned))
        });
        let _call = stop.on_request(move || drop(sender.send(None)));
        match ended.recv() {
            Ok(Some(scanned)) => Ok(scanned?),
            Ok(None) | Err(_) => Err(Failure::interrupted()),
        }
    }

    /// Whether messages are to come with their bodies: nothing is here yet, but for what such a stream has brought.
    fn streams(&self) -> Result<bool, Failure> {
        let account = self.account;
        let is_whole = !account.dry_run && !account.checksum && !account.filter.selects();
        if !self.changes_here || !is_whole || !self.wants.bodies {
            return Ok(false);
        }
        match &self.archive {
            Some(archive) => {
                Ok(self.continues_here && archive.get::<Progressed>(Progressed::KEY)?.is_some())
            }
            None => Ok(!self.local.lock().holds_messages()),
        }
    }

    /// Reaches the agent, which scans while this side does. The progress is drawn once it is reached.
    pub(super) fn meet(
        &mut self,
        options: &ConnectOptions,
        progress: &Progress,
    ) -> Result<(Link, Welcome, Scan), Failure> {
        let hello = self.hello()?;
        let (opened, scanned) = self.open_and_scan(options, &hello, progress)?;
        let (link, welcome) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.local.lock().unmake(); // A mistyped address leaves no Maildir behind.
                return Err(error.into());
            }
        };
        let mut scan = scanned?;
        let mut local = self.local.lock();
        if welcome.replica == local.id() {
            local.renew_id()?;
            scan = local.scan()?;
            self.archive = None;
        }
        Ok((link, welcome, scan))
    }

    /// Does both at once. When we are asked to end, neither is waited for: whatever they do is made to be cut off.
    fn open_and_scan(
        &self,
        options: &ConnectOptions,
        hello: &Hello,
        progress: &Progress,
    ) -> Result<(Opened, maildir::Result<Scan>), Failure> {
        progress.hold();
        let (sender, met) = channel();
        let (remote, hello) = (self.account.remote.clone(), hello.clone());
        let (opening, connecting, reached) = (sender.clone(), options.clone(), progress.clone());
        let bell = self.local.bell().clone();
        // A watch tries again by itself.
        let is_waking_up = !self.wants.rounds && attempt::has_slept_since(self.account);
        let until = is_waking_up.then(|| Instant::now() + WAKING_UP);
        std::thread::spawn(move || {
            let open = || Link::open(&remote, &connecting, &hello, &bell, || reached.release());
            let opened = open_until(until, &connecting.stop, open);
            opening.send(Met::Opened(Box::new(opened)))
        });
        let (scanning, local) = (sender.clone(), self.local.shared());
        std::thread::spawn(move || {
            let scanned = local.lock().scan();
            scanning.send(Met::Scanned(scanned))
        });
        let _call = options
            .stop
            .on_request(move || drop(sender.send(Met::Stopped)));
        let (mut opened, mut scanned) = (None, None);
        loop {
            match met.recv() {
                Ok(Met::Opened(result)) => opened = Some(*result),
                Ok(Met::Scanned(result)) => scanned = Some(result),
                Ok(Met::Stopped) | Err(_) => {
                    if opened.is_none() {
                        // An ssh that asks for a password is taken back from the terminal first.
                        let _ = met.recv_timeout(LETTING_GO);
                    }
                    return Err(Failure::interrupted());
                }
            }
            if opened.is_some()
                && let Some(scanned) = scanned.take()
                && let Some(opened) = opened.take()
            {
                return Ok((opened, scanned));
            }
        }
    }

    /// Whether another account has synced this pair, and its cursors are not asked with yet.
    pub(super) fn is_known_elsewhere(&self, pair: Pair) -> bool {
        let account = self.account;
        let is_other = self.hint != Some(pair);
        is_other
            && !account.adopt
            && !account.dry_run
            && Archive::exists(&account.state_dir, pair.local, pair.remote)
    }

    /// The archive of the pair that was met, emptied where a tree is not the one that it remembers, and what people should
    /// know of that.
    pub(super) fn archive_of(
        &mut self,
        pair: Pair,
        welcome: &Welcome,
    ) -> Result<(Archive, Vec<String>), Failure> {
        let account = self.account;
        let archive = match self.archive.take().filter(|_| self.hint == Some(pair)) {
            Some(archive) => archive,
            None => Archive::open(&account.state_dir, pair.local, pair.remote, account.dry_run)?,
        };
        let mut notes = Vec::new();
        if let Some(aside) = &archive.set_aside {
            notes.push(format!(
                "What was agreed before has an older format and is set aside as {aside:?}: both sides are joined, and nothing is deleted"
            ));
        }
        if self.hint.is_some_and(|hint| hint != pair) {
            notes.push("This is another pair of Maildirs than last time: both sides are joined, and nothing is deleted".to_owned());
        }
        let is_known = !archive.is_empty()?;
        let continues = self.continues_here && welcome.continues == Some(true);
        if account.adopt || (is_known && !continues) {
            if is_known {
                notes.push("What was agreed before is set aside: both sides are joined, and nothing is deleted".to_owned());
            }
            archive.reset()?;
        }
        Ok((archive, notes))
    }
}

/// Opens a connection, and tries again until then where the network is not there.
fn open_until(until: Option<Instant>, stop: &Stop, open: impl Fn() -> Opened) -> Opened {
    let (sender, stopped) = channel();
    let _call = stop.on_request(move || sender.send(()).unwrap_or_default());
    let mut is_said = false;
    loop {
        let opened = open();
        let is_offline =
            matches!(&opened, Err(LinkError::Connect(error)) if error.is_unreachable());
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let Some(left) = left.filter(|left| is_offline && !left.is_zero()) else {
            return opened;
        };
        if !std::mem::replace(&mut is_said, true) {
            tracing::info!(
                "This machine has slept: its network is waited for, for up to {} s",
                WAKING_UP.as_secs()
            );
        }
        if stopped.recv_timeout(TRY_AGAIN.min(left)).is_ok() {
            return opened;
        }
    }
}

/// The Maildir, here or on this machine, in which an account's state would lie.
fn tree_around_state(account: &Account) -> Option<&Path> {
    let state = &account.state_dir;
    let above_state = state
        .ancestors()
        .find_map(|path| path.canonicalize().ok())
        .unwrap_or_default();
    let trees = remote_path(account).into_iter().chain([&*account.local]);
    trees
        .into_iter()
        .find(|tree| state.starts_with(tree) || above_state.starts_with(real(tree)))
}

/// Whether nothing may be remembered of an account, since its state would lie in a Maildir.
pub(crate) fn keeps_state_inside(account: &Account) -> bool {
    tree_around_state(account).is_some()
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn remote_path(account: &Account) -> Option<&Path> {
    match &account.remote {
        Address::Local(path) => Some(path),
        Address::Ssh { .. } => None,
    }
}

/// A Maildir is not synced with itself, nor with one inside it, and nothing of ours is kept in one.
pub(super) fn refuse_overlap(account: &Account) -> Result<(), Failure> {
    if let Some(tree) = tree_around_state(account) {
        return Err(Failure::Usage(format!(
            "The state directory {:?} would lie in the Maildir {tree:?}; name a place outside of it",
            account.state_dir
        )));
    }
    let remote = remote_path(account);
    let Some(remote) = remote else { return Ok(()) };
    let (here, there) = (real(&account.local), real(remote));
    if here == there {
        return Err(Failure::Usage(format!(
            "{here:?} is both sides; name two Maildirs"
        )));
    }
    if here.starts_with(&there) || there.starts_with(&here) {
        return Err(Failure::Usage(format!(
            "{here:?} and {there:?} lie one inside the other; name two separate Maildirs"
        )));
    }
    Ok(())
}

/// An empty directory that stands for a root that is not there yet while a dry run looks at it.
pub(super) struct PlaceholderRoot {
    dir: PathBuf,
}

impl PlaceholderRoot {
    fn make() -> Result<PlaceholderRoot, Failure> {
        // /tmp belongs to all users: a name that none can guess, and a directory that no other user can enter.
        let name = protocol::bytes::hex(&maildir::random::<16>()?);
        let dir = std::env::temp_dir().join(format!("maildir-sync-{name}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|source| maildir::Error::Io {
            what: "make",
            path: dir.clone(),
            source,
        })?;
        Ok(PlaceholderRoot { dir })
    }
}

impl Drop for PlaceholderRoot {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir); // It is empty, and the system clears its own directory anyway.
    }
}

fn open_local(
    account: &Account,
    hint: Option<Pair>,
    direction: Direction,
) -> Result<(Replica, Option<PlaceholderRoot>), Failure> {
    let makes_root = direction != Direction::Push && hint.is_none();
    let placeholder = if account.dry_run && makes_root && !account.local.exists() {
        Some(PlaceholderRoot::make()?)
    } else {
        None
    };
    let root = placeholder.as_ref().map_or_else(
        || account.local.clone(),
        |placeholder| placeholder.dir.clone(),
    );
    let options = Options {
        root,
        state_dir: account.state_dir.clone(),
        trash_dir: None,
        trash_days: u64::from(account.trash_days),
        client: client_name(),
        dry_run: account.dry_run,
        checksum: account.checksum,
        expect: hint.map(|pair| pair.local),
        adopt: account.adopt,
        create: direction != Direction::Push && !account.dry_run,
        follow_links: account.follow_links,
    };
    Ok((Replica::open(options)?, placeholder))
}

/// Who we are, for the trash's log at the other end; nothing is decided by it.
fn client_name() -> String {
    let name = rustix::system::uname().nodename().to_bytes().to_vec();
    protocol::bytes::escape(&name[..name.len().min(64)])
}

pub(super) fn hello(
    account: &Account,
    hint: Option<Pair>,
    cursor: Option<Cursor>,
) -> Result<Hello, Failure> {
    use std::os::unix::ffi::OsStrExt;
    let path = match &account.remote {
        Address::Ssh { path, .. } => path.as_os_str().as_bytes(),
        Address::Local(path) => path.as_os_str().as_bytes(),
    };
    Ok(Hello {
        versions: protocol::handshake::VERSIONS,
        features: 0,
        path: PathBytes::new(path).map_err(|error| Failure::Usage(error.to_string()))?,
        client: client_name(),
        expect: hint.map(|pair| pair.remote),
        cursor,
        dry_run: account.dry_run,
        checksum: account.checksum,
        adopt: account.adopt,
        timeout: u16::try_from(account.timeout.as_secs()).unwrap_or(u16::MAX),
    })
}

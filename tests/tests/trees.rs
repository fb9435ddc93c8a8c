//! Ways of making a tree: each arrives path by path, stays equal under whatever happens in it, and where both sides are
//! laid out otherwise, is mapped one-to-one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use harness::mount::Mount;
use harness::rng::seed_or;
use harness::world::{Invocation, agent_command};
use harness::{Rng, World, body};

/// The folders of a tree by their directories; empty for the root itself.
type Dirs = &'static [&'static [u8]];

const DOVECOT: Dirs = &[
    b"",
    b".Sent",
    b".Lists.debian",
    b".Entw&APw-rfe",
    b".INBOX.Sub",
    b".[Gmail].All Mail",
];
const NESTED: Dirs = &[
    b"INBOX",
    b"INBOX/Sub",
    b"Lists/debian",
    b"Sent",
    "Entw\u{fc}rfe".as_bytes(),
];
const WITHOUT_INBOX: Dirs = &[b"Lists/debian", b"Lists", b"Sent", b"Work"];
const OTHER_LETTERS: Dirs = &[b"Inbox", b"Inbox/Sub", b"Sent"];
const MIXED: Dirs = &[
    b"",
    b".Flat",
    b".Flat/nested",
    b"Nested",
    b"Nested/.odd",
    b".cur",
];
const DOTS: Dirs = &[b"INBOX", b"dev.tools", b"a.b/c.d", b"..x", b"v1..2"];
const EMPTY_PARTS: Dirs = &[b"", b".a..b", b".trailing.", b"..double"];
const NEWLINES: Dirs = &[
    b"",
    b".line\nfeed",
    b".tab\there",
    b".escape\x1b[31m",
    b".cr\r",
];
const LATIN_1: Dirs = &[b"", b".Entw\xfcrfe", b".caf\xe9.x", b".Entw&APw-rfe"];
const TWO_ENCODINGS: Dirs = &[
    b"",
    ".Entw\u{fc}rfe".as_bytes(),
    b".Entw&APw-rfe",
    ".\u{e9}t\u{e9}".as_bytes(),
];
const BARE: Dirs = &[b"", b".A&B", b".R&D.x", b".&", b".&AOk-"];

const ALL: &[Dirs] = &[
    DOVECOT,
    NESTED,
    WITHOUT_INBOX,
    OTHER_LETTERS,
    MIXED,
    DOTS,
    EMPTY_PARTS,
    NEWLINES,
    LATIN_1,
    TWO_ENCODINGS,
    BARE,
];

fn at(root: &Path, dir: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(dir))
}

fn make(root: &Path, dir: &[u8]) {
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(at(root, dir).join(sub)).expect("a folder is made");
    }
}

fn put(root: &Path, dir: &[u8], name: &str, text: &str) {
    make(root, dir);
    fs::write(at(root, dir).join(name), body(text)).expect("a message is written");
}

/// A root with these folders and two messages in each, whose names begin with numbers from this one on.
fn fill_from(first: usize, root: &Path, dirs: Dirs) {
    let _ = fs::remove_dir_all(root);
    fs::create_dir_all(root).expect("the root is made");
    for (number, dir) in (first..).zip(dirs) {
        let text = dir.escape_ascii();
        put(
            root,
            dir,
            &format!("cur/{number}.A.mx:2,S"),
            &format!("read in {text}"),
        );
        put(
            root,
            dir,
            &format!("new/{number}.B.mx"),
            &format!("new in {text}"),
        );
    }
}

fn fill(root: &Path, dirs: Dirs) {
    fill_from(0, root, dirs);
}

/// All messages by their paths, with their bytes, and all folders.
fn paths(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            let stat = fs::metadata(&path).expect("it is there");
            let below = path.strip_prefix(root).expect("lies below").as_os_str();
            let part = dir.file_name().unwrap_or_default();
            if stat.is_dir() {
                if path.ends_with("cur") {
                    found.insert(below.as_bytes().to_vec(), Vec::new());
                }
                waiting.push(path);
            } else if stat.is_file() && (part == "cur" || part == "new") {
                let bytes = fs::read(&path).expect("it can be read");
                found.insert(below.as_bytes().to_vec(), bytes);
            }
        }
    }
    found
}

/// The directories of a tree that are folders.
pub(crate) fn folders(root: &Path) -> BTreeSet<String> {
    let (mut found, mut waiting) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            let name = path.file_name().unwrap_or_default();
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir());
            if is_dir && (name == "cur" || name == "new") {
                let dir = dir.strip_prefix(root).expect("lies below").as_os_str();
                found.insert(dir.as_bytes().escape_ascii().to_string());
            } else if is_dir && name != "tmp" && name != ".notmuch" {
                waiting.push(path);
            }
        }
    }
    found
}

#[track_caller]
fn assert_equal(world: &World, when: &str) {
    // No flags are written in two ways, and a name that need not change is kept.
    let plain = |(path, bytes): (Vec<u8>, Vec<u8>)| {
        (path.strip_suffix(b":2,").unwrap_or(&path).to_vec(), bytes)
    };
    let [server, local] = [world.server(), world.local()]
        .map(|tree| paths(tree.root()).into_iter().map(plain).collect());
    let only = |left: &BTreeMap<Vec<u8>, Vec<u8>>, right: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let differing = left
            .iter()
            .filter(|(path, bytes)| right.get(*path) != Some(*bytes));
        differing
            .map(|(path, _)| path.escape_ascii().to_string())
            .collect::<Vec<_>>()
    };
    let (there, here) = (only(&server, &local), only(&local, &server));
    assert!(
        there.is_empty() && here.is_empty(),
        "{when}: only there {there:#?}, only here {here:#?}"
    );
}

/// What users and servers do: mail comes, is flagged, moved and deleted; folders are made, renamed and removed.
struct Players {
    rng: Rng,
    count: usize,
}

impl Players {
    fn step(&mut self, root: &Path) {
        self.count += 1;
        let all = paths(root);
        let files: Vec<&Vec<u8>> = all
            .iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(path, _)| path)
            .collect();
        let folders: Vec<&[u8]> = all
            .iter()
            .filter(|(_, bytes)| bytes.is_empty())
            .map(|(path, _)| path.strip_suffix(b"cur").expect("a folder's"))
            .map(|path| path.strip_suffix(b"/").unwrap_or(path))
            .collect();
        let (Some(folder), Some(file)) = (self.rng.pick(&folders).copied(), self.rng.pick(&files))
        else {
            return;
        };
        let (path, count) = (at(root, file), self.count);
        match self.rng.below(10) {
            0..3 => put(
                root,
                folder,
                &format!("new/{count}.N.mx"),
                &format!("came {count}"),
            ),
            3..5 => {
                let name = path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                let unique = name.split(":2,").next().unwrap_or_default();
                let flags = ["", "S", "FS", "RS"][self.rng.below(4)];
                let cur = path
                    .parent()
                    .and_then(Path::parent)
                    .expect("a folder")
                    .join("cur");
                fs::create_dir_all(&cur).expect("cur is there");
                let target = cur.join(format!("{unique}:2,{flags}"));
                fs::rename(&path, target).expect("it is flagged");
            }
            5..7 => {
                let target = at(root, folder)
                    .join("cur")
                    .join(path.file_name().expect("a name"));
                if !target.exists() {
                    carry(&path, &target);
                }
            }
            7 => fs::remove_file(&path).expect("it is deleted"),
            8 => {
                let dir = [folder, b"x"].concat();
                let is_free = !folder.is_empty()
                    && !folder.eq_ignore_ascii_case(b"INBOX")
                    && !at(root, &dir).exists();
                if is_free && let Err(error) = fs::rename(at(root, folder), at(root, &dir)) {
                    // Nobody renames what a disk is mounted on.
                    assert_eq!(error.kind(), ErrorKind::ResourceBusy, "it is renamed");
                }
            }
            _ => {
                let dir = [folder, if folder.is_empty() { b".new" } else { b"-new" }].concat();
                make(root, &dir);
            }
        }
    }
}

/// A hundred steps on both sides, with a run after every twenty.
fn play(world: &World, sync: &dyn Fn() -> Invocation, what: &str, seed: u64) {
    let mut players = Players {
        rng: Rng::new(seed_or(seed)),
        count: 0,
    };
    for round in 0..5 {
        for _ in 0..10 {
            players.step(world.server().root());
            players.step(world.local().root());
        }
        for _ in 0..3 {
            let run = sync().arg("--max-delete=100%").run();
            assert!(run.code == Some(0), "{what}, round {round}: {run:?}");
            if run.done() == 0 {
                break;
            }
        }
        assert_equal(world, &format!("{what}, round {round}"));
    }
}

/// Moves a file as `mv` does, also to another disk.
fn carry(from: &Path, to: &Path) {
    if let Err(error) = fs::rename(from, to) {
        assert_eq!(error.kind(), ErrorKind::CrossesDevices, "it is moved");
        fs::copy(from, to).expect("it is copied");
        fs::remove_file(from).expect("the old one goes");
    }
}

/// How a kind of tree is made, and how its client is called.
trait Kind {
    /// What has to stay for as long as the tree is played with.
    type Held;

    /// Fills a root that is not there; none where this machine cannot do it.
    fn make(&self, world: &World, root: &Path) -> Option<Self::Held>;

    fn call(&self, world: &World, command: &str) -> Invocation {
        world.client().pair(command)
    }

    /// What is true of the root that was made, whatever happened in it.
    fn assert_kept(&self, _: &World, _: &Path) {}
}

impl Kind for Dirs {
    type Held = ();

    fn make(&self, _: &World, root: &Path) -> Option<()> {
        fill(root, self);
        Some(())
    }
}

/// One of Dovecot's folders on a disk of its own.
struct Mounted;

impl Kind for Mounted {
    type Held = Mount;

    fn make(&self, _: &World, root: &Path) -> Option<Mount> {
        let mount = Mount::in_memory(&root.join(".Lists.debian"), 4 << 10)?;
        fill(root, DOVECOT);
        Some(mount)
    }
}

/// One of Dovecot's folders, and one below it, behind a link.
struct Linked;

impl Kind for Linked {
    type Held = ();

    fn make(&self, world: &World, root: &Path) -> Option<()> {
        fill(root, DOVECOT);
        let outside = world.path("outside");
        fill_from(50, &outside, &[b"", b".Below"]);
        symlink(&outside, root.join(".Linked")).expect("a link is made");
        Some(())
    }

    fn call(&self, world: &World, command: &str) -> Invocation {
        let (server, local) = (world.server().root(), world.local().root());
        let agent = agent_command(&world.server_state());
        world.client().configure(&format!(
            "[account.home]\nremote = \"{}\"\nlocal = \"{}\"\nserver_command = \"{agent} --follow-links\"\nfollow_links = true\n",
            server.display(),
            local.display(),
        ));
        let client = world.client().reaching(world.client().remote(), None);
        client.bare(&[command, "home", "--json"])
    }

    fn assert_kept(&self, world: &World, root: &Path) {
        let entries = fs::read_dir(root).expect("it can be listed").flatten();
        let links: Vec<PathBuf> = entries
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect();
        assert_eq!(links, [world.path("outside")], "the link is still one");
    }
}

fn matrix(kind: &impl Kind, seed: u64) {
    for command in ["pull", "push", "adopt"] {
        let world = World::new();
        let (from, to) = match command {
            "push" => (world.local().root(), world.server().root()),
            _ => (world.server().root(), world.local().root()),
        };
        let _ = fs::remove_dir_all(to);
        let Some(_held) = kind.make(&world, from) else {
            return;
        };
        match command {
            "push" => fs::create_dir_all(to).expect("an empty root"),
            "adopt" => harness::world::copy_dir_through_links(from, to),
            _ => {}
        }
        let sync = || kind.call(&world, "sync");
        let run = match command {
            "adopt" => sync(),
            command => kind.call(&world, command),
        };
        let run = run.run().ok();
        assert_equal(&world, command);
        if command == "adopt" {
            assert_eq!(run.done(), 0, "{}", run.stdout);
        }
        let _ = sync().run().ok().idle();
        play(&world, &sync, command, seed);
        kind.assert_kept(&world, from);
    }
}

#[test]
fn a_tree_made_by_dovecot() {
    matrix(&DOVECOT, 1301);
}

#[test]
fn a_nested_tree_with_inbox() {
    matrix(&NESTED, 1302);
}

#[test]
fn a_nested_tree_without_inbox() {
    matrix(&WITHOUT_INBOX, 1303);
}

#[test]
fn a_nested_tree_with_inbox_in_other_letters() {
    matrix(&OTHER_LETTERS, 1304);
}

#[test]
fn a_tree_of_mixed_styles() {
    matrix(&MIXED, 1305);
}

#[test]
fn a_tree_of_names_with_dots() {
    matrix(&DOTS, 1306);
}

#[test]
fn a_tree_of_names_with_empty_parts() {
    matrix(&EMPTY_PARTS, 1307);
}

#[test]
fn a_tree_of_names_with_newlines() {
    matrix(&NEWLINES, 1308);
}

#[test]
fn a_tree_of_latin_1_names() {
    matrix(&LATIN_1, 1309);
}

#[test]
fn a_tree_of_two_encodings() {
    matrix(&TWO_ENCODINGS, 1310);
}

#[test]
fn a_tree_of_bare_ampersands() {
    matrix(&BARE, 1311);
}

#[test]
fn a_tree_with_a_foreign_mount() {
    matrix(&Mounted, 1314);
}

#[test]
fn a_tree_with_a_link_that_is_followed() {
    matrix(&Linked, 1315);
}

/// C61, C63: a link among the folders is told once and holds nothing else up.
#[test]
fn a_tree_with_a_link() {
    let world = World::new();
    fill(world.server().root(), DOVECOT);
    let outside = world.path("outside");
    fill(&outside, &[b""]);
    symlink(&outside, world.server().root().join(".Linked")).expect("a link is made");
    let _ = world.client().pull().run().exits(3).says(".Linked");
    assert!(!world.local().root().join(".Linked").exists());
    for seed in [1312, 1313] {
        let mut players = Players {
            rng: Rng::new(seed_or(seed)),
            count: usize::try_from(seed).expect("small"),
        };
        for _ in 0..10 {
            players.step(world.local().root());
        }
        let run = world.client().sync().arg("--max-delete=100%").run();
        let _ = run.ok();
        assert!(outside.join("cur/0.A.mx:2,S").exists());
    }
}

/// Where both sides are laid out otherwise: whatever has a place arrives, once; what has none is named, stays, and
/// deletes nothing.
#[test]
fn trees_of_two_layouts_meet_one_to_one() {
    for (number, dirs) in ALL.iter().enumerate() {
        let is_flat = dirs.contains(&&b""[..]);
        for command in ["pull", "push"] {
            println!("-- tree {number}, {command}");
            let world = World::new();
            let (from, to) = match command {
                "push" => (world.local().root(), world.server().root()),
                _ => (world.server().root(), world.local().root()),
            };
            let _ = fs::remove_dir_all(to);
            fill(from, dirs);
            let other: Dirs = if is_flat {
                &[b"INBOX", b"Here"]
            } else {
                &[b"", b".Here"]
            };
            fill_from(100, to, other);
            let before = paths(from);
            let run = world.client().pair(command).run();
            assert!(matches!(run.code, Some(0 | 3)), "{run:?}");
            let placeless = usize::try_from(run.figure(&["skipped"])).expect("few");
            let texts = |root: &Path| -> Vec<Vec<u8>> {
                let mut texts: Vec<_> = paths(root)
                    .into_values()
                    .filter(|text| !text.is_empty())
                    .collect();
                texts.sort();
                texts
            };
            let arrived = texts(to);
            let unique: BTreeSet<&Vec<u8>> = arrived.iter().collect();
            assert_eq!(unique.len(), arrived.len(), "something is there twice");
            let missing = texts(from)
                .iter()
                .filter(|text| !unique.contains(text))
                .count();
            assert_eq!(missing, 2 * placeless, "{}", run.stderr);
            let _ = world.client().sync().run().ok();
            let _ = world.client().sync().run().ok().idle();
            let after = paths(from);
            assert!(
                before
                    .iter()
                    .all(|(path, text)| after.get(path) == Some(text)),
                "something went"
            );
        }
    }
}

//! Real trees, and what the system tells of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;

use super::*;

/// Longer than anything here takes, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(30);

/// How many folders there are in each of which mail is changed last, in turns: when that is told, all before it was.
const LASTS: usize = 8;

/// A tree that is watched.
struct Watched {
    dir: tempfile::TempDir,
    watcher: Watcher,
    wakes: mpsc::Receiver<()>,
    lasts: usize,
}

/// What was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    folders: BTreeSet<String>,
    everything: bool,
}

/// Makes a folder.
fn folder(path: &Path) {
    for sub in ["cur", "new", "tmp"] {
        fs::create_dir_all(path.join(sub)).expect("it is made");
    }
}

fn make_lasts(root: &Path) {
    (0..LASTS).for_each(|number| folder(&root.join(last(number))));
}

fn last(number: usize) -> String {
    format!("Last/{}", number % LASTS)
}

/// Delivers a message, as a delivery agent does.
fn deliver(folder: &Path, name: &str) {
    fs::write(folder.join("tmp").join(name), "Subject: x\n\n").expect("it is written");
    fs::rename(folder.join("tmp").join(name), folder.join("new").join(name)).expect("it comes");
}

fn watch(path: &Path, options: Options) -> (Watcher, mpsc::Receiver<()>) {
    let (waker, wakes) = mpsc::channel();
    let wake = Box::new(move || {
        let _ = waker.send(());
    });
    (Watcher::new(path.to_owned(), options, wake), wakes)
}

impl Watched {
    /// An INBOX with a message in `cur`, and these folders.
    fn new(folders: &[&str]) -> Watched {
        Watched::with(folders, Options::default(), |_| {})
    }

    fn with(folders: &[&str], options: Options, prepare: impl FnOnce(&Path)) -> Watched {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = dir.path().join("mail");
        for name in [""].iter().chain(folders) {
            folder(&root.join(name));
        }
        make_lasts(&root);
        fs::write(root.join("cur/a:2,"), "Subject: a\n\n").expect("it is written");
        prepare(&root);
        let (watcher, wakes) = watch(&root, options);
        assert_eq!(watcher.mode(), &Mode::Events);
        Watched {
            dir,
            watcher,
            wakes,
            lasts: 0,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("mail").join(name)
    }

    /// Makes the last change, which is one event, and names its folder.
    fn change_last(&mut self) -> String {
        self.lasts += 1;
        let name = last(self.lasts);
        let link = format!("{name}/new/{}", self.lasts);
        symlink("nowhere", self.path(&link)).expect("it is made");
        name
    }

    /// All that was told of what was done until now.
    fn told(&mut self) -> Told {
        let mut told = Told::default();
        let mut last = self.change_last();
        loop {
            self.wakes.recv_timeout(LIMIT).expect("it wakes");
            match self.watcher.take() {
                Changed::Nothing => {}
                // The last change may be part of it.
                Changed::Everything => {
                    told.everything = true;
                    last = self.change_last();
                }
                Changed::Folders(folders) => {
                    let text = |dir: &FolderDir| {
                        String::from_utf8(dir.as_bytes().to_vec()).expect("it is text")
                    };
                    told.folders.extend(folders.iter().map(text));
                }
            }
            if told.folders.contains(&last) {
                told.folders.retain(|name| !name.starts_with("Last/"));
                return told;
            }
        }
    }

    #[track_caller]
    fn assert_folders(&mut self, expected: &[&str]) {
        let told = self.told();
        let expected = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!((told.folders, told.everything), (expected, false));
    }

    #[track_caller]
    fn assert_everything(&mut self) {
        let told = self.told();
        assert!(told.everything, "{told:?}");
        self.assert_watched();
    }

    /// All that there is, once, and nothing besides.
    #[track_caller]
    fn assert_watched(&self) {
        let wanted: BTreeSet<u64> = directories(&self.path("")).into_values().collect();
        assert_eq!(self.instances(), [wanted]);
    }

    /// The inodes that are watched, by inotify instance.
    fn instances(&self) -> Vec<BTreeSet<u64>> {
        let last = fs::metadata(self.path(&last(0)))
            .expect("it is there")
            .ino();
        let mut found: Vec<BTreeSet<u64>> = watches();
        found.retain(|inodes| inodes.contains(&last));
        found
    }
}

/// The directories that have to be watched, and their inodes.
fn directories(root: &Path) -> BTreeMap<std::path::PathBuf, u64> {
    let is_walked = |entry: &walkdir::DirEntry| {
        let above = entry.path().parent().and_then(Path::file_name);
        let is_in_mail = above.is_some_and(|name| name == "cur" || name == "new");
        entry.file_type().is_dir() && entry.file_name() != "tmp" && !is_in_mail
    };
    let walk = walkdir::WalkDir::new(root).into_iter();
    walk.filter_entry(is_walked)
        .map(|entry| entry.expect("it is read"))
        .map(|entry| {
            let inode = entry.metadata().expect("it is there").ino();
            (entry.into_path(), inode)
        })
        .collect()
}

/// The inodes that this process watches, by inotify instance. Others may come and go meanwhile.
fn watches() -> Vec<BTreeSet<u64>> {
    let inode = |line: &str| {
        let (_, rest) = line.strip_prefix("inotify ")?.split_once("ino:")?;
        u64::from_str_radix(rest.split(' ').next()?, 16).ok()
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo").expect("it is listed") {
        let text = entry.and_then(|entry| fs::read_to_string(entry.path()));
        let inodes = text.unwrap_or_default().lines().filter_map(inode).collect();
        found.push(inodes);
    }
    found.retain(|inodes: &BTreeSet<u64>| !inodes.is_empty());
    found
}

#[test]
fn a_delivery_tells_its_folder() {
    let mut watched = Watched::new(&["A"]);
    deliver(&watched.path("A"), "1");
    watched.assert_folders(&["A"]);
    deliver(&watched.path(""), "2");
    fs::hard_link(watched.path("A/new/1"), watched.path("A/cur/1:2,")).expect("it is linked");
    watched.assert_folders(&["", "A"]);
    watched.assert_folders(&[]);
}

#[test]
fn flags_moves_deletions_and_edits_tell_their_folders() {
    let mut watched = Watched::new(&["A", "B"]);
    let file = watched.path("cur/a:2,S");
    fs::rename(watched.path("cur/a:2,"), &file).expect("it is renamed");
    watched.assert_folders(&[""]);
    fs::rename(&file, watched.path("A/cur/a:2,S")).expect("it is moved");
    watched.assert_folders(&["", "A"]);
    let file = watched.path("A/cur/a:2,S");
    let mut open = fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .expect("opens");
    io::Write::write_all(&mut open, b"more").expect("it is edited");
    watched.assert_folders(&["A"]);
    drop(open);
    watched.assert_folders(&["A"]);
    fs::remove_file(&file).expect("it is deleted");
    watched.assert_folders(&["A"]);
}

#[test]
fn reading_and_changes_of_attributes_wake_nobody() {
    let mut watched = Watched::new(&["A"]);
    let file = watched.path("cur/a:2,");
    for _ in 0..100 {
        fs::read(&file).expect("it is read");
        for dir in ["", "cur", "new", "A", "A/cur"] {
            let listed = fs::read_dir(watched.path(dir)).expect("it is listed");
            assert!(listed.count() < 100);
        }
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is changed");
    let open = File::open(&file).expect("it opens");
    let times = fs::FileTimes::new();
    let times = times.set_accessed(std::time::UNIX_EPOCH);
    // One of them alone looks like a write.
    let times = times.set_modified(std::time::UNIX_EPOCH);
    open.set_times(times).expect("it is changed");
    assert_eq!(watched.told(), Told::default());
    // But what could not be read before may be readable now.
    fs::set_permissions(watched.path("A"), fs::Permissions::from_mode(0o750)).expect("changed");
    assert!(watched.told().everything);
}

#[test]
fn what_is_not_mail_wakes_nobody() {
    let mut watched = Watched::new(&["A"]);
    for (path, other) in [
        (".maildir-sync.new", ".maildir-sync"),
        ("dovecot.index.log.new", "dovecot.index.log"),
        ("dovecot-uidlist.lock", "dovecot-uidlist"),
        ("A/subscriptions", "A/.subscriptions"),
        ("A/tmp/1", "A/tmp/2"),
        ("cur/.nfs01", "cur/.hidden"),
    ] {
        fs::write(watched.path(path), "x").expect("it is written");
        fs::rename(watched.path(path), watched.path(other)).expect("it is renamed");
        fs::write(watched.path(other), "y").expect("it is written");
    }
    fs::create_dir_all(watched.path(".notmuch/xapian")).expect("it is made");
    fs::create_dir(watched.path(".maildir-sync.old")).expect("it is made");
    symlink("A", watched.path("link")).expect("it is made");
    fs::remove_file(watched.path("dovecot-uidlist")).expect("it is removed");
    fs::remove_dir_all(watched.path("A/tmp")).expect("it is removed");
    fs::create_dir(watched.path("A/tmp")).expect("it is made");
    assert_eq!(watched.told(), Told::default());
}

#[test]
fn a_folder_made_and_filled_at_once_is_watched() {
    let mut watched = Watched::new(&[]);
    let nested = watched.path("A/B/C");
    folder(&nested);
    deliver(&nested, "1");
    watched.assert_everything();
    deliver(&nested, "2");
    watched.assert_folders(&["A/B/C"]);
    folder(&watched.path("A/B"));
    watched.assert_everything();
    deliver(&watched.path("A/B"), "3");
    watched.assert_folders(&["A/B"]);
}

#[test]
fn a_folder_that_is_renamed_is_watched_where_it_is() {
    let mut watched = Watched::new(&["A/B", "C"]);
    fs::rename(watched.path("A"), watched.path(".New")).expect("it is renamed");
    watched.assert_everything();
    deliver(&watched.path(".New/B"), "1");
    watched.assert_folders(&[".New/B"]);
    // Something else has the old name.
    fs::rename(watched.path("C"), watched.path("A")).expect("it is renamed");
    fs::rename(watched.path(".New"), watched.path("C")).expect("it is renamed");
    watched.assert_everything();
    deliver(&watched.path("C/B"), "2");
    deliver(&watched.path("A"), "3");
    watched.assert_folders(&["A", "C/B"]);
}

#[test]
fn a_folder_that_comes_from_elsewhere_is_watched_and_one_that_goes_is_not() {
    let mut watched = Watched::new(&["A"]);
    let elsewhere = watched.dir.path().join("elsewhere");
    folder(&elsewhere.join("B"));
    deliver(&elsewhere.join("B"), "1");
    fs::rename(&elsewhere, watched.path("Come")).expect("it is moved in");
    watched.assert_everything();
    deliver(&watched.path("Come/B"), "2");
    watched.assert_folders(&["Come/B"]);
    fs::rename(watched.path("Come"), &elsewhere).expect("it is moved out");
    watched.assert_everything();
    deliver(&elsewhere.join("B"), "3");
    watched.assert_folders(&[]);
}

#[test]
fn a_folder_that_is_removed_leaves_no_watch() {
    let mut watched = Watched::new(&["A/B", "C"]);
    for _ in 0..3 {
        fs::remove_dir_all(watched.path("A")).expect("it is removed");
        watched.assert_everything();
        folder(&watched.path("A/B"));
        watched.assert_everything();
        // Its directories may be the same inodes.
        fs::remove_dir_all(watched.path("A")).expect("it is removed");
        folder(&watched.path("A/B"));
        watched.assert_everything();
        deliver(&watched.path("A/B"), "1");
        watched.assert_folders(&["A/B"]);
    }
}

#[test]
fn a_root_that_is_replaced_is_watched_anew() {
    let mut watched = Watched::new(&["A"]);
    let old = watched.dir.path().join("old");
    let new = watched.dir.path().join("new");
    make_lasts(&new);
    folder(&new.join("B"));
    fs::rename(watched.path(""), &old).expect("it is renamed");
    fs::rename(&new, watched.path("")).expect("it is renamed");
    watched.assert_everything();
    deliver(&old.join("A"), "1");
    watched.assert_folders(&[]);
    deliver(&watched.path("B"), "2");
    watched.assert_folders(&["B"]);
}

#[test]
fn lost_events_mean_everything() {
    let mut watched = Watched::new(&["A"]);
    let lost = Event::new(notify::EventKind::Other).set_flag(notify::event::Flag::Rescan);
    watched.watcher.heard.hear(Ok(lost));
    watched.assert_everything();
    let failed = notify::Error::io(io::ErrorKind::Other.into());
    watched.watcher.heard.hear(Err(failed));
    watched.assert_everything();
    deliver(&watched.path("A"), "1");
    watched.assert_folders(&["A"]);
}

#[test]
fn more_events_than_the_system_keeps_mean_everything() {
    let allowed = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events");
    let allowed: usize = allowed
        .expect("it is told")
        .trim()
        .parse()
        .expect("a number");
    if allowed > 100_000 {
        return lacks(&format!("the system keeps {allowed} events"));
    }
    let dir = tempfile::tempdir().expect("temp dir");
    folder(&dir.path().join("A"));
    let source = dir.path().join("message");
    fs::write(&source, "x").expect("it is written");
    let (waker, wakes) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    // Whoever is woken keeps the reader of events from reading.
    let wake = Box::new(move || {
        let _ = waker.send(());
        let _ = held.recv();
    });
    let mut watcher = Watcher::new(dir.path().to_owned(), Options::default(), wake);
    let link = |number: usize| {
        let name = dir.path().join(format!("A/cur/{number}:2,"));
        fs::hard_link(&source, name).expect("it is linked");
    };
    link(0);
    wakes.recv_timeout(LIMIT).expect("it wakes");
    let folders = watcher.take();
    assert!(matches!(folders, Changed::Folders(_)), "{folders:?}");
    (1..allowed + 1000).for_each(link);
    drop(release);
    let mut changed = Changed::Nothing;
    while changed != Changed::Everything {
        wakes.recv_timeout(LIMIT).expect("it wakes");
        changed = watcher.take();
    }
    assert_eq!(watcher.mode(), &Mode::Events);
}

#[test]
fn a_thousand_folders_take_one_instance_and_three_watches_each() {
    let names: Vec<String> = (0..1000).map(|number| format!(".{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let watched = Watched::new(&names);
    let instances = watched.instances();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].len(), 3 * (1000 + 1 + LASTS) + 1);
}

#[test]
fn links_to_folders_are_watched_if_they_are_followed() {
    let options = Options {
        follow_links: true,
        ..Options::default()
    };
    let link = |root: &Path| {
        folder(&root.join("../out/A"));
        folder(&root.join("../later"));
        symlink("../out", root.join("Out")).expect("it is made");
    };
    let mut watched = Watched::with(&[], options, link);
    deliver(&watched.dir.path().join("out/A"), "1");
    watched.assert_folders(&["Out/A"]);
    symlink("../later", watched.path("Later")).expect("it is made");
    assert!(watched.told().everything);
    deliver(&watched.dir.path().join("later"), "2");
    watched.assert_folders(&["Later"]);
    fs::remove_file(watched.path("Later")).expect("it is removed");
    assert!(watched.told().everything);
    deliver(&watched.dir.path().join("later"), "3");
    watched.assert_folders(&[]);

    let mut watched = Watched::with(&[], Options::default(), link);
    symlink("../../later/cur", watched.path("Last/0/cur/link")).expect("it is made");
    deliver(&watched.dir.path().join("out/A"), "1");
    watched.assert_folders(&[]);
}

#[test]
fn a_tree_that_never_rests_is_watched_in_the_end() {
    let mut watched = Watched::new(&["A"]);
    let root = watched.path("");
    let maker = std::thread::spawn(move || {
        for number in 0..200 {
            let made = root.join(format!("A/{}/{number}", number % 7));
            folder(&made);
            match number % 5 {
                0 => fs::remove_dir_all(&made).expect("it is removed"),
                1 => fs::rename(&made, root.join(format!(".{number}"))).expect("it is renamed"),
                _ => deliver(&made, "1"),
            }
        }
    });
    while !maker.is_finished() {
        watched.told();
    }
    maker.join().expect("it made all");
    watched.told();
    watched.assert_watched();
}

#[test]
fn nothing_falls_between_a_look_and_a_watch() {
    let mut watched = Watched::new(&[]);
    for chain in 0..50 {
        let path = watched.path(&format!("{chain}/{}", "d/".repeat(30)));
        let maker = std::thread::spawn(move || folder(&path));
        while !maker.is_finished() {
            watched.watcher.take();
        }
        maker.join().expect("it made all");
        // Nothing comes afterwards that would be a reason to look again.
        watched.told();
        watched.assert_watched();
        fs::remove_dir_all(watched.path(&chain.to_string())).expect("it is removed");
        watched.assert_everything();
    }
}

#[test]
fn where_there_are_no_events_it_wakes_every_interval() {
    let dir = tempfile::tempdir().expect("temp dir");
    let root = dir.path().join("mail");
    let options = Options {
        interval: Duration::from_millis(1),
        ..Options::default()
    };
    let (mut watcher, wakes) = watch(&root, options);
    let Mode::Polling { why } = watcher.mode() else {
        panic!("there is nothing to watch");
    };
    assert!(why.contains("No such file"), "{why}");
    let mut looks = 0;
    while looks < 3 {
        wakes.recv_timeout(LIMIT).expect("it wakes");
        looks += usize::from(watcher.take() == Changed::Everything);
    }
    // What was missing is there, and then events tell.
    folder(&root);
    while watcher.mode() != &Mode::Events {
        wakes.recv_timeout(LIMIT).expect("it wakes");
        watcher.take();
    }
    let expected = Changed::Folders(BTreeSet::from([FolderDir::root()]));
    let mut number = 0;
    // What is left over of its making is everything.
    while watcher.take() != expected {
        number += 1;
        deliver(&root, &number.to_string());
        wakes.recv_timeout(LIMIT).expect("it wakes");
    }
}

#[test]
fn a_root_that_is_gone_is_looked_for() {
    let options = Options {
        interval: Duration::from_millis(1),
        ..Options::default()
    };
    let mut watched = Watched::with(&[], options, |_| {});
    fs::remove_dir_all(watched.path("")).expect("it is removed");
    while watched.watcher.mode() == &Mode::Events {
        watched.wakes.recv_timeout(LIMIT).expect("it wakes");
        watched.watcher.take();
    }
    make_lasts(&watched.path(""));
    folder(&watched.path("A"));
    watched.watcher.renew();
    assert_eq!(watched.watcher.mode(), &Mode::Events);
    watched.told();
    deliver(&watched.path("A"), "1");
    watched.assert_folders(&["A"]);
}

#[test]
fn nothing_is_left_of_a_watcher_that_is_dropped() {
    let Watched {
        watcher,
        wakes,
        dir: _dir,
        ..
    } = Watched::new(&["A"]);
    let heard = Arc::downgrade(&watcher.heard);
    drop(watcher);
    // Both threads had a share in it.
    assert_eq!(heard.strong_count(), 0);
    let over = mpsc::TryRecvError::Disconnected;
    assert!(wakes.try_iter().count() == 0 && wakes.try_recv() == Err(over));

    let (watcher, wakes) = watch(Path::new("/nowhere"), Options::default());
    assert_ne!(watcher.mode(), &Mode::Events);
    drop(watcher);
    assert_eq!(wakes.try_recv(), Err(over));
}

#[test]
fn where_no_event_comes_a_probe_says_so() {
    let heard = Heard::new("/".into(), false, Box::new(|| {}));
    assert!(!heard.probe(Duration::from_millis(1), || {}));
    let reading = notify::EventKind::Access(notify::event::AccessKind::Any);
    let read = || heard.hear(Ok(Event::new(reading)));
    assert!(heard.probe(LIMIT, read));
}

/// Says that the running test shows nothing here, because of what the machine lacks.
#[track_caller]
fn lacks(what: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "{what}");
    let this = std::thread::current();
    println!(
        "{} shows nothing here: {what}",
        this.name().unwrap_or("a test")
    );
}

/// Set for what runs in namespaces of its own.
const INSIDE: &str = "MAILDIR_SYNC_TEST_NAMESPACE";

/// The flags of unshare(1) for an administrator of the namespaces.
const ADMINISTRATOR: [&str; 3] = ["--user", "--map-root-user", "--mount"];

/// Runs another test of this file in namespaces of its own, after a script in them.
#[track_caller]
fn run_in_namespaces(flags: &[&str], script: &str, test: &str) {
    let unshare = |script: &str| {
        let mut unshare = std::process::Command::new("unshare");
        let unshare = unshare.args(flags).args(["sh", "-ec", script]);
        unshare.env(INSIDE, "1");
        unshare.arg(std::env::current_exe().expect("it is known"));
        let done = unshare.arg(format!("watch::tests::{test}")).output();
        done.map_err(|error| error.to_string())
    };
    match unshare(script) {
        Ok(done) if done.status.success() => {}
        Ok(done) => return lacks(&String::from_utf8(done.stderr).expect("it is text")),
        Err(error) => return lacks(&error),
    }
    let done = unshare(&format!(r#"{script}; exec "$0" --exact "$1" --ignored"#));
    let done = done.expect("it ran before");
    let said = String::from_utf8(done.stdout).expect("it is text");
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

#[test]
fn limits_lead_to_polling_and_are_told() {
    let script = "echo 33 > /proc/sys/user/max_inotify_watches";
    run_in_namespaces(
        &ADMINISTRATOR,
        script,
        "inside_where_few_watches_are_allowed",
    );
    let script = "echo 0 > /proc/sys/user/max_inotify_instances";
    run_in_namespaces(
        &ADMINISTRATOR,
        script,
        "inside_where_no_instance_is_allowed",
    );
}

#[test]
#[ignore = "runs inside of another test"]
fn inside_where_few_watches_are_allowed() {
    if !is_inside() {
        return;
    }
    let mut watched = Watched::new(&["A"]);
    assert_eq!(watched.instances()[0].len(), 3 * (2 + LASTS) + 1);
    folder(&watched.path("B"));
    watched.wakes.recv_timeout(LIMIT).expect("it wakes");
    while watched.watcher.take() == Changed::Everything && watched.watcher.mode() == &Mode::Events {
        watched.wakes.recv_timeout(LIMIT).expect("it wakes");
    }
    let Mode::Polling { why } = watched.watcher.mode() else {
        panic!("there are not enough watches");
    };
    assert!(why.contains("watches are used up: 34 needed here"), "{why}");
    assert!(why.contains("sysctl fs.inotify.max_user_watches="), "{why}");
    // Others need them.
    assert_eq!(watches(), Vec::<BTreeSet<u64>>::new());
    fs::remove_dir_all(watched.path("B")).expect("it is removed");
    watched.watcher.renew();
    assert_eq!(watched.watcher.mode(), &Mode::Events);
}

#[test]
#[ignore = "runs inside of another test"]
fn inside_where_no_instance_is_allowed() {
    if !is_inside() {
        return;
    }
    let (watcher, _wakes) = watch(Path::new("/"), Options::default());
    let Mode::Polling { why } = watcher.mode() else {
        panic!("there is no instance");
    };
    assert!(
        why.contains("instances are used up: 1 needed here"),
        "{why}"
    );
}

#[test]
fn what_is_mounted_and_unmounted_is_noticed() {
    let script = "mount -t tmpfs none /mnt";
    run_in_namespaces(
        &ADMINISTRATOR,
        script,
        "inside_where_a_file_system_can_be_mounted",
    );
}

#[test]
#[ignore = "runs inside of another test"]
fn inside_where_a_file_system_can_be_mounted() {
    if !is_inside() {
        return;
    }
    let mut watched = Watched::new(&["A"]);
    let run = |program: &str, arguments: &[&str]| {
        let done = std::process::Command::new(program).args(arguments).status();
        assert!(done.expect("it runs").success());
    };
    let path = watched.path("A");
    let path = path.to_str().expect("it is text");
    run("mount", &["-t", "tmpfs", "none", path]);
    let mut await_folder = |name: &str| {
        while watched.watcher.take() != Changed::Everything {
            watched.wakes.recv_timeout(LIMIT).expect("it wakes");
        }
        assert_eq!(watched.watcher.mode(), &Mode::Events);
        folder(&watched.path(name));
        watched.told();
        deliver(&watched.path(name), "1");
        watched.assert_folders(&[name]);
    };
    await_folder("A/Mounted");
    run("umount", &[path]);
    await_folder("A");
}

#[test]
fn a_folder_that_may_not_be_read_is_watched_once_it_may() {
    let flags = ["--user", "--map-user=1000"];
    run_in_namespaces(&flags, "test $(id -u) = 1000", "inside_where_modes_count");
}

#[test]
#[ignore = "runs inside of another test"]
fn inside_where_modes_count() {
    if !is_inside() {
        return;
    }
    let change = |path: &Path, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, mode).expect("it is changed");
    };
    let mut watched = Watched::with(&["A/B", "C"], Options::default(), |root| {
        change(&root.join("A"), 0);
        change(&root.join("C/cur"), 0);
    });
    deliver(&watched.path("C"), "1");
    watched.assert_folders(&["C"]);
    change(&watched.path("A"), 0o700);
    change(&watched.path("C/cur"), 0o700);
    watched.assert_everything();
    deliver(&watched.path("A/B"), "2");
    watched.assert_folders(&["A/B"]);
}

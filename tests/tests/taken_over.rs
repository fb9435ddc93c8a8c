//! Copies that a real mbsync or OfflineIMAP made of the server's own Maildir, through a real Dovecot: taken over, and not
//! doubled (C88).

use std::fs;
use std::path::Path;

use harness::snapshot::everything;
use harness::world::copy_dir;
use harness::{Dovecot, Kill, Layout, Message, Rng, Snapshot, Tree, World, body, mail};

const FOLDERS: [&str; 8] = [
    "INBOX",
    "Sent",
    "Drafts",
    "Archive",
    "Lists/debian",
    "Lists/rust",
    "Work",
    "Work/old",
];
const MESSAGES: usize = 254;
const FEW: usize = 40;

/// A message as old accounts hold them: other line ends, odd white space, folded and repeated headers, no Message-ID.
fn odd_message(rng: &mut Rng, number: usize) -> Vec<u8> {
    let text = String::from_utf8(mail::realistic(rng, number)).expect("it is text");
    let (header, rest) = text.split_once("\n\n").expect("it has a header");
    let mut header = format!("{header}\n");
    let mut rest = rest.to_owned();
    match number % 9 {
        0 => header = header.replace(": ", ":  \t"),
        1 => header = header.replace("Subject: ", "Subject: \n\tfolded "),
        2 => header.push_str("X-Mailer: one\nX-Mailer: two\nReceived: again\n"),
        3 => {
            let lines = header.split_inclusive('\n');
            header = lines
                .filter(|line| !line.starts_with("Message-ID"))
                .collect();
        }
        4 => header = header.replace("Message-ID: ", "Message-ID:\n "),
        5 => rest.truncate(rest.trim_end().len()),
        6 => rest.push_str("\n\n  \nlast\tline  \n\n\n"),
        7 => rest.push_str(&format!("From me\n.\n..\n>From\n{}\n", "long ".repeat(400))),
        _ => header = header.replace("Subject: ", "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= \u{fc} "),
    }
    let text = match number % 5 {
        0 => format!("{header}\n{rest}").replace('\n', "\r\n"),
        1 => format!("{header}\n{}", rest.replace('\n', "\r\n")),
        2 => format!("{}\n{rest}", header.replacen('\n', "\r\n", 2)),
        _ => format!("{header}\n{rest}"),
    };
    let mut bytes = text.into_bytes();
    if number % 7 == 3 {
        bytes.extend(b"in Latin-1: Gr\xfc\xdfe\n");
    }
    bytes
}

/// A server with odd messages in eight folders.
fn fill(server: &Tree, count: usize) {
    let mut rng = Rng::new(88);
    for number in 0..count {
        let folder = FOLDERS[number % FOLDERS.len()];
        let bytes = odd_message(&mut rng, number);
        let unique = format!("{}.M{number}P7.mx", 1_500_000_000 + number * 60);
        match (folder, rng.below(6)) {
            ("Drafts", _) => server.store(folder, &unique, "DS", &bytes),
            (_, 0) => server.deliver(folder, &unique, &bytes),
            (_, chance) => server.store(
                folder,
                &unique,
                ["", "S", "S", "RS", "FS"][chance - 1],
                &bytes,
            ),
        }
        if number % 40 == 7 {
            // One Message-ID in two folders, and twice in one.
            server.store("Archive", &format!("{unique}a"), "S", &bytes);
            server.store("Archive", &format!("{unique}b"), "S", &bytes);
        }
    }
}

/// Folder, name, new-or-cur, flags and bytes of all messages; times are a tool's own.
fn mail_of(tree: &Tree) -> Vec<Message> {
    let messages = Snapshot::of(tree).messages.into_iter();
    messages
        .map(|(message, _)| Message {
            mtime_ns: 0,
            ..message
        })
        .collect()
}

#[track_caller]
fn assert_taken_over(world: &World, before: &[Message]) {
    let (server, local) = (mail_of(world.server()), mail_of(world.local()));
    assert_eq!(server.len(), before.len(), "nothing is doubled there");
    for (here, there) in local.iter().zip(&server) {
        assert_eq!(here, there);
    }
    assert_eq!(local.len(), server.len(), "nothing is doubled here");
    let bytes = |messages: &[Message]| {
        let mut digests: Vec<_> = messages
            .iter()
            .map(|message| message.digest.clone())
            .collect();
        digests.sort();
        digests
    };
    assert_eq!(bytes(&server), bytes(before), "the server's bytes won");
}

/// What lies in the client's trash, but for logs.
fn trashed(state: &Path) -> usize {
    let in_trash = |path: &&std::path::PathBuf| {
        path.to_string_lossy().contains("/trash/") && !path.ends_with("log.jsonl") && path.is_file()
    };
    everything(state).keys().filter(in_trash).count()
}

/// A server, and what a tool copied of it to the first client; none where a program is missing.
fn copied(
    count: usize,
    layout: Layout,
    copy: impl Fn(&Dovecot, &Tree) -> bool,
) -> Option<(World, Dovecot)> {
    let world = World::with_layouts(Layout::MaildirPlusPlus, &[layout]);
    fill(world.server(), count);
    let dovecot = Dovecot::serving(world.server(), &world.path("dovecot"))?;
    copy(&dovecot, world.local()).then_some((world, dovecot))
}

fn mbsync(dovecot: &Dovecot, tree: &Tree) -> bool {
    dovecot.mbsync(tree, "")
}

fn offlineimap(dovecot: &Dovecot, tree: &Tree) -> bool {
    dovecot.offlineimap(tree)
}

/// How many bytes lie in all messages of a tree.
fn bytes_of(tree: &Tree) -> u64 {
    let files = everything(tree.root()).into_keys();
    files
        .filter(|path| path.is_file())
        .map(|path| fs::metadata(path).expect("is there").len())
        .sum()
}

#[test]
fn a_copy_made_by_mbsync_is_taken_over_without_a_body_on_the_wire() {
    let Some((world, _dovecot)) = copied(MESSAGES, Layout::MaildirPlusPlus, mbsync) else {
        return;
    };
    let before = mail_of(world.server());
    let run = world.client().sync().run().ok();
    assert_taken_over(&world, &before);
    assert_eq!(run.here("replaced"), before.len() as u64, "{}", run.stdout);
    assert_eq!(
        run.here("new") + run.there("new") + run.there("replaced"),
        0,
        "{}",
        run.stdout
    );
    let received = run.figure(&["bytes_received"]);
    assert!(
        received < 60_000,
        "{received} of {}",
        bytes_of(world.server())
    );
    assert_eq!(trashed(&world.client().state()), 0, "nothing was lost");
    let _ = world.client().sync().run().ok().idle();
}

#[test]
fn a_copy_made_by_offlineimap_is_taken_over() {
    let Some((world, _dovecot)) = copied(MESSAGES, Layout::Nested, offlineimap) else {
        return;
    };
    let before = mail_of(world.server());
    let run = world.client().sync().run().ok();
    assert_taken_over(&world, &before);
    assert_eq!(
        run.here("new") + run.there("new") + run.there("replaced"),
        0,
        "{}",
        run.stdout
    );
    // What it only took CRs from is made here; the trash has what it wrote anew.
    let fetched = trashed(&world.client().state()) as u64;
    assert!(run.here("replaced") > fetched, "{}", run.stdout);
    println!("{fetched} of {} were fetched", run.here("replaced"));
    let _ = world.client().sync().run().ok().idle();
}

#[test]
fn a_nested_copy_made_by_mbsync_is_taken_over() {
    let Some((world, _dovecot)) = copied(FEW, Layout::Nested, mbsync) else {
        return;
    };
    let before = mail_of(world.server());
    let _ = world.client().sync().run().ok();
    assert_taken_over(&world, &before);
    assert_eq!(trashed(&world.client().state()), 0, "nothing was lost");
    let _ = world.client().sync().run().ok().idle();
}

/// What mbsync pushed to the server bears the mark there, and only a number in its name here.
#[test]
fn what_mbsync_pushed_is_taken_over_too() {
    let world = World::new();
    world.server().make_folder("INBOX");
    world
        .server()
        .store("INBOX", "1500000001.M1P1.mx", "S", &body("pulled"));
    let Some(dovecot) = Dovecot::serving(world.server(), &world.path("dovecot")) else {
        return;
    };
    if !dovecot.mbsync(world.local(), "Sync All") {
        return;
    }
    world
        .local()
        .store("INBOX", "1500000002.M2P2.laptop", "S", &body("sent"));
    assert!(dovecot.mbsync(world.local(), "Sync All"));
    let before = mail_of(world.server());
    assert_eq!(before.len(), 2, "mbsync pushed it");
    let run = world.client().sync().run().ok();
    assert_taken_over(&world, &before);
    assert_eq!(run.here("replaced"), 2, "{}", run.stdout);
    assert_eq!(trashed(&world.client().state()), 0, "nothing was lost");
}

#[test]
fn flags_of_both_sides_are_joined_and_every_order_of_commands_comes_to_the_same() {
    let Some((world, _dovecot)) = copied(FEW, Layout::MaildirPlusPlus, mbsync) else {
        return;
    };
    // Flags that came after the copy, on either side.
    for (tree, letter) in [(world.local(), "R"), (world.server(), "F")] {
        for (message, _) in Snapshot::of(tree).messages {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names of ours");
            if message.folder == b"INBOX" && !message.in_new {
                let flags = format!("{}{letter}", message.flags.replace(letter, ""));
                tree.set_flags("INBOX", &text(&message.unique), &flags);
            }
        }
    }
    let before = mail_of(world.server());
    world.save("copied");
    let mut ends = Vec::new();
    for commands in [&["sync"][..], &["pull", "push"], &["push", "pull"]] {
        world.load("copied");
        for command in commands {
            let _ = world.client().pair(command).run().ok();
        }
        assert_taken_over(&world, &before);
        let _ = world.client().sync().run().ok().idle();
        ends.push(mail_of(world.server()));
    }
    let joined = |message: &&Message| message.flags.contains("F") && message.flags.contains("R");
    assert!(ends[0].iter().filter(joined).count() > 1);
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[test]
fn a_run_that_is_killed_over_copies_goes_on() {
    for (layout, tool) in [
        (
            Layout::MaildirPlusPlus,
            mbsync as fn(&Dovecot, &Tree) -> bool,
        ),
        (Layout::Nested, offlineimap),
    ] {
        let Some((world, _dovecot)) = copied(FEW, layout, tool) else {
            return;
        };
        let before = mail_of(world.server());
        world.save("copied");
        let mut hits = 0;
        for (call, nth) in [
            ("renameat2", 1),
            ("renameat2", 7),
            ("unlinkat", 5),
            ("fdatasync", 4),
            ("fdatasync", 9),
        ] {
            world.load("copied");
            let end = harness::faults::End::Client;
            let (hit, _) = Kill { end, call, nth }.run(&world, world.client().sync());
            hits += usize::from(hit);
            let _ = world.client().sync().run().ok();
            assert_taken_over(&world, &before);
            let _ = world.client().sync().run().ok().idle();
        }
        assert!(hits > 1, "few runs were hit");
    }
}

/// Copies as tools make them, written by hand: where the mark stands, what happened since, and what is no copy.
#[test]
fn copies_are_told_from_what_only_looks_like_one() {
    let world = World::new();
    let (server, local) = (world.server(), world.local());
    let text = |label: &str| String::from_utf8(body(label)).expect("it is text");
    let mark = |text: &str, before: &str| {
        text.replacen(before, &format!("X-TUID: 0123456789ab\n{before}"), 1)
    };
    let mut number = 0;
    let mut pair = |there: &str, here: &str, suffix: &str| {
        number += 1;
        server.store(
            "INBOX",
            &format!("15{number:08}.M1P1.mx"),
            "S",
            there.as_bytes(),
        );
        local.store(
            "INBOX",
            &format!("16{number:08}.1_{number}.laptop{suffix}"),
            "S",
            here.as_bytes(),
        );
    };
    // One message each: the mark first, in the middle, last; the name alone; both.
    pair(&text("first"), &mark(&text("first"), "From:"), "");
    pair(&text("middle"), &mark(&text("middle"), "To:"), ",U=2");
    pair(
        &text("last").replace('\n', "\r\n"),
        &mark(&text("last"), "\nThis"),
        ",U=3",
    );
    pair(&text("named").replace('\n', "\r\n"), &text("named"), ",U=4");
    pair(&mark(&text("theirs"), "To:"), &text("theirs"), "");
    // The server's header was edited since.
    pair(
        &format!("X-Label: later\n{}", text("label")),
        &mark(&text("label"), "To:"),
        ",U=6",
    );
    // Two messages each: no mark; another body; another Message-ID.
    pair(
        &text("unmarked").replace('\n', "\r\n"),
        &text("unmarked"),
        "",
    );
    pair(&text("body"), &text("body").replace("This", "That"), ",U=8");
    pair(
        &text("id"),
        &text("id").replace("Message-ID: <", "Message-ID: <x"),
        ",U=9",
    );
    let run = world.client().sync().run().ok();
    let counted = |tree: &Tree| Snapshot::of(tree).messages.len();
    assert_eq!(
        (counted(server), counted(local)),
        (12, 12),
        "{}",
        run.stdout
    );
    assert_eq!(run.here("replaced"), 6, "{}", run.stdout);
    assert_eq!(
        trashed(&world.client().state()),
        1,
        "the one whose header differs"
    );
    let _ = world.client().sync().run().ok().idle();
}

#[test]
fn copies_cost_one_flight_more_and_only_where_both_sides_have_some() {
    let world = World::new();
    world
        .server()
        .store("INBOX", "1500000001.M1P1.mx", "S", &body("one"));
    let _ = world.client().sync().run().ok();
    world
        .server()
        .store("INBOX", "1500000004.M4P1.mx", "S", &body("four"));
    let (plain, _) = harness::faults::flights(&world, world.client().sync());
    let marked = |label: &str| [b"X-TUID: 0123456789ab\n", &body(label)[..]].concat();
    world
        .server()
        .store("INBOX", "1500000002.M2P1.mx", "S", &body("two"));
    world
        .local()
        .store("INBOX", "1600000002.1_2.laptop", "S", &marked("other"));
    let (unnamed, _) = harness::faults::flights(&world, world.client().sync());
    assert_eq!(unnamed, plain, "names without a number are new messages");
    world
        .server()
        .store("INBOX", "1500000003.M3P1.mx", "S", &body("three"));
    world
        .local()
        .store("INBOX", "1600000003.1_3.laptop,U=3", "S", &marked("three"));
    let (named, run) = harness::faults::flights(&world, world.client().sync());
    assert_eq!(named, unnamed + 2, "{}", run.stdout);
    assert_eq!(run.here("replaced"), 1, "{}", run.stdout);
    world.assert_same();
}

/// The corpus, copied by a tool; a message that the tool leaves out comes from the server.
fn corpus(layout: Layout, copy: impl Fn(&Dovecot, &Tree) -> bool) {
    let world = World::with_layouts(Layout::MaildirPlusPlus, &[layout]);
    let Some(dir) = crate::real_mail::corpus(&world) else {
        return;
    };
    copy_dir(&dir.join("plain"), world.server().root());
    let Some(dovecot) = Dovecot::serving(world.server(), &world.path("dovecot")) else {
        return;
    };
    if !copy(&dovecot, world.local()) {
        return;
    }
    let before = mail_of(world.server());
    let run = world.client().sync().run().ok();
    println!("{}", run.stdout);
    println!("{} in the trash", trashed(&world.client().state()));
    assert_taken_over(&world, &before);
    let _ = world.client().sync().run().ok().idle();
}

#[test]
fn the_corpus_as_mbsync_copies_it_is_taken_over() {
    corpus(Layout::MaildirPlusPlus, mbsync);
}

#[test]
fn the_corpus_as_offlineimap_copies_it_is_taken_over() {
    corpus(Layout::Nested, offlineimap);
}

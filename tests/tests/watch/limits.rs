//! Trees that the system reports no changes of: looked at now and then instead, which is said once, with the remedy.

use std::process::Command;

use harness::lacks::lacks;
use harness::process::{LIMIT, run};
use harness::{Invocation, Mount, Watch, World, assert_same, body};
use rustix::process::Signal;

use super::{U1, U2, U3, here, shown, there};

/// A watch where the system allows both ends together so many of that.
fn allowed(invocation: Invocation, what: &str, count: usize) -> Option<Invocation> {
    let script = format!("echo {count} > /proc/sys/user/{what} && exec \"$@\"");
    let words = ["unshare", "-Ur", "sh", "-c", &script, "sh"];
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("true");
    let done = run(command, LIMIT);
    if done.code != Some(0) {
        lacks(&format!(
            "no user namespace can be made ({})",
            done.stderr.trim()
        ));
        return None;
    }
    Some(invocation.under(&words))
}

/// Both sides change, and what changed is found when somebody asks for a look: half a minute is too long for a test.
fn found_when_asked(world: &World, watch: &Watch) {
    world.server().deliver("INBOX", U2, &body("two"));
    world.local().deliver("INBOX", U3, &body("three"));
    watch.signal(Signal::USR1);
    watch.until("delivered", || {
        world.local().has("INBOX", U2) && world.server().has("INBOX", U3)
    });
    watch.until("both trees are the same", || {
        harness::are_same(&[world.server(), world.local()])
    });
}

/// Waits until `status` says why a side is looked at now and then.
fn shows(world: &World, watch: &Watch, side: &str, words: &str) {
    let why = || shown(world.client())[side].as_str().map(str::to_owned);
    watch.until(side, || why().is_some_and(|why| why.contains(words)));
}

/// What it has said of that side by now is one line.
fn said_once(said: &[String], side: &str) {
    let lines = said
        .iter()
        .filter(|line| line.contains(&format!("What changes {side} ")));
    assert_eq!(lines.count(), 1, "{said:?}");
}

#[test]
fn without_watches_or_instances_both_sides_are_looked_at_now_and_then() {
    for (what, limit) in [
        ("max_inotify_watches", "max_user_watches"),
        ("max_inotify_instances", "max_user_instances"),
    ] {
        let world = World::new();
        world.server().store("INBOX", U1, "S", &body("one"));
        let Some(watch) = allowed(world.client().pair("watch"), what, 0) else {
            return;
        };
        let watch = Watch::invoke(watch);
        assert_eq!(here(&watch.round(), "new"), 1);
        let remedy = format!("sysctl fs.inotify.{limit}=");
        for _ in ["here", "there"] {
            let line = watch.says("is found within 30 s");
            assert!(line.contains(&remedy), "{line}");
        }
        for side in ["polling_here", "polling_there"] {
            shows(&world, &watch, side, &remedy);
        }
        found_when_asked(&world, &watch);
        assert_eq!(watch.said(), Vec::<String>::new());
        assert_eq!(watch.end().0, Some(0));
        assert_same(world.server(), world.local());
    }
}

/// Watches are used up while it goes on, by its own new folders.
#[test]
fn when_watches_run_out_it_goes_on_and_says_so_once() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let Some(watch) = allowed(world.client().pair("watch"), "max_inotify_watches", 24) else {
        return;
    };
    let watch = Watch::invoke(watch);
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(shown(world.client())["polling_here"], "");
    for number in 0..12 {
        world.server().make_folder(&format!("Made/{number}"));
    }
    watch.signal(Signal::USR1);
    let mut said = vec![
        watch.says("max_user_watches"),
        watch.says("max_user_watches"),
    ];
    watch.until("all folders are there", || {
        (0..12).all(|number| world.local().has_folder(&format!("Made/{number}")))
    });
    found_when_asked(&world, &watch);
    said.extend(watch.said());
    said_once(&said, "here");
    said_once(&said, "there");
    assert_eq!(watch.end().0, Some(0));
    assert_same(world.server(), world.local());
}

#[test]
fn a_tree_behind_fuse_is_looked_at_now_and_then() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let _ = world.client().sync().run().ok();
    let source = world.path("behind");
    let Some(_mount) = Mount::without_flags(world.local().root(), &source) else {
        return;
    };
    let watch = Watch::start(world.client());
    let line = watch.says("is found within 30 s");
    assert!(line.contains("FUSE") && line.contains(" here "), "{line}");
    shows(&world, &watch, "polling_here", "FUSE");
    // The other side is watched as ever.
    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(shown(world.client())["polling_there"], "");
    world.local().deliver("INBOX", U3, &body("three"));
    watch.signal(Signal::USR1);
    assert_eq!(there(&watch.round(), "new"), 1);
    assert_eq!(watch.said(), Vec::<String>::new());
    assert_eq!(watch.end().0, Some(0));
    assert_same(world.server(), world.local());
}

//! Networks that NetworkManager calls metered, and how little then moves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use harness::{Invocation, Watch, World, assert_same, body, bulky};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{U2, U3, configured, here, shown, status};
use crate::errors::U1;

/// A `busctl` that has an answer in a file, which a test changes; what it was asked is in another one.
struct Bus {
    dir: PathBuf,
}

impl Bus {
    fn new(world: &World, answer: &str) -> Bus {
        let bus = Bus {
            dir: world.path("bus"),
        };
        fs::create_dir(&bus.dir).expect("a directory");
        bus.answer(answer);
        let program = bus.dir.join("busctl");
        let script = "#!/bin/sh\nhere=${0%/*}; echo \"$*\" >>\"$here/asked\"; . \"$here/answer\"\n";
        fs::write(&program, script).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("it can be run");
        bus
    }

    /// Answers like this from now on: shell.
    fn answer(&self, answer: &str) {
        let new = self.dir.join("new");
        fs::write(&new, answer).expect("it is written");
        fs::rename(new, self.dir.join("answer")).expect("it is there at once");
    }

    fn says(&self, metered: u32) {
        self.answer(&says(metered));
    }

    /// A watch that asks it.
    fn asked_by(&self, watch: Invocation) -> Invocation {
        let path = std::env::var("PATH").expect("there is one");
        watch.env("PATH", format!("{}:{path}", self.dir.display()))
    }
}

/// NetworkManager's answer (`NMMetered`).
fn says(metered: u32) -> String {
    format!("echo '{{\"type\":\"u\",\"data\":{metered}}}'")
}

/// SPEC §8: on a metered network nothing, until it is another one.
#[test]
fn on_a_metered_network_it_stands_still_where_that_is_set() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let bus = Bus::new(&world, &says(1));
    let watch =
        Watch::invoke(bus.asked_by(configured(&world, world.client(), "metered = \"pause\"")));
    let _ = watch.says("The network is metered");
    let asked = fs::read_to_string(bus.dir.join("asked")).expect("it was asked");
    let words = "get-property org.freedesktop.NetworkManager /org/freedesktop/NetworkManager \
                 org.freedesktop.NetworkManager Metered";
    assert!(asked.lines().all(|line| line.ends_with(words)), "{asked}");
    watch.until("`status` shows it", || {
        shown(world.client())["metered"] == "the network is metered, so nothing moves"
    });
    assert_eq!(shown(world.client())["connected_since"], Value::Null);
    bus.says(4);
    watch.signal(Signal::USR1);
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(shown(world.client())["metered"], "");
    bus.says(3);
    watch.signal(Signal::USR1);
    let _ = watch.says("The network is metered");
    // A run that somebody types does everything.
    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(world.client().sync().run().ok().here("new"), 1);
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
}

/// Flags, moves and small messages go; large ones wait, with a reason, and go when the network is another one. That holds
/// for a first sync, too.
#[test]
fn on_a_metered_network_large_bodies_wait_where_that_is_set() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    world
        .server()
        .store("INBOX", U2, "S", &bulky("two", 70 << 10));
    let bus = Bus::new(&world, &says(1));
    let watch =
        Watch::invoke(bus.asked_by(configured(&world, world.client(), "metered = \"small\"")));
    let round = watch.round();
    assert_eq!((here(&round, "new"), &round["pending"]), (1, &json!(1)));
    let why = "1 waits: the network is metered, and they are over 64 KiB";
    assert!(status(&world).contains(why), "{}", status(&world));
    world
        .local()
        .store("Lists", U3, "S", &bulky("three", 70 << 10));
    world.local().set_flags("INBOX", U1, "FS");
    watch.until("the flag is there", || {
        world.server().flags("INBOX", U1) == "FS"
    });
    world.local().rename("INBOX", U1, "Lists", U1);
    watch.until("the move is there", || world.server().has("Lists", U1));
    assert!(!world.server().has("Lists", U3) && !world.local().has("INBOX", U2));
    bus.says(2);
    watch.signal(Signal::USR1);
    watch.until("both are there", || {
        world.server().has("Lists", U3) && world.local().has("INBOX", U2)
    });
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
    assert_same(world.server(), world.local());
}

/// Neither a bus nor a program that asks it is needed.
#[test]
fn a_network_of_which_nobody_says_that_it_is_metered_is_not() {
    let answers = [
        ("echo no such name >&2; exit 1", "no such name"),
        ("echo nonsense", "nonsense"),
        ("exit 1", "not metered"),
    ];
    for (answer, why) in answers {
        let world = World::new();
        world.server().store("INBOX", U1, "S", &body("one"));
        let bus = Bus::new(&world, answer);
        let watch = bus.asked_by(configured(&world, world.client(), "metered = \"pause\""));
        let watch = Watch::invoke(watch.arg("-v"));
        let said = watch.says("Nobody says whether the network is metered");
        assert!(said.contains(why), "{said}");
        assert_eq!(here(&watch.round(), "new"), 1);
    }
}

//! A watch that is asked to end, or killed, at any system call of its rounds.

use std::fs;

use harness::faults::{End, Kill, MUTATING};
use harness::rng::seed_or;
use harness::{Rng, Watch, World, assert_same, body};
use rustix::process::Signal;

use super::agents;

/// What else a round calls.
const OTHERS: [&str; 6] = ["flock", "getdents64", "openat", "statx", "futex", "read"];

/// Mail in both directions, for the first round, and for one more.
struct Play {
    world: World,
}

impl Play {
    fn new() -> Play {
        let world = World::new();
        for number in 0..5 {
            let unique = format!("{number}.stays.mx");
            world.server().store("INBOX", &unique, "S", &body(&unique));
        }
        let _ = world.client().sync().run().ok();
        world
            .server()
            .deliver("INBOX", "1.there.mx", &body("1 there"));
        world.local().deliver("INBOX", "1.here.mx", &body("1 here"));
        world.local().delete("INBOX", "1.stays.mx");
        Play { world }
    }

    /// Whether it has taken the account: no run but a watch leaves such a lock.
    fn has_begun(&self) -> bool {
        let dir = self.world.client().state().join("addresses");
        let names = fs::read_dir(dir).expect("it was synced").flatten();
        names
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().ends_with("-watch.lock"))
    }

    /// One round more, or none where the watch has ended.
    fn go_on(&self, watch: &mut Watch) {
        let world = &self.world;
        let is_first_done =
            || world.local().has("INBOX", "1.there.mx") && world.server().has("INBOX", "1.here.mx");
        if !watch.until_or_end("the first round", is_first_done) {
            return;
        }
        world
            .server()
            .deliver("Lists", "2.there.mx", &body("2 there"));
        world.local().deliver("INBOX", "2.here.mx", &body("2 here"));
        world.server().set_flags("INBOX", "2.stays.mx", "FS");
        let is_done = || {
            world.local().has("Lists", "2.there.mx")
                && world.server().has("INBOX", "2.here.mx")
                && world.local().flags("INBOX", "2.stays.mx") == "FS"
        };
        watch.until_or_end("another round", is_done);
    }

    /// The next run goes on, nothing is lost or doubled, and no agent is left.
    fn check(&self, what: &str) {
        let world = &self.world;
        let _ = world.client().sync().run().ok();
        let _ = world.client().sync().run().ok().idle();
        assert_same(world.server(), world.local());
        let mail = harness::Snapshot::of(world.server()).mail().len();
        let made = [
            (world.server(), "INBOX", "1.there.mx"),
            (world.server(), "Lists", "2.there.mx"),
        ]
        .iter()
        .chain(&[
            (world.local(), "INBOX", "1.here.mx"),
            (world.local(), "INBOX", "2.here.mx"),
        ])
        .filter(|(tree, folder, unique)| tree.has(folder, unique))
        .count();
        assert_eq!(mail, 4 + made, "{what}");
        assert!(!world.server().has("INBOX", "1.stays.mx"), "{what}");
        assert_eq!(agents(world), [], "{what}");
    }
}

/// SIGTERM comes as the client enters a call: it ends with 0, whatever it was about.
fn terminated(call: &'static str, nth: usize) {
    let play = Play::new();
    let kill = Kill {
        end: End::Client,
        call,
        nth,
    };
    let mut watch = kill.watch(&play.world, play.world.client().pair("watch"), Signal::TERM);
    play.go_on(&mut watch);
    let what = format!("{kill:?}");
    if kill.hits(&play.world, "SIGTERM") == 0 {
        watch.signal(Signal::TERM); // It did not get there, so it is asked now.
    }
    let code = watch.wait();
    // While it reads its command line and configuration, it has nothing to end yet; and who asks twice does not want to wait.
    let is_allowed =
        code == Some(-15) && (!play.has_begun() || kill.hits(&play.world, "SIGTERM") > 1);
    assert!(is_allowed || code == Some(0), "{what}: {code:?}");
    // What was asked for is no failure.
    let said = watch.last_words();
    assert!(
        !said.iter().any(|line| line.contains("error:")),
        "{what}: {said:?}"
    );
    play.check(&what);
}

#[test]
fn asked_to_end_as_a_later_round_begins_it_reports_no_failure() {
    for nth in 7..=9 {
        terminated("flock", nth);
    }
}

/// SIGKILL comes to either end; the other one of a killed client ends by itself, and that of a killed agent goes on.
fn killed(end: End, call: &'static str, nth: usize) {
    let play = Play::new();
    let kill = Kill { end, call, nth };
    let mut watch = kill.watch(&play.world, play.world.client().pair("watch"), Signal::KILL);
    play.go_on(&mut watch);
    let what = format!("{kill:?}");
    let (code, _) = watch.end();
    match end {
        End::Client => assert!([Some(0), Some(-9)].contains(&code), "{what}: {code:?}"),
        End::Agent => assert_eq!(code, Some(0), "{what}"),
    }
    kill.wait_for_end(&play.world);
    play.check(&what);
}

/// Some points of all, as the seed will have them.
fn some(seed: u64, count: usize, nth_max: usize, mut at: impl FnMut(&'static str, usize)) {
    let mut rng = Rng::new(seed_or(seed));
    let calls = [MUTATING, &OTHERS].concat();
    for _ in 0..count {
        let call = calls[rng.below(calls.len())];
        let nth = 1 + rng.below(nth_max);
        println!("{call} {nth}");
        at(call, nth);
    }
}

#[test]
fn asked_to_end_at_any_call_it_ends_with_0() {
    some(1, 5, 20, terminated);
}

#[test]
fn killed_at_any_call_the_next_one_goes_on() {
    some(2, 5, 20, |call, nth| killed(End::Client, call, nth));
}

#[test]
fn an_agent_that_is_killed_at_any_call_is_replaced_by_another() {
    some(3, 5, 12, |call, nth| killed(End::Agent, call, nth));
}

#[test]
#[ignore = "ten minutes"]
fn ends_and_kills_at_very_many_calls() {
    some(1000, 120, 60, terminated);
    some(1001, 120, 60, |call, nth| killed(End::Client, call, nth));
    some(1002, 120, 40, |call, nth| killed(End::Agent, call, nth));
}

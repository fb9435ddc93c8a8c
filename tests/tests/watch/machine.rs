//! What happens around a watch: another network, keys and commands that are wrong, other accounts in the same process, and nothing at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use harness::lacks::lacks;
use harness::process::{LIMIT, run};
use harness::sshd::Login;
use harness::world::{agent_command, agent_program};
use harness::{Snapshot, Sshd, Watch, World, body};
use rustix::process::{Pid, Signal};

use super::{U1, U2, U3, agents, configured, here, shown, there, watched};

/// Words before a command that give it a network of its own.
const ALONE: [&str; 2] = ["unshare", "-Urn"];

fn has_namespaces() -> bool {
    let mut command = Command::new(ALONE[0]);
    command
        .arg(ALONE[1])
        .args(["ip", "addr", "add", "192.0.2.1/32", "dev", "lo"]);
    let done = run(command, LIMIT);
    let has = done.code == Some(0);
    if !has {
        lacks(&format!(
            "no network of its own can be had ({})",
            done.stderr.trim()
        ));
    }
    has
}

/// The machine of a watch gets an address.
fn get_address(watch: &Watch, address: &str) {
    let mut command = Command::new("nsenter");
    let pid = watch.pid().as_raw_nonzero().to_string();
    command.args(["-t", &pid, "-U", "-n", "--preserve-credentials"]);
    command.args(["ip", "addr", "add", address, "dev", "lo"]);
    let done = run(command, LIMIT);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
}

#[test]
fn another_network_makes_it_try_its_connection_and_goes_on() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = Watch::invoke(world.client().pair("watch").arg("-v").under(&ALONE));
    assert_eq!(here(&watch.round(), "new"), 1);
    for (address, unique) in [("192.0.2.1/32", U2), ("192.0.2.2/32", U3)] {
        get_address(&watch, address);
        let _ = watch.says("connections are tried");
        world.server().deliver("INBOX", unique, &body(unique));
        assert_eq!(here(&watch.round(), "new"), 1);
    }
    // The connection was there, so it was not made again.
    assert_eq!(
        shown(world.client())["reconnects"].as_array().map(Vec::len),
        Some(0)
    );
    assert_eq!(watch.end().0, Some(0));
}

/// An agent that hangs is found out as soon as the network is another one.
#[test]
fn after_another_network_a_dead_connection_is_made_anew() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = configured(&world, world.client(), "timeout = \"12s\"");
    let watch = Watch::invoke(watch.under(&ALONE));
    assert_eq!(here(&watch.round(), "new"), 1);
    for &agent in &agents(&world) {
        rustix::process::kill_process(agent, Signal::STOP).expect("it is there");
    }
    get_address(&watch, "192.0.2.1/32");
    let _ = watch.says("silent for");
    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(here(&watch.round(), "new"), 1);
    for &agent in &agents(&world) {
        let _ = rustix::process::kill_process(agent, Signal::CONT);
    }
    assert_eq!(watch.end().0, Some(0));
}

/// What nobody can mend by trying is tried once, until the network is another one, or somebody asks.
#[test]
fn a_wrong_command_is_tried_once_and_again_on_another_network() {
    if !has_namespaces() {
        return;
    }
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let (missing, tries) = (world.path("agent"), world.path("tries"));
    let command = world.path("counts.sh");
    let state = world.server_state();
    let script = format!(
        "echo try >> {}\nexec {} --state-dir {} \"$@\"\n",
        tries.display(),
        missing.display(),
        state.display(),
    );
    fs::write(&command, script).expect("script is written");
    let watch = world
        .client()
        .pair("watch")
        .through(&format!("sh {}", command.display()));
    let watch = Watch::invoke(watch.under(&ALONE));
    let line = watch.says("agent");
    let count = || {
        fs::read_to_string(&tries)
            .expect("it was tried")
            .lines()
            .count()
    };
    assert_eq!(count(), 1, "{line}");
    watch.signal(Signal::USR1);
    watch.until("tried again", || count() == 2);
    symlink(agent_program(), &missing).expect("the agent is installed");
    get_address(&watch, "192.0.2.1/32");
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(count(), 3);
    // The same sentence is not said again.
    assert_eq!(watch.said(), Vec::<String>::new());
    assert_eq!(watch.end().0, Some(0));
}

#[test]
fn another_host_key_is_tried_once_and_again_when_asked() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let client = sshd.client(world.client(), "");
    world.server().store("INBOX", U1, "S", &body("one"));
    let known = sshd.known_hosts();
    let right = fs::read_to_string(&known).expect("the host is known");
    let key = fs::read_to_string(sshd.key().with_extension("pub")).expect("a key");
    let host = right.split(' ').next().expect("a host");
    fs::write(&known, format!("{host} {key}")).expect("another key is known");
    let watch = Watch::start(&client);
    let line = watch.says("key");
    assert_eq!(sshd.connections(), 1, "{line}");
    fs::write(&known, right).expect("the right key is known");
    watch.signal(Signal::USR1);
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(sshd.connections(), 1);
    assert_eq!(watch.said(), Vec::<String>::new());
    assert_eq!(watch.end().0, Some(0));
}

/// One process for all accounts: a server that cannot be reached is that account's matter.
#[test]
fn an_account_that_fails_does_not_stop_the_others() {
    let world = World::with_clients(2);
    let [home, away] = [0, 1].map(|number| world.nth(number));
    let agent = agent_command(&world.server_state());
    let account = |name: &str, local: &str, agent: &str| {
        format!(
            "[account.{name}]\nremote = {:?}\nlocal = {local:?}\nserver_command = {agent:?}\n",
            world.server().root()
        )
    };
    let [here_root, away_root] =
        [home, away].map(|client| client.tree().root().display().to_string());
    let config = |away_agent: &str| {
        let home_text = account("home", &here_root, &agent);
        home.configure(&(home_text + &account("away", &away_root, away_agent)));
    };
    config("false");
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = home.bare(&["watch", "--json"]);
    let watch = Watch::invoke(watch.arg("--state-dir").arg(home.state()));
    assert_eq!(here(&watch.round(), "new"), 1);
    let _ = watch.says("away");
    world.server().deliver("INBOX", U2, &body("two"));
    watch.until("delivered", || home.tree().has("INBOX", U2));
    home.tree().deliver("INBOX", U3, &body("three"));
    watch.until("sent", || world.server().has("INBOX", U3));
    assert!(!away.tree().has("INBOX", U1));
    // Mended, and both go on.
    config(&agent);
    watch.signal(Signal::USR1);
    watch.until("the other one", || away.tree().has("INBOX", U3));
    away.tree().delete("INBOX", U1);
    watch.until("deleted", || !home.tree().has("INBOX", U1));
    assert_eq!(watch.end().0, Some(0));
}

/// How often a process has gone to sleep or was made to wait, all its threads together.
fn switches(pid: Pid) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).expect("it is there");
    let switches = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts = counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        counts.sum::<u64>()
    };
    tasks.flatten().map(switches).sum()
}

/// Nothing to do is no work: no thread of either end looks whether there is any, but for one each that looks at the time now and then.
#[test]
fn an_idle_watch_does_nothing() {
    let world = World::new();
    let watch = watched(&world);
    let pids = [&[watch.pid()][..], &agents(&world)].concat();
    assert_eq!(pids.len(), 2);
    let count = || pids.iter().map(|&pid| switches(pid)).collect::<Vec<_>>();
    // What the last round leaves to be done is over once nothing moves for a while; no event tells of nothing.
    let mut before = count();
    let quiet = |before: &mut Vec<u64>| {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let now = count();
        let woken: u64 = now
            .iter()
            .zip(&*before)
            .map(|(now, before)| now - before)
            .sum();
        *before = now;
        woken
    };
    assert!(
        (0..8).any(|_| quiet(&mut before) <= 2),
        "it never sleeps: {before:?}"
    );
}

/// So many lines wrote a hook before its rounds.
fn rounds_of(deliveries: usize) -> usize {
    let world = World::new();
    let counted = world.client().home().join("rounds");
    world.server().store("INBOX", U1, "S", &body("one"));
    let hook = format!("hooks.pre = '''echo round >> {}'''", counted.display());
    let watch = Watch::invoke(configured(&world, world.client(), &hook));
    assert_eq!(here(&watch.round(), "new"), 1);
    let count = || {
        fs::read_to_string(&counted)
            .expect("the hook ran")
            .lines()
            .count()
    };
    let before = count();
    for number in 0..deliveries {
        // Readers, and backups, wake nobody.
        for tree in [world.local(), world.server()] {
            let _ = Snapshot::of(tree);
        }
        let unique = format!("{number}.D.mx");
        if number % 2 == 0 {
            world.server().deliver("INBOX", &unique, &body(&unique));
            assert_eq!(here(&watch.round(), "new"), 1);
        } else {
            world.local().deliver("INBOX", &unique, &body(&unique));
            assert_eq!(there(&watch.round(), "new"), 1);
        }
    }
    assert_eq!(watch.end().0, Some(0));
    count() - before
}

#[test]
fn deliveries_one_by_one_are_as_many_rounds_and_no_more() {
    assert_eq!(rounds_of(10), 10);
}

#[test]
#[ignore = "a minute"]
fn two_hundred_deliveries_one_by_one_are_two_hundred_rounds() {
    assert_eq!(rounds_of(200), 200);
}

/// What memory a process has, in KiB.
fn memory(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let status = status.expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    figure.expect("a figure")
}

#[test]
#[ignore = "some minutes"]
fn a_thousand_rounds_keep_no_memory() {
    let world = World::new();
    let watch = watched(&world);
    let pids = [&[watch.pid()][..], &agents(&world)].concat();
    let rounds = |count: usize| {
        for number in 0..count {
            world
                .local()
                .set_flags("INBOX", U1, if number % 2 == 0 { "FS" } else { "S" });
            assert_eq!(there(&watch.round(), "flags"), 1);
        }
        pids.iter().map(|&pid| memory(pid)).collect::<Vec<_>>()
    };
    let before = rounds(100);
    let after = rounds(1000);
    println!("{before:?} KiB, then {after:?} KiB");
    for (before, after) in before.iter().zip(&after) {
        assert!(after < &(before + 4096), "{before} {after}");
    }
}

//! `watch`: mail is here when it comes, and there is one connection, however long it takes.

mod ends;
mod gaps;
mod limits;
mod machine;
mod metered;
mod users;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::sshd::Login;
use harness::world::agent_command;
use harness::{Client, Invocation, Manager, Snapshot, Sshd, Watch, World, assert_same, body};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::errors::U1;

const U2: &str = "1700000002.M2P2.host";
const U3: &str = "1700000003.M3P3.host";
/// SPEC: it ends within so long after SIGTERM.
const END: Duration = Duration::from_secs(5);

fn here(round: &Value, tally: &str) -> u64 {
    round["here"][tally].as_u64().expect("a figure")
}

fn there(round: &Value, tally: &str) -> u64 {
    round["there"][tally].as_u64().expect("a figure")
}

/// What `status` says of the watch that runs, if one does.
fn shown(client: &Client) -> Value {
    let status = client.bare(&["status", "--json"]);
    let status = status.arg("--state-dir").arg(client.state());
    let status = status.arg(client.remote()).arg(client.tree().root()).run();
    status.json.expect("JSON was printed")["watch"].clone()
}

/// A world that is in sync, and a watch over it that is through with its first round.
fn watched(world: &World) -> Watch {
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = Watch::start(world.client());
    assert_eq!(here(&watch.round(), "new"), 1);
    watch
}

#[test]
fn deliveries_flags_moves_and_deletions_go_both_ways_over_one_connection() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let client = sshd.client(world.client(), "");
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = Watch::start(&client);
    assert_eq!(here(&watch.round(), "new"), 1);

    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(here(&watch.round(), "new"), 1);
    world.local().assert_holds("INBOX", U2, &body("two"));
    world.local().to_cur("INBOX", U2, "S");
    assert_eq!(there(&watch.round(), "flags"), 1);
    assert_eq!(world.server().flags("INBOX", U2), "S");
    world.local().deliver("INBOX", U3, &body("three"));
    assert_eq!(there(&watch.round(), "new"), 1);
    world.server().make_folder("Lists");
    assert_eq!(here(&watch.round(), "folders"), 1);
    world.server().rename("INBOX", U3, "Lists", U3);
    assert_eq!(here(&watch.round(), "moved"), 1);
    world.local().delete("INBOX", U1);
    assert_eq!(there(&watch.round(), "deleted"), 1);

    let (code, took) = watch.end();
    assert_eq!(code, Some(0));
    assert!(took < END, "{took:?}");
    assert_same(world.server(), world.local());
    assert_eq!(sshd.logins(), 1);
}

/// SPEC §8: what a round itself does wakes nobody.
#[test]
fn ten_changes_of_a_flag_are_ten_rounds() {
    let world = World::new();
    let watch = watched(&world);
    for number in 0..10 {
        let flags = if number % 2 == 0 { "FS" } else { "S" };
        world.local().set_flags("INBOX", U1, flags);
        assert_eq!(there(&watch.round(), "flags"), 1, "round {number}");
    }
    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(watch.rounds_left(), 0);
    // Nor that the first round made the root here.
    assert_eq!(watch.said(), Vec::<String>::new());
}

#[test]
fn a_folder_that_is_made_and_filled_at_once_comes_whole_on_both_sides() {
    let world = World::new();
    let watch = watched(&world);
    for (number, tree) in [world.server(), world.local()].into_iter().enumerate() {
        let folder = format!("Made/{number}/below");
        tree.make_folder(&folder);
        for count in 0..20 {
            tree.deliver(
                &folder,
                &format!("17000000{count}.M1.host{number}"),
                &body(&count.to_string()),
            );
        }
        let other = if number == 0 {
            world.local()
        } else {
            world.server()
        };
        watch.until("the folder", || {
            other.has_folder(&folder) && other.has(&folder, &format!("1700000019.M1.host{number}"))
        });
    }
    watch.until("both trees are the same", || {
        Snapshot::of(world.server()).mail().len() == 41
            && Snapshot::of(world.local()).mail().len() == 41
    });
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
    assert_same(world.server(), world.local());
}

/// No directory shows that a message was edited in place, draft or not.
#[test]
fn a_message_that_is_edited_in_place_is_replaced_there() {
    let world = World::new();
    for (unique, flags) in [(U1, "D"), (U2, "S")] {
        world.local().store("INBOX", unique, flags, &body(unique));
    }
    let watch = Watch::start(world.client());
    assert_eq!(there(&watch.round(), "new"), 2);
    for unique in [U1, U2] {
        world.local().edit("INBOX", unique, &body("another"));
        assert_eq!(there(&watch.round(), "replaced"), 1, "{unique}");
        world
            .server()
            .assert_holds("INBOX", unique, &body("another"));
    }
    world.server().edit("INBOX", U2, &body("a third"));
    assert_eq!(here(&watch.round(), "replaced"), 1);
    world.local().assert_holds("INBOX", U2, &body("a third"));
}

/// An editor that writes in place empties the file first. What is there then is not damaged, and must not be replaced under it.
#[test]
fn an_edit_that_takes_its_time_is_no_damage() {
    let world = World::new();
    for (unique, flags) in [(U1, "D"), (U2, "S")] {
        world.local().store("INBOX", unique, flags, &body(unique));
    }
    let watch = Watch::start(world.client());
    assert_eq!(there(&watch.round(), "new"), 2);
    for (number, unique) in [U1, U2].into_iter().enumerate() {
        let path = world.local().path("INBOX", unique);
        let mut editor = fs::File::create(&path).expect("it is emptied");
        // Something else makes it look meanwhile.
        let other = format!("180000000{number}.M1.host");
        world.local().deliver("INBOX", &other, &body(&other));
        assert_eq!(there(&watch.round(), "new"), 1);
        editor.write_all(&body("edited")).expect("it is written");
        drop(editor);
        assert_eq!(there(&watch.round(), "replaced"), 1, "{unique}");
        world.local().assert_holds("INBOX", unique, &body("edited"));
        world
            .server()
            .assert_holds("INBOX", unique, &body("edited"));
    }
}

/// What becomes readable makes an event of its own kind.
#[test]
fn what_can_be_read_again_is_looked_at() {
    let world = World::unprivileged();
    world.server().store("INBOX", U1, "S", &body("one"));
    world.server().store("Lists", U2, "S", &body("two"));
    world.server().store("Lists", U3, "S", &body("three"));
    world.give_away();
    let (lists, cur) = (
        world.server().dir("Lists"),
        world.server().dir("Lists").join("cur"),
    );
    let allow = |dir: &std::path::Path, mode| {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    allow(&cur, 0);
    let watch = Watch::start(world.client());
    let _ = watch.says("Permission denied");
    allow(&cur, 0o700);
    assert_eq!(here(&watch.round(), "new"), 2);
    // And the folder itself: what was deleted elsewhere meanwhile waits for it, and that is said.
    allow(&lists, 0);
    world.server().delete("INBOX", U1);
    watch.until("what waits is said", || waiting(&world) == 1);
    assert!(world.local().has("INBOX", U1));
    allow(&lists, 0o700);
    assert_eq!(here(&watch.round(), "deleted"), 1);
}

/// What could not be done is tried again, though nothing of the message changes any more on either side.
#[test]
fn what_waits_is_tried_again_by_itself() {
    let world = World::unprivileged();
    world.server().store("Lists", U1, "S", &body("one"));
    world.give_away();
    let lists = world.server().dir("Lists");
    let allow = |mode| {
        for part in ["cur", "new", "tmp"] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(lists.join(part), mode).expect("it is ours");
        }
    };
    let watch = Watch::start(world.client());
    assert_eq!(here(&watch.round(), "new"), 1);
    allow(0o500);
    world.local().store("Lists", U2, "S", &body("two"));
    world.give_away();
    watch.until("what waits is said", || waiting(&world) == 1);
    assert!(!world.server().has("Lists", U2));
    allow(0o700);
    watch.until("it is done", || world.server().has("Lists", U2));
}

fn waiting(world: &World) -> u64 {
    let client = world.client();
    let status = client.bare(&["status", "--json"]);
    let status = status.arg("--state-dir").arg(client.state());
    let status = status.arg(client.remote()).arg(client.tree().root()).run();
    let json = status.json.expect("JSON was printed");
    json["waiting"]
        .as_array()
        .map_or(0, |waiting| waiting.len() as u64)
}

#[test]
fn a_second_watch_of_an_account_names_the_first_and_ends_with_75() {
    let world = World::new();
    let watch = watched(&world);
    let second = world.client().pair("watch").run().exits(75);
    let pid = watch.pid().as_raw_nonzero();
    assert!(
        second.stderr.contains(&format!("process {pid}")),
        "{}",
        second.stderr
    );
    assert_eq!(shown(world.client())["pid"], pid.get());
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
    assert_eq!(shown(world.client()), Value::Null);
}

/// `Type=notify`: ready after the first round, alive as long as it works.
#[test]
fn a_service_manager_hears_that_it_is_ready_how_it_stands_and_that_it_works() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let manager = Manager::new(&world.path(""));
    let watch = world.client().pair("watch");
    let watch = watch
        .env("NOTIFY_SOCKET", manager.path())
        .env("WATCHDOG_USEC", "300000");
    let watch = Watch::invoke(watch);
    manager.hears("READY=1");
    world.local().assert_holds("INBOX", U1, &body("one"));
    assert!(manager.hears("STATUS=").contains("connected"));
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
}

#[test]
fn it_has_no_dry_run_and_says_what_has() {
    let world = World::new();
    let run = world.client().pair("watch").arg("-n").run().exits(2);
    let _ = run.says("maildir-sync sync -n");
}

#[test]
fn an_unknown_account_or_none_at_all_is_usage() {
    let world = World::new();
    let _ = world
        .client()
        .bare(&["watch"])
        .run()
        .exits(2)
        .says("account");
    world.client().configure(&format!(
        "[account.home]\nremote = \"{}\"\nlocal = \"{}\"\n",
        world.server().root().display(),
        world.local().root().display(),
    ));
    let _ = world
        .client()
        .bare(&["watch", "hom"])
        .run()
        .exits(2)
        .says("home");
}

/// The agent is killed, as by a server that goes down: one line, and all is well again.
#[test]
fn a_lost_connection_is_made_again_and_said_once() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let client = sshd.client(world.client(), "");
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = Watch::start(&client);
    assert_eq!(here(&watch.round(), "new"), 1);
    sshd.forget_connections();
    let _ = watch.says("Lost the connection");
    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(watch.said(), Vec::<String>::new());
    assert_eq!(sshd.logins(), 2);
    let shown = shown(&client);
    assert_eq!(shown["reconnects"].as_array().expect("a list").len(), 1);
}

/// What nobody can mend by trying is tried once, until somebody asks.
#[test]
fn a_refused_key_is_tried_once_and_again_when_asked() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::Forced("echo wrong".to_owned()));
    let client = sshd.client(world.client(), "");
    let watch = Watch::start(&client);
    let _ = watch.says("forced command");
    assert_eq!(sshd.logins(), 1);
    world.server().store("INBOX", U1, "S", &body("one"));
    sshd.allow(&Login::agent(&world, ""));
    watch.signal(Signal::USR1);
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(sshd.logins(), 1);
}

/// A link that swallows everything: the agent is asked whether it is there, and another connection is made. The old agent, which
/// nobody asks any more, ends by itself.
#[test]
fn a_silent_link_is_given_up_and_leaves_no_agent() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let client = sshd.client(world.client(), "");
    client.configure(&format!(
        "[account.home]\nremote = \"mailhost:\"\nlocal = \"{}\"\nssh_config = \"{}\"\ntimeout = \"1s\"\n",
        client.tree().root().display(),
        sshd.config().display(),
    ));
    world.server().store("INBOX", U1, "S", &body("one"));
    let watch = client.bare(&["watch", "home", "--json"]);
    let watch = Watch::invoke(watch.arg("--state-dir").arg(client.state()));
    assert_eq!(here(&watch.round(), "new"), 1);
    let sessions = sshd.freeze_sessions();
    assert_eq!(sessions.len(), 1, "one connection");
    let _ = watch.says("silent for");
    world.server().deliver("INBOX", U2, &body("two"));
    assert_eq!(here(&watch.round(), "new"), 1);
    // Frozen sessions pass nothing on, so their agent hears nothing and is not heard; it counts the time itself.
    watch.until("the old agent has ended", || agents(&world).len() == 1);
}

/// The account `home` of a client, with more settings; the command has no other options.
fn configured(world: &World, client: &Client, more: &str) -> Invocation {
    client.configure(&format!(
        "[account.home]\nremote = {:?}\nlocal = {:?}\nserver_command = {:?}\n{more}\n",
        world.server().root(),
        client.tree().root(),
        agent_command(&world.server_state()),
    ));
    let watch = client.bare(&["watch", "home", "--json"]);
    watch.arg("--state-dir").arg(client.state())
}

/// The agents that serve this world.
fn agents(world: &World) -> Vec<Pid> {
    let state = world.server_state().display().to_string();
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let serves = |entry: &fs::DirEntry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|&byte| byte == 0).collect();
        words[0].ends_with(b"/maildir-sync-server") && words.contains(&state.as_bytes())
    };
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    processes.filter(serves).filter_map(pid).collect()
}

/// Another run, by hand or by a timer, moves what the archive knows of the server.
#[test]
fn an_ordinary_run_beside_it_is_no_reason_to_stop() {
    let world = World::new();
    let watch = watched(&world);
    for (number, unique) in [U2, U3].into_iter().enumerate() {
        let beside = world.client().sync().run().ok();
        assert_eq!(beside.here("new"), 0);
        world.server().deliver("INBOX", unique, &body(unique));
        watch.until("delivered", || world.local().has("INBOX", unique));
        let _ = world.client().sync().run().ok();
        world
            .local()
            .set_flags("INBOX", U1, if number == 0 { "FS" } else { "S" });
        watch.until("flagged", || {
            world.server().flags("INBOX", U1) == world.local().flags("INBOX", U1)
        });
    }
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
    assert_same(world.server(), world.local());
}

#[test]
fn a_pause_holds_it_at_once_and_resume_lets_it_go_on() {
    let world = World::new();
    let watch = watched(&world);
    let state = world.client().state();
    let command = |words: &[&str]| {
        world
            .client()
            .bare(words)
            .arg("--state-dir")
            .arg(&state)
            .run()
            .ok()
    };
    let _ = command(&["pause"]);
    let _ = watch.says("Paused");
    assert_eq!(shown(world.client())["connected_since"], Value::Null);
    world.server().deliver("INBOX", U2, &body("two"));
    let _ = command(&["resume"]);
    assert_eq!(here(&watch.round(), "new"), 1);
}

/// A hook that wants no round holds none of what it lets through later, whether it was asked first of all or before a round.
#[test]
fn a_hook_that_says_not_now_is_asked_again_and_told_of_once() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    let not_now = world.path("not-now");
    fs::write(&not_now, "").expect("it says not now");
    let asked = world.path("asked");
    let watch = configured(
        &world,
        world.client(),
        &format!(
            "hooks.pre = '''echo asked >>{}; ! test -e {} || exit 75'''",
            asked.display(),
            not_now.display()
        ),
    );
    let watch = Watch::invoke(watch);
    let _ = watch.says("not now");
    for count in [2, 3] {
        watch.signal(Signal::USR1);
        watch.until("it is asked again", || lines(&asked) >= count);
    }
    fs::remove_file(&not_now).expect("it lets runs begin");
    watch.signal(Signal::USR1);
    assert_eq!(here(&watch.round(), "new"), 1);
    fs::write(&not_now, "").expect("it says not now");
    let before = lines(&asked);
    world.server().deliver("INBOX", U2, &body("two"));
    let _ = watch.says("not now");
    watch.signal(Signal::USR1);
    watch.until("it is asked again", || lines(&asked) >= before + 2);
    fs::remove_file(&not_now).expect("it lets runs begin");
    watch.signal(Signal::USR1);
    assert_eq!(here(&watch.round(), "new"), 1);
    assert_eq!(watch.said(), Vec::<String>::new());
    let (code, _) = watch.end();
    assert_eq!(code, Some(0));
}

/// What `status` says to people.
fn status(world: &World) -> String {
    let status = world.client().bare(&["status"]);
    let status = status.arg("--state-dir").arg(world.client().state());
    let status = status.arg(world.server().root());
    status.arg(world.local().root()).run().stdout
}

/// Since when it is connected, how each side hears of changes and why so, what happened last, and whether it is paused.
#[test]
fn status_tells_people_how_a_running_watch_stands() {
    let world = World::new();
    let watch = watched(&world);
    world.local().set_flags("INBOX", U1, "FS");
    assert_eq!(there(&watch.round(), "flags"), 1);
    let pid = watch.pid().as_raw_nonzero();
    let begin = format!("watch (process {pid}) connected for ");
    let rest = "; changes are found by events here, by events there; last event here ";
    watch.until("status has it", || {
        let text = status(&world);
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(&begin));
        line.is_some_and(|line| {
            line.contains(rest)
                && !line.contains("never")
                && line.ends_with("connected anew in the last hour: 0 times")
        })
    });
    let pause = world.client().bare(&["pause", "--state-dir"]);
    let _ = pause.arg(world.client().state()).run().ok();
    let _ = watch.says("Paused");
    let stands = format!("watch (process {pid}) not connected; ");
    watch.until("status has it", || {
        let text = status(&world);
        text.contains(&stands) && text.contains("\n  Paused ")
    });
}

/// How many lines a file has.
fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

/// The root is not there: refused as ever, and gone on with when it is back.
#[test]
fn a_root_that_vanishes_is_refused_and_taken_up_again_when_it_is_back() {
    let world = World::new();
    let watch = watched(&world);
    let root = world.local().root().to_owned();
    let aside: PathBuf = world.path("aside");
    fs::rename(&root, &aside).expect("it is moved");
    world.server().deliver("INBOX", U2, &body("two"));
    let _ = watch.says("missing");
    fs::rename(&aside, &root).expect("it is moved back");
    watch.signal(Signal::USR1);
    assert_eq!(here(&watch.round(), "new"), 1);
    assert!(world.server().has("INBOX", U1));
}

/// Neither end is told anything, and nobody dies: SIGKILL in the middle, and the next one goes on.
#[test]
fn killed_at_any_time_nothing_is_lost_and_no_agent_is_left() {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    for number in 0..5 {
        let watch = Watch::start(world.client());
        let unique = format!("170000001{number}.M1.host");
        world.server().deliver("INBOX", &unique, &body(&unique));
        watch.until("delivered", || world.local().has("INBOX", &unique));
        drop(watch);
        let _ = world.client().sync().run().ok();
        assert_same(world.server(), world.local());
    }
}

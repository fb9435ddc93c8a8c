//! C75 to C77: every wait has an end. A server that says nothing, an agent that hangs, a person who is asked, a command that
//! is none.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::faults::Held;
use harness::process::{LIMIT, Running, run};
use harness::sshd::Login;
use harness::world::agent_command;
use harness::{Client, Invocation, Run, Sshd, World, body, bulky};
use rustix::process::{Pid, Signal, kill_process};

/// What the tests wait for instead of a minute.
const TIMEOUT: Duration = Duration::from_secs(2);
/// When a run is killed that does not end; no test asks how long one took.
const PLENTY: Duration = Duration::from_secs(25);

/// An account that is patient for [`TIMEOUT`].
fn account(client: &Client, remote: &str, more: &str) {
    client.configure(&format!(
        "[account.home]\nremote = {remote:?}\nlocal = {:?}\ntimeout = \"2s\"\n{more}\n",
        client.tree().root()
    ));
}

fn by_account(client: &Client, command: &str) -> Invocation {
    let state = client.state().display().to_string();
    let words = [command, "home", "--json", "--state-dir", &state];
    client.bare(&words).limit(PLENTY)
}

fn through(world: &World, command: &str) -> Invocation {
    let server = world.server().root().display().to_string();
    account(
        world.client(),
        &server,
        &format!("server_command = {command:?}"),
    );
    by_account(world.client(), "sync")
}

/// A world with so much mail at the server that no buffer holds it.
fn full_world() -> World {
    let world = World::new();
    for number in 0..200 {
        let bytes = bulky(&format!("bulky {number}"), 20_000);
        world
            .server()
            .store("INBOX", &format!("{number:03}.M.mx"), "S", &bytes);
    }
    world
}

/// A script that notes its process id and becomes the agent.
fn noting(world: &World, agent: &str) -> (String, impl Fn() -> Pid + use<>) {
    let (script, pid) = (world.path("noting.sh"), world.path("agent.pid"));
    let text = format!(
        "#!/bin/sh\necho $$ > {}\nexec {agent} \"$@\"\n",
        pid.display()
    );
    fs::write(&script, text).expect("script is written");
    let agent = format!("sh {}", script.display());
    (agent, move || {
        let number = fs::read_to_string(&pid).expect("the agent began");
        let number = number.trim().parse().expect("a number");
        Pid::from_raw(number).expect("a process")
    })
}

fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).expect("it is there");
}

#[track_caller]
fn gives_up(running: Running) -> Run {
    let run = Run::of("sync".to_owned(), running.wait()).exits(75);
    run.says("silent for 2 s")
        .says("the next run goes on")
        .says_one_sentence()
}

/// C75: an agent that is stopped in the middle of a transfer is given up, what had come is kept, and nobody keeps a lock.
#[test]
fn a_hung_agent_is_given_up_and_the_next_run_goes_on() {
    let world = full_world();
    let (agent, pid) = noting(&world, &agent_command(&world.server_state()));
    let held = Held::new(&world, "hung");
    let running = through(&world, &held.command(600_000, &agent)).start();
    held.wait_until_held();
    let pid = pid();
    signal(pid, Signal::STOP);
    held.release();
    let run = gives_up(running).says("messages are here");
    signal(pid, Signal::KILL);
    assert!(
        run.here("new") > 0,
        "what has come is there: {}",
        run.stdout
    );
    let again = through(&world, &agent_command(&world.server_state()))
        .run()
        .ok();
    assert_eq!(run.here("new") + again.here("new"), 200);
    world.assert_same();
}

/// C75: the same over ssh, with the agent stopped, and with the whole server stopped, as a link is that swallows everything.
#[test]
fn a_server_that_hangs_is_given_up() {
    for whole in [false, true] {
        let world = full_world();
        let Login::Forced(forced) = Login::agent(&world, "") else {
            unreachable!("it forces the agent")
        };
        let (agent, pid) = noting(&world, &forced);
        let held = Held::new(&world, "hung");
        let sshd = Sshd::start(&world, &Login::Forced(held.command(600_000, &agent)));
        let config = format!("ssh_config = {:?}", sshd.config());
        account(world.client(), "mailhost:", &config);
        let running = by_account(world.client(), "sync").start();
        held.wait_until_held();
        let pid = pid();
        signal(pid, Signal::STOP);
        if whole {
            sshd.freeze();
        } else {
            held.release();
        }
        let _ = gives_up(running).says("mailhost");
        let _ = kill_process(pid, Signal::KILL);
        drop(sshd);
        let _sshd = Sshd::start(&world, &Login::agent(&world, ""));
        let _ = by_account(world.client(), "sync").run().ok();
        world.assert_same();
    }
}

/// An agent that works for longer than anybody waits says so: here it waits for a tree that another run holds.
#[test]
fn an_agent_that_is_at_work_is_waited_for() {
    let world = World::new();
    world.server().deliver("INBOX", "1.M.mx", &body("one"));
    let root = fs::File::open(world.server().root()).expect("it is there");
    root.lock().expect("nobody holds it");
    let running = through(&world, &agent_command(&world.server_state())).start();
    assert!(running.goes_on_for(3 * TIMEOUT), "{:?}", running.wait());
    root.unlock().expect("it is ours");
    let run = Run::of("sync".to_owned(), running.wait()).ok();
    assert_eq!(run.here("new"), 1);
}

/// While the disk here is slow the agent is silent, and nothing is due from it.
#[test]
fn an_agent_that_waits_for_us_is_not_called_silent() {
    let world = World::new();
    for number in 0..3 {
        world.server().deliver(
            "INBOX",
            &format!("{number}.M.mx"),
            &body(&number.to_string()),
        );
    }
    let slow = ["strace", "-f", "-q", "-o", "/dev/null", "-b", "execve"];
    let slow = [
        &slow[..],
        &[
            "-e",
            "trace=fsync",
            "-e",
            "inject=fsync:delay_enter=5000000:when=1",
        ],
    ];
    let run = through(&world, &agent_command(&world.server_state()));
    let run = run.under(&slow.concat()).run().ok();
    assert_eq!(run.here("new"), 3);
}

/// A server that takes the connection and says nothing, or nothing after its first line.
fn mute(greeting: &'static [u8]) -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("it has one").port();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                stream.write_all(greeting).expect("it is written");
                stream.read_to_end(&mut Vec::new())
            });
        }
    });
    port
}

fn through_port(world: &World, port: u16) {
    let config = world.path("ssh_config");
    let text = format!("Host mailhost\n HostName 127.0.0.1\n Port {port}\n");
    fs::write(&config, text).expect("it is written");
    account(
        world.client(),
        "mailhost:Maildir",
        &format!("ssh_config = {config:?}"),
    );
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    for greeting in [&b""[..], b"SSH-2.0-OpenSSH_9.2\r\n"] {
        let world = World::new();
        through_port(&world, mute(greeting));
        let run = by_account(world.client(), "pull").run().exits(75);
        let _ = run.says("mailhost").says_one_sentence();
        assert!(
            !world.local().root().join("cur").exists(),
            "nothing is made"
        );
    }
}

#[test]
fn a_program_that_never_speaks_is_given_up_in_time() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::Forced("sleep 600".to_owned()));
    let config = format!("ssh_config = {:?}", sshd.config());
    account(world.client(), "mailhost:", &config);
    let run = by_account(world.client(), "sync").run().exits(75);
    let _ = run.says("said nothing for 2 s").says_one_sentence();
    for command in ["sleep 600", "cat", "sh -c 'printf Welcome; sleep 600'"] {
        let script = world.path("mute.sh");
        fs::write(&script, format!("exec {command}\n")).expect("script is written");
        let run = through(&world, &format!("sh {}", script.display())).run();
        let _ = run
            .exits(75)
            .says("said nothing for 2 s")
            .says_one_sentence();
    }
}

/// One agent that is stopped with the tree's lock: others say so, as temporary, and do not wait for ever.
#[test]
fn a_connection_that_another_run_is_about_to_make_is_not_waited_for_for_ever() {
    let world = World::new();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let config = format!("ssh_config = {:?}\npersist = \"10m\"", sshd.config());
    account(world.client(), "mailhost:", &config);
    let _ = by_account(world.client(), "sync").run().ok();
    let run = world.client().home().join("run/maildir-sync");
    let lock = fs::read_dir(run).expect("it is there").flatten();
    let lock = lock
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some());
    let lock = fs::File::open(lock.expect("a lock")).expect("it opens");
    lock.lock().expect("nobody holds it");
    sshd.forget_connections();
    let run = by_account(world.client(), "sync").run().exits(75);
    let _ = run.says("another run is connecting").says_one_sentence();
}

/// An sshd whose host key is not known, so that ssh asks a person.
fn asking(world: &World) -> Sshd {
    let sshd = Sshd::start(world, &Login::agent(world, ""));
    let config = fs::read_to_string(sshd.config()).expect("it is there");
    let config = config
        .replace("BatchMode yes", "")
        .replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask");
    fs::write(sshd.config(), config).expect("it is written");
    fs::write(world.path("sshd/known_hosts"), "").expect("host is forgotten");
    let config = format!("ssh_config = {:?}", sshd.config());
    account(world.client(), "mailhost:", &config);
    sshd
}

const QUESTION: &str = "continue connecting (yes/no";

/// C77: a question stands as long as the person needs, nothing is drawn over it, and its time does not count.
#[test]
fn a_question_of_ssh_stands_and_a_person_has_his_time() {
    let world = World::new();
    world.server().deliver("INBOX", "1.M.mx", &body("one"));
    let _sshd = asking(&world);
    let mut terminal = by_account(world.client(), "sync").before_a_person();
    terminal.expect(QUESTION);
    terminal.expect("])? ");
    let drawn = terminal.drawn_within(3 * TIMEOUT);
    assert_eq!(drawn, "", "nothing is drawn over a question");
    terminal.press("yes\n");
    let (code, drawn) = terminal.wait();
    assert_eq!(code, Some(0), "{drawn}");
    assert!(
        drawn.contains("comparing"),
        "then there is a progress line: {drawn:?}"
    );
    let asked = drawn.split(QUESTION).next().expect("there is one");
    assert!(
        !asked.contains("scanning") && !asked.contains('\x1b'),
        "{asked:?}"
    );
    world.assert_same();
}

/// A person who does not want to answer is rid of us at once, and the terminal is as it was.
#[test]
fn a_ctrl_c_at_a_question_ends_at_once() {
    let world = World::new();
    let _sshd = asking(&world);
    let mut terminal = by_account(world.client(), "sync").before_a_person();
    terminal.expect("])? ");
    terminal.press("\x03");
    let (code, drawn) = terminal.wait();
    assert_eq!(code, Some(75), "{drawn}");
    assert!(drawn.contains("Interrupted"), "{drawn}");
}

/// C76: under a forced command, whatever a person has executed ends at once and says what the key is for; `true` is valid
/// base64, and so is much else.
#[test]
fn what_is_no_hello_is_told_what_the_key_serves_and_ends_at_once() {
    let world = World::new();
    let root = world.server().root().display().to_string();
    for (rights, said) in [
        ("", "with all rights"),
        ("--read-only", "read-only"),
        ("--append-only", "append-only"),
        ("--no-delete", "but to delete"),
    ] {
        let sshd = Sshd::start(&world, &Login::agent(&world, rights));
        for words in [
            "true",
            "uptime",
            "maildir-sync-server",
            "",
            "scp -f /etc/passwd",
        ] {
            let done = executed(&sshd.config(), words);
            assert_eq!(done.code, Some(1), "{words:?}: {done:?}");
            let lines: Vec<&str> = done.stderr.lines().collect();
            let is_one = matches!(lines[..], [line] if line.contains(&root) && line.contains(said));
            assert!(is_one && done.stdout.is_empty(), "{words:?}: {done:?}");
        }
    }
}

fn executed(config: &Path, words: &str) -> harness::process::Finished {
    let mut ssh = Command::new("ssh");
    ssh.args(["-T", "-F"]).arg(config).arg("mailhost");
    ssh.args(words.split_whitespace());
    run(ssh, LIMIT)
}

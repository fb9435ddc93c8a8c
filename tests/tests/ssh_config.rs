//! The user's own ssh config counts: aliases, ports, a jump host, a shared connection, keys; over a real sshd on loopback.

use std::fs;
use std::process::Command;

use harness::process::{LIMIT, run};
use harness::sshd::Login;
use harness::world::agent_command;
use harness::{Client, Sshd, World, body};

use crate::errors::{U1, U2};

fn world() -> World {
    let world = World::new();
    world.server().store("INBOX", U1, "S", &body("one"));
    world
}

/// Adds to the client's ssh config, before what is there: the first value counts.
fn configure(sshd: &Sshd, text: &str) {
    let config = sshd.config();
    let rest = fs::read_to_string(&config).expect("config is there");
    fs::write(&config, format!("{text}\n{rest}")).expect("config is written");
}

/// The lines of the suite's own config, for another name of the host.
fn lines_of(sshd: &Sshd) -> String {
    let text = fs::read_to_string(sshd.config()).expect("config is there");
    text.lines()
        .skip(1)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn to(sshd: &Sshd, world: &World, remote: &str) -> Client {
    sshd.client(world.client(), "").reaching(remote, None)
}

#[test]
fn a_host_alias_is_followed() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let lines = lines_of(&sshd);
    configure(&sshd, &format!("Host my-post-office\n{lines}"));
    let _ = to(&sshd, &world, "my-post-office:").sync().run().ok();
    world.assert_same();
    // Another way to the same server is no other pair.
    world.local().delete("INBOX", U1);
    let run = to(&sshd, &world, "mailhost:").sync().run().ok();
    assert_eq!(run.there("deleted"), 1, "{}", run.stdout);
    world.assert_same();
}

#[test]
fn user_and_port_of_an_address_stand_above_the_config() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let lines = lines_of(&sshd);
    let port = lines
        .lines()
        .find_map(|line| line.trim().strip_prefix("Port "))
        .expect("the config has a port")
        .to_owned();
    let who = run(Command::new("whoami"), LIMIT).stdout;
    let user = String::from_utf8_lossy(&who).trim().to_owned();
    // Neither this port nor this user would do.
    let wrong = lines.replace(&format!("Port {port}"), "Port 1\n  User nobody-at-all");
    configure(&sshd, &format!("Host post\n{wrong}"));
    let run = to(&sshd, &world, "post:").sync().run();
    assert_ne!(run.code, Some(0), "the config alone leads nowhere: {run:?}");
    let root = world.server().root().display();
    let remote = format!("ssh://{user}@post:{port}{root}");
    let _ = to(&sshd, &world, &remote).sync().run().ok();
    world.assert_same();
}

#[test]
fn a_jump_host_is_jumped_over() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::Shell);
    let lines = lines_of(&sshd);
    configure(&sshd, &format!("Host inner\n  ProxyJump mailhost\n{lines}"));
    let remote = format!("inner:{}", world.server().root().display());
    let agent = agent_command(&world.server_state());
    let client = sshd
        .client(world.client(), "")
        .reaching(remote, Some(agent));
    let _ = client.sync().run().ok();
    world.assert_same();
    assert_eq!(
        sshd.logins(),
        2,
        "one login at the jump host, one behind it"
    );
}

/// A connection that the user keeps himself is used, and left alone.
#[test]
fn the_users_own_shared_connection_is_used() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let socket = world.path("s");
    configure(
        &sshd,
        &format!("Host mailhost\n  ControlPath {}", socket.display()),
    );
    let ssh = |words: &[&str]| {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(sshd.config())
            .args(words)
            .arg("mailhost");
        run(command, LIMIT)
    };
    let started = ssh(&[
        "-M",
        "-N",
        "-f",
        "-E",
        "/dev/null",
        "-o",
        "ControlPersist=yes",
    ]);
    assert_eq!(started.code, Some(0), "{started:?}");
    for round in 0..2 {
        let _ = to(&sshd, &world, "mailhost:").sync().run().ok();
        world.assert_same();
        world.server().deliver(
            "INBOX",
            &format!("{round}.S.mx"),
            &body(&format!("shared {round}")),
        );
    }
    assert_eq!(sshd.logins(), 1, "nobody but the user logged in");
    assert_eq!(
        ssh(&["-O", "check"]).code,
        Some(0),
        "his connection was ended"
    );
    assert_eq!(ssh(&["-O", "exit"]).code, Some(0));
}

/// Keys of the config file mean what the options mean; a path in it begins at home.
#[test]
fn an_account_may_have_a_key_and_a_config_of_its_own() {
    let world = world();
    let sshd = Sshd::start(&world, &Login::agent(&world, ""));
    let text = fs::read_to_string(sshd.config()).expect("config is there");
    let without: String = text
        .lines()
        .filter(|line| !line.contains("IdentityFile"))
        .map(|line| format!("{line}\n"))
        .collect();
    let home = world.client().home();
    fs::write(home.join("ssh-config"), without).expect("config is written");
    fs::copy(sshd.key(), home.join("key")).expect("key is copied");
    let account = |more: &str| {
        world.client().configure(&format!(
            "[account.home]\nremote = \"mailhost:\"\nlocal = \"~/Maildir\"\nssh_config = \"~/ssh-config\"\n{more}"
        ));
        let sync = world.client().bare(&["sync", "home", "--json"]);
        sync.env("SSH_AUTH_SOCK", "").run()
    };
    let _ = account("").exits(1).says("denied");
    let _ = account("identity = \"~/key\"\n").ok();
    world.assert_same();
    world.server().store("INBOX", U2, "S", &body("two"));
    let _ = account("identity = \"~/key\"\n").ok();
    world.assert_same();
}

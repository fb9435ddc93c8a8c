//! C82: Ctrl-C, SIGTERM, SIGHUP and a cut link: what has come in full is delivered, people are told how many are here, and
//! the next run goes on.

use std::time::Instant;

use harness::faults::Held;
use harness::process::Running;
use harness::sshd::Login;
use harness::world::{agent_command, wrap_program};
use harness::{Run, Sshd, World, body, bulky};
use rustix::process::{Signal, kill_process};

const COUNT: usize = 200;

fn world() -> World {
    let world = World::new();
    for number in 0..COUNT {
        let bytes = bulky(&format!("bulky {number}"), 20_000);
        world
            .server()
            .store("INBOX", &format!("{number:03}.M.mx"), "S", &bytes);
    }
    world
}

fn messages(world: &World) -> usize {
    let root = world.local().root();
    let in_dir = |name: &str| std::fs::read_dir(root.join(name)).map_or(0, Iterator::count);
    in_dir("cur") + in_dir("new")
}

/// How many are said to be here, which is how many are.
#[track_caller]
fn told(world: &World, run: &Run) -> usize {
    let here = messages(world);
    let said = format!("; {here} messages are here, and the next run goes on");
    assert!(run.stderr.contains(&said), "{said:?}: {}", run.stderr);
    here
}

#[track_caller]
fn goes_on(world: &World, here: usize) {
    let run = world.client().sync().run().ok();
    assert_eq!(
        run.here("new") as usize,
        COUNT - here,
        "nothing comes twice"
    );
    world.assert_same();
    let _ = world.client().sync().run().ok().idle();
}

fn ended(running: Running) -> Run {
    Run::of("sync".to_owned(), running.wait())
}

#[test]
fn a_signal_delivers_what_has_come_and_the_next_run_goes_on() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = world();
        let held = Held::new(&world, "middle");
        let agent = held.command(600_000, &agent_command(&world.server_state()));
        let running = world.client().pull().through(&agent).start();
        held.wait_until_held();
        running.signal(signal);
        let run = ended(running)
            .exits(75)
            .says("Interrupted")
            .says_one_sentence();
        held.release();
        let here = told(&world, &run);
        assert!(here > 0 && here < COUNT, "{here} messages are here");
        goes_on(&world, here);
    }
}

/// What a cut link, or a killed ssh, leaves is said in the same words.
#[test]
fn a_cut_link_says_how_many_are_here() {
    let world = world();
    let wrap = wrap_program();
    let agent = agent_command(&world.server_state());
    let command = format!("{} --down 1000000 -- {agent}", wrap.display());
    let run = world.client().pull().through(&command).run().exits(75);
    let run = run.says("lost the connection").says_one_sentence();
    let here = told(&world, &run);
    assert!(here > 0 && here < COUNT, "{here} messages are here");
    goes_on(&world, here);
}

/// A push ends the batch that the agent has, and says so.
#[test]
fn a_push_that_is_interrupted_goes_on_too() {
    let world = World::new();
    world.local().create();
    for number in 0..COUNT {
        let bytes = bulky(&format!("bulky {number}"), 20_000);
        world
            .local()
            .store("INBOX", &format!("{number:03}.M.mx"), "S", &bytes);
    }
    let agent = agent_command(&world.server_state());
    let slow = format!("{} --rate-up 1000000 -- {agent}", wrap_program().display());
    let running = world.client().push().through(&slow).start();
    until(|| {
        world
            .server()
            .root()
            .join("cur")
            .read_dir()
            .is_ok_and(|dir| dir.count() > 0)
    });
    running.signal(Signal::TERM);
    let run = ended(running)
        .exits(75)
        .says("there, and the next run goes on");
    assert!(run.there("new") > 0, "{}", run.stdout);
    let again = world.client().sync().run().ok();
    assert_eq!(run.there("new") + again.there("new"), COUNT as u64);
    world.assert_same();
}

/// Waits for something that no event tells of.
#[track_caller]
pub(crate) fn until(is_so: impl Fn() -> bool) {
    let limit = Instant::now() + harness::process::LIMIT;
    while !is_so() {
        assert!(Instant::now() < limit, "it never came about");
        std::thread::yield_now();
    }
}

/// A second signal ends at once: here the agent never answers.
#[test]
fn a_second_signal_ends_at_once() {
    let world = World::new();
    let _ = world.client().sync().run().ok();
    world.local().deliver("INBOX", "1.M.mx", &body("one"));
    let held = Held::new(&world, "middle");
    let agent = held.asking(&agent_command(&world.server_state()));
    let running = world.client().push().through(&agent).start();
    held.wait_until_held();
    let pid = running.pid();
    let again = std::thread::spawn(move || while kill_process(pid, Signal::TERM).is_ok() {});
    let done = running.wait();
    again.join().expect("it ends with the process");
    // Whoever waits for the agent is told by the clock, in the end, that it is silent, and exits.
    assert_eq!(done.signal, Some(Signal::TERM.as_raw()), "{done:?}");
    held.release();
    let _ = world.client().sync().run().ok();
    world.assert_same();
}

/// On a terminal a Ctrl-C reaches everybody who runs there: ssh and the agent go on until the client has ended the batch.
#[test]
fn a_ctrl_c_on_the_terminal_delivers_what_has_come() {
    for ssh in [false, true] {
        let world = world();
        let held = Held::new(&world, "middle");
        let Login::Forced(forced) = Login::agent(&world, "") else {
            unreachable!("it forces the agent")
        };
        let sshd = Sshd::start(&world, &Login::Forced(held.command(600_000, &forced)));
        let mut terminal = if ssh {
            sshd.client(world.client(), "").pull()
        } else {
            let agent = held.command(600_000, &agent_command(&world.server_state()));
            world.client().pull().through(&agent)
        }
        .before_a_person();
        held.wait_until_held();
        terminal.press("\x03");
        let (code, drawn) = terminal.wait();
        assert_eq!(code, Some(75), "{drawn}");
        assert!(
            drawn.contains("messages are here, and the next run goes on"),
            "{drawn}"
        );
        assert!(messages(&world) > 0, "what has come is there");
        if ssh {
            held.release();
        }
    }
}

/// The first batch holds a second's worth, so that of a long first pull something can be read soon.
#[test]
fn a_first_message_can_be_read_long_before_the_last_has_come() {
    let world = world();
    let agent = agent_command(&world.server_state());
    // All of it takes half a minute, of which so many messages are a part.
    const SOON: usize = COUNT / 2;
    let slow = format!("{} --rate-down 100000 -- {agent}", wrap_program().display());
    let running = world.client().pull().through(&slow).start();
    until(|| messages(&world) > 0);
    running.signal(Signal::INT);
    let run = ended(running).exits(75);
    let here = told(&world, &run);
    assert!(here < SOON, "{here} came before the first could be read");
    goes_on(&world, here);
}

/// Before anything has come there is nothing to wait for.
#[test]
fn a_signal_while_nothing_has_come_ends_at_once() {
    let world = world();
    let running = world.client().pull().through("sleep 600").start();
    until(|| world.local().root().exists());
    running.signal(Signal::TERM);
    let run = ended(running).exits(75).says_one_sentence();
    let _ = run.says("interrupted; nothing had come, and the next run goes on");
}

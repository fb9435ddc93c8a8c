//! What people read: nothing of it moves their terminal, and every line that looks like ours is ours.

use harness::World;
use harness::world::lying_program;

/// What a terminal or a reader of lines takes for more than text: a new line, C0, DEL, C1, bidi controls, separators.
fn is_text(char: char) -> bool {
    !char.is_control()
        && !matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const FORGED: &str = "maildir-sync: home: nothing to do";

fn hostile(start: &str) -> String {
    format!(
        "{start}\n{FORGED}\r\u{1b}[2J\u{7f}\u{9b}31m\u{202e}txt\u{2066}\u{61c}\u{200f}\u{2028}end"
    )
}

#[track_caller]
fn assert_harmless(text: &str) {
    for line in text.lines() {
        assert!(line.chars().all(is_text), "{line:?}");
        assert!(!line.starts_with(FORGED), "a forged line: {text}");
    }
}

/// C86: what the other end says is one line, escaped, on stderr and in JSON, and in what `status` remembers of it.
#[test]
fn the_words_of_a_hostile_agent_print_no_line_of_ours() {
    let world = World::new();
    world.local().create();
    let file = world.path("words");
    std::fs::write(&file, hostile("No")).expect("the words are written");
    let command = |kind: &str| format!("{} {kind} {}", lying_program().display(), file.display());
    for words in [&[][..], &["-v"], &["-v", "-v"]] {
        let run = world
            .client()
            .sync()
            .through(&command("refusal"))
            .args(words)
            .run();
        let run = run.exits(1).says("No\\x0a");
        assert_harmless(&run.stderr);
        assert_harmless(&run.stdout);
    }
}

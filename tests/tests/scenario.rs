//! One small account with a change for every row of the table, for tests that break a run in the middle.

use harness::{Layout, Snapshot, Tree, World, body, bulky};

/// What both sides agree on before.
pub(crate) fn base(tree: &Tree) {
    for number in 1..=16 {
        tree.store(
            "INBOX",
            &name(number),
            "S",
            &body(&format!("inbox {number}")),
        );
    }
    for number in 17..=20 {
        tree.deliver("INBOX", &name(number), &body(&format!("inbox {number}")));
    }
    for number in 21..=24 {
        tree.store("Old", &name(number), "S", &body(&format!("old {number}")));
    }
    for number in 25..=27 {
        tree.store(
            "Going",
            &name(number),
            "",
            &body(&format!("going {number}")),
        );
    }
    tree.make_folder("A");
    tree.make_folder("B");
}

/// What happened on the client since.
pub(crate) fn here(tree: &Tree) {
    tree.deliver("INBOX", &name(31), &bulky("new here", 20_000));
    tree.store("A", &name(32), "FS", &body("stored here"));
    tree.set_flags("INBOX", &name(1), "FS");
    tree.set_flags("INBOX", &name(2), "RS");
    tree.to_cur("INBOX", &name(17), "S");
    tree.rename("INBOX", &name(3), "A", &name(3));
    tree.rename("INBOX", &name(4), "A", &name(4));
    tree.copy("INBOX", &name(5), "B", &name(35));
    tree.delete("INBOX", &name(6));
    tree.delete("INBOX", &name(7));
    tree.edit("INBOX", &name(8), &body("edited here"));
    tree.edit("INBOX", &name(9), &body("edited here, too"));
    tree.store("INBOX", &name(36), "S", &body("one of two"));
    tree.store("INBOX", &name(37), "S", &body("the same twice"));
    tree.make_folder("Empty");
    tree.rename_folder("Old", "Neu");
}

/// What happened on the server since.
pub(crate) fn there(tree: &Tree) {
    tree.deliver("INBOX", &name(41), &bulky("new there", 20_000));
    tree.store("B", &name(42), "S", &body("stored there"));
    tree.set_flags("INBOX", &name(2), "FS");
    tree.set_flags("INBOX", &name(10), "");
    tree.to_cur("INBOX", &name(18), "F");
    tree.rename("INBOX", &name(4), "B", &name(4));
    tree.rename("INBOX", &name(11), "B", &name(12_011));
    tree.copy("INBOX", &name(12), "INBOX", &name(45));
    tree.edit("INBOX", &name(7), &body("edited there, deleted here"));
    tree.edit("INBOX", &name(9), &body("edited there"));
    tree.edit("INBOX", &name(13), &body("edited there alone"));
    tree.delete("INBOX", &name(14));
    tree.delete("INBOX", &name(19));
    tree.store("INBOX", &name(36), "S", &body("two of two"));
    tree.store("INBOX", &name(47), "F", &body("the same twice"));
    tree.remove_folder("Going");
}

/// The bodies that no user took away, each of which must come through whatever happens.
pub(crate) fn survivors() -> Vec<Vec<u8>> {
    let inbox = (1..=20)
        .filter(|number| ![6, 7, 8, 9, 13, 14, 19].contains(number))
        .map(|n| body(&format!("inbox {n}")));
    let old = (21..=24).map(|number| body(&format!("old {number}")));
    let labels = [
        "stored here",
        "stored there",
        "edited here",
        "edited here, too",
        "edited there, deleted here",
        "edited there",
        "edited there alone",
        "one of two",
        "two of two",
        "the same twice",
    ];
    let bulky = [bulky("new here", 20_000), bulky("new there", 20_000)];
    inbox
        .chain(old)
        .chain(labels.into_iter().map(body))
        .chain(bulky)
        .collect()
}

/// A world in which the base is agreed on and both sides have changed, saved under the name `ready`.
pub(crate) fn ready() -> World {
    let world = World::new();
    base(world.server());
    let _ = world.client().sync().run().ok();
    world.assert_same();
    here(world.local());
    there(world.server());
    world.save("ready");
    world
}

/// What an undisturbed sync makes of it, checked against the bodies that must be there.
pub(crate) fn outcome(world: &World) -> Snapshot {
    let _ = world.client().sync().run().ok();
    world.assert_same();
    let outcome = Snapshot::of(world.server());
    let counts = outcome.counts();
    for bytes in survivors() {
        assert!(
            counts.contains_key(harness::digest_hex(&bytes).as_str()),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    outcome
}

/// Fails unless a sync now brings both sides to the outcome, and a further one finds nothing to do.
pub(crate) fn assert_recovers(world: &World, outcome: &Snapshot, after: &str) {
    println!("after {after}"); // Some of what follows does not know.
    assert_survivors_somewhere(world, after);
    let _ = world.client().sync().run().ok();
    world.assert_same();
    let found = Snapshot::of(world.server());
    let difference = harness::snapshot::difference(&outcome.mail(), &found.mail());
    assert!(
        difference.is_empty(),
        "after {after}, then sync (< should be, > is):\n{difference}"
    );
    assert_eq!(
        found.folders, outcome.folders,
        "folders after {after}, then sync"
    );
    let _ = world.client().sync().run().ok().idle();
}

/// I1: at every instant every message that no user deleted is in full on at least one side.
fn assert_survivors_somewhere(world: &World, after: &str) {
    let (server, local) = (Snapshot::of(world.server()), Snapshot::of(world.local()));
    let (there, here) = (server.counts(), local.counts());
    for bytes in survivors() {
        let digest = harness::digest_hex(&bytes);
        let found = there.contains_key(digest.as_str()) || here.contains_key(digest.as_str());
        assert!(
            found,
            "after {after} this message is nowhere:\n{}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

/// A message's unique name.
pub(crate) fn name(number: usize) -> String {
    format!("17000{number:05}.M{number}P1.mx,S=100")
}

/// A nested tree or a Maildir++ one holds the same scenario.
#[test]
fn the_scenario_comes_out_the_same_in_either_layout() {
    let plus = ready();
    let wanted = outcome(&plus);
    let nested = World::with_layouts(Layout::Nested, &[Layout::Nested]);
    base(nested.server());
    nested.local().create();
    let _ = nested.client().sync().run().ok();
    here(nested.local());
    there(nested.server());
    let found = outcome(&nested);
    let difference = harness::snapshot::difference(&wanted.mail(), &found.mail());
    assert!(
        difference.is_empty(),
        "Maildir++ (<) and nested (>) differ:\n{difference}"
    );
}

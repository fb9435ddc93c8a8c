//! What must become of every body, told from what users did to it and from nothing else.
//!
//! For each body it keeps where it was when all four trees last agreed on it, and since then: where users made further
//! instances, which they removed, and whether they touched it otherwise (moved it, put it back). From that follow a
//! least and a greatest number of instances that may come out, and where nothing but making and removing happened the
//! exact one.

use std::collections::{BTreeMap, BTreeSet};

use harness::Snapshot;

use super::REPLICAS;

/// Folder and unique name.
pub(crate) type Place = (String, String);

/// One body since all trees last agreed on it.
#[derive(Clone, Debug, Default)]
struct Fact {
    /// Where it was then.
    settled: BTreeSet<Place>,
    /// Instances that users made since, by replica.
    made: [usize; REPLICAS],
    made_at: BTreeSet<Place>,
    /// Instances that users removed since; one may be removed on several replicas.
    removals: usize,
    removed_at: BTreeSet<Place>,
    /// Whether a user moved it or did something else by which an instance is not told by its place.
    touched: bool,
    /// A backup, lost state or an exclusion may bring removed instances back …
    may_return: bool,
    /// … or bring moved ones back where they were.
    may_double: bool,
    /// Instances that a restored backup took away before any other replica had them.
    forgiven: usize,
}

/// All bodies, by digest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    facts: BTreeMap<String, Fact>,
}

impl Fact {
    fn least(&self) -> usize {
        let made = self.made.iter().max().copied().unwrap_or_default();
        (self.settled.len() + made).saturating_sub(self.removals + self.forgiven)
    }

    fn greatest(&self) -> usize {
        if self.may_double {
            usize::MAX
        } else {
            self.settled.len() + self.made.iter().sum::<usize>()
        }
    }

    /// The number of instances, where it can be told: made on one replica at most, not moved, nothing brought back.
    fn exactly(&self) -> Option<usize> {
        let makers = self.made.iter().filter(|&&made| made > 0).count();
        let told = makers <= 1
            && !self.touched
            && !self.may_return
            && !self.may_double
            && self.forgiven == 0;
        told.then(|| {
            self.settled
                .union(&self.made_at)
                .filter(|place| !self.removed_at.contains(place))
                .count()
        })
    }

    fn is_gone(&self) -> bool {
        self.settled.is_empty() && self.made == [0; REPLICAS]
    }

    fn is_gone_for_good(&self) -> bool {
        self.is_gone() && !self.may_return
    }
}

/// Where each body of a tree lies.
fn places(view: &Snapshot) -> BTreeMap<&str, BTreeSet<Place>> {
    let mut places: BTreeMap<&str, BTreeSet<Place>> = BTreeMap::new();
    for message in view.mail() {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        places
            .entry(&message.digest)
            .or_default()
            .insert((text(&message.folder), text(&message.unique)));
    }
    places
}

impl Oracle {
    fn fact(&mut self, digest: &str) -> &mut Fact {
        self.facts.entry(digest.to_owned()).or_default()
    }

    /// A user made an instance.
    pub(crate) fn made(&mut self, replica: usize, digest: &str, place: &Place) {
        let fact = self.fact(digest);
        fact.made[replica] += 1;
        // Made again where it was: the places no longer tell the instances apart.
        fact.touched |= fact.settled.contains(place)
            || fact.removed_at.contains(place)
            || !fact.made_at.insert(place.clone());
    }

    /// A user removed an instance; `returns` where something may bring it back.
    pub(crate) fn removed(&mut self, digest: &str, place: &Place, returns: bool) {
        let fact = self.fact(digest);
        fact.removals += 1;
        fact.touched |= !fact.settled.contains(place) && !fact.made_at.contains(place);
        fact.removed_at.insert(place.clone());
        fact.may_return |= returns;
    }

    /// A user took back what a killed run had replaced: it may be replaced once more, and then lies in the trash (I4).
    pub(crate) fn replaced_again(&mut self, digest: &str) {
        let fact = self.fact(digest);
        fact.removals += 1;
        fact.touched = true;
    }

    /// A user moved an instance; `doubles` where something may bring it back to where it was.
    pub(crate) fn moved(&mut self, digest: &str, doubles: bool) {
        let fact = self.fact(digest);
        fact.touched = true;
        fact.may_double |= doubles;
    }

    /// Learns what all trees agree on; bodies that some client may still adopt are not settled.
    pub(crate) fn observe(&mut self, views: &[Snapshot], nobody_adopts: bool) {
        if !nobody_adopts {
            return;
        }
        let places: Vec<_> = views.iter().map(places).collect();
        for (digest, fact) in &mut self.facts {
            let of = |replica: usize| places[replica].get(digest.as_str());
            if (1..REPLICAS).all(|replica| of(replica) == of(0)) {
                *fact = Fact {
                    settled: of(0).cloned().unwrap_or_default(),
                    ..Fact::default()
                };
            }
        }
    }

    /// What users had removed somewhere and not all have heard of yet.
    pub(crate) fn being_removed(&self) -> BTreeSet<String> {
        let removed = self.facts.iter().filter(|(_, fact)| fact.removals > 0);
        removed.map(|(digest, _)| digest.clone()).collect()
    }

    /// A backup was put back in which users had removed these: they are removed once more, also where they were put back
    /// in the meantime.
    pub(crate) fn removed_again(&mut self, digests: &BTreeSet<String>) {
        for digest in digests {
            let fact = self.fact(digest);
            fact.removals += fact.settled.len() + fact.made.iter().sum::<usize>();
            fact.touched = true;
        }
    }

    /// A replica was set back: what differs from the others may come back or double, and what only it had is gone.
    pub(crate) fn set_back(&mut self, before: &Snapshot, after: &Snapshot, others: &[Snapshot]) {
        let (was, is) = (places(before), places(after));
        let others: Vec<_> = others.iter().map(places).collect();
        for (digest, fact) in &mut self.facts {
            let digest = digest.as_str();
            let is = is.get(digest);
            // Users had removed it, and all had agreed on that: the restored side may be told so once more.
            if fact.is_gone() {
                fact.removals += is.map_or(0, BTreeSet::len);
            }
            if others.iter().any(|other| other.get(digest) != is) || was.get(digest) != is {
                fact.may_return = true;
                fact.may_double = true;
            }
            let count = |places: Option<&BTreeSet<Place>>| places.map_or(0, BTreeSet::len);
            let left = others
                .iter()
                .map(|other| count(other.get(digest)))
                .chain([count(is)])
                .max()
                .unwrap_or(0);
            fact.forgiven += fact.least().saturating_sub(left);
        }
    }

    /// A client has forgotten what it knew: of bodies that the trees do not agree on, what users did may come undone.
    pub(crate) fn forgotten(&mut self, views: &[Snapshot]) {
        let places: Vec<_> = views.iter().map(places).collect();
        for (digest, fact) in &mut self.facts {
            let of = |number: usize| places[number].get(digest.as_str());
            if (1..places.len()).any(|number| of(number) != of(0)) {
                fact.may_return = true;
                fact.may_double = true;
            }
        }
    }

    /// Fails if a run took away the last instance of what no user had removed; or brought what nobody made, or what was
    /// removed for good.
    pub(crate) fn check_run(&self, before: [&Snapshot; 2], after: &[Snapshot]) {
        let digests = |view: &Snapshot| -> BTreeSet<String> {
            view.mail()
                .iter()
                .map(|message| message.digest.clone())
                .collect()
        };
        let was: BTreeSet<String> = before.into_iter().flat_map(digests).collect();
        let is: BTreeSet<String> = after.iter().flat_map(digests).collect();
        for digest in was.difference(&is) {
            let fact = self.facts.get(digest).expect("it was known before the run");
            let told = || before.map(|view| places(view).remove(digest.as_str()));
            let lost = fact.removals + fact.forgiven == 0;
            assert!(
                !lost,
                "lost by a run: {digest:.12}, which was at {:?} and of which is known {fact:?}",
                told()
            );
        }
        for digest in &is {
            let fact = self
                .facts
                .get(digest)
                .unwrap_or_else(|| panic!("bytes that nobody wrote: {digest:.12}"));
            assert!(
                !fact.is_gone_for_good(),
                "came back after all had agreed that it is gone: {digest:.12}"
            );
        }
    }

    /// Fails unless the tree that all agree on holds every body as often as it must.
    pub(crate) fn check(&self, view: &Snapshot) {
        let counts = view.counts();
        let mut wrong = String::new();
        for (digest, fact) in &self.facts {
            let count = counts.get(digest.as_str()).copied().unwrap_or_default();
            let exactly = fact.exactly();
            let right = match exactly {
                Some(exactly) => count == exactly,
                None => (fact.least()..=fact.greatest()).contains(&count),
            };
            if !right {
                let least = fact.least();
                wrong += &format!(
                    "{digest:.12} is there {count} times; exactly {exactly:?}, least {least}; {fact:?}\n"
                );
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }
}

//! How hard bodies are compressed.
//!
//! On a slow link bandwidth is scarce, so bodies are compressed hard. On a fast link the slowest of three decides: the link
//! or either processor. Nobody here knows which that is. So work is light there, harder work is tried now and then, and goes
//! on where it is clearly faster. Pure: the caller reads the clock and the output.

use core::time::Duration;

use crate::frame::Effort;

/// For how many bytes of bodies work is done before it is looked whether the link is slow: more than a client asks for
/// ahead (4 MiB), which goes out in one burst wherever the link is slower than the processor.
const LOOK_BYTES: u64 = 6 << 20;
/// How many compressed bytes say nothing at first: ssh takes up to 2 MiB (its channel's window) as fast as they come,
/// however slow the link is.
const FILL_BYTES: u64 = 3 << 20;
/// How many bytes show how fast a lighter effort is, and whether the link is slow after all: more than what is under way
/// to the other end, and more than what that does not take in while its disk is busy for a moment.
const TRIAL_BYTES: u64 = 16 << 20;
/// By how much harder work must be faster to go on: where both are alike the processor has others to serve, and what is
/// measured scatters by a third.
const CLEARLY: f64 = 1.5;
/// For how many bytes a choice is good; they show how fast it is, too.
const CHOICE_BYTES: u64 = 128 << 20;
/// From how many compressed bytes a second on hard work saves less on a link than it takes: 200 Mbit/s.
const FAST_LINK_BYTES: f64 = 25e6;

/// What clock and output said at one moment, since the same beginning.
#[derive(Clone, Copy, Default, Debug)]
pub struct Reading {
    /// How long it is since then.
    pub elapsed: Duration,
    /// For how long of that there was nothing to do: writing blocked, or nothing more was asked for, because what was had
    /// not come.
    pub waited: Duration,
    /// How many compressed bytes were written.
    pub written: u64,
}

/// The effort that goes on, and how that is found.
pub struct Pace {
    effort: Effort,
    /// How many bytes of bodies a second went out with what was last chosen on a fast link.
    speed: f64,
    /// For how many bytes of bodies the effort is good.
    period: u64,
    /// How many of them went out, and when the first one did.
    sent: u64,
    begun: Duration,
    /// How many went out since the link was last looked at, and what was read then.
    unseen: u64,
    looked: Reading,
    /// How many compressed bytes must have been written before their speed says anything.
    filled: u64,
}

impl Pace {
    /// Until it is known better, bandwidth is taken for scarce: most runs end before it is known.
    #[must_use]
    pub fn new(now: Reading) -> Pace {
        Pace {
            effort: Effort::Dense,
            speed: 0.0,
            period: LOOK_BYTES,
            sent: 0,
            begun: now.elapsed,
            unseen: 0,
            looked: now,
            filled: now.written + FILL_BYTES,
        }
    }

    /// Takes in that so many bytes of bodies went out; returns with which effort it goes on, where that may be another.
    pub fn sent(&mut self, bytes: u64, read: impl FnOnce() -> Reading) -> Option<Effort> {
        self.sent += bytes;
        self.unseen += bytes;
        let look = match self.effort {
            Effort::Dense => LOOK_BYTES,
            Effort::Fast | Effort::Light => TRIAL_BYTES,
        };
        if self.unseen < look {
            return None;
        }
        let now = read();
        let is_slow = is_slow(&self.looked, &now);
        (self.unseen, self.looked) = (0, now);
        let (effort, period) = if is_slow || now.written < self.filled {
            (Effort::Dense, LOOK_BYTES)
        } else if self.sent >= self.period {
            let seconds = (now.elapsed - self.begun).as_secs_f64();
            self.choose(self.sent as f64 / seconds)
        } else {
            return None;
        };
        (self.effort, self.period) = (effort, period);
        (self.sent, self.begun) = (0, now.elapsed);
        Some(effort)
    }

    /// What comes after an effort was tried, or was good for long enough; `speed` is what it had.
    fn choose(&mut self, speed: f64) -> (Effort, u64) {
        let chosen = std::mem::replace(&mut self.speed, speed);
        let is_choice = self.period == CHOICE_BYTES;
        match self.effort {
            Effort::Dense => (Effort::Light, CHOICE_BYTES),
            Effort::Light if is_choice => (Effort::Fast, TRIAL_BYTES),
            Effort::Fast if is_choice => (Effort::Light, TRIAL_BYTES),
            Effort::Fast if speed > chosen * CLEARLY => (Effort::Fast, CHOICE_BYTES),
            Effort::Light if chosen > speed * CLEARLY => (Effort::Fast, CHOICE_BYTES),
            Effort::Fast | Effort::Light => (Effort::Light, CHOICE_BYTES),
        }
    }
}

/// Whether between two readings the other end or the link was what was waited for, and little went out: then hard work here
/// delays nobody.
fn is_slow(before: &Reading, now: &Reading) -> bool {
    let elapsed = now.elapsed - before.elapsed;
    let rate = (now.written - before.written) as f64 / elapsed.as_secs_f64();
    (now.waited - before.waited) * 2 > elapsed && rate < FAST_LINK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many MiB of bodies it takes at least until a link counts as fast.
    const FIRST: usize = (FILL_BYTES >> 18) as usize;

    /// A link and two processors: how fast bodies go out with each effort, and whether the link is what holds them up.
    struct World {
        now: Reading,
        mib_a_second: fn(Effort) -> f64,
        is_link_slow: bool,
        /// How many compressed bytes ssh takes at once.
        room: u64,
    }

    impl World {
        /// Sends so many MiB of bodies; returns with which effort each went out.
        fn send(&mut self, pace: &mut Pace, mib: usize) -> Vec<Effort> {
            let one = |_| {
                let effort = pace.effort;
                self.now.written += 1 << 18; // A quarter of what it was.
                let is_taken_at_once = self.now.written <= self.room;
                let speed = match is_taken_at_once {
                    true => 500.0,
                    false => (self.mib_a_second)(effort),
                };
                let took = Duration::from_secs_f64(1.0 / speed);
                self.now.elapsed += took;
                if self.is_link_slow && !is_taken_at_once {
                    self.now.waited += took;
                }
                let told = pace.sent(1 << 20, || self.now);
                assert!(told.is_none_or(|told| told == pace.effort));
                effort
            };
            (0..mib).map(one).collect()
        }
    }

    fn count(efforts: &[Effort], effort: Effort) -> usize {
        efforts.iter().filter(|&&one| one == effort).count()
    }

    #[test]
    fn bytes_are_dear_until_it_is_known_better_and_on_a_slow_link() {
        let mut world = World {
            now: Reading::default(),
            mib_a_second: |_| 1.5,
            is_link_slow: true,
            room: 2 << 20,
        };
        let efforts = world.send(&mut Pace::new(world.now), 500);
        assert_eq!(count(&efforts, Effort::Dense), 500);
    }

    #[test]
    fn on_a_fast_link_work_is_light_unless_harder_work_is_clearly_faster() {
        let fast_wins: fn(Effort) -> f64 =
            |effort| if effort == Effort::Light { 50.0 } else { 100.0 };
        let they_hardly_differ: fn(Effort) -> f64 =
            |effort| if effort == Effort::Light { 80.0 } else { 100.0 };
        for (mib_a_second, best) in [
            (fast_wins, Effort::Fast),
            (they_hardly_differ, Effort::Light),
        ] {
            let mut world = World {
                now: Reading::default(),
                mib_a_second,
                is_link_slow: false,
                room: 0,
            };
            let efforts = world.send(&mut Pace::new(world.now), 1000);
            assert_eq!(count(&efforts, Effort::Dense), FIRST, "{efforts:?}");
            assert!(count(&efforts, best) > 700, "{efforts:?}");
            assert!(
                count(&efforts[500..], best) < 500,
                "the other is tried again"
            );
        }
    }

    #[test]
    fn a_link_that_becomes_slow_is_noticed_within_a_trial() {
        let mut world = World {
            now: Reading::default(),
            mib_a_second: |_| 100.0,
            is_link_slow: false,
            room: 2 << 20,
        };
        let mut pace = Pace::new(world.now);
        world.send(&mut pace, 60);
        assert_ne!(pace.effort, Effort::Dense);
        (world.is_link_slow, world.mib_a_second) = (true, |_| 1.5);
        let efforts = world.send(&mut pace, 100);
        assert!(count(&efforts, Effort::Dense) >= 84, "{efforts:?}");
        (world.is_link_slow, world.mib_a_second) = (false, |_| 100.0);
        let efforts = world.send(&mut pace, 100);
        assert!(count(&efforts, Effort::Dense) <= FIRST, "{efforts:?}");
    }

    #[test]
    fn a_busy_client_is_no_slow_link() {
        let mut world = World {
            now: Reading::default(),
            mib_a_second: |_| 100.0,
            is_link_slow: true, // It blocks, but 50 MiB a second go through.
            room: 0,
        };
        let efforts = world.send(&mut Pace::new(world.now), 100);
        assert_eq!(count(&efforts, Effort::Dense), FIRST, "{efforts:?}");
    }
}

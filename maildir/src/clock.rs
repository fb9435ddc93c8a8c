//! For how long something has been there, counted in days during which the clock ran forward.
//!
//! The tags of an index say when each run was. A clock that was ahead, or at 1970, for a run or for a week, shows in them
//! as one long step forward, or as one back. So a step counts for a day at most, and one back for nothing. What is
//! kept for 30 days is kept for longer where runs are rarer than daily, and is never lost to a clock.

use protocol::Tag;

/// What one step counts for at most, in seconds.
const STEP_MAX: u64 = 86_400;
/// A run's directory is made within so many seconds of its tag.
const RUN_SECS: u64 = 86_400;

/// When the runs of an index were by its clock, in seconds since 1970, oldest first.
pub(crate) struct Clock(pub(crate) Vec<(Tag, u64)>);

impl Clock {
    /// For how many seconds the clock has run forward since a run, by what is known of it: its tag, and when it began. What
    /// was before all tags is taken for what it says.
    pub(crate) fn age_secs(&self, tag: Tag, begun: u64) -> u64 {
        let is_it = |(other, at): &(Tag, u64)| *other == tag && at.abs_diff(begun) < RUN_SECS;
        let own = self.0.iter().position(is_it);
        let from = own.or_else(|| self.0.iter().rposition(|(_, at)| *at <= begun));
        match (from, self.0.first()) {
            (Some(from), _) => self.forward_secs(from),
            (None, Some((_, first))) => first.saturating_sub(begun) + self.forward_secs(0),
            (None, None) => 0,
        }
    }

    /// The newest run since which the clock has run forward for so long.
    pub(crate) fn newest_older_than(&self, secs: u64) -> Option<Tag> {
        let mut age = 0;
        for pair in self.0.windows(2).rev() {
            age += step(pair);
            if age >= secs {
                return Some(pair[0].0);
            }
        }
        None
    }

    fn forward_secs(&self, from: usize) -> u64 {
        self.0[from..].windows(2).map(step).sum()
    }
}

fn step(pair: &[(Tag, u64)]) -> u64 {
    pair[1].1.saturating_sub(pair[0].1).min(STEP_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    /// Some day in 2026.
    const NOW: u64 = 20_600 * DAY;

    fn tag(number: u64) -> Tag {
        Tag(number.to_be_bytes())
    }

    fn clock(times: impl IntoIterator<Item = u64>) -> Clock {
        let times = times.into_iter().enumerate();
        Clock(times.map(|(number, at)| (tag(number as u64), at)).collect())
    }

    #[test]
    fn daily_runs_count_as_what_they_are() {
        let clock = clock((0..40).map(|day| NOW + day * DAY));
        assert_eq!(clock.age_secs(tag(5), NOW + 5 * DAY), 34 * DAY);
        assert_eq!(clock.newest_older_than(30 * DAY), Some(tag(9)));
        assert_eq!(clock.newest_older_than(40 * DAY), None);
    }

    #[test]
    fn a_clock_that_is_ahead_or_at_1970_ages_nothing_by_more_than_a_day() {
        for wrong in [NOW + 4000 * DAY, 5] {
            let clock = clock([NOW, NOW + 60, wrong, wrong + 60, NOW + 120, NOW + 180]);
            assert!(clock.age_secs(tag(0), NOW) <= DAY + 300);
            assert!(clock.age_secs(tag(2), wrong) <= DAY + 300, "its own");
            assert_eq!(clock.newest_older_than(2 * DAY), None);
        }
    }

    #[test]
    fn what_was_before_all_tags_is_as_old_as_it_says() {
        let clock = clock([NOW, NOW + 60]);
        assert_eq!(clock.age_secs(tag(77), NOW - 30 * DAY), 30 * DAY + 60);
        assert_eq!(clock.age_secs(tag(0), NOW - 30 * DAY), 30 * DAY + 60);
        assert_eq!(Clock(Vec::new()).age_secs(tag(0), NOW), 0);
    }
}

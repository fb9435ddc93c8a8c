//! A disk that takes no more: what needs room on it is left out, and all else goes on (I11).

use std::collections::HashSet;

use super::Executor;
use crate::merge::plan::{Step, Why, held_up};
use crate::merge::record::Side;

impl Executor<'_, '_> {
    /// A side's disk takes no more: what needs room there is not asked for any more, nor what would come to the place of a message
    /// that stays for it. What was begun is ended.
    pub(super) fn stop_adding(&mut self, side: Side, why: &str) {
        self.done.full[side as usize] = Some(why.to_owned());
        let waits = &self.done.waits;
        let needs_room = |step: &&Step| {
            let is_refused =
                matches!(waits.get(&step.index), Some((Why::Full(of), _)) if *of == side);
            step.op.new_body().is_some() || is_refused
        };
        let lane = &mut self.lanes[side as usize];
        lane.is_cut = true;
        let out = lane.steps.iter().filter(needs_room).map(|step| step.index);
        let out: HashSet<usize> = held_up(&lane.steps, out.collect());
        let is_out = |lane: &super::Lane, at: usize| out.contains(&lane.steps[at].index);
        let (next, all) = (lane.next, lane.steps.len());
        let left: Vec<usize> = (next..all).filter(|&at| is_out(lane, at)).collect();
        for &at in &left {
            let index = self.lanes[side as usize].steps[at].index;
            self.lanes[side as usize].under_way.remove(&index);
            self.wait(side, at, Why::Full(side));
        }
        let mut at = 0;
        self.lanes[side as usize].steps.retain(|step| {
            at += 1;
            at <= next || !out.contains(&step.index)
        });
    }
}

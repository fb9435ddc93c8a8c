//! A disk that takes no more: what needs room on it is left out, and all else goes on (I11).

use std::collections::HashSet;

use super::{Executor, wired};
use crate::merge::plan::{Step, held_up};
use crate::merge::record::Side;
use crate::report::waiting::Why;

impl Executor<'_, '_> {
    /// A side's disk takes no more: what needs room there is neither sent nor asked for any more, nor what would come to
    /// the place of a message that stays for it. What was begun is ended.
    pub(super) fn stop_adding(&mut self, side: Side, why: &str) {
        self.done.full[side as usize] = Some(why.to_owned());
        let waits = &self.done.waits;
        let needs_room = |step: &&Step| {
            let is_refused =
                matches!(waits.get(&step.index), Some((Why::Full(of), _)) if *of == side);
            step.op.new_body().is_some() || is_refused
        };
        let steps = &self.plan.steps[side as usize];
        let out = steps.iter().filter(needs_room).map(|step| step.index);
        let out = held_up(steps, out.collect());
        match side {
            Side::Local => self.leave_out_here(&out),
            Side::Remote => self.leave_out_there(&out),
        }
    }

    /// Bodies that were asked for come, and their steps are made: the hand takes both in one order.
    fn leave_out_here(&mut self, out: &HashSet<usize>) {
        let steps = &self.plan.steps[Side::Local as usize];
        let rest = self.next_local..steps.len();
        let mut left: Vec<usize> = rest
            .filter(|&at| wired(&steps[at].op).is_none() && out.contains(&steps[at].index))
            .collect();
        for at in std::mem::take(&mut self.unasked) {
            let index = self.plan.steps[Side::Local as usize][at].index;
            self.under_way[Side::Local as usize][index] = false;
            left.push(at);
        }
        for at in left {
            self.arrived[at] = Some(false);
            self.wait(Side::Local, at, Why::Full(Side::Local));
        }
    }

    fn leave_out_there(&mut self, out: &HashSet<usize>) {
        let sent = self.next_remote;
        for at in sent..self.plan.steps[Side::Remote as usize].len() {
            let step = &self.plan.steps[Side::Remote as usize][at];
            if out.contains(&step.index) {
                if wired(&step.op).is_some() {
                    self.under_way[Side::Remote as usize][step.index] = false;
                }
                self.wait(Side::Remote, at, Why::Full(Side::Remote));
            }
        }
        let mut at = 0;
        self.plan.steps[Side::Remote as usize].retain(|step| {
            at += 1;
            at <= sent || !out.contains(&step.index)
        });
    }
}

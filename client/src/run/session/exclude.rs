//! Folders that are excluded now or have no place on the other side, or not any more.

use super::Session;
use crate::merge::Settled;
use crate::merge::record::Side;
use crate::run::failure::Failure;

impl Session<'_> {
    /// Forgets folders that are left alone now, and takes in all that is in those that are included again.
    pub(super) fn recall(&mut self, settled: &Settled) -> Result<(), Failure> {
        for id in &settled.recalled.forgotten {
            self.archive.forget_folder(*id)?;
        }
        for side in Side::BOTH {
            let included = settled.recalled.included.iter();
            let numbers = included.filter_map(|id| Some(self.folders.get(*id)?.on(side)?.number));
            let wanted: Vec<u32> = numbers.collect();
            if !wanted.is_empty() {
                self.take_manifests(side, wanted)?;
            }
        }
        Ok(())
    }
}

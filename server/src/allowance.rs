//! What one conversation may cost the server. A client may read whatever it likes, but not have all of it read again and
//! again, nor have bytes unpacked that nobody keeps.
//!
//! Nobody who wants to sync comes near these limits. A client that passes one loses the connection.

/// How many bytes of bodies that are not kept are passed over: they are denied, or longer than they were announced.
const DROPPED_BYTES_MAX: u64 = 64 << 20;
/// How many times all that is here may be read, or listed.
const TIMES_MAX: u64 = 3;
/// What may be read whatever is here, in bytes.
const READ_BYTES_FREE: u64 = 1 << 30;
/// What may be listed whatever is here, in messages.
const LISTED_FREE: u64 = 100_000;
/// What a message costs besides its bytes: to be found and opened.
const OPENING_BYTES: u64 = 4096;

/// What all that is here comes to.
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// What a conversation has cost so far.
#[derive(Default)]
pub(crate) struct Allowance {
    dropped: u64,
    read: u64,
    listed: u64,
}

impl Allowance {
    /// Bytes of a body came that are not kept.
    pub(crate) fn drop_bytes(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.dropped = self.dropped.saturating_add(bytes);
        anyhow::ensure!(
            self.dropped <= DROPPED_BYTES_MAX,
            "The client goes on sending what is not taken"
        );
        Ok(())
    }

    /// A message is read. All that is here is counted only if much has been.
    pub(crate) fn read(
        &mut self,
        bytes: u64,
        total: impl FnOnce() -> maildir::Result<Total>,
    ) -> anyhow::Result<()> {
        let cost = bytes.saturating_add(OPENING_BYTES);
        self.read = self.read.saturating_add(cost);
        if self.read <= READ_BYTES_FREE {
            return Ok(());
        }
        let Total { messages, bytes } = total()?;
        let once = bytes.saturating_add(messages.saturating_mul(OPENING_BYTES));
        anyhow::ensure!(
            self.read - READ_BYTES_FREE <= once.saturating_mul(TIMES_MAX),
            "The client wants everything to be read again and again"
        );
        Ok(())
    }

    /// So many messages, or folders, are listed.
    pub(crate) fn list(
        &mut self,
        count: u64,
        messages: impl FnOnce() -> maildir::Result<u64>,
    ) -> anyhow::Result<()> {
        self.listed = self.listed.saturating_add(count);
        if self.listed <= LISTED_FREE {
            return Ok(());
        }
        anyhow::ensure!(
            self.listed - LISTED_FREE <= messages()?.saturating_mul(TIMES_MAX),
            "The client wants everything to be listed again and again"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total() -> maildir::Result<Total> {
        Ok(Total {
            messages: 1000,
            bytes: 2 << 30,
        })
    }

    #[test]
    fn all_may_be_read_some_times_and_not_again_and_again() {
        let mut allowance = Allowance::default();
        for _ in 0..6 {
            allowance.read(1 << 30, total).expect("three times two");
        }
        allowance.read(1 << 28, total).expect("and some");
        let more = (0..10).find_map(|_| allowance.read(1 << 30, total).err());
        assert!(more.is_some());
        assert!(Allowance::default().read(u64::MAX, total).is_err());
    }

    #[test]
    fn all_may_be_listed_some_times_and_not_again_and_again() {
        let mut allowance = Allowance::default();
        allowance.list(100_000, || Ok(1000)).expect("it is free");
        allowance.list(3000, || Ok(1000)).expect("three times");
        assert!(allowance.list(1, || Ok(1000)).is_err());
    }

    #[test]
    fn what_is_not_kept_is_passed_over_for_a_while() {
        let mut allowance = Allowance::default();
        allowance.drop_bytes(DROPPED_BYTES_MAX).expect("a while");
        assert!(allowance.drop_bytes(1).is_err());
    }
}

//! What the process tells its caller when it ends.

use std::process::Termination;

/// How a run ended; the numbers are part of the contract with scripts and systemd.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExitCode {
    /// 0: both sides are in sync, or there was nothing to do; `status`: healthy.
    #[default]
    InSync,
    /// 1: an error; the run is worth repeating once what it names is mended. `status`: not healthy.
    Error,
    /// 2: the command line or the configuration is wrong; nothing was begun.
    Usage,
    /// 3: done, except for the messages listed on stderr.
    Skipped,
    /// 4: a safety guard refused; nothing was deleted.
    Unsafe,
    /// 75 (`EX_TEMPFAIL` of sysexits.h): the server was not reachable, the connection was lost or silent for too long,
    /// another run holds the lock, or a signal ended the run. systemd units list it in `SuccessExitStatus`.
    Temporary,
}

impl ExitCode {
    /// The number that the shell sees.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            ExitCode::InSync => 0,
            ExitCode::Error => 1,
            ExitCode::Usage => 2,
            ExitCode::Skipped => 3,
            ExitCode::Unsafe => 4,
            ExitCode::Temporary => 75,
        }
    }

    /// The one code that speaks for two accounts: the one that needs a human more.
    ///
    /// From least to most: in sync, temporary (the next run mends it), skipped messages, an error, wrong usage or
    /// configuration (no run can mend it), and last the guard, behind which mail is at stake.
    #[must_use]
    pub fn worst(self, other: ExitCode) -> ExitCode {
        if other.severity() > self.severity() {
            other
        } else {
            self
        }
    }

    fn severity(self) -> u8 {
        match self {
            ExitCode::InSync => 0,
            ExitCode::Temporary => 1,
            ExitCode::Skipped => 2,
            ExitCode::Error => 3,
            ExitCode::Usage => 4,
            ExitCode::Unsafe => 5,
        }
    }
}

impl Termination for ExitCode {
    fn report(self) -> std::process::ExitCode {
        std::process::ExitCode::from(self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ExitCode; 6] = [
        ExitCode::InSync,
        ExitCode::Temporary,
        ExitCode::Skipped,
        ExitCode::Error,
        ExitCode::Usage,
        ExitCode::Unsafe,
    ];

    #[test]
    fn the_numbers_are_the_documented_ones() {
        assert_eq!(ALL.map(ExitCode::number), [0, 75, 3, 1, 2, 4]);
    }

    #[test]
    fn the_account_that_needs_a_human_most_decides() {
        for (low, &one) in ALL.iter().enumerate() {
            for &other in &ALL[low..] {
                assert_eq!(one.worst(other), other);
                assert_eq!(other.worst(one), other);
            }
        }
    }
}

//! What stops a run, and how the process ends because of it.

use crate::archive::ArchiveError;
use crate::endpoint::EndpointError;
use crate::endpoint::link::LinkError;
use crate::report::exit_code::ExitCode;

/// Why a run of one account stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The other end.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The replica here.
    #[error(transparent)]
    Replica(#[from] maildir::Error),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Going on could delete mail.
    #[error("{0}")]
    Unsafe(String),
    /// A hook wants no run now.
    #[error("{0}")]
    NotNow(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A run that was cut off, by whatever: how far it came, and that the next one goes on.
    #[error("{why}; {so_far}, and the next run goes on")]
    CutOff {
        /// What cut it off.
        why: Box<Failure>,
        /// What is done.
        so_far: String,
    },
}

impl From<EndpointError> for Failure {
    fn from(error: EndpointError) -> Failure {
        match error {
            EndpointError::Link(error) => Failure::Link(error),
            EndpointError::Replica(error) => Failure::Replica(error),
        }
    }
}

impl Failure {
    /// We are asked to end.
    #[must_use]
    pub fn interrupted() -> Failure {
        Failure::Link(LinkError::Interrupted)
    }

    /// Whether we are asked to end.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Failure::Link(LinkError::Interrupted))
    }

    /// Whether no further try mends it, until the network, the configuration or the server is another one.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Failure::Link(error) => error.is_lasting(),
            Failure::Usage(_) => true,
            Failure::Replica(error) => error.kind() == protocol::message::RefusalKind::Usage,
            Failure::Archive(_)
            | Failure::Unsafe(_)
            | Failure::NotNow(_)
            | Failure::CutOff { .. } => false,
        }
    }

    /// Says how far the run had come, where this cut it off.
    #[must_use]
    pub fn after(self, so_far: impl FnOnce() -> String) -> Failure {
        match &self {
            Failure::Link(error) if error.is_cut() => Failure::CutOff {
                so_far: so_far(),
                why: Box::new(self),
            },
            _ => self,
        }
    }

    /// How the process ends because of it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        use protocol::message::RefusalKind;
        let of_replica = |error: &maildir::Error| match error.kind() {
            RefusalKind::Usage => ExitCode::Usage,
            RefusalKind::Error => ExitCode::Error,
            RefusalKind::Unsafe => ExitCode::Unsafe,
            RefusalKind::Temporary => ExitCode::Temporary,
        };
        match self {
            Failure::Link(error) => error.exit_code(),
            Failure::CutOff { why, .. } => why.exit_code(),
            Failure::Replica(error) | Failure::Archive(ArchiveError::Lock(error)) => {
                of_replica(error)
            }
            Failure::Archive(ArchiveError::Sqlite { source, .. }) if maildir::is_busy(source) => {
                ExitCode::Temporary
            }
            Failure::Archive(ArchiveError::Sqlite { .. } | ArchiveError::Damaged { .. }) => {
                ExitCode::Error
            }
            Failure::Unsafe(_) => ExitCode::Unsafe,
            Failure::Usage(_) => ExitCode::Usage,
            Failure::NotNow(_) => ExitCode::Temporary,
        }
    }
}

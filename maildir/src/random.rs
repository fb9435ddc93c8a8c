//! Random bytes for names: of replicas, indexes, runs and files in `tmp`.

use crate::error::{Error, Result};

/// Random bytes for names.
///
/// # Errors
/// When the system gives none.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Usage(format!("The system gives no random numbers: {error}")))?;
    Ok(bytes)
}

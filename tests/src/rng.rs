//! Random numbers that a seed repeats (splitmix64), so that a failure can be played again.

/// A stream of pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts a stream; equal seeds give equal streams.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("limits fit 64 bits");
        usize::try_from(self.next_u64() % limit).expect("below a usize")
    }

    /// True in `percent` of all cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the choices, none of an empty slice.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() {
            None
        } else {
            choices.get(self.below(choices.len()))
        }
    }

    /// Random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// The seed of a test: `MAILDIR_SYNC_SEED` where it is set, else the test's own; printed, so that a failure names it.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn seed_or(own: u64) -> u64 {
    let seed = match std::env::var("MAILDIR_SYNC_SEED") {
        Ok(text) => text.parse().expect("MAILDIR_SYNC_SEED is a number"),
        Err(_) => own,
    };
    println!("seed {seed} (repeat it with MAILDIR_SYNC_SEED={seed})");
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams() {
        let mut one = Rng::new(7);
        // The first number of splitmix64 for the seed 7, from its author's C code.
        assert_eq!(one.next_u64(), 7_191_089_600_892_374_487);
        let (mut left, mut right) = (Rng::new(1), Rng::new(1));
        assert_eq!(left.bytes(33), right.bytes(33));
        assert!((0..1000).all(|_| left.below(3) < 3));
    }
}

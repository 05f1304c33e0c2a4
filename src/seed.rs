//! Named child seeds: one experiment seed, one independent generator per purpose.
//!
//! candle's CPU generator cannot be seeded, so every random number of the project comes from here.

use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

/// The generator for `purpose` under `seed`: seeded by SHA-256 of both, so that adding a purpose disturbs no other.
pub fn rng(seed: u64, purpose: &str) -> StdRng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose.as_bytes());
    StdRng::from_seed(hash.finalize().into())
}

/// SHA-256 of bytes as 64 lower-case hexadecimal digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

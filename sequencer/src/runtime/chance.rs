//! Random numbers: the thread's own, or the simulation's.

use std::convert::Infallible;

use rand::TryRng;
use rand::rngs::ThreadRng;

use super::simulation;

/// A generator that belongs to where it was made.
pub enum Chance {
    /// Seeded by the system.
    Thread(ThreadRng),
    /// Draws from the simulation it is used in.
    Simulated,
}

impl Chance {
    pub(super) fn here() -> Chance {
        if simulation::is_here() { Chance::Simulated } else { Chance::Thread(rand::rng()) }
    }
}

impl TryRng for Chance {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match self {
            Chance::Thread(rng) => rng.try_next_u32(),
            Chance::Simulated => Ok(simulation::draw() as u32),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match self {
            Chance::Thread(rng) => rng.try_next_u64(),
            Chance::Simulated => Ok(simulation::draw()),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self {
            Chance::Thread(rng) => return rng.try_fill_bytes(bytes),
            Chance::Simulated => {
                bytes
                    .chunks_mut(8)
                    .for_each(|part| part.copy_from_slice(&simulation::draw().to_le_bytes()[..part.len()]));
            }
        }
        Ok(())
    }
}

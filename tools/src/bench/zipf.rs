//! Draws from a Zipf distribution: rank r (from 1) has weight 1 / r^exponent.
//!
//! Walker's alias table: one draw is one random number and one look-up, however many ranks there are.

use rand::Rng;

/// Draws indexes.
pub struct Zipf {
    /// Below the threshold (of 2^32) the column itself, else its alias.
    columns: Vec<(u32, u32)>,
}

impl Zipf {
    /// Index i is drawn with the weight of rank `ranks[i]`.
    pub fn of_ranks(ranks: &[usize], exponent: f64) -> Zipf {
        let weights: Vec<f64> = ranks.iter().map(|&rank| (rank.max(1) as f64).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..shares.len()).partition(|&at| shares[at] < 1.0);
        let mut columns: Vec<(u32, u32)> = (0..shares.len() as u32).map(|at| (u32::MAX, at)).collect();
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            columns[low] = ((shares[low] * f64::from(u32::MAX)) as u32, high as u32);
            shares[high] -= 1.0 - shares[low];
            if shares[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Zipf { columns }
    }

    /// The next index.
    pub fn draw(&self, chance: &mut impl Rng) -> usize {
        let random = chance.next_u64();
        let column = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (threshold, alias) = self.columns[column];
        if random as u32 <= threshold { column } else { alias as usize }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn indexes_come_as_often_as_their_weight_says() {
        let ranks: Vec<usize> = (1..=100).collect();
        let zipf = Zipf::of_ranks(&ranks, 0.9);
        let mut chance = SmallRng::seed_from_u64(1);
        let mut counts = [0u32; 100];
        let draws = 1_000_000;
        (0..draws).for_each(|_| counts[zipf.draw(&mut chance)] += 1);
        let sum: f64 = ranks.iter().map(|&r| (r as f64).powf(-0.9)).sum();
        for (at, &count) in counts.iter().enumerate() {
            let expected = f64::from(draws) * (ranks[at] as f64).powf(-0.9) / sum;
            let spread = 6.0 * expected.sqrt();
            assert!((f64::from(count) - expected).abs() < spread, "rank {}: {count}, expected {expected:.0}", at + 1);
        }
    }

    #[test]
    fn a_single_index_is_always_drawn() {
        let zipf = Zipf::of_ranks(&[17], 0.9);
        let mut chance = SmallRng::seed_from_u64(2);
        assert!((0..100).all(|_| zipf.draw(&mut chance) == 0));
    }
}

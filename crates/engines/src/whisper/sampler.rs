//! Choice of tokens by chance.

use rten_simd::SimdOp;
use rten_vecmath::MaxNum;

use voxline_support::random::Random;

/// Bits of a float64's mantissa, with the implied one.
const MANTISSA_BITS: u32 = 53;

/// A sampler of tokens. Equal seeds and logits give equal tokens.
pub(super) struct Sampler {
    temperature: f32,
    random: Random,
    /// Chance of each token, up to a common factor.
    chances: Vec<f32>,
}

impl Sampler {
    /// Creates a sampler. A `temperature` of 1 gives each token the model's probability; a lower one
    /// prefers the likelier tokens.
    pub(super) fn new(temperature: f32, seed: u64) -> Sampler {
        Sampler { temperature, random: Random::new(seed), chances: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn temperature(&self) -> f32 {
        self.temperature
    }

    /// Returns the index of a token; `None` if no token has a chance.
    pub(super) fn sample(&mut self, logits: &[f32]) -> Option<usize> {
        let highest = MaxNum::new(logits).dispatch();
        if !highest.is_finite() {
            return None;
        }
        let scale = self.temperature.recip();
        self.chances.clear();
        self.chances.extend(logits.iter().map(|logit| ((logit - highest) * scale).exp()));
        let total: f64 = self.chances.iter().map(|chance| f64::from(*chance)).sum();
        let uniform =
            (self.random.next() >> (u64::BITS - MANTISSA_BITS)) as f64 / (1u64 << MANTISSA_BITS) as f64;
        let mut left = uniform * total;
        let sampled = self.chances.iter().position(|chance| {
            left -= f64::from(*chance);
            left < 0.0
        });
        // Rounding may leave a rest behind the last token.
        sampled.or_else(|| self.chances.iter().rposition(|chance| *chance > 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 2.0, f32::NEG_INFINITY, 0.0];

    fn shares(temperature: f32) -> [f32; 4] {
        let mut sampler = Sampler::new(temperature, 1);
        let mut counts = [0.0; 4];
        for _ in 0..10_000 {
            counts[sampler.sample(&LOGITS).unwrap()] += 1.0;
        }
        counts.map(|count: f32| count / 10_000.0)
    }

    #[test]
    fn tokens_come_as_often_as_the_temperature_says() {
        for temperature in [0.2, 0.6, 1.0_f32] {
            let powers = LOGITS.map(|logit| (logit / temperature).exp());
            let total: f32 = powers.iter().sum();
            let shares = shares(temperature);
            for (share, power) in shares.into_iter().zip(powers) {
                assert!((share - power / total).abs() < 0.02, "{shares:?} at {temperature}");
            }
            assert_eq!(shares[2], 0.0, "a suppressed token was chosen");
        }
    }

    #[test]
    fn equal_seeds_give_equal_tokens() {
        let tokens = |seed: u64| {
            let mut sampler = Sampler::new(1.0, seed);
            [(); 32].map(|()| sampler.sample(&LOGITS).unwrap())
        };
        assert_eq!(tokens(7), tokens(7));
        assert_ne!(tokens(7), tokens(8));
    }

    #[test]
    fn without_a_chance_there_is_no_token() {
        let mut sampler = Sampler::new(0.4, 1);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3]), None);
        assert_eq!(sampler.sample(&[f32::NAN]), None);
        assert_eq!(sampler.sample(&[]), None);
    }
}

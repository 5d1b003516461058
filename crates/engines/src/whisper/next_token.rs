//! The next token of a text: which ones may follow, how likely each is, and whether the text loops.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdOp, SimdUnaryOp};
use rten_vecmath::{Exp, MaxNum};

use super::tokens::Tokens;

/// Returns the logits of those tokens that may follow `text`, and rules out the others by a logit of
/// -infinity. Of the tokens from the end on, only the end may follow; the others steer.
pub(super) fn allowed<'a>(
    tokens: &Tokens,
    language: Option<u32>,
    text: &[u32],
    logits: &'a mut [f32],
) -> &'a mut [f32] {
    let allowed = &mut logits[..=tokens.end as usize];
    let first: &[u32] = if text.is_empty() { &tokens.suppressed_first } else { &[] };
    for id in tokens.suppressed.iter().chain(first).chain(tokens.foreign(language)) {
        if let Some(logit) = allowed.get_mut(*id as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    allowed
}

/// The logarithm of the softmax of some logits.
pub(super) struct LogSoftmax {
    highest: f32,
    /// Logarithm of the sum of the exponentials, relative to the highest logit.
    log_sum: f32,
}

impl LogSoftmax {
    pub(super) fn of(logits: &[f32]) -> LogSoftmax {
        let highest = MaxNum::new(logits).dispatch();
        LogSoftmax { highest, log_sum: ExponentialSum { logits, highest }.dispatch().ln() }
    }

    /// Returns the logarithm of the softmax of one of the logits.
    pub(super) fn at(&self, logit: f32) -> f32 {
        logit - self.highest - self.log_sum
    }
}

/// A SIMD operation that sums up the exponentials of logits, relative to the highest. It does what that of
/// rten-vecmath does, whose closures are compiled without the instructions of the kernel, so that each of
/// them is a call.
struct ExponentialSum<'a> {
    logits: &'a [f32],
    highest: f32,
}

impl SimdOp for ExponentialSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let ExponentialSum { logits, highest } = self;
        let floats = isa.f32();
        let highest = floats.splat(highest);
        let chunks = logits.chunks_exact(floats.len());
        let rest = chunks.remainder();
        let mut sum = floats.zero();
        for chunk in chunks {
            sum = floats.add(sum, Exp::apply(isa, floats.sub(floats.load(chunk), highest)));
        }
        if !rest.is_empty() {
            let (values, mask) = floats.load_pad(rest);
            let more = floats.add(sum, Exp::apply(isa, floats.sub(values, highest)));
            sum = floats.select(more, sum, mask);
        }
        sum.to_array().into_iter().sum()
    }
}

/// Returns the `count` highest logits with their indices, in descending order, the first of equals first.
/// Logits of -infinity are left out.
pub(super) fn highest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    /// Number of logits that are skipped at once if the highest of them is too low.
    const CHUNK: usize = 256;
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (first, chunk) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
        let least = |best: &[(u32, f32)]| match best.get(count - 1) {
            Some((_, logit)) => *logit,
            None => f32::NEG_INFINITY,
        };
        if MaxNum::new(chunk).dispatch() <= least(&best) {
            continue;
        }
        for (index, logit) in (first..).zip(chunk) {
            if *logit > least(&best) {
                let place = best.partition_point(|(_, other)| other >= logit);
                best.insert(place, (index, *logit));
                best.truncate(count);
            }
        }
    }
    best
}

/// Returns the length to which a text that ends in a loop should be cut: after the first occurrence of
/// the phrase. People do repeat themselves, so a shorter phrase needs more rounds to count as a loop.
pub(super) fn without_loop(tokens: &[u32]) -> Option<usize> {
    (1..=tokens.len() / 3).find_map(|phrase| {
        let rounds = match phrase {
            1 => 8,
            2..=3 => 5,
            4..=5 => 4,
            _ => 3,
        };
        let start = tokens.len().checked_sub(phrase * rounds)?;
        let looped = &tokens[start..];
        let repeats = looped.iter().zip(&looped[phrase..]).all(|(token, next)| token == next);
        repeats.then_some(start + phrase)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rten_vecmath::SumExpSub;

    #[test]
    fn loops_are_cut_after_the_first_round() {
        let phrase = [10, 11, 12, 13, 14, 15];
        let looped = [&[1, 2][..], &phrase, &phrase, &phrase].concat();
        assert_eq!(without_loop(&looped[..19]), None);
        assert_eq!(without_loop(&looped), Some(8));
        assert_eq!(without_loop(&[7; 7]), None);
        assert_eq!(without_loop(&[7; 8]), Some(1));
        assert_eq!(without_loop(&[]), None);
    }

    #[test]
    fn the_sum_is_that_of_rten() {
        for count in [1, 16, 1_003] {
            let logits: Vec<f32> = (0..count).map(|i| ((i * 7_919) % 499) as f32 / 50.0).collect();
            let sum = ExponentialSum { logits: &logits, highest: 9.98 }.dispatch();
            assert_eq!(sum, SumExpSub::new(&logits, 9.98).dispatch());
        }
    }

    #[test]
    fn the_highest_logits_are_those_of_a_sort() {
        let logits: Vec<f32> = (0..2_000).map(|i| ((i * 7_919) % 499) as f32).collect();
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(highest(&logits, 10), sorted[..10]);
        let few = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 3.0];
        assert_eq!(highest(&few, 10), [(3, 3.0), (1, 1.0)]);
    }
}

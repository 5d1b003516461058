//! Dynamic quantisation: the rows of an input at 256 levels each.

use rten_simd::SimdOp;
use rten_vecmath::{ExtendInit, MinMax, Quantize};

/// Quantisation of a row: `x = scale * (level - zero)`.
#[derive(Clone, Copy)]
pub(super) struct RowScale {
    pub(super) scale: f32,
    pub(super) zero: u8,
}

/// Buffers, kept from one product to the next.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) levels: Vec<u8>,
    pub(super) rows: Vec<RowScale>,
    pub(super) products: Vec<i32>,
}

impl Scratch {
    /// Quantises rows of `inputs`.
    pub(super) fn quantise(&mut self, x: &[f32], inputs: usize) {
        self.levels.clear();
        self.rows.clear();
        self.levels.reserve(x.len());
        for row in x.chunks_exact(inputs) {
            let (least, most) = MinMax::new(row).dispatch();
            let levels = RowScale::reaching(least, most);
            let (steps, zero) = (levels.scale.recip(), levels.zero);
            self.levels.extend_init(|room| Quantize::new(row, &mut room[..inputs], steps, zero).dispatch());
            self.rows.push(levels);
        }
    }
}

impl RowScale {
    /// Returns 256 levels from `least` to `most`, of which zero is one.
    fn reaching(least: f32, most: f32) -> RowScale {
        let (least, most) = (least.min(0.0), most.max(0.0));
        let scale = ((most - least) / 255.0).max(f32::MIN_POSITIVE);
        RowScale { scale, zero: (-least / scale).round() as u8 }
    }
}

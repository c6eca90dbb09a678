//! Random numbers that a seed repeats, for generated loads: splitmix64 (Steele, Lea, Flood, 2014).

/// A stream of numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// From `from` to below `to`.
    pub(crate) fn real(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From `from` to below `to`.
    pub(crate) fn whole(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() % (to - from).max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, part: f64) -> bool {
        self.real(0.0, 1.0) < part
    }

    /// Of mean 0 and deviation 1, nearly.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.real(0.0, 1.0)).sum::<f64>() - 6.0
    }
}

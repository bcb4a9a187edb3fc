//! Affine maps of 64-bit numbers, x -> factor * x + summand modulo 2^64: what one step of the
//! computation does to each of its values, and by composition what any number of steps does.

/// One map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// The factor.
    pub factor: u64,
    /// The summand.
    pub summand: u64,
}

impl Affine {
    const IDENTITY: Self = Self {
        factor: 1,
        summand: 0,
    };

    /// The value after one step from `value`.
    pub const fn apply(self, value: u64) -> u64 {
        self.factor.wrapping_mul(value).wrapping_add(self.summand)
    }

    /// The map of this one, and then of `next`.
    const fn then(self, next: Self) -> Self {
        Self {
            factor: next.factor.wrapping_mul(self.factor),
            summand: next.apply(self.summand),
        }
    }

    /// The map of `steps` steps, by repeated squaring.
    pub fn repeated(self, steps: u64) -> Self {
        let (mut result, mut power, mut left) = (Self::IDENTITY, self, steps);
        while left > 0 {
            if left & 1 == 1 {
                result = result.then(power);
            }
            power = power.then(power);
            left >>= 1;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::Affine;

    #[test]
    fn so_many_steps_at_once_are_so_many_steps() {
        let map = Affine {
            factor: 6_364_136_223_846_793_005,
            summand: 1_442_695_040_888_963_407,
        };
        let mut value = 7;

        for steps in 0..1000 {
            assert_eq!(map.repeated(steps).apply(7), value, "{steps} steps");
            value = map.apply(value);
        }
    }
}

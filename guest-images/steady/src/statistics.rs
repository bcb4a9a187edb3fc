//! Distances between interrupts, in guest time.

/// Distances that are kept: of the last so many interrupts. A power of two.
pub const KEPT: usize = 1 << 14;

/// The one in the middle; 0 where there is none.
#[must_use]
pub fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Ends of a period within `elapsed_ns` for which no interrupt was counted.
#[must_use]
pub const fn missed(elapsed_ns: u64, period_ns: u64, counted: u64) -> u64 {
    (elapsed_ns / period_ns).saturating_sub(counted)
}

#[cfg(test)]
mod tests {
    use super::{median, missed};

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median(&mut []), 0);
        assert_eq!(median(&mut [7]), 7);
        assert_eq!(median(&mut [9, 1, 5]), 5);
    }

    #[test]
    fn a_period_without_an_interrupt_is_missed() {
        assert_eq!(missed(50, 10, 5), 0);
        assert_eq!(missed(59, 10, 3), 2);
        // An interrupt may be entered before the clock of the machine has gone on.
        assert_eq!(missed(9, 10, 1), 0);
    }
}

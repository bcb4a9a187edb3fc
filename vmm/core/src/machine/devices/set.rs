//! Some devices of a board.

use super::board::DEVICES_MAX;
use lockstep_logging_channel::DeviceId;

/// Some devices of a board, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceSet(u64);

const _: () = assert!(DEVICES_MAX == u64::BITS as usize);

impl DeviceSet {
    /// Its saved form: a bit for each of `all`, the lowest for the first.
    #[must_use]
    pub fn saved(self, all: impl Iterator<Item = DeviceId>) -> u64 {
        let bits = all.zip(0..).filter(|(device, _)| self.contains(*device));
        bits.fold(0, |bits, (_, ordinal)| bits | 1 << ordinal)
    }

    /// The set in this saved form; none where that has more than `all`.
    #[must_use]
    pub fn restored(saved: u64, all: impl Iterator<Item = DeviceId>) -> Option<Self> {
        let (mut set, mut left) = (Self::default(), saved);
        for device in all {
            if left & 1 != 0 {
                set.insert(device);
            }
            left >>= 1;
        }
        (left == 0).then_some(set)
    }

    /// True if `device` is in it.
    #[must_use]
    pub fn contains(self, device: DeviceId) -> bool {
        self.0 & bit(device) != 0
    }

    /// Puts `device` into it.
    pub fn insert(&mut self, device: DeviceId) {
        self.0 |= bit(device);
    }
}

/// None for a number that no board has.
fn bit(device: DeviceId) -> u64 {
    1_u64.checked_shl(device.0.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_saved_form_counts_through_the_devices_it_is_about() {
        let all = || [DeviceId(1), DeviceId(5), DeviceId(63)].into_iter();
        let mut set = DeviceSet::default();
        set.insert(DeviceId(1));
        set.insert(DeviceId(63));
        assert_eq!(set.saved(all()), 0b101);
        assert_eq!(DeviceSet::restored(0b101, all()), Some(set));
        assert_eq!(DeviceSet::restored(0b1000, all()), None);
    }

    #[test]
    fn a_number_that_no_board_has_is_in_no_set() {
        let mut set = DeviceSet::default();
        set.insert(DeviceId(64));
        assert_eq!(set, DeviceSet::default());
        assert!(!set.contains(DeviceId(255)));
    }
}

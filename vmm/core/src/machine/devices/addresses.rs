//! The table behind a bus: which register of which device an address is.

use lockstep_logging_channel::DeviceId;

/// A register of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The device.
    pub device: DeviceId,
    /// Its offset from the device's first.
    pub offset: u64,
}

/// Consecutive addresses of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    /// The register at `first`.
    register: Register,
}

/// Addresses of one space, by the first of each range. No two ranges overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<Range>);

impl Addresses {
    /// Gives `first` to `last` to the registers from `register` on.
    ///
    /// # Errors
    /// The register that has one of these addresses already. Nothing is given then.
    pub fn give(&mut self, first: u64, last: u64, register: Register) -> Result<(), Register> {
        let index = self.0.partition_point(|range| range.last < first);
        if let Some(taken) = self.0.get(index).filter(|range| range.first <= last) {
            return Err(taken.register);
        }
        let range = Range {
            first,
            last,
            register,
        };
        self.0.insert(index, range);
        Ok(())
    }

    /// The register at `address`.
    #[must_use]
    pub fn find(&self, address: u64) -> Option<Register> {
        let behind = self.0.partition_point(|range| range.first <= address);
        let range = self.0.get(behind.checked_sub(1)?)?;
        (address <= range.last).then(|| Register {
            offset: range.register.offset + (address - range.first),
            ..range.register
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(device: u8, offset: u64) -> Register {
        let device = DeviceId(device);
        Register { device, offset }
    }

    #[test]
    fn an_address_is_found_in_its_range_and_not_beside_it() {
        let mut addresses = Addresses::default();
        addresses.give(0x60, 0x61, register(1, 4)).unwrap();
        addresses.give(0x40, 0x43, register(1, 0)).unwrap();
        addresses.give(0x62, 0x62, register(2, 0)).unwrap();
        let found = |address| addresses.find(address);
        assert_eq!(found(0x3f), None);
        assert_eq!(found(0x40), Some(register(1, 0)));
        assert_eq!(found(0x43), Some(register(1, 3)));
        assert_eq!(found(0x44), None);
        assert_eq!(found(0x61), Some(register(1, 5)));
        assert_eq!(found(0x62), Some(register(2, 0)));
        assert_eq!(found(u64::MAX), None);
    }

    #[test]
    fn a_range_that_overlaps_another_anywhere_is_refused() {
        let mut addresses = Addresses::default();
        addresses.give(10, 19, register(1, 0)).unwrap();
        for (first, last) in [(0, 10), (19, 30), (12, 13), (0, 30), (10, 19)] {
            assert_eq!(addresses.give(first, last, register(2, 0)), Err(register(1, 0)));
        }
        addresses.give(0, 9, register(2, 0)).unwrap();
        addresses.give(20, u64::MAX, register(3, 0)).unwrap();
        assert_eq!(addresses.find(9), Some(register(2, 9)));
    }
}

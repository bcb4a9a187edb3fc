//! Which station is behind which port.
//!
//! There is no clock in it: a station is forgotten when its port goes, when it is heard elsewhere,
//! or when the table is full and it is the one not heard for the most frames.

use std::collections::BTreeMap;

use super::port_id::PortId;
use lockstep_network::MacAddress;

/// Stations remembered: far more than a host runs virtual machines, 40 KiB.
pub(super) const STATIONS_MAX: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Station {
    port: PortId,
    heard: u64,
}

/// What hearing a station taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// It is where it was, or is new.
    Nothing,
    /// It was behind another port before.
    Moved,
}

/// The learning table.
#[derive(Debug, Default)]
pub(super) struct StationTable {
    stations: BTreeMap<MacAddress, Station>,
    frames: u64,
}

impl StationTable {
    /// Notes that `mac` was heard on `port`.
    pub(super) fn hear(&mut self, mac: MacAddress, port: PortId) -> Learned {
        self.frames += 1;
        let heard = self.frames;
        if let Some(station) = self.stations.get_mut(&mac) {
            let before = std::mem::replace(station, Station { port, heard });
            return if before.port == port {
                Learned::Nothing
            } else {
                Learned::Moved
            };
        }
        if self.stations.len() >= STATIONS_MAX {
            self.forget_oldest();
        }
        self.stations.insert(mac, Station { port, heard });
        Learned::Nothing
    }

    /// The port behind which `mac` was heard last.
    pub(super) fn port_of(&self, mac: &MacAddress) -> Option<PortId> {
        self.stations.get(mac).map(|station| station.port)
    }

    /// Forgets every station behind `port`.
    pub(super) fn forget_port(&mut self, port: PortId) {
        self.stations.retain(|_, station| station.port != port);
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .stations
            .iter()
            .min_by_key(|(_, station)| station.heard)
            .map(|(mac, _)| *mac);
        if let Some(mac) = oldest {
            self.stations.remove(&mac);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u16) -> MacAddress {
        let [high, low] = number.to_be_bytes();
        [2, 0, 0, 0, high, low]
    }

    #[test]
    fn a_station_is_where_it_was_heard_last() {
        let mut table = StationTable::default();
        assert_eq!(table.hear(mac(1), PortId(1)), Learned::Nothing);
        assert_eq!(table.hear(mac(1), PortId(1)), Learned::Nothing);
        assert_eq!(table.hear(mac(1), PortId(2)), Learned::Moved);
        assert_eq!(table.port_of(&mac(1)), Some(PortId(2)));
    }

    #[test]
    fn with_its_port_a_station_goes() {
        let mut table = StationTable::default();
        table.hear(mac(1), PortId(1));
        table.hear(mac(2), PortId(2));
        table.forget_port(PortId(1));
        assert_eq!(
            (table.port_of(&mac(1)), table.port_of(&mac(2))),
            (None, Some(PortId(2)))
        );
    }

    #[test]
    fn a_full_table_forgets_the_one_not_heard_for_longest() {
        let mut table = StationTable::default();
        (0..STATIONS_MAX as u16).for_each(|number| {
            table.hear(mac(number), PortId(1));
        });
        table.hear(mac(0), PortId(1));

        table.hear(mac(STATIONS_MAX as u16), PortId(1));

        assert_eq!(table.stations.len(), STATIONS_MAX);
        assert_eq!(table.port_of(&mac(0)), Some(PortId(1)));
        assert_eq!(table.port_of(&mac(1)), None);
    }
}

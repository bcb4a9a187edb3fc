//! The bus: finds the device at an address, and gives it what arrives and collects what leaves.

mod state;
#[cfg(test)]
mod tests;

pub use super::effect::Effect;

use super::addresses::{Addresses, Register};
use super::board::Kind;
use super::clock::Clock;
use super::cmos::Cmos;
use super::pic::Pic;
use super::pit::{NeedsTime, Pit};
use super::power::Power;
use super::serial::Serial;
use super::set::DeviceSet;
use super::virtio::block::NotOutstanding;
use super::virtio::{Block, Entropy, Mmio, Net, Virtio};
use crate::machine::disk::Request;
use crate::machine::door::{Ask, DoorError, Taker, Takes, asking};
use crate::machine::memory::Memory;
use lockstep_logging_channel::{DeviceId, Event, EventKind, OutputTarget};
use vm_memory::{Bytes, GuestAddress};

/// An event whose device is none that takes such a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event entered at {device}, which takes no such thing")]
pub struct NotTaken {
    /// The device that it names.
    pub device: DeviceId,
}

/// A device, whichever it is.
enum Device {
    /// [`Devices::pic`]: it stands apart because the others raise their lines at it.
    InterruptController,
    IntervalTimer(Pit),
    Clock(Clock),
    Cmos(Cmos),
    SerialConsole(Serial),
    Network(Mmio<Net>),
    Entropy(Mmio<Entropy>),
    Disk(Mmio<Block>),
    PowerOff,
    PowerManagement(Power),
}

/// A device in its place.
struct Slot {
    name: &'static str,
    line: Option<u8>,
    device: Device,
}

/// All devices of a machine.
pub struct Devices {
    kind: Kind,
    pic: Pic,
    /// By their numbers on the board.
    slots: Vec<Slot>,
    ports: Addresses,
    memory: Addresses,
}

impl Devices {
    /// Kind of their board.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True where an interrupt waits for the vCPU.
    #[must_use]
    pub fn interrupt_pending(&self) -> bool {
        self.pic.is_pending()
    }

    /// The vCPU takes it: its vector.
    pub fn acknowledge_interrupt(&mut self) -> Option<u8> {
        self.pic.acknowledge()
    }

    /// Reads a port.
    ///
    /// # Errors
    /// The door's.
    pub fn read_port(&mut self, port: u16, size_bytes: u8, ask: Ask<'_>) -> Result<u32, DoorError> {
        let register = self.ports.find(port.into());
        Ok(self.read(register, size_bytes, ask)? as u32 & low_bits(size_bytes))
    }

    /// Writes a port. What the device wants done is added to `effects`.
    ///
    /// # Errors
    /// The door's.
    pub fn write_port(
        &mut self,
        port: u16,
        value: u32,
        memory: &Memory,
        ask: Ask<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), DoorError> {
        let register = self.ports.find(port.into());
        self.write(register, value, memory, ask, effects)
    }

    /// Reads device memory.
    ///
    /// # Errors
    /// The door's.
    pub fn read_mmio(&mut self, address: u64, size_bytes: u8, ask: Ask<'_>) -> Result<u64, DoorError> {
        let register = self.memory.find(address);
        self.read(register, size_bytes, ask)
    }

    /// Writes device memory. What the device wants done is added to `effects`.
    ///
    /// # Errors
    /// The door's.
    pub fn write_mmio(
        &mut self,
        address: u64,
        value: u64,
        memory: &Memory,
        ask: Ask<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), DoorError> {
        let register = self.memory.find(address);
        self.write(register, value as u32, memory, ask, effects)
    }

    fn at(&mut self, register: Option<Register>) -> Option<(&mut Pic, &mut Slot, Register)> {
        let register = register?;
        let slot = self.slots.get_mut(usize::from(register.device.0))?;
        Some((&mut self.pic, slot, register))
    }

    /// Reads a register; all ones where there is none.
    fn read(&mut self, register: Option<Register>, size_bytes: u8, ask: Ask<'_>) -> Result<u64, DoorError> {
        let kind = self.kind;
        let Some((pic, slot, Register { offset, .. })) = self.at(register) else {
            return Ok(u64::MAX);
        };
        Ok(match &mut slot.device {
            Device::InterruptController => pic.read(offset).into(),
            Device::IntervalTimer(pit) => {
                let now_ns = time_for(pit.read_needs_time(offset), ask)?;
                pit.read(offset, now_ns).into()
            }
            Device::Clock(clock) => clock.read(offset, ask)?.into(),
            Device::Cmos(cmos) => cmos.read(offset, ask)?.into(),
            Device::SerialConsole(serial) => {
                let value = serial.read(offset as u8);
                raise(kind, pic, slot.line, serial);
                value.into()
            }
            Device::Network(net) => net.read(offset, size_bytes),
            Device::Entropy(entropy) => entropy.read(offset, size_bytes),
            Device::Disk(disk) => disk.read(offset, size_bytes),
            Device::PowerOff => u64::MAX,
            Device::PowerManagement(power) => power.read(offset, ask)?.into(),
        })
    }

    /// Writes a register, if there is one.
    fn write(
        &mut self,
        register: Option<Register>,
        value: u32,
        memory: &Memory,
        ask: Ask<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), DoorError> {
        let kind = self.kind;
        let Some((pic, slot, Register { device, offset })) = self.at(register) else {
            return Ok(());
        };
        let byte = value as u8;
        match &mut slot.device {
            Device::InterruptController => pic.write(offset, byte),
            Device::IntervalTimer(pit) => {
                let now_ns = time_for(pit.write_needs_time(offset, byte), ask)?;
                pit.write(offset, byte, now_ns);
            }
            Device::Clock(clock) => clock.write(offset, value),
            Device::Cmos(cmos) => cmos.write(offset, byte),
            Device::SerialConsole(serial) => {
                let text = serial.write(offset as u8, byte);
                raise(kind, pic, slot.line, serial);
                let target = OutputTarget::console(device);
                effects.extend(text.map(|text| Effect::Output(target, text)));
            }
            Device::Network(net) => {
                let target = OutputTarget::network(device);
                let mut send = |frame| effects.push(Effect::Output(target, frame));
                if let Some(queue) = net.write(offset, value) {
                    net.transmit(queue, memory, &mut send);
                }
                set_line(pic, slot.line, net);
            }
            Device::Entropy(entropy) => {
                if let Some(queue) = entropy.write(offset, value) {
                    entropy.fill(queue, memory, ask)?;
                }
                set_line(pic, slot.line, entropy);
            }
            Device::Disk(disk) => {
                let mut send = |request| effects.push(Effect::Disk(device, request));
                if let Some(queue) = disk.write(offset, value) {
                    disk.take(queue, memory, &mut send);
                }
                set_line(pic, slot.line, disk);
            }
            Device::PowerOff => effects.push(Effect::PowerOff(value)),
            Device::PowerManagement(power) => effects.extend(power.write(offset, value)),
        }
        Ok(())
    }

    /// Text at consoles that has not left yet.
    pub fn flush_consoles(&mut self, effects: &mut Vec<Effect>) {
        for (slot, device) in self.slots.iter_mut().zip((0..).map(DeviceId)) {
            if let Device::SerialConsole(serial) = &mut slot.device {
                let target = OutputTarget::console(device);
                effects.extend(serial.flush().map(|text| Effect::Output(target, text)));
            }
        }
    }

    /// Fills `takers` with the devices that take arrivals, and what they take now. `entered` has
    /// the timers that have expired at this execution point.
    pub fn takers(&self, memory: &Memory, entered: DeviceSet, takers: &mut Vec<Taker>) {
        takers.clear();
        for (slot, device) in self.slots.iter().zip((0..).map(DeviceId)) {
            let takes = match &slot.device {
                Device::IntervalTimer(pit) => Takes::Expiry {
                    deadline_ns: pit.deadline_ns(),
                    entered: entered.contains(device),
                },
                Device::SerialConsole(serial) => Takes::ConsoleInput {
                    bytes_max: serial.input_bytes_free(),
                    listens: serial.listens(),
                },
                Device::Network(net) => Takes::Frames {
                    max: net.receive_buffers(memory),
                },
                Device::Disk(disk) => Takes::Completions {
                    outstanding: disk.outstanding().len(),
                },
                Device::InterruptController
                | Device::Clock(_)
                | Device::Cmos(_)
                | Device::Entropy(_)
                | Device::PowerOff
                | Device::PowerManagement(_) => continue,
            };
            takers.push(Taker { device, takes });
        }
    }

    /// Takes what arrives. What the device wants done is added to `effects`.
    ///
    /// # Errors
    /// [`NotTaken`]: its device is none that takes such a thing. Nothing has changed then.
    pub fn event(
        &mut self,
        event: &Event,
        memory: &Memory,
        effects: &mut Vec<Effect>,
    ) -> Result<(), NotTaken> {
        let Self { kind, pic, slots, .. } = self;
        let not_taken = NotTaken { device: event.device };
        let Slot { line, device, .. } = slots.get_mut(usize::from(event.device.0)).ok_or(not_taken)?;
        match (device, &event.kind) {
            (Device::Network(net), EventKind::Frame(frame)) => {
                net.receive(frame, memory);
                set_line(pic, *line, net);
            }
            (Device::IntervalTimer(pit), EventKind::Timer) => {
                if pit.expire(event.monotonic_ns) {
                    pulse(pic, *line);
                }
            }
            (Device::SerialConsole(serial), EventKind::ConsoleInput(bytes)) => {
                serial.receive(bytes);
                raise(*kind, pic, *line, serial);
            }
            (Device::Disk(disk), EventKind::Completion(completion)) => {
                let mut send = |request| effects.push(Effect::Disk(event.device, request));
                let completed = disk.complete(completion, memory, &mut send);
                let done = completed.map_err(|NotOutstanding| not_taken)?;
                set_line(pic, *line, disk);
                if done.operation.leaves() {
                    effects.push(Effect::DiskDone(event.device, done));
                }
            }
            _ => return Err(not_taken),
        }
        self.tell_clocks(event.monotonic_ns, memory);
        Ok(())
    }

    /// Writes the time of an event into the page of each clock.
    fn tell_clocks(&mut self, monotonic_ns: u64, memory: &Memory) {
        for slot in &mut self.slots {
            if let Device::Clock(clock) = &mut slot.device
                && let Some(page) = clock.event(monotonic_ns)
            {
                // A page outside memory is the guest's mistake: it gets no time.
                let _ = memory.write_slice(&monotonic_ns.to_le_bytes(), GuestAddress(page));
            }
        }
    }

    /// Names of the devices, by their numbers.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.slots.iter().map(|slot| slot.name).collect()
    }

    /// Requests of each disk that are not done, in the order in which they were made.
    #[must_use]
    pub fn outstanding_disk_requests(&self) -> Vec<(DeviceId, Request)> {
        let mut all = Vec::new();
        for (slot, device) in self.slots.iter().zip((0..).map(DeviceId)) {
            if let Device::Disk(disk) = &slot.device {
                all.extend(disk.outstanding().map(|request| (device, request.clone())));
            }
        }
        all
    }

    /// The same devices as they are when power comes on, which are `fresh`: but what was asked of
    /// disks is still being done.
    pub fn power_on(&mut self, fresh: Self) {
        let old = std::mem::replace(self, fresh);
        for (slot, old) in self.slots.iter_mut().zip(old.slots) {
            if let (Device::Disk(disk), Device::Disk(mut kept)) = (&mut slot.device, old.device) {
                kept.power_on();
                *disk = kept;
            }
        }
    }

    /// The timers.
    pub fn timers(&self) -> impl Iterator<Item = DeviceId> {
        let devices = self.slots.iter().zip((0..).map(DeviceId));
        let timers = devices.filter(|(slot, _)| matches!(slot.device, Device::IntervalTimer(_)));
        timers.map(|(_, device)| device)
    }
}

fn time_for(needs: NeedsTime, ask: Ask<'_>) -> Result<u64, DoorError> {
    match needs {
        NeedsTime::Yes => asking::monotonic(ask),
        NeedsTime::No => Ok(0),
    }
}

fn pulse(pic: &mut Pic, line: Option<u8>) {
    if let Some(line) = line {
        pic.pulse(line);
    }
}

fn raise(kind: Kind, pic: &mut Pic, line: Option<u8>, serial: &mut Serial) {
    if serial.take_interrupt() {
        pulse(pic, line);
    } else if kind == Kind::Pc && serial.is_quiet() {
        // As the wire does: what the guest has read from the UART interrupts no more. The small
        // board keeps the request, as logs of it do.
        lower(pic, line);
    }
}

fn lower(pic: &mut Pic, line: Option<u8>) {
    if let Some(line) = line {
        pic.set_line(line, false);
    }
}

fn set_line<D: Virtio>(pic: &mut Pic, line: Option<u8>, device: &Mmio<D>) {
    if let Some(line) = line {
        pic.set_line(line, device.line());
    }
}

fn low_bits(size_bytes: u8) -> u32 {
    match size_bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

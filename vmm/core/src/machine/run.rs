//! The machine itself, and one step of it.
//!
//! ```text
//!   step: arrivals enter here -> interrupt, if the guest can take it -> run to the horizon -> answer the exit
//!          ^                                                                                      |
//!          +------------ next execution point: exits + 1, or exits and instructions <-------------+
//! ```
//!
//! An interrupt is only ever given at an exit, or where an event has just entered: both are
//! execution points that a replay finds again. A kick alone changes nothing.

mod common;
mod digests;
mod following;
mod kernel;
mod restarting;
mod saved;

use super::boot::Firmware;
use super::common::CommonPoints;
use super::cpu::{CpuError, Entry, Exit, Registers, Vcpu, cpuid};
use super::devices::bus::{Effect, NotTaken};
use super::devices::saved::NoDigest;
use super::devices::{DeviceSet, Devices};
use super::door::{self, Door, DoorError, Horizon, Readiness, Taker};
use super::image::sites::{Sites, TRAP_PORT, Trapped};
use super::memory::Memory;
pub use super::policy::Policy;
use super::saved::SavedError;
use lockstep_logging_channel::{End, EndReason, EventKind, ExecutionPoint, PartDigest};

/// Events that enter before the guest runs on, at most: four times what its largest ring can take,
/// so that a flood of arrivals slows a guest and never stops it.
pub const ARRIVALS_MAX: usize = 4 * 256;

/// Why the machine stopped other than by its own end.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The door refused.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The host failed.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The door let an event in where it cannot enter.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// A part of the state cannot be seen, so it cannot be compared.
    #[error(transparent)]
    NoDigest(#[from] NoDigest),
    /// The guest could not be put into memory again.
    #[error("the guest cannot restart: {0}")]
    Restart(String),
    /// The log has a page that this machine does not.
    #[error(transparent)]
    Saved(#[from] SavedError),
}

/// End of the machine's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    /// Execution point of the end.
    pub point: ExecutionPoint,
}

/// A place where a machine may pause: between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// The execution point; the last one, where a kick found the guest between two.
    pub point: ExecutionPoint,
    /// A kick found the guest where there is no execution point.
    pub between: bool,
}

/// vCPU, memory and devices, and where they are in their execution.
pub struct Machine<V> {
    vcpu: V,
    memory: Memory,
    devices: Devices,
    sites: Sites,
    policy: Policy,
    /// The state from which the guest begins, where it may restart itself.
    firmware: Option<Box<dyn Firmware>>,
    exits: u64,
    instructions: u64,
    halted: bool,
    /// A kick found the guest where there is no execution point; it has to run on before anything
    /// may enter.
    between: bool,
    /// Digests were due within an instruction, and are taken where it is complete.
    digest_due: bool,
    /// Timers that have expired at this execution point.
    expired: DeviceSet,
    common_points: CommonPoints,
    /// Devices that take arrivals; kept for its allocation.
    takers: Vec<Taker>,
    /// Effects that an access has outside its device; kept for the allocation.
    effects: Vec<Effect>,
}

/// Result of one step.
enum Step {
    Continues,
    Ended(EndReason),
    /// Stopped from outside where there is no execution point: nothing can be said of the state
    /// there.
    StoppedBetween,
}

impl<V: Vcpu> Machine<V> {
    /// A machine about to execute its first instruction.
    pub fn new(vcpu: V, memory: Memory, devices: Devices, sites: Sites, policy: Policy) -> Self {
        Self {
            vcpu,
            memory,
            devices,
            sites,
            policy,
            firmware: None,
            exits: 0,
            instructions: 0,
            halted: false,
            between: false,
            digest_due: false,
            expired: DeviceSet::default(),
            common_points: CommonPoints::default(),
            takers: Vec::new(),
            effects: Vec::new(),
        }
    }

    /// The machine, whose guest may restart itself from `firmware`.
    #[must_use]
    pub fn restarting(self, firmware: Box<dyn Firmware>) -> Self {
        Self {
            firmware: Some(firmware),
            ..self
        }
    }

    /// Runs until the guest ends or the door refuses.
    ///
    /// # Errors
    /// [`MachineError`]; [`DoorError::Stopped`] when it was stopped from outside in good order.
    pub fn run(&mut self, door: &mut dyn Door) -> Result<Ended, MachineError> {
        loop {
            if let Some(ended) = self.run_until(door, &mut |_| false)? {
                return Ok(ended);
            }
        }
    }

    /// Runs until the guest ends, the door refuses, or `pauses`, which is asked after each step,
    /// says so where the guest is not within an instruction. A machine that pauses can be saved,
    /// and can run on.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_until(
        &mut self,
        door: &mut dyn Door,
        pauses: &mut dyn FnMut(Pause) -> bool,
    ) -> Result<Option<Ended>, MachineError> {
        loop {
            match self.step(door) {
                Ok(Step::Continues) => {
                    let point = self.point();
                    let between = self.between;
                    // Within an instruction there is no state to save: the next question is behind
                    // it.
                    if pauses(Pause { point, between }) && self.vcpu.is_whole()? {
                        return Ok(None);
                    }
                }
                Ok(Step::Ended(reason)) => {
                    let parts = self.final_digests()?;
                    return self.end(door, reason, parts).map(Some);
                }
                Ok(Step::StoppedBetween) => {
                    return self.end(door, EndReason::Stopped, Vec::new()).map(Some);
                }
                Err(MachineError::Door(DoorError::Stopped)) => {
                    let parts = self.final_digests()?;
                    return self.end(door, EndReason::Stopped, parts).map(Some);
                }
                Err(MachineError::Door(DoorError::Diverged(mut report))) => {
                    report.devices = self.devices.names();
                    return Err(DoorError::Diverged(report).into());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn end(
        &mut self,
        door: &mut dyn Door,
        reason: EndReason,
        parts: Vec<PartDigest>,
    ) -> Result<Ended, MachineError> {
        let point = self.point();
        if door.has_epochs() {
            // They are done behind the end, and nothing is said of that any more.
            let mut left = self.outstanding_disk_requests();
            left.retain(|(_, request)| request.operation.leaves());
            for (device, request) in left {
                door.disk_done(point, device, request)?;
            }
        }
        door.end(
            point,
            End {
                reason: reason.clone(),
                parts,
            },
        )?;
        Ok(Ended { reason, point })
    }

    fn step(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        let point = self.point();
        if door.is_common_point_due(point)? && self.vcpu.is_whole()? {
            return self.make_common_point(door);
        }
        let interrupt = if self.between { None } else { self.enter(door)? };
        if interrupt.is_some() {
            self.halted = false;
        } else if self.halted {
            return Ok(Step::Continues);
        }
        let horizon = door.horizon(self.point())?;
        if horizon == Horizon::CommonPoint {
            return self.meet_common_point(door);
        }
        if self.common_points.stands() {
            return self.make_common_point(door);
        }
        let stop_at_window = self.policy.window_exits && self.devices.interrupt_pending();
        let exit = self.vcpu.run(Entry {
            interrupt,
            stop_at_window,
            horizon,
        })?;
        self.advance(&exit);
        self.handle(exit, door)
    }

    /// Takes what enters here: events, and the interrupt that the guest can take.
    fn enter(&mut self, door: &mut dyn Door) -> Result<Option<u8>, MachineError> {
        let entered = self.take_arrivals(door)?;
        if self.instructions == 0 || entered {
            self.take_interrupt()
        } else {
            Ok(None)
        }
    }

    /// Takes what enters at this point, at most [`ARRIVALS_MAX`] before the guest runs on; whether
    /// anything did.
    fn take_arrivals(&mut self, door: &mut dyn Door) -> Result<bool, MachineError> {
        let mut entered = false;
        // Between exits, an event enters only where the guest can take its interrupt at once.
        let closed = self.instructions > 0 && !self.vcpu.interruptible()?;
        for _ in 0..ARRIVALS_MAX {
            let point = self.point();
            let idle = self.halted && !entered && !self.devices.interrupt_pending();
            self.devices.takers(&self.memory, self.expired, &mut self.takers);
            let readiness = Readiness {
                closed,
                idle,
                takers: &self.takers,
            };
            let Some(event) = door.arrival(point, readiness)? else {
                return Ok(entered);
            };
            self.devices.event(&event, &self.memory, &mut self.effects)?;
            self.carry_out(door)?;
            if event.kind == EventKind::Timer {
                self.expired.insert(event.device);
            }
            entered = true;
        }
        Ok(entered)
    }

    fn take_interrupt(&mut self) -> Result<Option<u8>, MachineError> {
        if !self.devices.interrupt_pending() || !self.vcpu.interruptible()? {
            return Ok(None);
        }
        Ok(self.devices.acknowledge_interrupt())
    }

    /// The machine's execution point. Between two points it is the last one, with an instruction
    /// pointer that belongs to none.
    fn point(&mut self) -> ExecutionPoint {
        let rip = if self.between { None } else { self.vcpu.rip() };
        ExecutionPoint {
            exits: self.exits,
            instructions: self.instructions,
            rip: rip.unwrap_or(0),
        }
    }

    fn advance(&mut self, exit: &Exit) {
        self.between = *exit == Exit::Kicked;
        let before = (self.exits, self.instructions);
        match exit {
            Exit::Instruction { instructions } => self.instructions = *instructions,
            Exit::Kicked => {}
            _ => {
                self.exits += 1;
                self.instructions = 0;
            }
        }
        if before != (self.exits, self.instructions) {
            self.expired = DeviceSet::default();
        }
    }

    fn handle(&mut self, exit: Exit, door: &mut dyn Door) -> Result<Step, MachineError> {
        match exit {
            Exit::PortRead { port, size_bytes } => self.read_port(port, size_bytes, door)?,
            Exit::PortWrite { port, size_bytes, .. }
                if let Some((trap, interrupt_return)) = self.sites.kernel_trap(port, size_bytes) =>
            {
                if let Step::Ended(reason) = self.answer_kernel(trap, interrupt_return, door)? {
                    return Ok(Step::Ended(reason));
                }
            }
            Exit::PortWrite { port, value, .. } => {
                let point = self.point();
                let mut ask = |question| door.answer(point, question);
                self.devices
                    .write_port(port, value, &self.memory, &mut ask, &mut self.effects)?;
            }
            Exit::MmioRead { address, size_bytes } => {
                let point = self.point();
                let mut ask = |question| door.answer(point, question);
                let value = self.devices.read_mmio(address, size_bytes, &mut ask)?;
                self.vcpu.supply(value);
            }
            Exit::MmioWrite { address, value, .. } => {
                let point = self.point();
                let mut ask = |question| door.answer(point, question);
                self.devices
                    .write_mmio(address, value, &self.memory, &mut ask, &mut self.effects)?;
            }
            // Nothing but an interrupt ends a halt: with interrupts off, nothing ever does.
            Exit::Halt if !self.vcpu.interruptible()? => {
                return self.ended(
                    EndReason::GuestFault("it halted with interrupts disabled".to_owned()),
                    door,
                );
            }
            Exit::Halt => {
                self.halted = true;
                self.devices.flush_consoles(&mut self.effects);
            }
            Exit::Window => {}
            Exit::Instruction { .. } => return Ok(Step::Continues),
            Exit::Kicked => {
                return match self.kicked(door) {
                    Err(MachineError::Door(DoorError::Stopped)) => Ok(Step::StoppedBetween),
                    other => other,
                };
            }
            Exit::Fault(why) => return self.ended(EndReason::GuestFault(why), door),
        }
        match self.carry_out(door)? {
            None => {}
            Some(Effect::Reset) => {
                if let Step::Ended(reason) = self.restart(door)? {
                    return Ok(Step::Ended(reason));
                }
            }
            Some(Effect::PowerOff(status)) => return self.ended(EndReason::PoweredOff(status), door),
            Some(Effect::Output(..) | Effect::Disk(..) | Effect::DiskDone(..)) => {}
        }
        self.digest_at_interval(door)?;
        Ok(Step::Continues)
    }

    fn ended(&mut self, reason: EndReason, door: &mut dyn Door) -> Result<Step, MachineError> {
        self.devices.flush_consoles(&mut self.effects);
        self.carry_out(door)?;
        Ok(Step::Ended(reason))
    }

    /// Carries out what devices want done, in order. Gives the last by which the guest ends or
    /// restarts itself, if it does.
    fn carry_out(&mut self, door: &mut dyn Door) -> Result<Option<Effect>, MachineError> {
        let mut ends_with = None;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Output(target, bytes) => door.output(self.point(), target, bytes)?,
                Effect::Disk(device, request) => door.disk_request(self.point(), device, request)?,
                Effect::DiskDone(device, request) => door.disk_done(self.point(), device, request)?,
                ends @ (Effect::PowerOff(_) | Effect::Reset) => ends_with = Some(ends),
            }
        }
        self.effects = effects;
        Ok(ends_with)
    }

    fn read_port(&mut self, port: u16, size_bytes: u8, door: &mut dyn Door) -> Result<(), MachineError> {
        if port == u16::from(TRAP_PORT) {
            return self.answer_trapped(door);
        }
        let point = self.point();
        let mut ask = |question| door.answer(point, question);
        let value = self.devices.read_port(port, size_bytes, &mut ask)?;
        self.vcpu.supply(u64::from(value));
        Ok(())
    }

    /// An instruction of the image was rewritten into a read of the trap port: does what it would
    /// have done.
    fn answer_trapped(&mut self, door: &mut dyn Door) -> Result<(), MachineError> {
        let rax = self.vcpu.rax_at_exit();
        self.vcpu.supply(u64::from(u32::MAX));
        if !self.vcpu.is_whole()? {
            // A string instruction of the guest's own, with more to do: no site is one.
            return Ok(());
        }
        let mut registers = self.vcpu.registers()?;
        let Some(trapped) = self.sites.ending_at(registers.rip).map(|site| site.trapped) else {
            return Ok(());
        };
        let point = self.point();
        registers.rax = rax;
        let mut ask = |question| door.answer(point, question);
        match trapped {
            Trapped::Tsc => set_tsc(&mut registers, door::tsc(&mut ask)?),
            Trapped::TscAndProcessor => {
                set_tsc(&mut registers, door::tsc(&mut ask)?);
                registers.rcx = 0;
            }
            Trapped::Random { register, size_bytes } => {
                let bytes = door::random(&mut ask, size_bytes.into())?;
                set_random(&mut registers, register, size_bytes, &bytes);
            }
            Trapped::Cpuid => set_cpuid(&mut registers),
        }
        Ok(self.vcpu.set_registers(&registers)?)
    }
}

fn set_tsc(registers: &mut Registers, ticks: u64) {
    registers.rax = ticks & 0xffff_ffff;
    registers.rdx = ticks >> 32;
}

fn set_cpuid(registers: &mut Registers) {
    let [eax, ebx, ecx, edx] = cpuid::lookup(registers.rax as u32, registers.rcx as u32);
    registers.rax = u64::from(eax);
    registers.rbx = u64::from(ebx);
    registers.rcx = u64::from(ecx);
    registers.rdx = u64::from(edx);
}

/// CF set; OF, SF, ZF, AF, PF cleared (Intel SDM volume 2B, RDRAND).
fn set_random(registers: &mut Registers, number: u8, size_bytes: u8, bytes: &[u8]) {
    const CARRY: u64 = 1;
    const CLEARED: u64 = 1 << 11 | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2;
    let random = bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    registers.rflags = registers.rflags & !CLEARED | CARRY;
    let target = registers.general_mut(number);
    *target = match size_bytes {
        2 => *target & !0xffff | random & 0xffff,
        4 => random & 0xffff_ffff,
        _ => random,
    };
}

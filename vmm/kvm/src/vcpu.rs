//! The vCPU: KVM_RUN and its run page as plain entries and exits.
//!
//! [`Core`] is what the instruction clocks ([`clock::InstructionClock`]) work with.

#![allow(unsafe_code, reason = "the run page is shared with the kernel")]

mod breakpoints;
pub mod clock;
mod saved;
mod seen;
mod segments;
mod settle;

use super::kick::{self, Registration};
use crate::host::HostError;
use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_IN, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_SYNC_X86_REGS,
    kvm_guest_debug, kvm_interrupt, kvm_regs, kvm_sregs,
};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};
use lockstep_core::machine::cpu::{CpuError, Exit, Registers, SystemRegisters};
use lockstep_core::machine::memory::Memory;
use std::io;
use std::sync::Arc;
use vmm_sys_util::ioctl::ioctl_with_ref;

mod number {
    #![allow(missing_docs, reason = "the macro takes no comment")]
    vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, 0xae, 0x86, super::kvm_interrupt);
}

/// Trap flag in RFLAGS.
const TRAP_FLAG: u64 = 1 << 8;

/// What one KVM_RUN came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// An exit of the guest's own making, or a fault.
    Exit(Exit),
    /// A kick.
    Kicked,
    /// A single step was made.
    Stepped,
}

/// The vCPU without a clock.
pub struct Core {
    // First, because fields go away in this order: a kick must not write to a run page that is
    // gone.
    _registration: Registration,
    vcpu: VcpuFd,
    // The VM and its memory live as long as the vCPU, or longer where somebody still has the dirty
    // log.
    vm: Arc<VmFd>,
    memory: Memory,
    /// Destination of the answer to the last exit's read, and its size. In the run page; good until
    /// the next KVM_RUN.
    answer: Option<(*mut u8, usize)>,
    /// An access of the last exit is not complete.
    pending: bool,
    /// What completing it led to, where that was another part of the same instruction.
    next: Option<(Ran, Answer)>,
    stepping: bool,
}

/// A failure of the host, as the machine hears of it.
pub fn failed<E: ToString>(action: &'static str) -> impl FnOnce(E) -> CpuError {
    move |why| CpuError {
        action,
        why: why.to_string(),
    }
}

impl Core {
    pub(super) fn new(mut vcpu: VcpuFd, vm: VmFd, memory: Memory) -> Result<Self, HostError> {
        vcpu.set_sync_valid_reg(SyncReg::Register);
        let registers = vcpu.get_regs().map_err(HostError::failed("read registers"))?;
        vcpu.sync_regs_mut().regs = registers;
        let immediate_exit = &raw mut vcpu.get_kvm_run().immediate_exit;
        let registration = Registration::new(immediate_exit).map_err(|why| HostError::Failed {
            action: "install the kick handler",
            why: why.to_string(),
        })?;
        Ok(Self {
            _registration: registration,
            vcpu,
            vm: Arc::new(vm),
            memory,
            answer: None,
            pending: false,
            next: None,
            stepping: false,
        })
    }

    /// One KVM_RUN, or what the last [`Core::settle`] found.
    ///
    /// # Errors
    /// KVM refuses, or exits in a way that is not known.
    pub fn run_once(&mut self) -> Result<Ran, CpuError> {
        self.answer = None;
        self.pending = false;
        let (ran, answer) = match self.next.take() {
            Some(next) => next,
            None => self.enter()?,
        };
        if ran == Ran::Kicked {
            kick::take(&mut self.vcpu.get_kvm_run().immediate_exit);
            return Ok(Ran::Kicked);
        }
        self.answer = answer;
        let ran = self.located(ran);
        self.pending = matches!(
            ran,
            Ran::Exit(
                Exit::PortRead { .. }
                    | Exit::PortWrite { .. }
                    | Exit::MmioRead { .. }
                    | Exit::MmioWrite { .. }
            )
        );
        if self.pending
            && let Some(why) = self.string_access()
        {
            // It is never completed: the machine ends here.
            self.pending = false;
            return Ok(Ran::Exit(Exit::Fault(why)));
        }
        Ok(ran)
    }

    /// KVM_RUN itself.
    fn enter(&mut self) -> Result<(Ran, Answer), CpuError> {
        match self.vcpu.run() {
            Ok(exit) => translate(exit),
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {
                Ok((Ran::Kicked, None))
            }
            Err(error) => Err(failed("run the vCPU")(error)),
        }
    }

    /// Says where a fault happened: the one thing its finder needs first.
    fn located(&self, ran: Ran) -> Ran {
        match ran {
            Ran::Exit(Exit::Fault(what)) => {
                let registers = self.vcpu.sync_regs().regs;
                let (rip, rsp) = (registers.rip, registers.rsp);
                Ran::Exit(Exit::Fault(format!("{what} (rip {rip:#x}, rsp {rsp:#x})")))
            }
            other => other,
        }
    }

    /// Names a string port access (INS, OUTS with REP), which is not served.
    fn string_access(&mut self) -> Option<String> {
        let run = self.vcpu.get_kvm_run();
        if run.exit_reason != KVM_EXIT_IO {
            return None;
        }
        // SAFETY: the exit reason says that this member of the union was written; all its fields
        // are plain numbers.
        let access = unsafe { run.__bindgen_anon_1.io };
        let name = if u32::from(access.direction) == KVM_EXIT_IO_IN {
            "INS"
        } else {
            "OUTS"
        };
        (access.count != 1).then(|| {
            format!(
                "it used {name} with a count on port {:#x}, which is not served",
                access.port
            )
        })
    }

    pub(super) fn supply(&mut self, value: u64) {
        let Some((address, size_bytes)) = self.answer else {
            return;
        };
        let bytes = value.to_le_bytes();
        for (index, byte) in bytes.iter().take(size_bytes).enumerate() {
            // SAFETY: `address` is where the last KVM_RUN asked for `size_bytes` bytes in the run
            // page, which stays mapped with the vCPU; it is cleared before each KVM_RUN.
            unsafe { address.add(index).write_volatile(*byte) };
        }
    }

    pub(super) fn forget_kick(&mut self) {
        kick::take(&mut self.vcpu.get_kvm_run().immediate_exit);
    }

    /// Delivers `vector` at the next KVM_RUN. Only where [`Core::interruptible`].
    pub(super) fn interrupt(&mut self, vector: u8) -> Result<(), CpuError> {
        let interrupt = kvm_interrupt {
            irq: u32::from(vector),
        };
        // SAFETY: the ioctl reads a `kvm_interrupt`, which lives across the call.
        let answer = unsafe { ioctl_with_ref(&self.vcpu, number::KVM_INTERRUPT(), &interrupt) };
        if answer < 0 {
            Err(failed("inject an interrupt")(io::Error::last_os_error()))
        } else {
            Ok(())
        }
    }

    pub(super) fn request_window(&mut self, wanted: bool) {
        self.vcpu.get_kvm_run().request_interrupt_window = u8::from(wanted);
    }

    pub(super) fn interruptible(&mut self) -> Result<bool, CpuError> {
        if !self.is_whole()? {
            return Ok(false);
        }
        let run = self.vcpu.get_kvm_run();
        Ok(run.if_flag != 0 && run.ready_for_interrupt_injection != 0)
    }

    /// Turns single stepping on (to be done before each step) or off.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn set_stepping(&mut self, on: bool) -> Result<(), CpuError> {
        if !on && !self.stepping {
            return Ok(());
        }
        let control = if on {
            KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP
        } else {
            0
        };
        let debug = kvm_guest_debug {
            control,
            ..Default::default()
        };
        self.vcpu
            .set_guest_debug(&debug)
            .map_err(failed("set guest debugging"))?;
        self.stepping = on;
        if on { Ok(()) } else { self.clear_trap_flag() }
    }

    /// Takes the trap flag of a step away, where KVM has left it. Registers are set only there: KVM
    /// forgets the exception that an instruction has caused and that waits for the next KVM_RUN
    /// when they are (`__set_regs` in arch/x86/kvm/x86.c), and the instruction would be executed
    /// again.
    fn clear_trap_flag(&mut self) -> Result<(), CpuError> {
        self.settle()?;
        let is_set_anew = self.vcpu.get_kvm_run().kvm_dirty_regs & u64::from(KVM_SYNC_X86_REGS) != 0;
        let mut registers = if is_set_anew {
            self.vcpu.sync_regs().regs
        } else {
            self.vcpu.get_regs().map_err(failed("read registers"))?
        };
        if registers.rflags & TRAP_FLAG == 0 {
            return Ok(());
        }
        registers.rflags &= !TRAP_FLAG;
        if !is_set_anew && self.has_exception()? {
            return Err(CpuError {
                action: "end single stepping",
                why: "the trap flag was left where an exception waits to be delivered".to_owned(),
            });
        }
        self.set_registers(registers);
        Ok(())
    }

    /// True if an exception waits for the next KVM_RUN, or is being delivered.
    fn has_exception(&self) -> Result<bool, CpuError> {
        let events = self
            .vcpu
            .get_vcpu_events()
            .map_err(failed("read pending events"))?;
        Ok(events.exception.injected | events.exception.pending != 0)
    }

    /// True if the guest's own trap flag is set. While stepping it is not: an instruction that sets
    /// it is not stepped over.
    pub(super) fn traps_itself(&mut self) -> Result<bool, CpuError> {
        Ok(!self.stepping && self.registers()?.rflags & TRAP_FLAG != 0)
    }

    pub(super) fn rip(&mut self) -> Option<u64> {
        (!self.pending).then(|| self.vcpu.sync_regs().regs.rip)
    }

    pub(super) fn registers(&mut self) -> Result<kvm_regs, CpuError> {
        self.settle()?;
        Ok(self.vcpu.sync_regs().regs)
    }

    /// Gives the general registers these values at the next run.
    pub fn set_registers(&mut self, registers: kvm_regs) {
        self.vcpu.sync_regs_mut().regs = registers;
        self.vcpu.set_sync_dirty_reg(SyncReg::Register);
    }

    /// Current privilege level.
    pub(super) fn privilege(&self) -> Result<u8, CpuError> {
        Ok(self
            .vcpu
            .get_sregs()
            .map_err(failed("read system registers"))?
            .ss
            .dpl)
    }

    /// System registers, as far as the machine has to know them. Completes the pending access.
    pub(super) fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        self.settle()?;
        let system = self.vcpu.get_sregs().map_err(failed("read system registers"))?;
        Ok(SystemRegisters {
            cr3: system.cr3,
            interrupts_base: system.idt.base,
            interrupts_limit: system.idt.limit,
            ring: system.ss.dpl,
        })
    }

    /// Replaces CR4. Completes the pending access.
    pub(super) fn set_cr4(&mut self, value: u64) -> Result<(), CpuError> {
        self.settle()?;
        let system = self.vcpu.get_sregs().map_err(failed("read system registers"))?;
        self.vcpu
            .set_sregs(&kvm_sregs { cr4: value, ..system })
            .map_err(failed("set CR4"))
    }

    /// The VM and its memory, which the dirty log watches.
    pub(super) fn vm_and_memory(&self) -> (Arc<VmFd>, Memory) {
        (self.vm.clone(), self.memory.clone())
    }

    /// RAX at the last exit, whatever has been completed since.
    pub(super) fn rax(&self) -> u64 {
        self.vcpu.sync_regs().regs.rax
    }

    /// KVM's vCPU itself, for qualification.
    pub fn vcpu(&mut self) -> &mut VcpuFd {
        &mut self.vcpu
    }
}

type Answer = Option<(*mut u8, usize)>;

fn translate(exit: VcpuExit<'_>) -> Result<(Ran, Answer), CpuError> {
    let value = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .take(8)
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    let size = |bytes: &[u8]| bytes.len().min(8) as u8;
    let mut answer = None;
    let exit = match exit {
        VcpuExit::IoIn(port, bytes) => {
            answer = Some((bytes.as_mut_ptr(), bytes.len()));
            Exit::PortRead {
                port,
                size_bytes: size(bytes),
            }
        }
        VcpuExit::IoOut(port, bytes) => Exit::PortWrite {
            port,
            size_bytes: size(bytes),
            value: value(bytes) as u32,
        },
        VcpuExit::MmioRead(address, bytes) => {
            answer = Some((bytes.as_mut_ptr(), bytes.len()));
            Exit::MmioRead {
                address,
                size_bytes: size(bytes),
            }
        }
        VcpuExit::MmioWrite(address, bytes) => Exit::MmioWrite {
            address,
            size_bytes: size(bytes),
            value: value(bytes),
        },
        VcpuExit::Hlt => Exit::Halt,
        VcpuExit::IrqWindowOpen => Exit::Window,
        VcpuExit::Debug(_) => return Ok((Ran::Stepped, None)),
        VcpuExit::Shutdown => Exit::Fault("it caused a triple fault".to_owned()),
        VcpuExit::InternalError => {
            Exit::Fault("it used an instruction that this host's KVM cannot run".to_owned())
        }
        VcpuExit::Intr => return Ok((Ran::Kicked, None)),
        other => {
            return Err(CpuError {
                action: "run the vCPU",
                why: format!("unexpected exit {other:?}"),
            });
        }
    };
    Ok((Ran::Exit(exit), answer))
}

macro_rules! copy_registers {
    ($from:expr, $to:ident) => {
        $to {
            rax: $from.rax,
            rbx: $from.rbx,
            rcx: $from.rcx,
            rdx: $from.rdx,
            rsi: $from.rsi,
            rdi: $from.rdi,
            rsp: $from.rsp,
            rbp: $from.rbp,
            r8: $from.r8,
            r9: $from.r9,
            r10: $from.r10,
            r11: $from.r11,
            r12: $from.r12,
            r13: $from.r13,
            r14: $from.r14,
            r15: $from.r15,
            rip: $from.rip,
            rflags: $from.rflags,
        }
    };
}

pub(super) fn convert(registers: &kvm_regs) -> Registers {
    copy_registers!(registers, Registers)
}

pub(super) fn convert_back(registers: &Registers) -> kvm_regs {
    copy_registers!(registers, kvm_regs)
}

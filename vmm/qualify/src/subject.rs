//! Subjects on the host's KVM.

use super::bench::{Bench, Numbers, ProbeError, Reached, Ring, Setup, Subject, run_to_exit};
use super::{programs, stage};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, Msrs, kvm_guest_debug, kvm_msr_entry, kvm_regs, kvm_segment,
    kvm_sregs,
};
use lockstep_core::machine::boot;
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::cpu::{
    ComparedCpu, CpuError, Entry, Exit, Registers, SavedCpu, SystemRegisters, Vcpu,
};
use lockstep_core::machine::memory::{self, Memory, PAGE_BYTES};
use lockstep_core::machine::page_set::PageSet;
use lockstep_kvm::KvmCpu;
use lockstep_kvm::kick::KickTimer;
use lockstep_kvm::vcpu::{Core, Ran, failed};
use lockstep_kvm::{Host, HostError, Logging, Vm};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

const MSR_STAR: u32 = 0xc000_0081;
const INTERRUPT_FLAG: u64 = 1 << 9;
const RESERVED_FLAG: u64 = 1 << 1;
/// CR4.TSD.
const TIME_STAMP_DISABLE: u64 = 1 << 2;
/// DR7: breakpoint 0 on execution, everywhere; bit 10 is always set.
const BREAKPOINT_0: u64 = 1 << 1 | 1 << 10;
/// Type of a 64-bit task-state segment in TR, as the manuals have it: busy.
const TASK_BUSY: u8 = 0b1011;
/// The same as AMD processors hold it after LTR: as it stood in the table before LTR marked it
/// there.
const TASK_AVAILABLE: u8 = 0b1001;
/// Kicks come after 8 µs times a power of two, up to this one: 1 ms.
const KICK_EXPONENTS: u64 = 8;
const KICK_NS_MIN: u64 = 8_000;

/// The host's KVM as a bench.
pub struct KvmBench {
    host: Rc<Host>,
    task_type: OnceCell<u8>,
}

impl KvmBench {
    /// The bench of `host`. Its subjects belong to the thread that makes them.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self {
            host: Rc::new(host),
            task_type: OnceCell::new(),
        }
    }

    fn make(&self, setup: &Setup, task_type: u8) -> Result<Box<KvmSubject>, ProbeError> {
        let memory = stage::set(&setup.program)?;
        let mut subject = KvmSubject::new(self.host.clone(), memory, setup.clone(), task_type)?;
        subject.restart()?;
        Ok(Box::new(subject))
    }

    /// The type with which this host looks at the segment's port map. Our guests load TR
    /// themselves, so that it is always right; here it is set from outside, and QEMU's emulation of
    /// AMD processors refuses every port to ring 3 where it is not as LTR leaves it.
    fn task_type(&self) -> Result<u8, ProbeError> {
        if let Some(known) = self.task_type.get() {
            return Ok(*known);
        }
        let setup = Setup::new(&programs::once(&[]), Ring::Three);
        let exit = run_to_exit(self.make(&setup, TASK_BUSY)?.as_mut())?;
        let refused = matches!(
            exit,
            Exit::PortWrite {
                port: programs::VECTOR,
                ..
            }
        );
        let found = if refused { TASK_AVAILABLE } else { TASK_BUSY };
        Ok(*self.task_type.get_or_init(|| found))
    }
}

impl Bench for KvmBench {
    fn subject(&self, setup: &Setup) -> Result<Box<dyn Subject>, ProbeError> {
        Ok(self.make(setup, self.task_type()?)?)
    }
}

struct KvmSubject {
    dirty_log: Option<Logging>,
    cpu: KvmCpu,
    memory: Memory,
    timer: KickTimer,
    disturbance: Option<Numbers>,
    setup: Setup,
    task_type: u8,
    host: Rc<Host>,
}

impl KvmSubject {
    fn new(host: Rc<Host>, memory: Memory, setup: Setup, task_type: u8) -> Result<Self, ProbeError> {
        let cpu = Vm::new(&host, memory.clone())?.cpu(
            &boot::small::entry_state(stage::PROGRAM),
            &cpuid::TABLE,
            setup.clock,
        )?;
        let timer = KickTimer::for_this_thread().map_err(|why| HostError::Failed {
            action: "make a timer",
            why: why.to_string(),
        })?;
        let dirty_log = if setup.dirty_log {
            Some(cpu.dirty_log().start()?)
        } else {
            None
        };
        Ok(Self {
            dirty_log,
            cpu,
            memory,
            timer,
            disturbance: None,
            setup,
            task_type,
            host,
        })
    }

    fn core(&mut self) -> &mut Core {
        self.cpu.core()
    }

    /// Runs `what` with a kick on its way, if the subject is being disturbed.
    fn disturbed<T>(&mut self, what: impl FnOnce(&mut KvmCpu) -> Result<T, CpuError>) -> Result<T, CpuError> {
        let Some(numbers) = &mut self.disturbance else {
            return what(&mut self.cpu);
        };
        let delay = Duration::from_nanos(KICK_NS_MIN << numbers.below(KICK_EXPONENTS));
        self.timer.arm(delay).map_err(failed("arm the kick timer"))?;
        let outcome = what(&mut self.cpu);
        self.timer.disarm().map_err(failed("disarm the kick timer"))?;
        outcome
    }

    /// Runs to whatever is no kick.
    fn debug(&mut self) -> Result<Reached, CpuError> {
        loop {
            match self.disturbed(|cpu| cpu.core().run_once())? {
                Ran::Stepped => return Ok(Reached::Stop),
                Ran::Exit(exit) => return Ok(Reached::Exit(exit)),
                Ran::Kicked => {}
            }
        }
    }

    fn set_debugging(&mut self, debug: &kvm_guest_debug) -> Result<(), CpuError> {
        self.core()
            .vcpu()
            .set_guest_debug(debug)
            .map_err(failed("set guest debugging"))
    }
}

impl Subject for KvmSubject {
    fn restart(&mut self) -> Result<(), CpuError> {
        let Setup {
            ring,
            interrupts_enabled,
            tsc_forbidden,
            ..
        } = self.setup;
        let task_type = self.task_type;
        let core = self.core();
        core.settle()?;
        core.set_stepping(false)?;
        let mut sregs = core.vcpu().get_sregs().map_err(failed("read system registers"))?;
        set_system_registers(&mut sregs, ring, tsc_forbidden, task_type);
        core.vcpu()
            .set_sregs(&sregs)
            .map_err(failed("set system registers"))?;
        set_star(core)?;
        core.set_registers(kvm_regs {
            rip: stage::PROGRAM,
            rsp: if ring == Ring::Zero {
                stage::STACK_0
            } else {
                stage::STACK_3
            },
            rflags: if interrupts_enabled {
                RESERVED_FLAG | INTERRUPT_FLAG
            } else {
                RESERVED_FLAG
            },
            ..Default::default()
        });
        Ok(())
    }

    fn disturb(&mut self, seed: Option<u64>) {
        self.disturbance = seed.map(Numbers::new);
    }

    fn kick_after(&mut self, delay: Duration) -> Result<(), CpuError> {
        self.timer.arm(delay).map_err(failed("arm the kick timer"))
    }

    fn step(&mut self) -> Result<Reached, CpuError> {
        self.core().settle()?;
        self.core().set_stepping(true)?;
        let reached = self.debug()?;
        self.core().set_stepping(false)?;
        Ok(reached)
    }

    fn run_to_breakpoint(&mut self, address: u64) -> Result<Reached, CpuError> {
        self.core().settle()?;
        let mut debug = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
            ..Default::default()
        };
        let [where_, .., control] = &mut debug.arch.debugreg;
        (*where_, *control) = (address, BREAKPOINT_0);
        self.set_debugging(&debug)?;
        let reached = self.debug();
        self.set_debugging(&kvm_guest_debug::default())?;
        reached
    }

    fn dirty_pages(&mut self) -> Result<BTreeSet<u64>, CpuError> {
        let Some(log) = &self.dirty_log else {
            return Ok(BTreeSet::new());
        };
        Ok(log.take_from_guest()?.iter().collect())
    }

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn transplant(mut self: Box<Self>) -> Result<Box<dyn Subject>, ProbeError> {
        let saved = self.cpu.save()?;
        let Self {
            dirty_log,
            cpu,
            memory: old,
            timer,
            disturbance,
            setup,
            task_type,
            host,
        } = *self;
        // A thread's kicks reach one vCPU only: the old one has to go first.
        drop((dirty_log, cpu, timer));
        let memory = stage::set(&[])?;
        let mut page = [0; PAGE_BYTES as usize];
        for address in (0..memory::size_bytes(&memory)).step_by(page.len()) {
            old.read_slice(&mut page, GuestAddress(address))
                .map_err(stage::StageError::from)?;
            memory
                .write_slice(&page, GuestAddress(address))
                .map_err(stage::StageError::from)?;
        }
        let mut new = Self::new(host, memory, setup, task_type)?.restore(&saved)?;
        new.disturbance = disturbance;
        Ok(Box::new(new))
    }
}

fn set_system_registers(sregs: &mut kvm_sregs, ring: Ring, tsc_forbidden: bool, task_type: u8) {
    let level = if ring == Ring::Zero { 0 } else { 3 };
    let (code, data) = match ring {
        Ring::Zero => (stage::CODE_0, stage::DATA_0),
        Ring::Three => (stage::CODE_3, stage::DATA_3),
    };
    let flat = kvm_segment {
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        dpl: level,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: data,
        type_: 0b0011,
        db: 1,
        ..flat
    };
    sregs.cs = kvm_segment {
        selector: code,
        type_: 0b1011,
        l: 1,
        ..flat
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    let task = kvm_segment {
        base: stage::TSS,
        limit: stage::TSS_LIMIT as u32,
        selector: stage::TASK,
        ..Default::default()
    };
    sregs.tr = kvm_segment {
        type_: task_type,
        present: 1,
        ..task
    };
    (sregs.gdt.base, sregs.gdt.limit) = (stage::GDT, size_of_val(&stage::GDT_WORDS) as u16 - 1);
    (sregs.idt.base, sregs.idt.limit) = (stage::IDT, stage::IDT_BYTES as u16 - 1);
    sregs.cr4 = if tsc_forbidden {
        boot::small::CR4 | TIME_STAMP_DISABLE
    } else {
        boot::small::CR4
    };
}

fn set_star(core: &mut Core) -> Result<(), CpuError> {
    let entry = kvm_msr_entry {
        index: MSR_STAR,
        data: stage::STAR,
        ..Default::default()
    };
    let entries = Msrs::from_entries(&[entry]).map_err(|why| CpuError {
        action: "make an MSR list",
        why: format!("{why:?}"),
    })?;
    core.vcpu()
        .set_msrs(&entries)
        .map_err(failed("set STAR"))
        .map(|_| ())
}

impl Vcpu for KvmSubject {
    fn run(&mut self, entry: Entry) -> Result<Exit, CpuError> {
        self.disturbed(|cpu| cpu.run(entry))
    }

    fn supply(&mut self, value: u64) {
        self.cpu.supply(value);
    }

    fn settle(&mut self) -> Result<(), CpuError> {
        self.cpu.settle()
    }

    fn is_whole(&mut self) -> Result<bool, CpuError> {
        self.cpu.is_whole()
    }

    fn rip(&mut self) -> Option<u64> {
        self.cpu.rip()
    }

    fn interruptible(&mut self) -> Result<bool, CpuError> {
        self.cpu.interruptible()
    }

    fn rax_at_exit(&mut self) -> u64 {
        self.cpu.rax_at_exit()
    }

    fn registers(&mut self) -> Result<Registers, CpuError> {
        self.cpu.registers()
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        self.cpu.set_registers(registers)
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        self.cpu.system_registers()
    }

    fn power_on(&mut self, entry: &EntryState) -> Result<(), CpuError> {
        self.cpu.power_on(entry)
    }

    fn set_cr4(&mut self, value: u64) -> Result<(), CpuError> {
        self.cpu.set_cr4(value)
    }

    fn compared(&mut self) -> Result<ComparedCpu, CpuError> {
        self.cpu.compared()
    }

    fn save(&mut self) -> Result<SavedCpu, CpuError> {
        self.cpu.save()
    }

    fn load(&mut self, saved: &SavedCpu) -> Result<(), CpuError> {
        self.cpu.load(saved)
    }

    fn count_exit(&mut self) -> Result<(), CpuError> {
        self.cpu.count_exit()
    }

    fn log_writes(&mut self, on: bool) -> Result<(), CpuError> {
        self.cpu.log_writes(on)
    }

    fn written_pages(&mut self) -> Result<PageSet, CpuError> {
        self.cpu.written_pages()
    }

    fn given_pages(&self) -> PageSet {
        self.cpu.given_pages()
    }

    fn restore(self, saved: &SavedCpu) -> Result<Self, CpuError> {
        Ok(Self {
            cpu: self.cpu.restore(saved)?,
            ..self
        })
    }
}

//! The whole state of a vCPU: taken from one, and put into another that has not run yet.
//!
//! Saving destructures what KVM tells, so that a new field of the bindings does not compile until
//! it is either saved or left out here with a reason. What Lockstep never lets a guest have (an
//! APIC, system management mode, NMIs, a payload of an exception) is not in the saved form; a vCPU
//! that has it all the same is not saved.
//!
//! Source: Documentation/virt/kvm/api.rst; XSAVE: Intel SDM volume 1, 13.4.

use super::super::dirty::DirtyLog;
use super::super::{extended, msr};
use super::segments::{as_loaded, kvm_segment_of, saved_segment};
use super::{Core, convert, convert_back, failed};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_SHADOW, Msrs, kvm_debugregs, kvm_dtable, kvm_mp_state, kvm_msr_entry, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs,
};
use lockstep_core::machine::cpu::saved::{
    SavedCpu, SavedDebug, SavedEvents, SavedException, SavedInterrupt, SavedTable, SegmentName,
};
use lockstep_core::machine::cpu::{ComparedCpu, CpuError};
use std::path::Path;

/// Exists where the host's KVM is that for AMD processors.
const AMD_MODULE: &str = "/sys/module/kvm_amd";

impl Core {
    /// All of it but the clock. Completes the pending access, and ends stepping.
    pub(crate) fn save(&mut self) -> Result<SavedCpu, CpuError> {
        if !self.is_whole()? {
            return Err(failed("save the processor")(
                "it is within an instruction".to_owned(),
            ));
        }
        self.set_stepping(false)?;
        let registers = convert(&self.registers()?);
        let system = self.vcpu.get_sregs().map_err(failed("read system registers"))?;
        let kvm_sregs {
            cs,
            ds,
            es,
            fs,
            gs,
            ss,
            tr,
            ldt,
            gdt,
            idt,
            cr0,
            cr2,
            cr3,
            cr4,
            cr8,
            efer,
            // There is no APIC; the interrupt being delivered is among the events.
            apic_base: _,
            interrupt_bitmap: _,
        } = system;
        let (vector, components) = extended::save(&self.vcpu, &self.vm)?;
        let state = self.vcpu.get_mp_state().map_err(failed("read the run state"))?;
        Ok(SavedCpu {
            registers,
            segments: [cs, ds, es, fs, gs, ss, tr, ldt].map(saved_segment),
            tables: [gdt, idt].map(
                |kvm_dtable {
                     base,
                     limit,
                     padding: _,
                 }| SavedTable { base, limit },
            ),
            control: [cr0, cr2, cr3, cr4, efer],
            task_priority: cr8,
            vector,
            components,
            extended_control: self.extended_control()?,
            debug: self.debug()?,
            events: self.events()?,
            run_state: state.mp_state,
            msrs: self.msrs()?,
            clock: Default::default(),
        })
    }

    /// The part of it that the digest `processor` covers. Completes the pending access.
    pub(crate) fn compared(&mut self) -> Result<ComparedCpu, CpuError> {
        self.settle()?;
        let vector = extended::save_vector(&self.vcpu, &self.vm)?;
        Ok(ComparedCpu::of(&vector, self.msrs()?))
    }

    /// Puts `saved` into this vCPU, which has not run yet. Where that fails, the vCPU is not to be
    /// used.
    pub(crate) fn restore(&mut self, saved: &SavedCpu) -> Result<(), CpuError> {
        let SavedCpu {
            registers,
            segments: _,
            tables: _,
            control: _,
            task_priority,
            vector,
            components,
            extended_control,
            debug,
            events,
            run_state,
            msrs,
            // The clock's own.
            clock: _,
        } = saved;
        self.set_system_registers(saved)?;
        self.set_extended_control(extended_control)?;
        extended::restore(&self.vcpu, &self.vm, vector, components)?;
        self.set_debug(debug)?;
        self.set_msrs(msrs)?;
        let state = kvm_mp_state { mp_state: *run_state };
        self.vcpu
            .set_mp_state(state)
            .map_err(failed("set the run state"))?;
        let registers = convert_back(registers);
        self.vcpu.set_regs(&registers).map_err(failed("set registers"))?;
        self.vcpu.sync_regs_mut().regs = registers;
        // Setting registers drops exceptions: events come last.
        self.set_events(events)?;
        // Without an APIC in the kernel, KVM_RUN takes CR8 from the run page.
        self.vcpu.get_kvm_run().cr8 = *task_priority;
        // The run page, which a KVM_RUN that leaves at once fills, shows whether an interrupt can
        // be delivered.
        self.pending = true;
        if self.is_whole()? {
            Ok(())
        } else {
            Err(failed("restore the processor")(
                "it has an exit before it has run".to_owned(),
            ))
        }
    }

    /// Puts `saved` into this vCPU, which may have run. Memory may have changed too, page tables
    /// among it.
    pub(crate) fn load(&mut self, saved: &SavedCpu, dirty_log: &DirtyLog) -> Result<(), CpuError> {
        if !self.is_whole()? {
            return Err(failed("load the processor")(
                "it is within an instruction".to_owned(),
            ));
        }
        self.set_stepping(false)?;
        self.answer = None;
        dirty_log.map_anew()?;
        self.restore(saved)
    }

    fn set_system_registers(&mut self, saved: &SavedCpu) -> Result<(), CpuError> {
        let fresh = self.vcpu.get_sregs().map_err(failed("read system registers"))?;
        let [cr0, cr2, cr3, cr4, efer] = saved.control;
        let segment = |name| kvm_segment_of(saved.segment(name));
        let task = saved.segment(SegmentName::Tr);
        let [gdt, idt] = saved.tables.map(|SavedTable { base, limit }| kvm_dtable {
            base,
            limit,
            padding: [0; 3],
        });
        let system = kvm_sregs {
            cs: segment(SegmentName::Cs)?,
            ds: segment(SegmentName::Ds)?,
            es: segment(SegmentName::Es)?,
            fs: segment(SegmentName::Fs)?,
            gs: segment(SegmentName::Gs)?,
            ss: segment(SegmentName::Ss)?,
            tr: kvm_segment_of(as_loaded(task, Path::new(AMD_MODULE).exists()))?,
            ldt: segment(SegmentName::Ldtr)?,
            gdt,
            idt,
            cr0,
            cr2,
            cr3,
            cr4,
            cr8: saved.task_priority,
            efer,
            apic_base: fresh.apic_base,
            interrupt_bitmap: [0; 4],
        };
        self.vcpu
            .set_sregs(&system)
            .map_err(failed("set system registers"))
    }

    fn extended_control(&self) -> Result<Vec<(u32, u64)>, CpuError> {
        let kvm_xcrs {
            nr_xcrs,
            flags: _,
            xcrs,
            padding: _,
        } = self
            .vcpu
            .get_xcrs()
            .map_err(failed("read extended control registers"))?;
        let registers = xcrs.iter().take(nr_xcrs as usize);
        Ok(registers.map(|register| (register.xcr, register.value)).collect())
    }

    fn set_extended_control(&self, saved: &[(u32, u64)]) -> Result<(), CpuError> {
        let mut xcrs = kvm_xcrs::default();
        if saved.len() > xcrs.xcrs.len() {
            return Err(failed("set extended control registers")(format!(
                "there are {}",
                saved.len()
            )));
        }
        for (register, (number, value)) in xcrs.xcrs.iter_mut().zip(saved) {
            (register.xcr, register.value) = (*number, *value);
        }
        xcrs.nr_xcrs = saved.len() as u32;
        if saved.is_empty() {
            return Ok(());
        }
        self.vcpu
            .set_xcrs(&xcrs)
            .map_err(failed("set extended control registers"))
    }

    fn debug(&self) -> Result<SavedDebug, CpuError> {
        let kvm_debugregs {
            db,
            dr6,
            dr7,
            flags: _,
            reserved: _,
        } = self
            .vcpu
            .get_debug_regs()
            .map_err(failed("read debug registers"))?;
        Ok(SavedDebug {
            addresses: db,
            status: dr6,
            control: dr7,
        })
    }

    fn set_debug(&self, saved: &SavedDebug) -> Result<(), CpuError> {
        let SavedDebug {
            addresses,
            status,
            control,
        } = *saved;
        let debug = kvm_debugregs {
            db: addresses,
            dr6: status,
            dr7: control,
            ..Default::default()
        };
        self.vcpu
            .set_debug_regs(&debug)
            .map_err(failed("set debug registers"))
    }

    fn events(&self) -> Result<SavedEvents, CpuError> {
        let kvm_vcpu_events {
            exception,
            interrupt,
            nmi,
            // Another processor's, of which there is none.
            sipi_vector: _,
            flags: _,
            smi,
            triple_fault,
            reserved: _,
            // Only where KVM_CAP_EXCEPTION_PAYLOAD was enabled, which it is not: then the payload
            // is in the registers already.
            exception_has_payload: _,
            exception_payload: _,
        } = self
            .vcpu
            .get_vcpu_events()
            .map_err(failed("read pending events"))?;
        let foreign = [
            (nmi.injected | nmi.pending, "a non-maskable interrupt"),
            (smi.smm | smi.pending, "system management mode"),
            (triple_fault.pending, "a triple fault"),
        ];
        if let Some((_, what)) = foreign.iter().find(|(there, _)| *there != 0) {
            return Err(failed("save pending events")(format!(
                "it has {what}, which has no saved form"
            )));
        }
        // KVM reports an exception that is pending as injected too.
        let delivered = exception.injected | exception.pending != 0;
        Ok(SavedEvents {
            exception: delivered.then(|| SavedException {
                vector: exception.nr,
                error_code: (exception.has_error_code != 0).then_some(exception.error_code),
            }),
            interrupt: (interrupt.injected != 0).then_some(SavedInterrupt {
                vector: interrupt.nr,
                software: interrupt.soft != 0,
            }),
            shadow: interrupt.shadow,
            nmi_masked: nmi.masked != 0,
        })
    }

    fn set_events(&self, saved: &SavedEvents) -> Result<(), CpuError> {
        let SavedEvents {
            exception,
            interrupt,
            shadow,
            nmi_masked,
        } = *saved;
        let mut events = kvm_vcpu_events {
            flags: KVM_VCPUEVENT_VALID_SHADOW,
            ..Default::default()
        };
        if let Some(SavedException { vector, error_code }) = exception {
            events.exception.injected = 1;
            events.exception.nr = vector;
            events.exception.has_error_code = u8::from(error_code.is_some());
            events.exception.error_code = error_code.unwrap_or(0);
        }
        if let Some(SavedInterrupt { vector, software }) = interrupt {
            events.interrupt.injected = 1;
            events.interrupt.nr = vector;
            events.interrupt.soft = u8::from(software);
        }
        events.interrupt.shadow = shadow;
        events.nmi.masked = u8::from(nmi_masked);
        self.vcpu
            .set_vcpu_events(&events)
            .map_err(failed("set pending events"))
    }

    fn msrs(&self) -> Result<Vec<(u32, u64)>, CpuError> {
        let wanted: Vec<kvm_msr_entry> = msr::saved()
            .map(|index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = list(&wanted)?;
        let read = self.vcpu.get_msrs(&mut msrs).map_err(failed("read MSRs"))?;
        if let Some(missing) = wanted.get(read) {
            return Err(failed("read MSRs")(format!("{:#x} is not there", missing.index)));
        }
        Ok(msrs
            .as_slice()
            .iter()
            .map(|entry| (entry.index, entry.data))
            .collect())
    }

    fn set_msrs(&self, saved: &[(u32, u64)]) -> Result<(), CpuError> {
        let numbers = saved.iter().map(|(index, _)| *index);
        if !numbers.eq(msr::saved()) {
            return Err(failed("set MSRs")("they are not those that a guest has"));
        }
        let entries: Vec<kvm_msr_entry> = saved
            .iter()
            .map(|(index, data)| kvm_msr_entry {
                index: *index,
                data: *data,
                ..Default::default()
            })
            .collect();
        let set = self.vcpu.set_msrs(&list(&entries)?).map_err(failed("set MSRs"))?;
        match saved.get(set) {
            None => Ok(()),
            Some((index, data)) => Err(failed("set MSRs")(format!("{index:#x} cannot be {data:#x}"))),
        }
    }
}

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs, CpuError> {
    Msrs::from_entries(entries).map_err(|why| failed("make an MSR list")(format!("{why:?}")))
}

//! A virtual machine of KVM: its memory and its one vCPU, ready to be entered.

#![allow(unsafe_code, reason = "memory slots")]

use super::hidden;
use super::host::{Host, HostError};
use super::msr;
use super::vcpu::{Core, convert_back};
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_segment, kvm_sregs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{VcpuFd, VmFd};
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::cpu::cpuid::Leaf;
use lockstep_core::machine::cpu::registers::Descriptors;
use lockstep_core::machine::memory::Memory;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion};

/// A VM that has memory and no vCPU yet.
pub struct Vm {
    // Declared before the memory: KVM lets go of it first.
    vm: VmFd,
    memory: Memory,
}

impl Vm {
    /// A VM over `memory`.
    ///
    /// # Errors
    /// [`HostError::Failed`].
    pub fn new(host: &Host, memory: Memory) -> Result<Self, HostError> {
        let vm = loop {
            match host.kvm.create_vm() {
                // A kick came meanwhile.
                Err(why) if why.errno() == libc::EINTR => {}
                other => break other.map_err(HostError::failed("create a virtual machine"))?,
            }
        };
        for number in 0..memory.num_regions() {
            let region = slot(&memory, number, 0).map_err(|why| HostError::Failed {
                action: "find guest memory",
                why: why.to_string(),
            })?;
            // SAFETY: the region is mapped for as long as `memory` lives, which `Self` and then the
            // vCPU keep.
            unsafe { vm.set_user_memory_region(region) }.map_err(HostError::failed("set guest memory"))?;
        }
        hidden::performance_counters(&vm)?;
        hidden::hypercall_patching(&vm)?;
        Ok(Self { vm, memory })
    }

    /// Its vCPU without a clock, with this CPUID table, in the state `entry` but for its ring. Must
    /// be called on the thread that will run it.
    ///
    /// # Errors
    /// [`HostError`].
    pub(super) fn core(self, entry: &EntryState, cpuid: &[Leaf], ring: u8) -> Result<Core, HostError> {
        msr::filter(&self.vm, cpuid)?;
        let vcpu = self
            .vm
            .create_vcpu(0)
            .map_err(HostError::failed("create a virtual CPU"))?;
        set_cpuid(&vcpu, cpuid)?;
        hidden::hypercalls(&vcpu, &self.vm)?;
        set_entry_state(&vcpu, entry, ring)?;
        Core::new(vcpu, self.vm, self.memory)
    }
}

/// A region of `memory` as a slot of that number.
pub(super) fn slot(
    memory: &Memory,
    number: usize,
    flags: u32,
) -> Result<kvm_userspace_memory_region, GuestMemoryError> {
    let region = memory
        .iter()
        .nth(number)
        .ok_or(GuestMemoryError::InvalidGuestAddress(GuestAddress(0)))?;
    Ok(kvm_userspace_memory_region {
        slot: number as u32,
        flags,
        guest_phys_addr: region.start_addr().raw_value(),
        memory_size: region.len(),
        userspace_addr: memory.get_host_address(region.start_addr())? as u64,
    })
}

fn set_cpuid(vcpu: &VcpuFd, table: &[Leaf]) -> Result<(), HostError> {
    let entries: Vec<kvm_cpuid_entry2> = table
        .iter()
        .map(|leaf| {
            let [eax, ebx, ecx, edx] = leaf.registers;
            let flags = if leaf.index == 0 {
                0
            } else {
                KVM_CPUID_FLAG_SIGNIFCANT_INDEX
            };
            let (function, index) = (leaf.function, leaf.index);
            kvm_cpuid_entry2 {
                function,
                index,
                flags,
                eax,
                ebx,
                ecx,
                edx,
                ..Default::default()
            }
        })
        .collect();
    let table = CpuId::from_entries(&entries).map_err(|why| HostError::Failed {
        action: "make the CPUID table",
        why: format!("{why:?}"),
    })?;
    vcpu.set_cpuid2(&table)
        .map_err(HostError::failed("set the CPUID table"))
}

impl Core {
    /// Puts a vCPU that has not run yet, or is in the state of one, into the state `entry`.
    pub(super) fn set_entry_state(&mut self, entry: &EntryState) -> Result<(), CpuError> {
        let failed = |why: HostError| CpuError {
            action: "enter a guest",
            why: why.to_string(),
        };
        set_entry_state(self.vcpu(), entry, 0).map_err(failed)?;
        self.set_registers(convert_back(&entry.registers));
        Ok(())
    }
}

fn set_entry_state(vcpu: &VcpuFd, entry: &EntryState, ring: u8) -> Result<(), HostError> {
    let mut sregs = vcpu
        .get_sregs()
        .map_err(HostError::failed("read system registers"))?;
    set_long_mode(&mut sregs, entry, ring);
    vcpu.set_sregs(&sregs)
        .map_err(HostError::failed("set system registers"))?;
    vcpu.set_regs(&convert_back(&entry.registers))
        .map_err(HostError::failed("set registers"))
}

/// APIC base register: the APIC is enabled.
const APIC_ENABLED: u64 = 1 << 11;

fn set_long_mode(sregs: &mut kvm_sregs, entry: &EntryState, ring: u8) {
    let EntryState {
        registers: _,
        descriptors:
            Descriptors {
                address,
                limit,
                code,
                data,
            },
        control: [cr0, cr2, cr3, cr4, efer],
    } = *entry;
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        dpl: ring,
        ..Default::default()
    };
    let requested = u16::from(ring);
    let code_segment = kvm_segment {
        selector: code | requested,
        type_: 0b1011,
        l: 1,
        ..flat
    };
    let data_segment = kvm_segment {
        selector: data | requested,
        type_: 0b0011,
        db: 1,
        ..flat
    };
    (sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (
        code_segment,
        data_segment,
        data_segment,
        data_segment,
        data_segment,
        data_segment,
    );
    (sregs.gdt.base, sregs.gdt.limit) = (address, limit);
    sregs.idt.limit = 0;
    (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer) = (cr0, cr2, cr3, cr4, efer);
    // There is none; while it counts as enabled, upstream KVM adds its bit to the CPUID table it
    // was given.
    sregs.apic_base &= !APIC_ENABLED;
}

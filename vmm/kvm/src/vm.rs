//! A virtual machine of KVM: its memory and its one vCPU, ready to be entered.

#![allow(unsafe_code, reason = "memory slots")]

use super::hidden;
use super::host::{Host, HostError};
use super::msr;
use super::vcpu::Core;
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_regs, kvm_segment, kvm_sregs,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{VcpuFd, VmFd};
use lockstep_core::machine::boot;
use lockstep_core::machine::cpu::cpuid;
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
        msr::filter(&vm)?;
        hidden::performance_counters(&vm)?;
        hidden::hypercall_patching(&vm)?;
        Ok(Self { vm, memory })
    }

    /// Its vCPU without a clock, about to execute at `entry` in ring 0. Must be called on the
    /// thread that will run it.
    ///
    /// # Errors
    /// [`HostError`].
    pub(super) fn core_in_ring_0(self, entry: u64) -> Result<Core, HostError> {
        self.core(entry, 0)
    }

    /// A vCPU without a clock, about to execute at `entry` in ring 3: for asking what this host's
    /// KVM does there.
    ///
    /// # Errors
    /// [`HostError`].
    pub(super) fn core_in_ring_3(self, entry: u64) -> Result<Core, HostError> {
        self.core(entry, 3)
    }

    fn core(self, entry: u64, ring: u8) -> Result<Core, HostError> {
        let vcpu = self
            .vm
            .create_vcpu(0)
            .map_err(HostError::failed("create a virtual CPU"))?;
        set_cpuid(&vcpu)?;
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

fn set_cpuid(vcpu: &VcpuFd) -> Result<(), HostError> {
    let entries: Vec<kvm_cpuid_entry2> = cpuid::TABLE
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

fn set_entry_state(vcpu: &VcpuFd, entry: u64, ring: u8) -> Result<(), HostError> {
    let mut sregs = vcpu
        .get_sregs()
        .map_err(HostError::failed("read system registers"))?;
    set_long_mode(&mut sregs, ring);
    vcpu.set_sregs(&sregs)
        .map_err(HostError::failed("set system registers"))?;
    let registers = kvm_regs {
        rip: entry,
        rsp: boot::STACK_TOP,
        rdi: boot::INFORMATION_ADDRESS,
        rflags: 1 << 1,
        ..Default::default()
    };
    vcpu.set_regs(&registers)
        .map_err(HostError::failed("set registers"))
}

/// APIC base register: the APIC is enabled.
const APIC_ENABLED: u64 = 1 << 11;

fn set_long_mode(sregs: &mut kvm_sregs, ring: u8) {
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
    let code = kvm_segment {
        selector: 0x08 | requested,
        type_: 0b1011,
        l: 1,
        ..flat
    };
    let data = kvm_segment {
        selector: 0x10 | requested,
        type_: 0b0011,
        db: 1,
        ..flat
    };
    (sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (code, data, data, data, data, data);
    sregs.gdt.base = boot::GDT_ADDRESS;
    sregs.gdt.limit = (size_of_val(&boot::GDT) - 1) as u16;
    sregs.idt.limit = 0;
    sregs.cr0 = boot::CR0;
    sregs.cr3 = boot::PAGE_TABLE_ADDRESS;
    sregs.cr4 = boot::CR4;
    sregs.efer = boot::EFER;
    // There is none; while it counts as enabled, upstream KVM adds its bit to the CPUID table it
    // was given.
    sregs.apic_base &= !APIC_ENABLED;
}

//! A kernel's traps: what it finds behind them, and how a program's RDTSC is answered.

use super::*;
use crate::machine::cpu::{Registers, SystemRegisters};
use crate::machine::image::trap_ports::KernelTrap;
use crate::machine::memory::Memory;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

/// Address of its IRETQ.
const INTERRUPT_RETURN: u64 = 0xffff_ffff_81c0_1234;
const FULL: u64 = u64::MAX;
/// Identity-mapped tables of the small protocol, so that an address is what it is.
const SPACE: u64 = crate::machine::boot::small::PAGE_TABLES.root;
const IDT: u64 = 0x10_0000;
const HANDLER: u64 = 0x10_2000;
const STACK: u64 = 0x10_4000;
const PROGRAM: u64 = 0x10_6000;
/// TSD, PAE.
const TSD: u64 = 1 << 2;
const PAE: u64 = 1 << 5;

fn trap(trap: KernelTrap) -> Turn {
    Turn::new(Exit::PortWrite {
        port: trap.port().into(),
        size_bytes: 4,
        value: 0,
    })
}

/// Memory with an interrupt table whose gate of #GP leads to a handler that begins with `first`.
fn memory_with(first: &[u8]) -> Memory {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    crate::machine::boot::small::PAGE_TABLES.write(&memory).unwrap();
    let present = 1_u64 << 47;
    let low = HANDLER & 0xffff | (HANDLER >> 16 & 0xffff) << 48 | present;
    memory.write_obj(low, GuestAddress(IDT + 13 * 16)).unwrap();
    memory.write_slice(first, GuestAddress(HANDLER)).unwrap();
    memory
}

fn kernel(script: impl IntoIterator<Item = Turn>) -> FakeCpu {
    let mut cpu = FakeCpu::new(script);
    cpu.system = SystemRegisters {
        cr3: SPACE,
        interrupts_base: IDT,
        interrupts_limit: 0xfff,
        ring: 0,
    };
    cpu
}

fn run_kernel(cpu: &mut FakeCpu, memory: &Memory) -> (Ended, FakeDoor) {
    let mut door = FakeDoor::default();
    let sites = Sites::of_kernel(INTERRUPT_RETURN);
    let mut machine = Machine::new(cpu, memory.clone(), devices(), sites, NEVER);
    let ended = machine.run(&mut door).unwrap();
    (ended, door)
}

fn asked(door: &FakeDoor) -> Vec<Question> {
    door.asked.iter().map(|(_, question)| *question).collect()
}

#[test]
fn rdtsc_of_a_kernel_is_the_doors_counter() {
    for (which, rcx) in [(KernelTrap::Tsc, FULL), (KernelTrap::TscAndProcessor, 0)] {
        let mut cpu = kernel([trap(which), power_off(0)]);
        (cpu.registers.rcx, cpu.registers.rdx) = (FULL, FULL);
        let (_, door) = run_kernel(&mut cpu, &memory_with(&[]));
        let Registers { rax, rdx, .. } = cpu.registers;
        assert_eq!((rax, rdx), (TICKS & 0xffff_ffff, TICKS >> 32));
        assert_eq!((cpu.registers.rcx, asked(&door)), (rcx, vec![Question::Tsc]));
    }
}

#[test]
fn a_write_of_a_trap_port_of_another_size_is_none() {
    let mut cpu = kernel([write(0xe0, 0), power_off(0)]);
    let (_, door) = run_kernel(&mut cpu, &memory_with(&[]));
    assert_eq!(asked(&door), []);
}

#[test]
fn every_cr4_of_a_kernel_forbids_the_counter_to_programs() {
    let which = KernelTrap::SetCr4 { register: 9 };
    let mut cpu = kernel([trap(which), power_off(0)]);
    cpu.registers.r9 = PAE | 1 << 7;
    run_kernel(&mut cpu, &memory_with(&[]));
    assert_eq!(cpu.cr4, PAE | 1 << 7 | TSD);
}

#[test]
fn a_program_with_ports_sets_no_cr4() {
    let mut cpu = kernel([trap(KernelTrap::SetCr4 { register: 0 }), power_off(0)]);
    cpu.registers.rax = PAE;
    cpu.system.ring = 3;
    run_kernel(&mut cpu, &memory_with(&[]));
    assert_eq!(cpu.cr4, 0);
}

#[test]
fn a_cr4_that_the_processor_does_not_have_ends_the_guest_by_its_value() {
    // SMEP; no PAE.
    for value in [PAE | 1 << 20, 0] {
        let mut cpu = kernel([trap(KernelTrap::SetCr4 { register: 0 })]);
        cpu.registers.rax = value;
        let (ended, _) = run_kernel(&mut cpu, &memory_with(&[]));
        let EndReason::GuestFault(why) = ended.reason else {
            panic!("{ended:?}")
        };
        assert!(why.contains(&format!("CR4 to {value:#x}")), "{why}");
    }
}

#[test]
fn the_handler_of_general_protection_begins_with_a_trap_once_it_is_there() {
    let cases: [(&[u8], &[u8]); 6] = [
        (&[0x0f, 0x01, 0xca, 0xfc], &[0xe7, 0xe4, 0x90, 0xfc]),
        (&[0x90, 0x90, 0x90, 0xfc], &[0xe7, 0xe4, 0x90, 0xfc]),
        (&[0x0f, 0x1f, 0x00, 0xfc], &[0xe7, 0xe4, 0x90, 0xfc]),
        (&[0xf3, 0x0f, 0x1e, 0xfa], &[0xe7, 0xe4, 0x66, 0x90]),
        // Once is enough; and what does something is left alone.
        (&[0xe7, 0xe4, 0x90, 0xfc], &[0xe7, 0xe4, 0x90, 0xfc]),
        (&[0x50, 0x53, 0x51, 0x52], &[0x50, 0x53, 0x51, 0x52]),
    ];
    for (before, after) in cases {
        let memory = memory_with(before);
        let mut cpu = kernel([trap(KernelTrap::Tsc), power_off(0)]);
        run_kernel(&mut cpu, &memory);
        let mut found = [0; 4];
        memory.read_slice(&mut found, GuestAddress(HANDLER)).unwrap();
        assert_eq!(found, after);
    }
}

/// #GP in a program at `PROGRAM`, whose instruction is `code`: registers behind the trap, what was
/// asked, and RIP in the frame.
fn fault(code: &[u8], code_selector: u64) -> (Registers, Vec<Question>, u64) {
    let memory = memory_with(&[]);
    memory.write_slice(code, GuestAddress(PROGRAM)).unwrap();
    // Error code, RIP, CS.
    for (index, word) in (0..).zip([0, PROGRAM, code_selector]) {
        memory.write_obj(word, GuestAddress(STACK + 8 * index)).unwrap();
    }
    let mut cpu = kernel([trap(KernelTrap::GeneralProtection), power_off(0)]);
    (cpu.registers.rsp, cpu.registers.rcx) = (STACK, FULL);
    let mut door = FakeDoor::default();
    let sites = Sites::of_kernel(INTERRUPT_RETURN);
    let mut machine = Machine::new(&mut cpu, memory.clone(), devices(), sites, NEVER);
    // One step: what follows is the script's.
    let mut once = |_| true;
    machine.run_until(&mut door, &mut once).unwrap();
    drop(machine);
    let frame: u64 = memory.read_obj(GuestAddress(STACK + 8)).unwrap();
    (cpu.registers, asked(&door), frame)
}

#[test]
fn a_programs_rdtsc_is_answered_and_returned_from() {
    let rdtsc = |selector| (&[0x0f, 0x31][..], selector, 2, FULL);
    let rdtscp = |selector| (&[0x0f, 0x01, 0xf9][..], selector, 3, 0);
    // Linux's selectors of programs of 64 and of 32 bits.
    for (code, selector, length, rcx) in [rdtsc(0x33), rdtsc(0x23), rdtscp(0x33), rdtscp(0x23)] {
        let (registers, asked, frame) = fault(code, selector);
        assert_eq!(asked, [Question::Tsc]);
        assert_eq!((registers.rax, registers.rdx), (TICKS & 0xffff_ffff, TICKS >> 32));
        assert_eq!(registers.rcx, rcx);
        // The error code is off the stack, and the frame leads behind the instruction.
        assert_eq!((registers.rip, registers.rsp), (INTERRUPT_RETURN, STACK + 8));
        assert_eq!(frame, PROGRAM + length);
    }
}

#[test]
fn another_fault_is_the_kernels_own() {
    // HLT in ring 3; RDTSC in ring 0, which never faults.
    for (code, selector) in [(&[0xf4, 0x90][..], 0x33), (&[0x0f, 0x31], 0x10)] {
        let (registers, asked, frame) = fault(code, selector);
        assert_eq!((asked, frame), (Vec::new(), PROGRAM));
        assert_eq!(registers.rsp, STACK);
        assert_ne!(registers.rip, INTERRUPT_RETURN);
    }
}

#[test]
fn an_interrupt_table_at_the_end_of_all_addresses_leads_nowhere() {
    let memory = memory_with(&[]);
    // The last page of all, by tables that are their own.
    let last = GuestAddress(SPACE + 8 * 511);
    memory.write_obj(SPACE | 1, last).unwrap();
    let mut cpu = kernel([trap(KernelTrap::Tsc), power_off(0)]);
    cpu.system.interrupts_base = u64::MAX - 7 - 13 * 16;
    let (ended, _) = run_kernel(&mut cpu, &memory);
    assert_eq!(ended.reason, EndReason::PoweredOff(0));
}

/// An address that is often near an end of what there is.
fn address() -> impl Strategy<Value = u64> {
    let near = |end: u64| (0_u64..64).prop_map(move |below| end.wrapping_sub(below));
    prop_oneof![
        any::<u64>(),
        near(0),
        near(memory::MEMORY_BYTES_MIN),
        near(1 << 47),
        0..memory::MEMORY_BYTES_MIN
    ]
}

proptest! {
    /// Whatever a guest has written over its page tables, and wherever it says that its tables and
    /// its stack are: it goes on, or ends by a name.
    #[test]
    fn no_page_tables_are_more_than_the_guests_own(
        entries in prop::collection::vec((0..memory::MEMORY_BYTES_MIN / 8, address()), 0..64),
        fills in address(),
        (cr3, interrupts_base, rsp) in (address(), address(), address()),
        interrupts_limit in any::<u16>(),
        which in 0_usize..3,
    ) {
        let memory = memory_with(&[0x90, 0x90, 0x90]);
        for index in 0..512 {
            memory.write_obj(fills, GuestAddress(SPACE + 8 * index)).unwrap();
        }
        for (index, entry) in entries {
            memory.write_obj(entry, GuestAddress(8 * index)).unwrap();
        }
        let traps = [KernelTrap::GeneralProtection, KernelTrap::Tsc, KernelTrap::SetCr4 { register: 0 }];
        let mut cpu = kernel([trap(traps[which]), power_off(0)]);
        cpu.system = SystemRegisters { cr3, interrupts_base, interrupts_limit, ring: 0 };
        (cpu.registers.rsp, cpu.registers.rax) = (rsp, PAE);
        let (ended, _) = run_kernel(&mut cpu, &memory);
        prop_assert_eq!(ended.reason, EndReason::PoweredOff(0));
    }
}

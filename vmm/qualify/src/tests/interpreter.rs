//! An interpreter of the instructions that probe guests have. Memory is flat; of the flags it knows
//! those that the guests look at.

use crate::bench::Ring;
use crate::stage;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use lockstep_core::machine::cpu::{Exit, Registers, cpuid};
use lockstep_core::machine::memory::Memory;
use std::collections::{BTreeMap, BTreeSet};
use vm_memory::{Bytes, GuestAddress};

pub const INTERRUPT_FLAG: u64 = 1 << 9;
pub const TRAP_FLAG: u64 = 1 << 8;
const ZERO_FLAG: u64 = 1 << 6;
const PAGE_BYTES: u64 = 4096;

/// Registers and memory.
#[derive(Clone)]
pub struct Interpreter {
    pub memory: Memory,
    pub registers: Registers,
    pub vectors: [[u64; 2]; 16],
    pub ring: Ring,
    /// Interrupts are held off for one instruction.
    pub shadow: bool,
    pub written: BTreeSet<u64>,
    decoded: BTreeMap<u64, Instruction>,
}

impl Interpreter {
    pub fn new(memory: Memory) -> Self {
        Self {
            memory,
            registers: Registers::default(),
            vectors: [[0; 2]; 16],
            ring: Ring::Zero,
            shadow: false,
            written: BTreeSet::new(),
            decoded: BTreeMap::new(),
        }
    }

    pub fn forget_code(&mut self) {
        self.decoded.clear();
    }

    pub fn interruptible(&self) -> bool {
        self.registers.rflags & INTERRUPT_FLAG != 0 && !self.shadow
    }

    /// The instruction that is next.
    pub fn next(&mut self) -> Instruction {
        let rip = self.registers.rip;
        *self.decoded.entry(rip).or_insert_with(|| {
            let mut bytes = [0; 15];
            self.memory.read_slice(&mut bytes, GuestAddress(rip)).unwrap();
            Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE).decode()
        })
    }

    pub fn word(&self, address: u64) -> u64 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    pub fn set_word(&mut self, address: u64, word: u64) {
        self.written.insert(address / PAGE_BYTES);
        self.memory.write_obj(word, GuestAddress(address)).unwrap();
    }

    fn push(&mut self, word: u64) {
        self.registers.rsp -= 8;
        self.set_word(self.registers.rsp, word);
    }

    fn pop(&mut self) -> u64 {
        let word = self.word(self.registers.rsp);
        self.registers.rsp += 8;
        word
    }

    /// Takes a vector: its gate, and the frame on the stack of ring 0.
    pub fn deliver(&mut self, vector: u8) {
        let gate = stage::IDT + u64::from(vector) * 16;
        let (low, high) = (self.word(gate), self.word(gate + 8));
        let handler = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        let (rip, rflags, rsp) = (self.registers.rip, self.registers.rflags, self.registers.rsp);
        let (code, data) = match self.ring {
            Ring::Zero => (stage::CODE_0, stage::DATA_0),
            Ring::Three => {
                self.registers.rsp = self.word(stage::TSS + 4);
                (stage::CODE_3, stage::DATA_3)
            }
        };
        self.registers.rsp &= !0xf;
        for word in [u64::from(data), rsp, rflags, u64::from(code), rip] {
            self.push(word);
        }
        self.ring = Ring::Zero;
        self.registers.rip = handler;
        self.registers.rflags &= !(INTERRUPT_FLAG | TRAP_FLAG);
    }

    /// Executes the next instruction. An exit's port or halt is behind it.
    pub fn execute(&mut self) -> Option<Exit> {
        let instruction = self.next();
        self.shadow = false;
        self.registers.rip = instruction.next_ip();
        match instruction.mnemonic() {
            Mnemonic::Out => return Some(self.port_write(&instruction)),
            Mnemonic::In => {
                return Some(Exit::PortRead {
                    port: instruction.immediate(1) as u16,
                    size_bytes: 4,
                });
            }
            Mnemonic::Hlt => return Some(Exit::Halt),
            Mnemonic::Movdqu | Mnemonic::Paddq | Mnemonic::Pxor => self.vector(&instruction),
            _ => self.integer(&instruction),
        }
        None
    }

    fn port_write(&self, instruction: &Instruction) -> Exit {
        let size_bytes = instruction.op1_register().size() as u8;
        let mask = if size_bytes == 1 { 0xff } else { 0xffff_ffff };
        Exit::PortWrite {
            port: instruction.immediate(0) as u16,
            size_bytes,
            value: (self.registers.rax & mask) as u32,
        }
    }

    fn integer(&mut self, instruction: &Instruction) {
        let value = |cpu: &Self, operand| cpu.operand(instruction, operand);
        match instruction.mnemonic() {
            Mnemonic::Nop => {}
            Mnemonic::Sti => {
                self.registers.rflags |= INTERRUPT_FLAG;
                self.shadow = true;
            }
            Mnemonic::Lea => self.set_operand(instruction, 0, self.address(instruction)),
            Mnemonic::Mov => self.set_operand(instruction, 0, value(self, 1)),
            Mnemonic::Xor => self.compute(instruction, value(self, 0) ^ value(self, 1)),
            Mnemonic::And => self.compute(instruction, value(self, 0) & value(self, 1)),
            Mnemonic::Add => self.compute(instruction, value(self, 0).wrapping_add(value(self, 1))),
            Mnemonic::Inc => self.compute(instruction, value(self, 0).wrapping_add(1)),
            Mnemonic::Dec => self.compute(instruction, value(self, 0).wrapping_sub(1)),
            Mnemonic::Rol => {
                self.set_operand(instruction, 0, value(self, 0).rotate_left(value(self, 1) as u32));
            }
            Mnemonic::Jmp => self.registers.rip = instruction.near_branch_target(),
            Mnemonic::Jne if self.registers.rflags & ZERO_FLAG == 0 => {
                self.registers.rip = instruction.near_branch_target();
            }
            Mnemonic::Jne => {}
            Mnemonic::Push => self.push(value(self, 0)),
            Mnemonic::Pop => {
                let word = self.pop();
                self.set_operand(instruction, 0, word);
            }
            Mnemonic::Popfq => self.registers.rflags = self.pop(),
            Mnemonic::Iretq => self.interrupt_return(),
            Mnemonic::Stosb => self.store_string(),
            Mnemonic::Cpuid => {
                let [eax, ebx, ecx, edx] =
                    cpuid::lookup(self.registers.rax as u32, self.registers.rcx as u32).map(u64::from);
                let registers = &mut self.registers;
                (registers.rax, registers.rbx, registers.rcx, registers.rdx) = (eax, ebx, ecx, edx);
            }
            other => panic!("no probe guest has {other:?}"),
        }
    }

    fn interrupt_return(&mut self) {
        let [rip, code, rflags, rsp, _] = [(); 5].map(|()| self.pop());
        self.registers.rip = rip;
        self.registers.rflags = rflags;
        self.registers.rsp = rsp;
        self.ring = if code & 3 == 3 { Ring::Three } else { Ring::Zero };
    }

    fn store_string(&mut self) {
        let Registers { rcx, rdi, rax, .. } = self.registers;
        for address in rdi..rdi + rcx {
            self.written.insert(address / PAGE_BYTES);
            self.memory.write_obj(rax as u8, GuestAddress(address)).unwrap();
        }
        (self.registers.rcx, self.registers.rdi) = (0, rdi + rcx);
    }

    fn vector(&mut self, instruction: &Instruction) {
        let number = |register: Register| register.number();
        let from = match instruction.op1_kind() {
            OpKind::Memory => {
                let address = self.address(instruction);
                [self.word(address), self.word(address + 8)]
            }
            _ => self.vectors[number(instruction.op1_register())],
        };
        if instruction.op0_kind() == OpKind::Memory {
            let address = self.address(instruction);
            self.set_word(address, from[0]);
            self.set_word(address + 8, from[1]);
            return;
        }
        let to = &mut self.vectors[number(instruction.op0_register())];
        let combine: fn(u64, u64) -> u64 = match instruction.mnemonic() {
            Mnemonic::Paddq => u64::wrapping_add,
            Mnemonic::Pxor => |a, b| a ^ b,
            _ => |_, b| b,
        };
        *to = [combine(to[0], from[0]), combine(to[1], from[1])];
    }

    fn address(&self, instruction: &Instruction) -> u64 {
        if instruction.is_ip_rel_memory_operand() {
            return instruction.ip_rel_memory_address();
        }
        let part = |register: Register| match register {
            Register::None => 0,
            other => self.register(other),
        };
        part(instruction.memory_base())
            .wrapping_add(
                part(instruction.memory_index()).wrapping_mul(instruction.memory_index_scale().into()),
            )
            .wrapping_add(instruction.memory_displacement64())
    }

    fn operand(&self, instruction: &Instruction, number: u32) -> u64 {
        match instruction.op_kind(number) {
            OpKind::Register => self.register(instruction.op_register(number)),
            OpKind::Memory => self.word(self.address(instruction)),
            _ => instruction.immediate(number),
        }
    }

    fn set_operand(&mut self, instruction: &Instruction, number: u32, value: u64) {
        match instruction.op_kind(number) {
            OpKind::Register => self.set_register(instruction.op_register(number), value),
            _ => self.set_word(self.address(instruction), value),
        }
    }

    fn compute(&mut self, instruction: &Instruction, value: u64) {
        self.set_operand(instruction, 0, value);
        let zero = self.operand(instruction, 0) == 0;
        let others = self.registers.rflags & !ZERO_FLAG;
        self.registers.rflags = others | if zero { ZERO_FLAG } else { 0 };
    }

    fn register(&self, register: Register) -> u64 {
        let mut registers = self.registers;
        let whole = *place(&mut registers, register);
        match register.size() {
            1 => whole & 0xff,
            4 => whole & 0xffff_ffff,
            _ => whole,
        }
    }

    fn set_register(&mut self, register: Register, value: u64) {
        let place = place(&mut self.registers, register);
        *place = match register.size() {
            1 => *place & !0xff | value & 0xff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }
}

fn place(registers: &mut Registers, register: Register) -> &mut u64 {
    match register.full_register() {
        Register::RAX => &mut registers.rax,
        Register::RBX => &mut registers.rbx,
        Register::RCX => &mut registers.rcx,
        Register::RDX => &mut registers.rdx,
        Register::RSI => &mut registers.rsi,
        Register::RDI => &mut registers.rdi,
        Register::RSP => &mut registers.rsp,
        Register::R8 => &mut registers.r8,
        Register::R9 => &mut registers.r9,
        Register::R12 => &mut registers.r12,
        other => panic!("no probe guest uses {other:?}"),
    }
}

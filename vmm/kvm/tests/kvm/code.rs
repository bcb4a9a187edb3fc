//! Guests of a few instructions, written by hand: each method appends the instruction it is named
//! after. Encodings: Intel SDM volume 2.

/// Machine code, 64-bit.
#[derive(Clone, Debug, Default)]
pub struct Code(pub Vec<u8>);

/// A register, numbered as instructions encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    R9 = 9,
}

impl Code {
    /// Any instruction, by its bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn with_u32(self, opcode: &[u8], operand: u32) -> Self {
        self.raw(opcode).raw(&operand.to_le_bytes())
    }

    /// MOV r32, imm32: the upper half becomes 0.
    pub fn mov(self, register: Register, value: u32) -> Self {
        let number = register as u8;
        if number < 8 {
            self.with_u32(&[0xb8 + number], value)
        } else {
            self.with_u32(&[0x41, 0xb8 + number - 8], value)
        }
    }

    /// MOV r64, -1: every bit set.
    pub fn fill(self, register: Register) -> Self {
        let number = register as u8;
        let rex = if number < 8 { 0x48 } else { 0x49 };
        self.with_u32(&[rex, 0xc7, 0xc0 | number & 7], u32::MAX)
    }

    /// MOV [address], r64.
    pub fn store(self, register: Register, address: u32) -> Self {
        let number = register as u8;
        let rex = if number < 8 { 0x48 } else { 0x4c };
        self.with_u32(&[rex, 0x89, (number & 7) << 3 | 0b100, 0x25], address)
    }

    /// PUSHFQ, POP RAX.
    pub fn flags_to_rax(self) -> Self {
        self.raw(&[0x9c, 0x58])
    }

    /// PUSH 0x8d5, POPFQ: all arithmetic flags set.
    pub fn set_arithmetic_flags(self) -> Self {
        self.with_u32(&[0x68], 0x8d5).raw(&[0x9d])
    }

    /// OUT imm8, AL.
    pub fn out_al(self, port: u8) -> Self {
        self.raw(&[0xe6, port])
    }

    /// MOV AL, OUT to an 8-bit port.
    pub fn out(self, port: u8, value: u8) -> Self {
        self.raw(&[0xb0, value]).out_al(port)
    }

    /// MOV EDX, MOV AL, OUT DX, AL.
    pub fn out_to(self, port: u16, value: u8) -> Self {
        self.mov(Register::Rdx, port.into()).raw(&[0xb0, value, 0xee])
    }

    /// Ends the machine with this status.
    pub fn power_off(self, status: u32) -> Self {
        self.mov(Register::Rax, status).raw(&[0xe7, 0xf4])
    }
}

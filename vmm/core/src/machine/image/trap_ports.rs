//! The ports that a kernel's rewritten instructions write.
//!
//! A kernel copies its instructions: alternatives are written over others, so a table of addresses
//! would not find them. Each becomes `OUT imm8, EAX`, whose port says what it was and which
//! register it has. OUT changes no register, so the answer is written over them.

/// An instruction of a kernel that exits in place of what it would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelTrap {
    /// RDTSC.
    Tsc,
    /// RDTSCP.
    TscAndProcessor,
    /// RDRAND or RDSEED into general register `register` (0 = RAX, as encoded) of `size_bytes` (4
    /// or 8).
    Random {
        /// Register number, 0 to 15.
        register: u8,
        /// Operand size.
        size_bytes: u8,
    },
    /// MOV to CR4 from general register `register`.
    SetCr4 {
        /// Register number, 0 to 15.
        register: u8,
    },
    /// The first instruction of the handler of #GP.
    GeneralProtection,
}

/// Bytes of `OUT imm8, EAX`.
pub const TRAP_BYTES: usize = 2;
/// Its opcode.
const OUT_IMM8_EAX: u8 = 0xe7;
/// Operand size of it; no other write of these ports is a trap.
pub const TRAP_SIZE_BYTES: u8 = 4;

const SET_CR4: u8 = 0xb0;
const RANDOM_64: u8 = 0xc0;
const RANDOM_32: u8 = 0xd0;
const TSC: u8 = 0xe0;
const TSC_AND_PROCESSOR: u8 = 0xe1;
const GENERAL_PROTECTION: u8 = 0xe4;

impl KernelTrap {
    /// Its port.
    #[must_use]
    pub fn port(self) -> u8 {
        match self {
            Self::Tsc => TSC,
            Self::TscAndProcessor => TSC_AND_PROCESSOR,
            Self::Random {
                register,
                size_bytes: 8,
            } => RANDOM_64 | register & 0xf,
            Self::Random { register, .. } => RANDOM_32 | register & 0xf,
            Self::SetCr4 { register } => SET_CR4 | register & 0xf,
            Self::GeneralProtection => GENERAL_PROTECTION,
        }
    }

    /// The instruction that stands in its place.
    #[must_use]
    pub fn instruction(self) -> [u8; TRAP_BYTES] {
        [OUT_IMM8_EAX, self.port()]
    }

    /// The trap at `port`, if it is one.
    #[must_use]
    pub fn at(port: u16) -> Option<Self> {
        let port = u8::try_from(port).ok()?;
        let register = port & 0xf;
        match port {
            TSC => Some(Self::Tsc),
            TSC_AND_PROCESSOR => Some(Self::TscAndProcessor),
            GENERAL_PROTECTION => Some(Self::GeneralProtection),
            _ => match port & 0xf0 {
                SET_CR4 => Some(Self::SetCr4 { register }),
                RANDOM_64 => Some(Self::Random {
                    register,
                    size_bytes: 8,
                }),
                RANDOM_32 => Some(Self::Random {
                    register,
                    size_bytes: 4,
                }),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_one_trap_and_each_trap_one_port() {
        let traps: Vec<KernelTrap> = (0..=u16::MAX).filter_map(KernelTrap::at).collect();
        assert_eq!(traps.len(), 3 * 16 + 3);
        for trap in traps {
            assert_eq!(KernelTrap::at(trap.port().into()), Some(trap));
            assert_eq!(trap.instruction(), [0xe7, trap.port()]);
        }
    }
}

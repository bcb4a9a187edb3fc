//! The instructions of a kernel that must not run as they are, and the others that tell of the
//! host.
//!
//! Sections of code are decoded from their first byte on. Sites become the OUT whose port says what
//! they were (`trap_ports`), and NOPs. What the fixed CPUID hides is left alone: a kernel asks
//! CPUID first, and what it runs all the same is #UD or #GP, or an exit of KVM's. It is counted,
//! because it says what the kernel would do. Encodings: Intel SDM volume 2, AMD APM volume 3.

use super::super::error::ImageError;
use super::super::trap_ports::KernelTrap;
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, Register};
use std::collections::BTreeMap;
use std::fmt;

const NOP: u8 = 0x90;
/// A name of a section is shown up to here.
pub const NAME_BYTES_MAX: usize = 64;

/// A kind of instruction that tells of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// RDTSC.
    Rdtsc,
    /// RDTSCP.
    Rdtscp,
    /// RDRAND.
    Rdrand,
    /// RDSEED.
    Rdseed,
    /// MOV to CR4.
    SetCr4,
    /// RDPMC.
    Rdpmc,
    /// RDPID.
    Rdpid,
    /// RDPRU.
    Rdpru,
    /// XGETBV.
    Xgetbv,
    /// XSAVE, XRSTOR and their variants, and XSETBV.
    Xsave,
    /// MONITOR, MWAIT and their variants.
    Monitor,
    /// UMONITOR, UMWAIT, TPAUSE.
    Waitpkg,
    /// Transactions.
    Tsx,
    /// VMCALL.
    Vmcall,
    /// VMMCALL.
    Vmmcall,
}

impl Kind {
    /// The kind of `instruction`, if it has one.
    #[must_use]
    pub fn of(instruction: &Instruction) -> Option<Self> {
        match instruction.code() {
            Code::Rdtsc => Some(Self::Rdtsc),
            Code::Rdtscp => Some(Self::Rdtscp),
            Code::Rdrand_r16 | Code::Rdrand_r32 | Code::Rdrand_r64 => Some(Self::Rdrand),
            Code::Rdseed_r16 | Code::Rdseed_r32 | Code::Rdseed_r64 => Some(Self::Rdseed),
            Code::Mov_cr_r64 => (instruction.op0_register() == Register::CR4).then_some(Self::SetCr4),
            Code::Rdpmc => Some(Self::Rdpmc),
            Code::Xgetbv => Some(Self::Xgetbv),
            Code::Vmcall => Some(Self::Vmcall),
            Code::Vmmcall => Some(Self::Vmmcall),
            _ => instruction
                .cpuid_features()
                .iter()
                .find_map(|feature| Self::of_feature(*feature)),
        }
    }

    fn of_feature(feature: CpuidFeature) -> Option<Self> {
        match feature {
            CpuidFeature::RDPID => Some(Self::Rdpid),
            CpuidFeature::RDPRU => Some(Self::Rdpru),
            CpuidFeature::XSAVE | CpuidFeature::XSAVEC | CpuidFeature::XSAVEOPT | CpuidFeature::XSAVES => {
                Some(Self::Xsave)
            }
            CpuidFeature::MONITOR | CpuidFeature::MONITORX => Some(Self::Monitor),
            CpuidFeature::WAITPKG => Some(Self::Waitpkg),
            CpuidFeature::RTM | CpuidFeature::HLE_or_RTM => Some(Self::Tsx),
            _ => None,
        }
    }

    /// True if a kernel's are rewritten; the fixed CPUID hides all others.
    #[must_use]
    pub fn is_rewritten(self) -> bool {
        matches!(
            self,
            Self::Rdtsc | Self::Rdtscp | Self::Rdrand | Self::Rdseed | Self::SetCr4
        )
    }

    /// True if [`opcodes`] finds it: RDPID is RDSEED's opcode behind a prefix.
    fn has_opcode_of_site(self) -> bool {
        self.is_rewritten() || self == Self::Rdpid
    }

    /// Its name in an assembler.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rdtsc => "RDTSC",
            Self::Rdtscp => "RDTSCP",
            Self::Rdrand => "RDRAND",
            Self::Rdseed => "RDSEED",
            Self::SetCr4 => "MOV to CR4",
            Self::Rdpmc => "RDPMC",
            Self::Rdpid => "RDPID",
            Self::Rdpru => "RDPRU",
            Self::Xgetbv => "XGETBV",
            Self::Xsave => "XSAVE",
            Self::Monitor => "MONITOR",
            Self::Waitpkg => "WAITPKG",
            Self::Tsx => "TSX",
            Self::Vmcall => "VMCALL",
            Self::Vmmcall => "VMMCALL",
        }
    }
}

/// Instructions by kind and section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    by_section: BTreeMap<(Kind, String), u64>,
    /// Places where bytes that are not an instruction were decoded.
    pub invalid: u64,
    /// Places that hold the bytes of a site across the boundaries of other instructions.
    pub undecoded: u64,
}

impl Counts {
    /// Counts one in `section`.
    pub fn add(&mut self, kind: Kind, section: &str) {
        // Looked up first: nearly all are of a kind and a section that is there.
        match self.by_section.get_mut(&(kind, section.to_owned())) {
            Some(count) => *count += 1,
            None => {
                self.by_section.insert((kind, section.to_owned()), 1);
            }
        }
    }

    /// Kind, section and number of each, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str, u64)> {
        self.by_section
            .iter()
            .map(|((kind, section), count)| (*kind, section.as_str(), *count))
    }

    /// Number of instructions that are rewritten.
    #[must_use]
    pub fn rewritten(&self) -> u64 {
        self.iter()
            .filter(|(kind, ..)| kind.is_rewritten())
            .map(|(.., count)| count)
            .sum()
    }

    /// Number of instructions of `kind`.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> u64 {
        self.iter()
            .filter(|(found, ..)| *found == kind)
            .map(|(.., count)| count)
            .sum()
    }

    /// Kinds that are rewritten, with the number of each; empty if there are none.
    #[must_use]
    pub fn sites_by_kind(&self) -> BTreeMap<Kind, u64> {
        let mut by_kind = BTreeMap::new();
        for (kind, _, count) in self.iter().filter(|(kind, ..)| kind.is_rewritten()) {
            *by_kind.entry(kind).or_default() += count;
        }
        by_kind
    }
}

/// The sites by kind: "3 RDTSC, 1 RDRAND".
impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_kind = self.sites_by_kind();
        let texts: Vec<String> = by_kind
            .iter()
            .map(|(kind, count)| format!("{count} {}", kind.name()))
            .collect();
        formatter.write_str(&texts.join(", "))
    }
}

/// Decodes `code`, which lies at `address`, and hands each instruction to `each`; invalid ones too.
pub fn decode(code: &[u8], address: u64, mut each: impl FnMut(&Instruction)) {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        each(&instruction);
    }
}

/// Counts what is in `code` of section `section`, and changes nothing.
pub fn count(code: &[u8], section: &str, counts: &mut Counts) {
    let mut decoded = 0;
    decode(code, 0, |instruction| {
        if let Some(kind) = seen(instruction, counts) {
            counts.add(kind, section);
            decoded += u64::from(kind.has_opcode_of_site());
        }
    });
    counts.undecoded += opcodes(code).saturating_sub(decoded);
}

/// Rewrites the sites of `code`, which lies at `address` and belongs to `section`, and counts what
/// is in it. `other` is shown all other instructions.
///
/// # Errors
/// [`ImageError::Rewrite`]: a form that has no trap.
pub fn rewrite(
    code: &mut [u8],
    address: u64,
    section: &str,
    counts: &mut Counts,
    mut other: impl FnMut(&Instruction, &[u8]),
) -> Result<(), ImageError> {
    let original = code.to_vec();
    let mut decoded = 0;
    let mut failed = None;
    decode(&original, address, |instruction| {
        let Some(kind) = seen(instruction, counts) else {
            return other(instruction, &original);
        };
        counts.add(kind, section);
        decoded += u64::from(kind.has_opcode_of_site());
        if !kind.is_rewritten() {
            return;
        }
        match trap(kind, instruction) {
            Ok(trap) => write(
                code,
                (instruction.ip() - address) as usize,
                instruction.len(),
                trap,
            ),
            Err(why) => failed = failed.take().or(Some(why)),
        }
    });
    counts.undecoded += opcodes(&original).saturating_sub(decoded);
    failed.map_or(Ok(()), Err)
}

fn seen(instruction: &Instruction, counts: &mut Counts) -> Option<Kind> {
    if instruction.is_invalid() {
        counts.invalid += 1;
        return None;
    }
    Kind::of(instruction)
}

/// Number of places in `code` that hold the opcode of a site: of RDTSC, RDTSCP, RDRAND, RDSEED or
/// MOV to CR4.
fn opcodes(code: &[u8]) -> u64 {
    let is_opcode = |bytes: &&[u8]| match bytes {
        [0x0f, 0x31, ..] | [0x0f, 0x01, 0xf9] | [0x0f, 0xc7, 0xf0..=0xff] => true,
        [0x0f, 0x22, operands] => operands >> 3 & 7 == 4,
        _ => false,
    };
    // Two bytes are the shortest, and may be the last.
    let last = code.get(code.len().saturating_sub(2)..).unwrap_or_default();
    code.windows(3).chain([last]).filter(is_opcode).count() as u64
}

fn write(code: &mut [u8], at: usize, length: usize, trap: KernelTrap) {
    if let Some(bytes) = code.get_mut(at..at + length) {
        bytes.fill(NOP);
        bytes
            .iter_mut()
            .zip(trap.instruction())
            .for_each(|(to, from)| *to = from);
    }
}

fn trap(kind: Kind, instruction: &Instruction) -> Result<KernelTrap, ImageError> {
    let refused = |why| ImageError::Rewrite {
        address: instruction.ip(),
        instruction: format!(
            "{} of {} bits",
            kind.name(),
            8 * instruction.op0_register().size()
        ),
        why,
    };
    let register = |register: Register| {
        u8::try_from(register.number())
            .ok()
            .filter(|number| register.is_gpr() && *number < 16)
            .ok_or_else(|| refused("its register is not one of the sixteen"))
    };
    match kind {
        Kind::Rdtscp => Ok(KernelTrap::TscAndProcessor),
        Kind::SetCr4 => register(instruction.op1_register()).map(|register| KernelTrap::SetCr4 { register }),
        Kind::Rdrand | Kind::Rdseed => match instruction.op0_register().size() {
            size @ (4 | 8) => Ok(KernelTrap::Random {
                register: register(instruction.op0_register())?,
                size_bytes: size as u8,
            }),
            _ => Err(refused("no trap has its size")),
        },
        _ => Ok(KernelTrap::Tsc),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(code: &[u8]) -> (Vec<u8>, Counts) {
        let mut code = code.to_vec();
        let mut counts = Counts::default();
        rewrite(&mut code, 0xffff_ffff_8100_0000, ".text", &mut counts, |_, _| {}).unwrap();
        (code, counts)
    }

    fn found(counts: &Counts) -> Vec<(Kind, u64)> {
        counts.iter().map(|(kind, _, count)| (kind, count)).collect()
    }

    #[test]
    fn each_site_becomes_the_out_that_says_what_it_was() {
        let cases: [(&[u8], KernelTrap); 9] = [
            (&[0x0f, 0x31], KernelTrap::Tsc),
            (&[0x0f, 0x01, 0xf9], KernelTrap::TscAndProcessor),
            (&[0x0f, 0xc7, 0xf1], random(1, 4)),
            (&[0x49, 0x0f, 0xc7, 0xf7], random(15, 8)),
            (&[0x48, 0x0f, 0xc7, 0xf8], random(0, 8)),
            (&[0x0f, 0xc7, 0xfa], random(2, 4)),
            (&[0x0f, 0x22, 0xe0], KernelTrap::SetCr4 { register: 0 }),
            (&[0x41, 0x0f, 0x22, 0xe4], KernelTrap::SetCr4 { register: 12 }),
            (&[0x66, 0x0f, 0x31], KernelTrap::Tsc),
        ];
        for (original, trap) in cases {
            let mut expected = trap.instruction().to_vec();
            expected.resize(original.len(), NOP);
            let (code, counts) = rewritten(&[original, &[0xc3]].concat());
            expected.push(0xc3);
            assert_eq!(code, expected, "{original:02x?}");
            assert_eq!((counts.rewritten(), counts.undecoded, counts.invalid), (1, 0, 0));
        }
    }

    fn random(register: u8, size_bytes: u8) -> KernelTrap {
        KernelTrap::Random { register, size_bytes }
    }

    #[test]
    fn what_cpuid_hides_is_counted_and_left() {
        let cases: [(&[u8], Kind); 10] = [
            (&[0x0f, 0x33], Kind::Rdpmc),
            (&[0xf3, 0x0f, 0xc7, 0xf8], Kind::Rdpid),
            (&[0x0f, 0x01, 0xfd], Kind::Rdpru),
            (&[0x0f, 0x01, 0xd0], Kind::Xgetbv),
            (&[0x48, 0x0f, 0xae, 0x20], Kind::Xsave),
            (&[0x0f, 0x01, 0xc8], Kind::Monitor),
            (&[0x66, 0x0f, 0xae, 0xf1], Kind::Waitpkg),
            (&[0x0f, 0x01, 0xd6], Kind::Tsx),
            (&[0x0f, 0x01, 0xc1], Kind::Vmcall),
            (&[0x0f, 0x01, 0xd9], Kind::Vmmcall),
        ];
        for (original, kind) in cases {
            let (code, counts) = rewritten(original);
            assert_eq!(code, original);
            assert_eq!(found(&counts), [(kind, 1)], "{original:02x?}");
            assert_eq!((counts.rewritten(), counts.undecoded), (0, 0), "{original:02x?}");
        }
    }

    #[test]
    fn other_instructions_are_left_and_shown() {
        // cpuid; mov rax, cr4; mov cr3, rax; wrmsr; iretq
        let original = [
            0x0f, 0xa2, 0x0f, 0x20, 0xe0, 0x0f, 0x22, 0xd8, 0x0f, 0x30, 0x48, 0xcf,
        ];
        let mut code = original.to_vec();
        let mut shown = Vec::new();
        let mut counts = Counts::default();
        rewrite(&mut code, 0x1000, ".text", &mut counts, |instruction, _| {
            shown.push(instruction.ip());
        })
        .unwrap();
        assert_eq!(code, original);
        assert_eq!(shown, [0x1000, 0x1002, 0x1005, 0x1008, 0x100a]);
        assert_eq!(counts, Counts::default());
    }

    #[test]
    fn random_bits_that_no_trap_can_give_are_refused_by_name() {
        let mut code = [0x66, 0x0f, 0xc7, 0xf0];
        let refused = rewrite(&mut code, 0x1000, ".text", &mut Counts::default(), |_, _| {}).unwrap_err();
        assert!(
            refused.to_string().contains("0x1000 (RDRAND of 16 bits)"),
            "{refused}"
        );
    }

    #[test]
    fn bytes_of_a_site_inside_another_instruction_are_counted() {
        // mov eax, 0x0031_0f00; mov eax, 0x00e0_220f
        let original = [0xb8, 0, 0x0f, 0x31, 0, 0xb8, 0x0f, 0x22, 0xe0, 0];
        let (code, counts) = rewritten(&original);
        assert_eq!((code.as_slice(), counts.undecoded), (original.as_slice(), 2));
    }

    #[test]
    fn counts_are_by_kind_and_section() {
        let mut counts = Counts::default();
        count(&[0x0f, 0x31, 0x0f, 0x33, 0x06], ".text", &mut counts);
        count(&[0x0f, 0x31, 0x0f, 0x31], ".init.text", &mut counts);
        let all: Vec<_> = counts.iter().collect();
        assert_eq!(
            all,
            [
                (Kind::Rdtsc, ".init.text", 2),
                (Kind::Rdtsc, ".text", 1),
                (Kind::Rdpmc, ".text", 1)
            ]
        );
        assert_eq!((counts.rewritten(), counts.invalid), (3, 1));
        assert_eq!(counts.of_kind(Kind::Rdtsc), 3);
        assert_eq!(counts.to_string(), "3 RDTSC");
    }
}

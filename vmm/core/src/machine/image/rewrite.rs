//! Finds RDTSC, RDTSCP, RDRAND, RDSEED and CPUID by decoding, and rewrites each so that it exits;
//! and instructions that the CPUID baseline hides because their results are the host's, and
//! rewrites each so that it faults.
//!
//! `IN EAX, imm8` (E5 ib, two bytes) is the shortest instruction that exits on every KVM and in
//! both rings; RDTSC and CPUID are two bytes, the others three to five and padded with NOPs behind
//! the IN. What the instruction would have written is set by the machine when the IN exits.
//! Encodings: Intel SDM volume 2.
//!
//! A processor without a feature answers its instructions with #UD. A host that lets ring 3 run
//! natively has the feature all the same, and would give what no log knows: its processor number,
//! which registers are in use, how long a wait took. UD2 in their place is what the guest was
//! promised. So it is for VMCALL and VMMCALL: some KVMs answer them, one with the host's time, and
//! patch the one into the other in the guest's memory (arch/x86/kvm/x86.c, `kvm_emulate_hypercall`,
//! `emulator_fix_hypercall`).

use super::error::ImageError;
use super::sites::{Site, Sites, TRAP_BYTES, TRAP_PORT, Trapped};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction};

const IN_EAX_IMM8: u8 = 0xe5;
const UD2: [u8; 2] = [0x0f, 0x0b];
const NOP: u8 = 0x90;

/// Hidden features whose instructions would tell of the host. None of them is shorter than three
/// bytes.
const HIDDEN: [CpuidFeature; 11] = [
    CpuidFeature::RDPID,
    CpuidFeature::RDPRU,
    CpuidFeature::XSAVE,
    CpuidFeature::XSAVEC,
    CpuidFeature::XSAVEOPT,
    CpuidFeature::XSAVES,
    CpuidFeature::MONITOR,
    CpuidFeature::MONITORX,
    CpuidFeature::WAITPKG,
    CpuidFeature::RTM,
    CpuidFeature::HLE_or_RTM,
];

/// Result of rewriting code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Addresses at which instructions were rewritten.
    pub changed: Vec<u64>,
    /// Addresses at which the bytes of such an instruction occur without being decoded as one.
    pub leftovers: Vec<u64>,
}

/// Rewrites `code`, which lies at `address`, and adds what exits to `sites`.
///
/// # Errors
/// [`ImageError::Rewrite`] for a form that cannot be rewritten, and for one that may be data:
/// behind bytes that are not an instruction nobody knows where the next one begins.
pub fn rewrite(code: &mut [u8], address: u64, sites: &mut Sites) -> Result<Rewritten, ImageError> {
    let mut changed = Vec::new();
    let Decoded { found, broken_at } = decode(code, address)?;
    for Found { at, length, becomes } in found {
        if at > broken_at {
            return Err(ambiguous(at));
        }
        let start = (at - address) as usize;
        let Some(bytes) = code.get_mut(start..start + length) else {
            continue;
        };
        bytes.fill(NOP);
        changed.push(at);
        let replacement = match becomes {
            Becomes::Exit(trapped) => {
                sites.insert(Site { address: at, trapped });
                [IN_EAX_IMM8, TRAP_PORT]
            }
            Becomes::Fault => UD2,
        };
        for (to, from) in bytes.iter_mut().zip(replacement) {
            *to = from;
        }
    }
    let leftovers = leftovers(code, address);
    match leftovers.iter().find(|at| **at >= broken_at) {
        Some(at) => Err(ambiguous(*at)),
        None => Ok(Rewritten { changed, leftovers }),
    }
}

fn ambiguous(address: u64) -> ImageError {
    ImageError::Rewrite {
        address,
        instruction: "what looks like an instruction".to_owned(),
        why: "it may be data, because bytes before it are not instructions; declare data as an object with a size, or give it a section \
              that is not executable",
    }
}

struct Decoded {
    found: Vec<Found>,
    /// Address of the first bytes that are not an instruction; beyond every address where there are
    /// none.
    broken_at: u64,
}

/// An instruction that must not run as it is.
struct Found {
    at: u64,
    length: usize,
    becomes: Becomes,
}

enum Becomes {
    Exit(Trapped),
    Fault,
}

fn decode(code: &[u8], address: u64) -> Result<Decoded, ImageError> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut decoded = Decoded {
        found: Vec::new(),
        broken_at: u64::MAX,
    };
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            decoded.broken_at = decoded.broken_at.min(instruction.ip());
        }
        let is_hidden = || {
            instruction
                .cpuid_features()
                .iter()
                .any(|feature| HIDDEN.contains(feature))
        };
        let becomes = match trapped(&instruction)? {
            Some(trapped) => Becomes::Exit(trapped),
            None if is_hypercall(&instruction) || is_hidden() => Becomes::Fault,
            None => continue,
        };
        decoded.found.push(Found {
            at: instruction.ip(),
            length: instruction.len(),
            becomes,
        });
    }
    Ok(decoded)
}

fn is_hypercall(instruction: &Instruction) -> bool {
    matches!(instruction.code(), Code::Vmcall | Code::Vmmcall)
}

fn trapped(instruction: &Instruction) -> Result<Option<Trapped>, ImageError> {
    let random = |size_bytes| random_site(instruction, size_bytes).map(Some);
    let trapped = match instruction.code() {
        Code::Rdtsc => Some(Trapped::Tsc),
        Code::Rdtscp => Some(Trapped::TscAndProcessor),
        Code::Cpuid => Some(Trapped::Cpuid),
        Code::Rdrand_r16 | Code::Rdseed_r16 => random(2)?,
        Code::Rdrand_r32 | Code::Rdseed_r32 => random(4)?,
        Code::Rdrand_r64 | Code::Rdseed_r64 => random(8)?,
        _ => None,
    };
    debug_assert!(trapped.is_none() || instruction.len() as u64 >= TRAP_BYTES);
    Ok(trapped)
}

fn random_site(instruction: &Instruction, size_bytes: u8) -> Result<Trapped, ImageError> {
    let register = instruction.op0_register();
    match u8::try_from(register.number()) {
        Ok(register_number) if register.is_gpr() && register_number < 16 => Ok(Trapped::Random {
            register: register_number,
            size_bytes,
        }),
        _ => Err(ImageError::Rewrite {
            address: instruction.ip(),
            instruction: format!("{:?}", instruction.code()),
            why: "its destination is no general register",
        }),
    }
}

/// Addresses at which the opcode bytes remain of RDTSC, RDTSCP, CPUID, RDRAND, RDSEED, VMCALL or
/// VMMCALL.
#[must_use]
pub fn leftovers(code: &[u8], address: u64) -> Vec<u64> {
    let is_opcode = |pair: &[u8]| matches!(pair, [0x0f, 0x31 | 0xa2]);
    let is_long = |triple: &[u8]| {
        matches!(
            triple,
            [0x0f, 0x01, 0xf9 | 0xc1 | 0xd9] | [0x0f, 0xc7, 0xf0..=0xff]
        )
    };
    let pairs = code.windows(2).enumerate().filter(|(_, bytes)| is_opcode(bytes));
    let triples = code.windows(3).enumerate().filter(|(_, bytes)| is_long(bytes));
    let mut addresses: Vec<u64> = pairs
        .map(|(at, _)| at)
        .chain(triples.map(|(at, _)| at))
        .map(|at| address + at as u64)
        .collect();
    addresses.sort_unstable();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(code: &[u8]) -> (Vec<u8>, Vec<Trapped>, Vec<u64>) {
        let mut code = code.to_vec();
        let mut sites = Sites::default();
        let done = rewrite(&mut code, 0x1000, &mut sites).unwrap();
        (
            code,
            sites.iter().map(|site| site.trapped).collect(),
            done.leftovers,
        )
    }

    #[test]
    fn rdtsc_becomes_in() {
        let (code, trapped, suspicious) = rewritten(&[0x0f, 0x31, 0xc3]);
        assert_eq!(code, [0xe5, TRAP_PORT, 0xc3]);
        assert_eq!(trapped, [Trapped::Tsc]);
        assert_eq!(suspicious, [] as [u64; 0]);
    }

    #[test]
    fn longer_instructions_are_padded() {
        // rdtscp; rdrand r9; rdseed ax; cpuid
        let (code, trapped, _) = rewritten(&[
            0x0f, 0x01, 0xf9, 0x49, 0x0f, 0xc7, 0xf1, 0x66, 0x0f, 0xc7, 0xf8, 0x0f, 0xa2,
        ]);
        let port = TRAP_PORT;
        assert_eq!(
            code,
            [
                0xe5, port, 0x90, 0xe5, port, 0x90, 0x90, 0xe5, port, 0x90, 0x90, 0xe5, port
            ]
        );
        assert_eq!(
            trapped,
            [
                Trapped::TscAndProcessor,
                Trapped::Random {
                    register: 9,
                    size_bytes: 8
                },
                Trapped::Random {
                    register: 0,
                    size_bytes: 2
                },
                Trapped::Cpuid
            ]
        );
    }

    #[test]
    fn what_would_tell_of_the_host_becomes_a_fault_of_the_same_length() {
        let hidden: [&[u8]; 15] = [
            &[0x0f, 0x01, 0xc1],                   // vmcall
            &[0x0f, 0x01, 0xd9],                   // vmmcall
            &[0xf3, 0x0f, 0xc7, 0xf8],             // rdpid rax
            &[0x0f, 0x01, 0xfd],                   // rdpru
            &[0x0f, 0x01, 0xd0],                   // xgetbv
            &[0x48, 0x0f, 0xae, 0x20],             // xsave64 [rax]
            &[0x0f, 0xc7, 0x20],                   // xsavec [rax]
            &[0x0f, 0xae, 0x30],                   // xsaveopt [rax]
            &[0x0f, 0x01, 0xc8],                   // monitor
            &[0x0f, 0x01, 0xfa],                   // monitorx
            &[0x66, 0x0f, 0xae, 0xf1],             // tpause ecx
            &[0xf2, 0x0f, 0xae, 0xf1],             // umwait ecx
            &[0xf3, 0x0f, 0xae, 0xf0],             // umonitor rax
            &[0xc7, 0xf8, 0x00, 0x00, 0x00, 0x00], // xbegin
            &[0x0f, 0x01, 0xd6],                   // xtest
        ];
        for original in hidden {
            let (code, trapped, _) = rewritten(&[original, &[0xc3]].concat());
            let mut expected = vec![NOP; original.len()];
            expected[..2].copy_from_slice(&UD2);
            expected.push(0xc3);
            assert_eq!((code, trapped), (expected, Vec::new()), "{original:02x?}");
        }
    }

    #[test]
    fn ordinary_instructions_are_left_alone() {
        // movups xmm0, [rax]; popcnt eax, eax; sfence; clflush [rax]; pause; rdmsr; hlt
        let original = [
            0x0f, 0x10, 0x00, 0xf3, 0x0f, 0xb8, 0xc0, 0x0f, 0xae, 0xf8, 0x0f, 0xae, 0x38, 0xf3, 0x90, 0x0f,
            0x32, 0xf4,
        ];
        assert_eq!(rewritten(&original), (original.to_vec(), Vec::new(), Vec::new()));
    }

    #[test]
    fn what_follows_bytes_that_are_no_instruction_is_refused_as_ambiguous() {
        // rdtsc; an opcode that 64-bit mode does not have; rdtsc, which the decoder takes apart or,
        // behind three NOPs, finds.
        for nops in [0, 3] {
            let mut code = vec![0x0f, 0x31, 0x06];
            code.extend(vec![NOP; nops]);
            code.extend([0x0f, 0x31]);
            let refused = rewrite(&mut code, 0x1000, &mut Sites::default()).unwrap_err();
            let place = format!("{:#x}", 0x1003 + nops);
            assert!(refused.to_string().contains(&place), "{refused}");
            assert!(refused.to_string().contains("may be data"), "{refused}");
        }
    }

    #[test]
    fn what_stands_before_bytes_that_are_no_instruction_is_rewritten() {
        let (code, trapped, suspicious) = rewritten(&[0x0f, 0x31, 0x06, NOP]);
        assert_eq!(code, [0xe5, TRAP_PORT, 0x06, NOP]);
        assert_eq!((trapped.len(), suspicious.len()), (1, 0));
    }

    #[test]
    fn what_was_rewritten_is_told_whether_it_exits_or_faults() {
        // nop; cpuid; xgetbv
        let mut code = vec![NOP, 0x0f, 0xa2, 0x0f, 0x01, 0xd0];
        let done = rewrite(&mut code, 0x1000, &mut Sites::default()).unwrap();
        assert_eq!(done.changed, [0x1001, 0x1003]);
    }

    #[test]
    fn hypercalls_inside_an_immediate_are_left_and_named() {
        // mov eax, 0x00c1_010f; mov eax, 0x00d9_010f
        let (_, _, suspicious) = rewritten(&[0xb8, 0x0f, 0x01, 0xc1, 0, 0xb8, 0x0f, 0x01, 0xd9, 0]);
        assert_eq!(suspicious, [0x1001, 0x1006]);
    }

    #[test]
    fn bytes_inside_an_immediate_are_left_and_named() {
        // mov eax, 0x0031_0f00
        let original = [0xb8, 0x00, 0x0f, 0x31, 0x00];
        let (code, trapped, suspicious) = rewritten(&original);
        assert_eq!(code, original);
        assert_eq!(trapped, []);
        assert_eq!(suspicious, [0x1002]);
    }
}

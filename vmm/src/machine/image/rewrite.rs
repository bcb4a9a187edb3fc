//! Finds RDTSC, RDTSCP, RDRAND, RDSEED and CPUID by decoding, and rewrites each so that it exits.
//!
//! `IN EAX, imm8` (E5 ib, two bytes) is the shortest instruction that exits on every KVM and in both rings; RDTSC and CPUID are
//! two bytes, the others three to five and padded with NOPs behind the IN. What the instruction would have written is set by
//! the machine when the IN exits. Encodings: Intel SDM volume 2.

use super::load::ImageError;
use super::sites::{Site, Sites, TRAP_BYTES, TRAP_PORT, Trapped};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

const IN_EAX_IMM8: u8 = 0xe5;
const NOP: u8 = 0x90;

/// Rewrites `code`, which lies at `address`, and adds what it found to `sites`. Returns the addresses at which
/// the bytes of such an instruction stand without being decoded as one.
///
/// # Errors
/// [`ImageError::Rewrite`] for a form that cannot be rewritten.
pub fn rewrite(code: &mut [u8], address: u64, sites: &mut Sites) -> Result<Vec<u64>, ImageError> {
    let found = find(code, address)?;
    let mut decoded = Vec::with_capacity(found.len());
    for (site, length) in found {
        decoded.push(site.address);
        let start = (site.address - address) as usize;
        let Some(bytes) = code.get_mut(start..start + length) else { continue };
        bytes.fill(NOP);
        for (to, from) in bytes.iter_mut().zip([IN_EAX_IMM8, TRAP_PORT]) {
            *to = from;
        }
        sites.insert(site);
    }
    Ok(leftovers(code, address))
}

fn find(code: &[u8], address: u64) -> Result<Vec<(Site, usize)>, ImageError> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut found = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if let Some(trapped) = trapped(&instruction)? {
            found.push((Site { address: instruction.ip(), trapped }, instruction.len()));
        }
    }
    Ok(found)
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
        Ok(register_number) if register.is_gpr() && register_number < 16 => Ok(Trapped::Random { register: register_number, size_bytes }),
        _ => Err(ImageError::Rewrite {
            address: instruction.ip(),
            instruction: format!("{:?}", instruction.code()),
            why: "its destination is no general register",
        }),
    }
}

/// Addresses at which RDTSC's, CPUID's or RDRAND's opcode bytes remain.
fn leftovers(code: &[u8], address: u64) -> Vec<u64> {
    let is_opcode = |pair: &[u8]| matches!(pair, [0x0f, 0x31 | 0xa2]);
    let is_long = |triple: &[u8]| matches!(triple, [0x0f, 0x01, 0xf9] | [0x0f, 0xc7, 0xf0..=0xff]);
    let pairs = code.windows(2).enumerate().filter(|(_, bytes)| is_opcode(bytes));
    let triples = code.windows(3).enumerate().filter(|(_, bytes)| is_long(bytes));
    let mut addresses: Vec<u64> =
        pairs.map(|(at, _)| at).chain(triples.map(|(at, _)| at)).map(|at| address + at as u64).collect();
    addresses.sort_unstable();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(code: &[u8]) -> (Vec<u8>, Vec<Trapped>, Vec<u64>) {
        let mut code = code.to_vec();
        let mut sites = Sites::default();
        let suspicious = rewrite(&mut code, 0x1000, &mut sites).unwrap();
        (code, sites.iter().map(|site| site.trapped).collect(), suspicious)
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
        assert_eq!(code, [0xe5, port, 0x90, 0xe5, port, 0x90, 0x90, 0xe5, port, 0x90, 0x90, 0xe5, port]);
        assert_eq!(
            trapped,
            [
                Trapped::TscAndProcessor,
                Trapped::Random { register: 9, size_bytes: 8 },
                Trapped::Random { register: 0, size_bytes: 2 },
                Trapped::Cpuid
            ]
        );
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

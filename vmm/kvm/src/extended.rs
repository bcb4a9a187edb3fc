//! The extended state of a vCPU (x87, SSE, AVX and what follows) as a list of components, and back.
//!
//! KVM gives it in the standard form of XSAVE: 512 bytes of FXSAVE, a header of 64, and each
//! further component at the offset that the host's CPUID leaf 0xD tells. Offsets differ between
//! processors, and so does which components are told to be in their initial state: so the saved
//! form has the components one by one, and leaves out those that are zeros, which is the initial
//! state of each. Source: Intel SDM volume 1, 10.5.1 (FXSAVE) and 13.4 (XSAVE);
//! Documentation/virt/kvm/api.rst, KVM_GET_XSAVE2.

#![allow(unsafe_code, reason = "the extended state is of variable size")]

use super::vcpu::failed;
use kvm_bindings::{Xsave, kvm_xsave};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::cpu::saved::{COMPONENTS_MAX, SavedComponent, SavedVector};
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;
use std::sync::LazyLock;

const WORD_BYTES: usize = 4;
/// XSTATE_BV, the first word of the header: a bit for each component that is not in its initial
/// state.
const PRESENT: usize = 512;
/// x87 and SSE, which are always given.
const LEGACY: u64 = 0b11;
const FIRST_COMPONENT: u8 = 2;
/// CPUID leaf of the extended state.
const EXTENDED_LEAF: u32 = 0xd;

// Offsets in FXSAVE's form.
const CONTROL: usize = 0;
const STATUS: usize = 2;
const TAGS: usize = 4;
const OPCODE: usize = 6;
const INSTRUCTION: usize = 8;
const DATA: usize = 16;
const MXCSR: usize = 24;
const X87: usize = 32;
const XMM: usize = 160;
const REGISTER_STRIDE: usize = 16;

/// Takes it from a vCPU of `vm`.
///
/// # Errors
/// The host's failure.
pub(super) fn save(vcpu: &VcpuFd, vm: &VmFd) -> Result<(SavedVector, Vec<SavedComponent>), CpuError> {
    let area = read(vcpu, vm)?;
    let present = u64::from_le_bytes(area.bytes(PRESENT)?);
    let mut components = Vec::new();
    for (number, place) in PLACES.iter() {
        let number = *number;
        let bytes = area.0.get(place.clone()).unwrap_or_default();
        if present & 1 << number != 0 && bytes.iter().any(|byte| *byte != 0) {
            components.push(SavedComponent {
                number,
                bytes: bytes.to_vec(),
            });
        }
    }
    let unplaced = components.iter().fold(present & !LEGACY, |rest, component| {
        rest & !(1 << component.number)
    });
    // What is told as present but is nowhere in the area cannot be carried.
    let known = PLACES
        .iter()
        .fold(0, |known, (number, _)| known | 1_u64 << number);
    if unplaced & !known != 0 {
        return Err(failed("save extended state")(format!(
            "components {unplaced:#x} have no place in it"
        )));
    }
    Ok((legacy(&area)?, components))
}

/// Takes x87 and SSE alone.
///
/// # Errors
/// The host's failure.
pub(super) fn save_vector(vcpu: &VcpuFd, vm: &VmFd) -> Result<SavedVector, CpuError> {
    legacy(&read(vcpu, vm)?)
}

/// Puts it into a vCPU of `vm`.
///
/// # Errors
/// The host's failure, or a component that it does not have.
pub(super) fn restore(
    vcpu: &VcpuFd,
    vm: &VmFd,
    vector: &SavedVector,
    components: &[SavedComponent],
) -> Result<(), CpuError> {
    // From a fresh one: the mask of MXCSR is the host's own.
    let mut area = read(vcpu, vm)?;
    set_legacy(&mut area, vector)?;
    let mut present = LEGACY;
    for component in components {
        let SavedComponent { number, bytes } = component;
        let lacks = || failed("set extended state")(format!("this host has no component {number} of it"));
        let mut places = PLACES.iter();
        let (_, place) = places.find(|(known, _)| known == number).ok_or_else(lacks)?;
        if place.len() != bytes.len() {
            return Err(failed("set extended state")(format!(
                "component {number} has {} bytes here and {} there",
                place.len(),
                bytes.len()
            )));
        }
        area.0
            .get_mut(place.clone())
            .ok_or_else(lacks)?
            .copy_from_slice(bytes);
        present |= 1 << number;
    }
    area.put(PRESENT, &present.to_le_bytes())?;
    write(vcpu, &area)
}

/// The state as bytes.
struct Area(Vec<u8>);

impl Area {
    fn bytes<const COUNT: usize>(&self, at: usize) -> Result<[u8; COUNT], CpuError> {
        let found = self.0.get(at..).and_then(|rest| rest.first_chunk().copied());
        found.ok_or_else(|| failed("read extended state")("it is too short"))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), CpuError> {
        let place = self.0.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
        let place = place.ok_or_else(|| failed("set extended state")("it is too short"))?;
        place.copy_from_slice(bytes);
        Ok(())
    }
}

/// Numbers of the components beside x87 and SSE that the host has, and where each is. Asked once:
/// inside a virtual machine each CPUID costs a visit to its host, and a vCPU is saved at each
/// common point.
static PLACES: LazyLock<Vec<(u8, Range<usize>)>> = LazyLock::new(|| {
    let place = |number: u8| {
        let found = __cpuid_count(EXTENDED_LEAF, number.into());
        let (bytes, offset, is_supervisor) = (found.eax as usize, found.ebx as usize, found.ecx & 1 != 0);
        (bytes != 0 && !is_supervisor).then_some((number, offset..offset + bytes))
    };
    (FIRST_COMPONENT..=COMPONENTS_MAX as u8)
        .filter_map(place)
        .collect()
});

/// An area of the size that this VM's vCPUs have.
fn empty(vm: &VmFd) -> Result<Xsave, CpuError> {
    let bytes = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0);
    let beyond = bytes.saturating_sub(size_of::<kvm_xsave>());
    Xsave::new(beyond.div_ceil(WORD_BYTES))
        .map_err(|why| failed("make room for extended state")(format!("{why:?}")))
}

fn read(vcpu: &VcpuFd, vm: &VmFd) -> Result<Area, CpuError> {
    let mut state = empty(vm)?;
    if state.as_slice().is_empty() {
        let plain = vcpu.get_xsave().map_err(failed("read extended state"))?;
        return Ok(Area(
            plain.region.iter().flat_map(|word| word.to_le_bytes()).collect(),
        ));
    }
    // SAFETY: it has the size that KVM_CAP_XSAVE2 told for this VM.
    unsafe { vcpu.get_xsave2(&mut state) }.map_err(failed("read extended state"))?;
    let words = state
        .as_fam_struct_ref()
        .xsave
        .region
        .iter()
        .chain(state.as_slice());
    Ok(Area(words.flat_map(|word| word.to_le_bytes()).collect()))
}

fn write(vcpu: &VcpuFd, area: &Area) -> Result<(), CpuError> {
    let words: Vec<u32> = area
        .0
        .chunks_exact(WORD_BYTES)
        .filter_map(|bytes| bytes.first_chunk().copied().map(u32::from_le_bytes))
        .collect();
    let mut state = Xsave::new(words.len().saturating_sub(kvm_xsave::default().region.len()))
        .map_err(|why| failed("make room for extended state")(format!("{why:?}")))?;
    let mut rest = words.iter().copied();
    // SAFETY: the length of the area is not changed.
    let first = unsafe { &mut state.as_mut_fam_struct().xsave.region };
    first.iter_mut().zip(&mut rest).for_each(|(to, from)| *to = from);
    state
        .as_mut_slice()
        .iter_mut()
        .zip(rest)
        .for_each(|(to, from)| *to = from);
    // SAFETY: it has the size that `read` found, which is the one of this VM's vCPUs.
    unsafe { vcpu.set_xsave2(&state) }.map_err(failed("set extended state"))
}

fn legacy(area: &Area) -> Result<SavedVector, CpuError> {
    let mut vector = SavedVector {
        x87_control: u16::from_le_bytes(area.bytes(CONTROL)?),
        x87_status: u16::from_le_bytes(area.bytes(STATUS)?),
        x87_tags: u8::from_le_bytes(area.bytes(TAGS)?),
        x87_opcode: u16::from_le_bytes(area.bytes(OPCODE)?),
        x87_instruction: u64::from_le_bytes(area.bytes(INSTRUCTION)?),
        x87_data: u64::from_le_bytes(area.bytes(DATA)?),
        mxcsr: u32::from_le_bytes(area.bytes(MXCSR)?),
        ..SavedVector::default()
    };
    for (at, register) in (X87..).step_by(REGISTER_STRIDE).zip(&mut vector.x87) {
        *register = area.bytes(at)?;
    }
    for (at, register) in (XMM..).step_by(REGISTER_STRIDE).zip(&mut vector.xmm) {
        *register = area.bytes(at)?;
    }
    Ok(vector)
}

fn set_legacy(area: &mut Area, saved: &SavedVector) -> Result<(), CpuError> {
    let SavedVector {
        x87_control,
        x87_status,
        x87_tags,
        x87_opcode,
        x87_instruction,
        x87_data,
        x87,
        mxcsr,
        xmm,
    } = saved;
    area.put(CONTROL, &x87_control.to_le_bytes())?;
    area.put(STATUS, &x87_status.to_le_bytes())?;
    area.put(TAGS, &[*x87_tags, 0])?;
    area.put(OPCODE, &x87_opcode.to_le_bytes())?;
    area.put(INSTRUCTION, &x87_instruction.to_le_bytes())?;
    area.put(DATA, &x87_data.to_le_bytes())?;
    area.put(MXCSR, &mxcsr.to_le_bytes())?;
    for (at, register) in (X87..).step_by(REGISTER_STRIDE).zip(x87) {
        area.put(at, register)?;
    }
    for (at, register) in (XMM..).step_by(REGISTER_STRIDE).zip(xmm) {
        area.put(at, register)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x87_and_sse_are_the_same_again() {
        let mut vector = SavedVector {
            x87_control: 0x27f,
            x87_status: 0x3800,
            x87_tags: 0x80,
            x87_opcode: 0x123,
            x87_instruction: 0x1_0000_0002,
            x87_data: 0x3_0000_0004,
            mxcsr: 0x1fa0,
            ..SavedVector::default()
        };
        for (index, register) in (1..).zip(&mut vector.x87) {
            *register = [index; 10];
        }
        for (index, register) in (9..).zip(&mut vector.xmm) {
            *register = [index; 16];
        }
        let mut area = Area(vec![0; 576]);
        set_legacy(&mut area, &vector).unwrap();
        assert_eq!(legacy(&area).unwrap(), vector);
    }
}

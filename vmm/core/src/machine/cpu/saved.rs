//! The saved form of a vCPU: all that a guest can notice of it, independent of the kind of KVM it
//! ran on.
//!
//! State on which host and guest agree implicitly is left out (docs/saved-state.md lists it with
//! the reasons). Fields are encoded in their order, so a change of this file is a change of the
//! format.

use super::registers::Registers;
use serde::{Deserialize, Serialize};

/// Bytes of an x87 register as instructions store it.
pub const X87_REGISTER_BYTES: usize = 10;
/// Components of the extended state that XCR0 can name, beside x87 and SSE.
pub const COMPONENTS_MAX: usize = 62;
/// No component is larger: TILEDATA has 8192 bytes (Intel SDM volume 1, 13.5.12).
pub const COMPONENT_BYTES_MAX: usize = 8192;
/// Registers in the lists of MSRs and extended control registers; far more than there are.
pub const LIST_MAX: usize = 64;

/// A segment register with what the processor keeps of its descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSegment {
    /// Selector.
    pub selector: u16,
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Type, 4 bits.
    pub kind: u8,
    /// Privilege level of the descriptor.
    pub privilege: u8,
    /// S: code or data.
    pub code_or_data: bool,
    /// P.
    pub present: bool,
    /// AVL.
    pub available: bool,
    /// L: 64-bit code.
    pub long: bool,
    /// D/B.
    pub big: bool,
    /// G: the descriptor counted its limit in pages.
    pub pages: bool,
    /// Loaded with a null selector.
    pub unusable: bool,
}

/// A descriptor-table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedTable {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// Order of [`SavedCpu::segments`].
#[allow(missing_docs, reason = "the registers' own names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentName {
    Cs,
    Ds,
    Es,
    Fs,
    Gs,
    Ss,
    Tr,
    Ldtr,
}

/// x87 and SSE, as FXSAVE has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedVector {
    /// FCW.
    pub x87_control: u16,
    /// FSW.
    pub x87_status: u16,
    /// FTW in its short form: a bit for each register that is not empty.
    pub x87_tags: u8,
    /// FOP.
    pub x87_opcode: u16,
    /// FIP. Processors differ in when they keep it.
    pub x87_instruction: u64,
    /// FDP. Processors differ in when they keep it.
    pub x87_data: u64,
    /// ST0 to ST7.
    pub x87: [[u8; X87_REGISTER_BYTES]; 8],
    /// MXCSR.
    pub mxcsr: u32,
    /// XMM0 to XMM15.
    pub xmm: [[u8; 16]; 16],
}

impl Default for SavedVector {
    /// After FNINIT, with MXCSR as reset leaves it.
    fn default() -> Self {
        Self {
            x87_control: 0x37f,
            x87_status: 0,
            x87_tags: 0,
            x87_opcode: 0,
            x87_instruction: 0,
            x87_data: 0,
            x87: [[0; X87_REGISTER_BYTES]; 8],
            mxcsr: 0x1f80,
            xmm: [[0; 16]; 16],
        }
    }
}

/// A component of the extended state that is not in its initial state, which is zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedComponent {
    /// Its number, as in XCR0: 2 is the upper halves of YMM0 to YMM15.
    pub number: u8,
    /// Its bytes, as XSAVE stores them.
    pub bytes: Vec<u8>,
}

/// Debug registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDebug {
    /// DR0 to DR3.
    pub addresses: [u64; 4],
    /// DR6.
    pub status: u64,
    /// DR7.
    pub control: u64,
}

/// An exception that is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedException {
    /// Vector.
    pub vector: u8,
    /// Error code, where the vector has one.
    pub error_code: Option<u32>,
}

/// An interrupt that is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedInterrupt {
    /// Vector.
    pub vector: u8,
    /// By an INT instruction.
    pub software: bool,
}

/// Events that a kick may find under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedEvents {
    /// The exception being delivered.
    pub exception: Option<SavedException>,
    /// The interrupt being delivered.
    pub interrupt: Option<SavedInterrupt>,
    /// Interrupt shadow: bit 0 after MOV SS, bit 1 after STI.
    pub shadow: u8,
    /// Non-maskable interrupts are blocked until IRET.
    pub nmi_masked: bool,
}

/// Counting state of the instruction clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedClock {
    /// It counts nothing.
    #[default]
    None,
    /// It steps.
    Step {
        /// Instructions since the last exit.
        instructions: u64,
        /// The guest ran without being stepped since.
        lost: bool,
        /// It is inside a repeated instruction.
        repeating: bool,
    },
    /// It reads the kernel's count.
    Statistic {
        /// It has counted since the last exit.
        started: bool,
        /// Instructions since the last exit.
        instructions: u64,
        /// Instructions from the last exit since which every run was in CPL 0 alone.
        ring_0_from: u64,
        /// Instructions from here before which nothing more enters.
        clear_of_interrupt: u64,
        /// The count is spoiled until the next exit.
        lost: bool,
    },
}

/// A whole vCPU between two instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCpu {
    /// General registers.
    pub registers: Registers,
    /// CS, DS, ES, FS, GS, SS, TR, LDTR: see [`SegmentName`].
    pub segments: [SavedSegment; 8],
    /// GDTR and IDTR.
    pub tables: [SavedTable; 2],
    /// CR0, CR2, CR3, CR4, EFER.
    pub control: [u64; 5],
    /// CR8.
    pub task_priority: u64,
    /// x87 and SSE.
    pub vector: SavedVector,
    /// The rest of the extended state, in ascending order of the number.
    pub components: Vec<SavedComponent>,
    /// Extended control registers: number and value, in ascending order of the number.
    pub extended_control: Vec<(u32, u64)>,
    /// Debug registers.
    pub debug: SavedDebug,
    /// Events under way.
    pub events: SavedEvents,
    /// `mp_state` of KVM: 0 is running.
    pub run_state: u32,
    /// Model-specific registers that the guest can reach and that are nowhere above: number and
    /// value, in ascending order.
    pub msrs: Vec<(u32, u64)>,
    /// The instruction clock.
    pub clock: SavedClock,
}

/// Selector and base of a segment register, for digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DigestedSegment {
    selector: u16,
    base: u64,
}

/// The part of a saved vCPU that the digest `registers` of a log's end entry covers. It never
/// changes: logs of every release have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DigestedCpu {
    /// General registers.
    pub registers: Registers,
    segments: [DigestedSegment; 8],
    control: [u64; 5],
    xmm: [[u8; 16]; 16],
    /// Meant for MXCSR, which KVM_GET_FPU does not fill in: every log has 0 here.
    always_zero: u32,
}

/// Name of the digest of [`ComparedCpu`]. The last of the parts, in digests and in end entries.
pub const PROCESSOR_PART: &str = "processor";

/// The part of a saved vCPU that the digest `processor` covers: what the guest sets and the digests
/// `registers` do not cover. It never changes. x87's FOP, FIP and FDP are left out, because
/// processors differ in when they keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ComparedCpu {
    x87_control: u16,
    x87_status: u16,
    x87_tags: u8,
    x87: [[u8; X87_REGISTER_BYTES]; 8],
    mxcsr: u32,
    xmm: [[u8; 16]; 16],
    msrs: Vec<(u32, u64)>,
}

impl ComparedCpu {
    /// The part of a vCPU with this x87 and SSE state and these MSRs.
    #[must_use]
    pub fn of(vector: &SavedVector, msrs: Vec<(u32, u64)>) -> Self {
        let SavedVector {
            x87_control,
            x87_status,
            x87_tags,
            x87_opcode: _,
            x87_instruction: _,
            x87_data: _,
            x87,
            mxcsr,
            xmm,
        } = *vector;
        Self {
            x87_control,
            x87_status,
            x87_tags,
            x87,
            mxcsr,
            xmm,
            msrs,
        }
    }
}

impl SavedCpu {
    /// Returns the part that the digest `processor` covers.
    #[must_use]
    pub fn compared(&self) -> ComparedCpu {
        ComparedCpu::of(&self.vector, self.msrs.clone())
    }

    /// Returns the part that the digest `registers` of an end entry covers.
    #[must_use]
    pub fn digested(&self) -> DigestedCpu {
        DigestedCpu {
            registers: self.registers,
            segments: self.segments.map(|segment| DigestedSegment {
                selector: segment.selector,
                base: segment.base,
            }),
            control: self.control,
            xmm: self.vector.xmm,
            always_zero: 0,
        }
    }

    /// The segment register of that name.
    #[must_use]
    pub fn segment(&self, name: SegmentName) -> SavedSegment {
        self.segments.get(name as usize).copied().unwrap_or_default()
    }
}

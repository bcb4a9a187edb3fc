//! Guests of a few instructions, put together byte by byte, that a machine boots as an image and,
//! in the form that Linux's build gives its kernels, as a kernel. Both boards have the same serial
//! port, interrupt controller, timer and network device. Formats: System V ABI, ELF-64; encodings:
//! Intel SDM volume 2.

/// Address at which they are entered.
pub const CODE: u32 = 0x10_0000;
/// Address at which a kernel's code says that it is.
const KERNEL_CODE: u64 = 0xffff_ffff_8010_0000;
/// Interrupt table of those that have one, behind the code.
const INTERRUPTS: u32 = 0x18_0000;
/// First vector of the interrupt controller's lines.
const FIRST_VECTOR: u8 = 0x20;

const SERIAL_PORT: u16 = 0x3f8;
const FIRST_CHIP: u16 = 0x20;
const SECOND_CHIP: u16 = 0xa0;

/// The two forms of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An image of our own convention.
    Image,
    /// A kernel (vmlinux).
    Kernel,
}

impl Form {
    /// Selector of code at the entry.
    fn code_selector(self) -> u16 {
        match self {
            Self::Image => 0x08,
            Self::Kernel => 0x10,
        }
    }

    /// A file of this form with `code` in it.
    #[must_use]
    pub fn file(self, code: &Code) -> Vec<u8> {
        match self {
            Self::Image => elf(&[(CODE, 5, &code.0)]),
            Self::Kernel => vmlinux(&code.0),
        }
    }
}

/// Machine code, 64-bit.
#[derive(Clone, Debug, Default)]
pub struct Code(pub Vec<u8>);

impl Code {
    /// Any instruction, by its bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// MOV DX, imm16; MOV AL, imm8; OUT DX, AL.
    #[must_use]
    pub fn out(self, port: u16, value: u8) -> Self {
        self.raw(&[0x66, 0xba])
            .raw(&port.to_le_bytes())
            .raw(&[0xb0, value, 0xee])
    }

    /// Writes `text` to the console.
    #[must_use]
    pub fn say(self, text: &str) -> Self {
        text.bytes().fold(self, |code, byte| code.out(SERIAL_PORT, byte))
    }

    /// MOV RAX, imm64; MOV \[address\], RAX.
    #[must_use]
    pub fn store(self, address: u32, value: u64) -> Self {
        self.raw(&[0x48, 0xb8])
            .raw(&value.to_le_bytes())
            .raw(&[0x48, 0x89, 0x04, 0x25])
            .raw(&address.to_le_bytes())
    }

    /// MOV DWORD [RBX + offset], imm32.
    #[must_use]
    pub fn set_register(self, offset: u32, value: u32) -> Self {
        self.raw(&[0xc7, 0x83])
            .raw(&offset.to_le_bytes())
            .raw(&value.to_le_bytes())
    }

    /// LIDT of no interrupt table at all: the next exception is a triple fault.
    #[must_use]
    pub fn without_interrupt_table(self) -> Self {
        // LIDT [RIP + 2]; JMP over ten zeros.
        self.raw(&[0x0f, 0x01, 0x1d, 2, 0, 0, 0])
            .raw(&[0xeb, 10])
            .raw(&[0; 10])
    }

    /// STI, and HLT again and again.
    #[must_use]
    pub fn wait_for_ever(self) -> Self {
        self.raw(&[0xfb, 0xf4, 0xeb, 0xfd])
    }
}

/// Code that takes the interrupts of `line` alone: `handler` runs at each, and a line of text is
/// written at each 256th. `set_up` makes its device raise them; then it waits. It ends by HLT in its
/// handler after `interrupts_max`, a multiple of 256; 0: not at all.
#[must_use]
pub fn interrupted(form: Form, line: u8, handler: &Code, set_up: &Code, interrupts_max: u32) -> Code {
    // INC R15; TEST R15B, R15B; JNZ over what is said.
    // Then CMP R15D, imm32; JNE over HLT.
    let said = Code::default()
        .say(".\n")
        .raw(&[0x41, 0x81, 0xff])
        .raw(&interrupts_max.to_le_bytes())
        .raw(&[0x75, 1, 0xf4]);
    let handler = Code::default()
        .raw(&handler.0)
        .raw(&[0x49, 0xff, 0xc7, 0x45, 0x84, 0xff, 0x75, said.0.len() as u8])
        .raw(&said.0)
        .out(FIRST_CHIP, 0x20)
        .raw(&[0x48, 0xcf]);
    // XOR R15D, R15D; JMP over the handler.
    let begin = Code::default()
        .raw(&[0x45, 0x31, 0xff, 0xe9])
        .raw(&(handler.0.len() as u32).to_le_bytes());
    let address = u64::from(CODE) + begin.0.len() as u64;
    let gate = INTERRUPTS + 16 * u32::from(FIRST_VECTOR + line);
    // Present, an interrupt gate of 64 bits (Intel SDM volume 3A, figure 6-8).
    let selector = u64::from(form.code_selector());
    let low = address & 0xffff | selector << 16 | 0x8e00 << 32 | (address >> 16 & 0xffff) << 48;
    begin
        .raw(&handler.0)
        .store(gate, low)
        .store(gate + 8, address >> 32)
        // Limit and address of the table, in front of it; LIDT.
        .store(INTERRUPTS - 16, 0xfff | u64::from(INTERRUPTS) << 16)
        .store(INTERRUPTS - 8, 0)
        .raw(&[0x0f, 0x01, 0x1c, 0x25])
        .raw(&(INTERRUPTS - 16).to_le_bytes())
        // ICW1 to ICW4 of both chips, then their masks.
        .out(FIRST_CHIP, 0x11)
        .out(FIRST_CHIP + 1, FIRST_VECTOR)
        .out(FIRST_CHIP + 1, 4)
        .out(FIRST_CHIP + 1, 1)
        .out(SECOND_CHIP, 0x11)
        .out(SECOND_CHIP + 1, FIRST_VECTOR + 8)
        .out(SECOND_CHIP + 1, 2)
        .out(SECOND_CHIP + 1, 1)
        .out(SECOND_CHIP + 1, 0xff)
        .out(FIRST_CHIP + 1, !(1 << line))
        .raw(&set_up.0)
        .wait_for_ever()
}

/// An ELF64 executable of these segments, each with its address and flags (1 executable, 2
/// writable, 4 readable), entered at [`CODE`]. Without section headers and symbols.
#[must_use]
pub fn elf(segments: &[(u32, u32, &[u8])]) -> Vec<u8> {
    const HEADER_BYTES: u64 = 64;
    const SEGMENT_HEADER_BYTES: u64 = 56;
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(u64::from(CODE).to_le_bytes());
    image.extend(HEADER_BYTES.to_le_bytes());
    image.extend([0; 12]);
    image.extend([64, 0, 56, 0, segments.len() as u8, 0, 64, 0, 0, 0, 0, 0]);
    let mut offset = HEADER_BYTES + segments.len() as u64 * SEGMENT_HEADER_BYTES;
    for &(address, flags, bytes) in segments {
        image.extend([1, 0, 0, 0]);
        image.extend(flags.to_le_bytes());
        let bytes = bytes.len() as u64;
        for field in [offset, address.into(), address.into(), bytes, bytes, 1] {
            image.extend(field.to_le_bytes());
        }
        offset += bytes;
    }
    for &(_, _, bytes) in segments {
        image.extend(bytes);
    }
    image
}

/// A kernel of one section, `.text`, with an IRETQ at its end: one without has no way back from
/// interrupts, and is refused.
fn vmlinux(code: &[u8]) -> Vec<u8> {
    const SECTION_HEADER_BYTES: u64 = 64;
    const NAMES: &[u8] = b"\0.text\0.names\0";
    let text = [code, &[0x48, 0xcf]].concat();
    let mut file = elf(&[(CODE, 5, &text)]);
    let at = 64 + 56;
    // Its address, in the only segment header.
    file[64 + 16..64 + 24].copy_from_slice(&KERNEL_CODE.to_le_bytes());
    let names_at = file.len() as u64;
    file.extend(NAMES);
    let sections_at = file.len() as u64;
    let section = |name: u32, kind: u32, fields: [u64; 4]| {
        let mut header = [name.to_le_bytes(), kind.to_le_bytes()].concat();
        header.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        header.resize(SECTION_HEADER_BYTES as usize, 0);
        header
    };
    file.extend(section(0, 0, [0; 4]));
    // Allocated and executable.
    file.extend(section(1, 1, [6, KERNEL_CODE, at, text.len() as u64]));
    file.extend(section(7, 3, [0, 0, names_at, NAMES.len() as u64]));
    file[0x28..0x30].copy_from_slice(&sections_at.to_le_bytes());
    let counts = [SECTION_HEADER_BYTES as u16, 3, 2];
    for (index, count) in counts.into_iter().enumerate() {
        file[0x3a + 2 * index..0x3c + 2 * index].copy_from_slice(&count.to_le_bytes());
    }
    file
}

//! Programs of a few instructions for Linux, put together byte by byte: each reads the time-stamp
//! counter, writes it to its standard output, and ends. Formats: ELF; encodings: Intel SDM volume 2;
//! numbers of system calls: `arch/x86/entry/syscalls` of Linux.

/// Address at which a program is loaded, its headers first.
const BASE: u32 = 0x40_0000;

/// Mode of the processor that a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// i386, with system calls by INT 0x80.
    ThirtyTwo,
    /// x86-64, with SYSCALL.
    SixtyFour,
}

impl Bits {
    /// RDTSC; write(1, its eight bytes on the stack, 8); exit(0).
    fn code(self) -> &'static [u8] {
        match self {
            // PUSH EDX; PUSH EAX; MOV EAX, 4; MOV EBX, 1; MOV ECX, ESP; MOV EDX, 8; INT 0x80;
            // MOV EAX, 1; XOR EBX, EBX; INT 0x80.
            Self::ThirtyTwo => &[
                0x0f, 0x31, 0x52, 0x50, 0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0x89, 0xe1, 0xba, 8, 0, 0, 0,
                0xcd, 0x80, 0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80,
            ],
            // SHL RDX, 32; OR RAX, RDX; PUSH RAX; MOV EAX, 1; MOV EDI, 1; MOV RSI, RSP; MOV EDX, 8;
            // SYSCALL; MOV EAX, 60; XOR EDI, EDI; SYSCALL.
            Self::SixtyFour => &[
                0x0f, 0x31, 0x48, 0xc1, 0xe2, 32, 0x48, 0x09, 0xd0, 0x50, 0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0,
                0x48, 0x89, 0xe6, 0xba, 8, 0, 0, 0, 0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05,
            ],
        }
    }

    /// The program, as an executable of one segment without section headers.
    #[must_use]
    pub fn program(self) -> Vec<u8> {
        // Of each class: its number, its machine, and the bytes of the header and of a segment's.
        let (class, machine, header_bytes, segment_bytes): (u8, u16, u16, u16) = match self {
            Self::ThirtyTwo => (1, 3, 52, 32),
            Self::SixtyFour => (2, 62, 64, 56),
        };
        let code = self.code();
        let code_at = u32::from(header_bytes + segment_bytes);
        let bytes = code_at + code.len() as u32;
        let mut file = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
        file.resize(16, 0);
        let half = |file: &mut Vec<u8>, value: u16| file.extend(value.to_le_bytes());
        let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
        // An address, an offset or a size.
        let wide = |file: &mut Vec<u8>, value: u32| {
            file.extend(value.to_le_bytes());
            file.resize(file.len() + 4 * usize::from(class - 1), 0);
        };
        half(&mut file, 2);
        half(&mut file, machine);
        word(&mut file, 1);
        for value in [BASE + code_at, header_bytes.into(), 0] {
            wide(&mut file, value);
        }
        word(&mut file, 0);
        for value in [header_bytes, segment_bytes, 1, 0, 0, 0] {
            half(&mut file, value);
        }
        // One that is loaded, to be read and executed: the flags stand elsewhere in each class.
        const LOAD: u32 = 1;
        const FLAGS: u32 = 5;
        word(&mut file, LOAD);
        if self == Self::SixtyFour {
            word(&mut file, FLAGS);
        }
        for value in [0, BASE, BASE, bytes, bytes] {
            wide(&mut file, value);
        }
        if self == Self::ThirtyTwo {
            word(&mut file, FLAGS);
        }
        wide(&mut file, 1);
        file.extend(code);
        file
    }

    /// Commands for busybox's shell that make the program, run it, and print in hexadecimal digits what it
    /// writes.
    #[must_use]
    pub fn run(self) -> String {
        let digits = hex::encode(self.program());
        format!("echo {digits} | xxd -r -p >/tmp/{self:?}; chmod +x /tmp/{self:?}; /tmp/{self:?} | xxd -p")
    }
}

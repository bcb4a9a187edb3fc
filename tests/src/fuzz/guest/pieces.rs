//! Pieces of random guests: a few instructions each, chosen for what is hard about them.

use super::layout::{CODE, DATA, SLOT_BYTES};
use lockstep_qualify::bench::Numbers;

const NETWORK_DEVICE: u32 = 0xd000_0000;
const NOTHING: u32 = 0xe000_0000;
const MEMORY_END: u32 = 0x40_0000;
const PAGE_BYTES: u32 = 4096;

const PORTS: [u16; 27] = [
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,
    0x3fd, 0x3f8, 0x508, 0x50c, 0x510, 0x514, 0x518, 0x520, 0xe0, 0x80, 0x7e,
];

/// What a piece may need to know.
pub struct Chooser {
    numbers: Numbers,
    /// The code is meant to be in ring 0 here.
    ring_0: bool,
}

type Maker = fn(&mut Chooser) -> Vec<u8>;

/// What there is, and how often it is taken.
const MAKERS: [(u64, Maker); 17] = [
    (12, access),
    (12, string),
    (8, vector),
    (10, port),
    (4, interrupt_controller),
    (5, timer),
    (7, interrupt_flag),
    (5, trap_flag),
    (2, undefined),
    (6, change_ring),
    (3, interrupt_return),
    (8, site),
    (5, system),
    (3, self_modifying),
    (7, compute),
    (5, stack),
    (1, random_bytes),
];

impl Chooser {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            // Neighbouring seeds are to differ in every bit.
            numbers: Numbers::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)),
            ring_0: true,
        }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.numbers.below(bound)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A slot of code, padded.
    pub fn slot(&mut self) -> Vec<u8> {
        let total = MAKERS.iter().map(|(weight, _)| weight).sum();
        let mut left = self.below(total);
        let mut code = Vec::new();
        for (weight, maker) in MAKERS {
            if left < weight {
                code = maker(self);
                break;
            }
            left -= weight;
        }
        // The last byte is always padding: nothing reaches over it.
        code.truncate(SLOT_BYTES - 1);
        code.resize(SLOT_BYTES, 0x90);
        code
    }

    /// An address at which something is interesting.
    fn address(&mut self) -> u32 {
        let near = self.below(24) as u32;
        match self.below(12) {
            0..=2 => DATA + self.below(0x2000) as u32,
            3 => DATA + PAGE_BYTES - near,
            4 => NETWORK_DEVICE + 4 * self.below(68) as u32,
            5 => NETWORK_DEVICE + self.below(0x1000) as u32,
            6 => NETWORK_DEVICE - near,
            7 => NETWORK_DEVICE + PAGE_BYTES - near,
            8 => NOTHING + self.below(0x1000) as u32,
            9 => NOTHING + PAGE_BYTES - near,
            10 => MEMORY_END - near,
            _ => NETWORK_DEVICE + self.pick(&[0, 0x30, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0xfc, 0x100]),
        }
    }

    fn value(&mut self) -> u32 {
        match self.below(5) {
            0 => self.below(4) as u32,
            1 => DATA + (self.below(16) << 12) as u32,
            2 => u32::MAX,
            _ => self.below(1 << 32) as u32,
        }
    }
}

/// MOV r32, imm32.
fn load(register: u8, value: u32) -> Vec<u8> {
    [&[0xb8 + register][..], &value.to_le_bytes()].concat()
}

const EAX: u8 = 0;
const ECX: u8 = 1;
const EDX: u8 = 2;
const EBX: u8 = 3;
const ESI: u8 = 6;
const EDI: u8 = 7;

/// Plain, locked and indirect accesses by way of RBX.
fn access(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 22] = [
        &[0x8a, 0x03],
        &[0x66, 0x8b, 0x03],
        &[0x8b, 0x03],
        &[0x48, 0x8b, 0x03],
        &[0x88, 0x03],
        &[0x66, 0x89, 0x03],
        &[0x89, 0x03],
        &[0x48, 0x89, 0x03],
        &[0x0f, 0xb6, 0x03],
        &[0x48, 0x0f, 0xbf, 0x03],
        &[0x01, 0x03],
        &[0x48, 0x31, 0x03],
        &[0xf0, 0xff, 0x03],
        &[0xf0, 0x48, 0x0f, 0xc1, 0x03],
        &[0x87, 0x03],
        &[0xf0, 0x0f, 0xb1, 0x0b],
        &[0xf0, 0x0f, 0xc7, 0x0b],
        &[0xf0, 0x0f, 0xab, 0x03],
        &[0xff, 0x33],
        &[0x8f, 0x03],
        &[0xc7, 0x03, 1, 2, 3, 4],
        &[0x48, 0x0f, 0x38, 0xf0, 0x03],
    ];
    let mut code = [load(EBX, choose.address()), load(EAX, choose.value())].concat();
    for _ in 0..=choose.below(3) {
        code.extend(choose.pick(&FORMS));
    }
    code
}

/// String instructions, repeated or not, forwards or backwards.
fn string(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 17] = [
        &[0xa4],
        &[0xa5],
        &[0x48, 0xa5],
        &[0x66, 0xa5],
        &[0xaa],
        &[0xab],
        &[0x48, 0xab],
        &[0xac],
        &[0x48, 0xad],
        &[0xa6],
        &[0x48, 0xa7],
        &[0xae],
        &[0xaf],
        &[0x6c],
        &[0x6d],
        &[0x6e],
        &[0x6f],
    ];
    let prefix: &[u8] = choose.pick(&[&[][..], &[0xf3], &[0xf3], &[0xf2]]);
    let count = choose.pick(&[0, 1, 2, 7, 32, 200, 1100]);
    let port = choose.pick(&PORTS);
    let code = [
        load(ESI, choose.address()),
        load(EDI, choose.address()),
        load(ECX, count),
        load(EDX, port.into()),
    ];
    let direction = choose.pick(&[0xfc, 0xfc, 0xfc, 0xfd]);
    let form = choose.pick(&FORMS);
    let mut code = code.concat();
    code.push(direction);
    code.extend(prefix);
    code.extend(form);
    code.push(0xfc);
    code
}

/// SSE and x87, to and from memory. Ring 0 gets few of them: not every host runs them there.
fn vector(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 14] = [
        &[0xf3, 0x0f, 0x6f, 0x03],
        &[0xf3, 0x0f, 0x7f, 0x03],
        &[0x0f, 0x28, 0x03],
        &[0x0f, 0x29, 0x03],
        &[0x0f, 0x58, 0x03],
        &[0x66, 0x0f, 0xfc, 0x03],
        &[0xdd, 0x03],
        &[0xdf, 0x2b],
        &[0xdb, 0x3b],
        &[0xdb, 0x2b],
        &[0xd8, 0x0b],
        &[0x0f, 0xae, 0x1b],
        &[0x0f, 0xae, 0x13],
        &[0x66, 0x48, 0x0f, 0x6e, 0xc0],
    ];
    const MOVES: usize = 4;
    let mut code = load(EBX, choose.address());
    for _ in 0..=choose.below(3) {
        let plain = choose.ring_0 && choose.below(8) != 0;
        let forms = if plain { &FORMS[..MOVES] } else { &FORMS[..] };
        code.extend(choose.pick(forms));
    }
    code
}

fn port(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 6] = [&[0xec], &[0x66, 0xed], &[0xed], &[0xee], &[0x66, 0xef], &[0xef]];
    let mut code = Vec::new();
    for _ in 0..=choose.below(3) {
        let port = choose.pick(&PORTS);
        code.extend(load(EDX, port.into()));
        code.extend(load(EAX, choose.value()));
        code.extend(choose.pick(&FORMS));
    }
    code
}

fn out(code: &mut Vec<u8>, port: u8, value: u8) {
    code.extend([0xb0, value, 0xe6, port]);
}

/// The interrupt controllers anew, in some mode, or one of their commands.
fn interrupt_controller(choose: &mut Chooser) -> Vec<u8> {
    let mut code = Vec::new();
    if choose.below(2) == 0 {
        let mode = choose.pick(&[1, 1, 3, 0x13]);
        for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, mode)] {
            out(&mut code, port, value);
        }
    }
    let (mask, command) = (choose.pick(&[0, 0, 0xff, 1, 0xfe, 0x10]), choose.below(256) as u8);
    out(&mut code, 0x21, mask);
    let command = choose.pick(&[0x20, 0x60, 0xa0, 0x68, 0x48, 0x0b, command & !0x10]);
    out(&mut code, 0x20, command);
    code
}

/// The interval timer, with counts down to 1.
fn timer(choose: &mut Chooser) -> Vec<u8> {
    let mut code = Vec::new();
    let mode = choose.pick(&[0, 2, 2, 3, 4]);
    let count: u16 = choose.pick(&[1, 1, 2, 3, 100, 1193, 0]);
    let [low, high] = count.to_le_bytes();
    for (port, value) in [(0x43, 0x30 | mode << 1), (0x40, low), (0x40, high)] {
        out(&mut code, port, value);
    }
    code
}

fn interrupt_flag(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 9] = [
        &[0xfb],
        &[0xfa],
        &[0xfb, 0xf4],
        &[0xf4],
        &[0xfb, 0x90, 0xf4, 0xf4],
        &[0xfb, 0x90, 0xfa],
        &[0x9c, 0xfb, 0x90, 0x9d],
        &[0xfb, 0xe4, 0x80, 0xe4, 0x80],
        &[0x16, 0xfb, 0x17, 0xe4, 0x80],
    ];
    if choose.ring_0 && choose.below(4) == 0 {
        // HLT with interrupts off ends it: the timer is there to wake it.
        return [timer(choose), vec![0xfb, 0xf4]].concat();
    }
    choose.pick(&FORMS).to_vec()
}

/// The guest's own trap flag, and what it meets.
fn trap_flag(choose: &mut Chooser) -> Vec<u8> {
    const BEHIND: [&[u8]; 9] = [
        &[0x90, 0x90, 0x90],
        &[0xe4, 0x80, 0x90],
        &[0xe6, 0x80, 0x90],
        &[0x9c, 0x58, 0x90],
        &[0x0f, 0x05, 0x90],
        &[0xf3, 0xaa, 0x90],
        &[0x0f, 0x31, 0x90],
        &[0x31, 0xc9, 0xf7, 0xf1],
        &[0x8c, 0xd0, 0x8e, 0xd0, 0x90],
    ];
    // PUSHFQ; OR [RSP], TF; POPFQ.
    let mut code = load(EDI, choose.address());
    code.extend(load(ECX, 5));
    code.extend([0x9c, 0x48, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d]);
    code.extend(choose.pick(&BEHIND));
    code
}

fn undefined(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 8] = [
        &[0x0f, 0x0b],
        &[0x0f, 0xff, 0xc0],
        &[0xf0, 0x90],
        &[0x06],
        &[0xd6],
        &[0x0f, 0x05],
        &[0xcc],
        &[0xcd, 0x21],
    ];
    let last = if choose.ring_0 { 6 } else { 8 };
    choose.pick(&FORMS[..last]).to_vec()
}

/// XOR ECX, ECX; DIV ECX.
fn change_ring(choose: &mut Chooser) -> Vec<u8> {
    choose.ring_0 = !choose.ring_0;
    vec![0x31, 0xc9, 0xf7, 0xf1]
}

/// IRETQ to the same ring, with some flags.
fn interrupt_return(choose: &mut Chooser) -> Vec<u8> {
    let (code_segment, stack_segment) = if choose.ring_0 { (0x08, 0x10) } else { (0x23, 0x1b) };
    let flags: u32 = choose.pick(&[2, 0x202, 0x202, 0x102, 0x302, 0x3202, 0x1_0002, 0xcd7]);
    // MOV RAX, RSP; PUSH SS; PUSH RAX; PUSH flags; PUSH CS; LEA RAX, [RIP + 3]; PUSH RAX; IRETQ.
    let mut code = vec![0x48, 0x89, 0xe0, 0x6a, stack_segment, 0x50, 0x68];
    code.extend(flags.to_le_bytes());
    code.extend([0x6a, code_segment, 0x48, 0x8d, 0x05, 3, 0, 0, 0, 0x50, 0x48, 0xcf]);
    code
}

/// What is rewritten, or denied.
fn site(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 18] = [
        &[0x0f, 0x31],
        &[0x0f, 0x01, 0xf9],
        &[0x48, 0x0f, 0xc7, 0xf0],
        &[0x66, 0x0f, 0xc7, 0xf1],
        &[0x0f, 0xc7, 0xfa],
        &[0x0f, 0xa2],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xd9],
        &[0x0f, 0x01, 0xd0],
        &[0x0f, 0x33],
        &[0x0f, 0x32],
        &[0x0f, 0x30],
        &[0x0f, 0x01, 0xc8],
        &[0x0f, 0x01, 0xc9],
        &[0xf3, 0x0f, 0xc7, 0xf8],
        &[0x0f, 0xae, 0x23],
        &[0xf3, 0x48, 0x0f, 0xae, 0xd0],
        &[0x0f, 0x01, 0xfc],
    ];
    let number = choose.pick(&[0x10, 0x174, 0x277, 0xc000_0082, 0xc000_0100, 0xc000_0102, 9, 0]);
    let mut code = [
        load(ECX, number),
        load(EAX, choose.pick(&[0, 1, 5, 9, DATA])),
        load(EBX, DATA),
    ]
    .concat();
    for _ in 0..=choose.below(3) {
        code.extend(choose.pick(&FORMS));
    }
    code
}

/// Control, debug and descriptor-table registers.
fn system(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 20] = [
        &[0x0f, 0x20, 0xc0],
        &[0x0f, 0x20, 0xd0],
        &[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8],
        &[0x0f, 0x20, 0xe0],
        &[0x0f, 0x22, 0xd0],
        &[0x44, 0x0f, 0x20, 0xc0],
        &[0x0f, 0x01, 0x3b],
        &[0x0f, 0x06],
        &[0x0f, 0x21, 0xf0],
        &[0x0f, 0x23, 0xc0],
        &[0x0f, 0x01, 0x03],
        &[0x0f, 0x01, 0x0b],
        &[0x0f, 0x01, 0xe0],
        &[0x0f, 0x00, 0xc0],
        &[0x0f, 0x00, 0xc8],
        &[0x0f, 0x01, 0xf8],
        &[0x0f, 0x09],
        &[0x0f, 0xae, 0x3b],
        &[0x31, 0xc0, 0x8e, 0xd8],
        &[0x0f, 0x02, 0xc1],
    ];
    let mut code = [load(EBX, DATA + 0x100), load(ECX, 0x10), load(EAX, DATA)].concat();
    for _ in 0..=choose.below(2) {
        code.extend(choose.pick(&FORMS));
    }
    code
}

/// MOV BYTE into the padding of a slot, this one's or another's.
fn self_modifying(choose: &mut Chooser) -> Vec<u8> {
    let target = CODE as u32 + (choose.below(24) as u32) * SLOT_BYTES as u32 + SLOT_BYTES as u32 - 2;
    let byte = choose.pick(&[0x90, 0x40, 0xf8, 0xf9, 0xfc]);
    let mut code = vec![0xc6, 0x04, 0x25];
    code.extend(target.to_le_bytes());
    code.push(byte);
    code
}

/// A loop without exits: DEC ECX; ADD RAX, RCX; JNZ.
fn compute(choose: &mut Chooser) -> Vec<u8> {
    let mut code = load(ECX, choose.pick(&[1, 30, 300, 3000]));
    code.extend([0xff, 0xc9, 0x48, 0x01, 0xc8, 0x85, 0xc9, 0x75, 0xf7]);
    code.extend(choose.pick(&[&[0xe6_u8, 0x80][..], &[0x9c, 0x58], &[0x90]]));
    code
}

/// The stack, where it may be nowhere.
fn stack(choose: &mut Chooser) -> Vec<u8> {
    const FORMS: [&[u8]; 6] = [
        &[0x50, 0x59],
        &[0x9c, 0x9d],
        &[0xc8, 0x10, 0, 0, 0xc9],
        &[0xe8, 0, 0, 0, 0, 0x58],
        &[0xff, 0x34, 0x24, 0x58],
        &[0x9c, 0x66, 0x9d, 0x58],
    ];
    if choose.below(24) == 0 {
        // MOV RSP, somewhere; PUSH; POP.
        return [load(4, choose.address()), vec![0x50, 0x58]].concat();
    }
    let mut code = Vec::new();
    for _ in 0..=choose.below(4) {
        code.extend(choose.pick(&FORMS));
    }
    code
}

fn random_bytes(choose: &mut Chooser) -> Vec<u8> {
    (0..1 + choose.below(8))
        .map(|_| choose.below(256) as u8)
        .collect()
}

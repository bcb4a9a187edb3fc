//! Machines that are saved and go on as others: at exits, at kicks, with everything in use that a
//! vCPU has.

use crate::code::{Code, Register};
use crate::guest::{BOTH, Outcome, Ring, host, result_at, run, run_clocked, run_moving, skip, vcpu};
use crate::interrupts::set_up;
use crate::moving::Kicks;
use lockstep_core::machine::cpu::{Entry, Vcpu};
use lockstep_core::machine::door::Horizon;
use lockstep_core::machine::memory::PAGE_BYTES;
use lockstep_core::machine::run::Pause;
use lockstep_kvm::{ClockKind, Host};
use lockstep_logging_channel::{EndReason, EventKind};

const RESULTS: u32 = 20;
const INVALID_OPCODE: EndReason = EndReason::PoweredOff(6);
const DONE: EndReason = EndReason::PoweredOff(99);
/// Kicks in a run, each a move.
const KICKS: u32 = 12;
/// Long enough that kicks find it computing, short enough for slow hosts.
const ROUNDS: u32 = 30_000_000;

/// What two runs have to have in common.
fn shown(outcome: &Outcome) -> (EndReason, u64, Vec<u64>, String) {
    let results = (0..RESULTS).map(|index| outcome.result(index)).collect();
    let said = format!("{:?} {:?}", outcome.asked, outcome.outputs);
    (outcome.reason.clone(), outcome.exits, results, said)
}

/// Exits of many kinds, and a sum that depends on all of them.
fn exits() -> Code {
    let multiply = [0x48, 0x69, 0xdb, 0x0d, 0x66, 0x19, 0x00];
    let add = [0x48, 0x01, 0xc3];
    let mut code = Code::default().mov(Register::Rbx, 1);
    for round in 0..4_u8 {
        // OUT; IN from the clock; RDTSC; RDRAND RAX; CPUID's EAX; console; MMIO read and write.
        code = code
            .out(0x80, round)
            .mov(Register::Rdx, 0x508)
            .raw(&[0xed])
            .raw(&add)
            .raw(&multiply)
            .raw(&[0x0f, 0x31])
            .raw(&add)
            .raw(&[0x48, 0x0f, 0xc7, 0xf0])
            .raw(&add)
            .out_to(0x3f8, b'a' + round)
            .raw(&multiply)
            // MOV EDX, device memory; MOV EAX, [RDX]; MOV [RDX+0x30], ECX.
            .mov(Register::Rdx, 0xd000_0000)
            .raw(&[0x8b, 0x02])
            .raw(&add)
            .raw(&[0x89, 0x4a, 0x30]);
    }
    code.store(Register::Rbx, result_at(0)).power_off(99)
}

#[test]
fn one_that_moves_at_every_exit_does_what_it_would_have_done() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        let straight = run(&host, ring, exits());
        assert_eq!(straight.reason, DONE);

        let (moving, moves) = run_moving(
            &host,
            ring,
            ClockKind::None,
            exits(),
            Vec::new(),
            &mut |pause: Pause| !pause.between,
        );

        assert_eq!(shown(&moving), shown(&straight), "{ring:?}");
        assert_eq!(u64::from(moves), straight.exits - 1, "{ring:?}: one at each exit");
    }
}

/// A load maps memory anew, as the restart of a guest does, and whoever reads the log of writes
/// neither loses what was written before nor misses what is written after.
#[test]
fn the_log_of_writes_goes_on_over_a_load() {
    let Some(host) = host() else { return };
    let written = [0, 1024].map(result_at);
    let code = Code::default()
        .mov(Register::Rax, 1)
        .store(Register::Rax, written[0])
        .out(0x80, 0)
        .store(Register::Rax, written[1])
        .out(0x80, 1);
    let to_the_next_exit = Entry {
        interrupt: None,
        stop_at_window: false,
        horizon: Horizon::Exit,
    };
    let [before, after] = written.map(|address| u64::from(address) / PAGE_BYTES);
    let (mut cpu, _memory, _sites) = vcpu(&host, ClockKind::None, &code);
    cpu.log_writes(true).unwrap();
    let other = cpu.dirty_log().start().unwrap();
    cpu.run(to_the_next_exit).unwrap();
    let saved = cpu.save().unwrap();

    cpu.load(&saved).unwrap();
    let taken = cpu.written_pages().unwrap();
    assert!(taken.contains(before) && !taken.contains(after), "{taken:?}");
    cpu.run(to_the_next_exit).unwrap();

    let taken = cpu.written_pages().unwrap();
    assert!(taken.contains(after) && !taken.contains(before), "{taken:?}");
    let taken = other.take().unwrap();
    assert!(taken.contains(before) && taken.contains(after), "{taken:?}");
}

/// Interrupts on, a byte typed: the handler is entered, whoever has the machine by then.
#[test]
fn an_interrupt_that_waits_is_carried() {
    let Some(host) = host() else { return };
    let code = || {
        set_up()
            .out(0x80, 0)
            .out(0x80, 0)
            // STI, NOP; and the handler.
            .raw(&[0xfb, 0x90])
            .out(0x80, 0)
            .power_off(99)
    };
    // Typed while interrupts are off.
    let typed = || vec![((6, 0), EventKind::ConsoleInput(b"k".to_vec()))];
    let straight = run_clocked(&host, Ring::Zero, ClockKind::None, code(), typed());
    assert_eq!(straight.reason, EndReason::PoweredOff(0x24));

    let (moving, moves) = run_moving(
        &host,
        Ring::Zero,
        ClockKind::None,
        code(),
        typed(),
        &mut |_: Pause| true,
    );

    assert_eq!(shown(&moving), shown(&straight));
    assert!(moves > 6, "{moves}");
}

/// Registers that nothing shows but reading them: DR0, DR7, CR8, KERNEL_GS_BASE, SFMASK, LSTAR,
/// CR2.
#[test]
fn registers_that_are_seldom_looked_at_are_carried() {
    let Some(host) = host() else { return };
    let read_msr = |code: Code, number: u32, index: u32| {
        code.mov(Register::Rcx, number)
            .raw(&[0x0f, 0x32])
            .store(Register::Rax, result_at(index))
            .store(Register::Rdx, result_at(index + 1))
    };
    let write_msr = |code: Code, number: u32, value: u32| {
        code.mov(Register::Rcx, number)
            .mov(Register::Rax, value)
            .mov(Register::Rdx, 0x1234)
            .raw(&[0x0f, 0x30])
    };
    let code = || {
        let code = Code::default()
            .mov(Register::Rax, 0x1122_3344)
            .raw(&[0x0f, 0x23, 0xc0]);
        // MOV CR8, RAX; MOV CR2, RAX.
        let code = code
            .mov(Register::Rax, 5)
            .raw(&[0x44, 0x0f, 0x22, 0xc0])
            .mov(Register::Rax, 0x7777_8888)
            .raw(&[0x0f, 0x22, 0xd0]);
        let code = write_msr(code, 0xc000_0102, 0x8765_4321);
        let code = write_msr(code, 0xc000_0082, 0x0bad_cafe).out(0x80, 0);
        // Behind the move.
        let code = code
            .raw(&[0x0f, 0x21, 0xc0])
            .store(Register::Rax, result_at(0))
            .raw(&[0x44, 0x0f, 0x20, 0xc0])
            .store(Register::Rax, result_at(1))
            .raw(&[0x0f, 0x20, 0xd0])
            .store(Register::Rax, result_at(2));
        let code = read_msr(code, 0xc000_0102, 3);
        read_msr(code, 0xc000_0082, 5).power_off(99)
    };

    let (moving, moves) = run_moving(
        &host,
        Ring::Zero,
        ClockKind::None,
        code(),
        Vec::new(),
        &mut |_: Pause| true,
    );

    assert_eq!(moving.reason, DONE);
    assert_eq!(moves, 1);
    let results: Vec<u64> = (0..7).map(|index| moving.result(index)).collect();
    assert_eq!(
        results,
        [
            0x1122_3344,
            5,
            0x7777_8888,
            0x8765_4321,
            0x1234,
            0x0bad_cafe,
            0x1234
        ]
    );
}

/// What a computing guest has in use.
#[derive(Clone, Copy, PartialEq)]
enum Vectors {
    Sse,
    Avx,
}

/// Computes in ring 3, without an exit, with x87, SSE and AVX live, and leaves all of it in the
/// results.
fn computing(vectors: Vectors) -> Code {
    let at = |opcode: &[u8], index: u32| [opcode, &result_at(index).to_le_bytes()].concat();
    // FNINIT; FLD1; FLDPI; PUSH, FLDCW [RSP]; PUSH, LDMXCSR [RSP].
    let mut code = Code::default()
        .raw(&[0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xeb])
        .raw(&[0x68, 0x7f, 0x02, 0, 0, 0xd9, 0x2c, 0x24])
        .raw(&[0x68, 0xa0, 0x3f, 0, 0, 0x0f, 0xae, 0x14, 0x24])
        // MOV RAX, 1.0 and a bit; MOVQ XMM1, RAX; PUNPCKLQDQ XMM1, XMM1; PXOR XMM0, XMM0; MOVQ
        // XMM15, RAX.
        .raw(&[0x48, 0xb8, 3, 0, 0, 0, 0, 0, 0xf0, 0x3f])
        .raw(&[0x66, 0x48, 0x0f, 0x6e, 0xc8, 0x66, 0x0f, 0x6c, 0xc9])
        .raw(&[0x66, 0x0f, 0xef, 0xc0, 0x66, 0x4c, 0x0f, 0x6e, 0xf8]);
    if vectors == Vectors::Avx {
        // VINSERTF128 YMM4, YMM1, XMM1, 1; VXORPD YMM5, YMM5, YMM5.
        code = code
            .raw(&[0xc4, 0xe3, 0x75, 0x18, 0xe1, 1])
            .raw(&[0xc5, 0xd5, 0x57, 0xed]);
    }
    code = code.mov(Register::Rbx, 0).mov(Register::Rcx, ROUNDS);
    let from = code.0.len();
    // FADD ST0, ST1; PADDQ XMM0, XMM1; VADDPD YMM5, YMM5, YMM4; INC RBX; DEC ECX; JNZ.
    code = code.raw(&[0xd8, 0xc1, 0x66, 0x0f, 0xd4, 0xc1]);
    if vectors == Vectors::Avx {
        code = code.raw(&[0xc5, 0xd5, 0x58, 0xec]);
    }
    code = code.raw(&[0x48, 0xff, 0xc3, 0xff, 0xc9]);
    let back = (from as i64 - code.0.len() as i64 - 2) as i8;
    code = code.raw(&[0x75, back as u8]);
    // FNSTSW; FNSTCW; STMXCSR; MOVDQU XMM0, XMM15; FSTP, FSTP.
    code = code
        .raw(&at(&[0xdd, 0x3c, 0x25], 5))
        .raw(&at(&[0xd9, 0x3c, 0x25], 4))
        .raw(&at(&[0x0f, 0xae, 0x1c, 0x25], 6))
        .raw(&at(&[0xf3, 0x0f, 0x7f, 0x04, 0x25], 8))
        .raw(&at(&[0xf3, 0x44, 0x0f, 0x7f, 0x3c, 0x25], 10))
        .raw(&at(&[0xdb, 0x3c, 0x25], 0))
        .raw(&at(&[0xdb, 0x3c, 0x25], 2));
    if vectors == Vectors::Avx {
        // VMOVUPD.
        code = code.raw(&at(&[0xc5, 0xfd, 0x11, 0x2c, 0x25], 12));
    }
    code.store(Register::Rbx, result_at(16)).power_off(99)
}

fn moves_at_kicks(host: &Host, vectors: Vectors) {
    let straight = run(host, Ring::Three, computing(vectors));
    if straight.reason == INVALID_OPCODE {
        return skip("this host's guests cannot use it");
    }
    assert_eq!(straight.result(16), u64::from(ROUNDS));

    let mut kicks = Kicks::new(KICKS);
    let (moving, moves) = run_moving(
        host,
        Ring::Three,
        ClockKind::None,
        computing(vectors),
        Vec::new(),
        &mut kicks,
    );

    assert_eq!(shown(&moving), shown(&straight));
    assert!(moves > 0, "no kick found it computing");
}

#[test]
fn one_that_is_kicked_while_it_computes_goes_on_with_x87_and_sse() {
    let Some(host) = host() else { return };
    moves_at_kicks(&host, Vectors::Sse);
}

#[test]
fn one_that_is_kicked_while_it_computes_goes_on_with_avx() {
    let Some(host) = host() else { return };
    moves_at_kicks(&host, Vectors::Avx);
}

/// In ring 0 a kick may find KVM's emulator at work.
#[test]
fn one_that_is_kicked_in_ring_0_goes_on() {
    let Some(host) = host() else { return };
    // MOV ECX; ADD RBX, RCX; DEC ECX; JNZ.
    let code = || {
        Code::default()
            .mov(Register::Rbx, 0)
            .mov(Register::Rcx, 40_000)
            .raw(&[0x48, 0x01, 0xcb, 0xff, 0xc9, 0x75, 0xf9])
            .store(Register::Rbx, result_at(0))
            .power_off(99)
    };
    let straight = run(&host, Ring::Zero, code());
    let mut kicks = Kicks::new(KICKS);

    let (moving, moves) = run_moving(&host, Ring::Zero, ClockKind::None, code(), Vec::new(), &mut kicks);

    assert_eq!(straight.result(0), 40_000 * 40_001 / 2);
    assert_eq!(shown(&moving), shown(&straight));
    assert!(moves <= KICKS);
}

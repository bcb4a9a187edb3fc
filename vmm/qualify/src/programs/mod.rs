//! The probe guests, assembled with the program (probes.s says what each does), and single
//! instructions to try.

#![allow(
    unsafe_code,
    reason = "the assembled programs are reached through their symbols"
)]

pub mod instructions;

use std::slice;

std::arch::global_asm!(include_str!("probes.s"));

/// Port on which a program says that it begins.
pub const START: u16 = 0x10;
/// Port on which a program says that it is done.
pub const END: u16 = 0x11;
/// Port on which a vector that was taken is said.
pub const VECTOR: u16 = 0x12;
/// Port on which the outside is asked.
pub const QUESTION: u16 = 0x20;
/// Port on which a result is said.
pub const OUTPUT: u16 = 0x21;

macro_rules! programs {
    ($($(#[$meta:meta])* $name:ident: $start:ident .. $end:ident;)*) => {
        unsafe extern "C" {
            $(static $start: u8; static $end: u8;)*
        }
        $(
            $(#[$meta])*
            #[must_use]
            pub fn $name() -> &'static [u8] {
                let (start, end) = (&raw const $start, &raw const $end);
                // SAFETY: both symbols stand in one read-only section, the second behind the first.
                unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }
            }
        )*
    };
}

programs! {
    /// Counts to RCX.
    count: lockstep_probe_count .. lockstep_probe_count_end;
    /// Counts, with repeated string stores between.
    repeat: lockstep_probe_repeat .. lockstep_probe_repeat_end;
    /// A window opens by STI.
    window_sti: lockstep_probe_window_sti .. lockstep_probe_window_sti_end;
    /// A window opens by STI, before a write to memory.
    window_shadow: lockstep_probe_window_shadow .. lockstep_probe_window_shadow_end;
    /// A window opens by POPFQ.
    window_popf: lockstep_probe_window_popf .. lockstep_probe_window_popf_end;
    /// A window opens by IRETQ to ring 3.
    window_iret: lockstep_probe_window_iret .. lockstep_probe_window_iret_end;
    /// STI; HLT.
    window_halt: lockstep_probe_window_halt .. lockstep_probe_window_halt_end;
    /// Works on all vector registers.
    vector: lockstep_probe_vector .. lockstep_probe_vector_end;
    /// Writes to memory at a stride.
    touch: lockstep_probe_touch .. lockstep_probe_touch_end;
    /// Computes, asks and says, for ever.
    mixed: lockstep_probe_mixed .. lockstep_probe_mixed_end;
    /// Exits for ever.
    exits: lockstep_probe_exits .. lockstep_probe_exits_end;
    /// Never exits.
    spin: lockstep_probe_spin .. lockstep_probe_spin_end;
}

/// OUT END, AL; HLT.
const SAY_END: [u8; 3] = [0xe6, 0x11, 0xf4];

/// A program that executes `code` once and says END.
#[must_use]
pub fn once(code: &[u8]) -> Vec<u8> {
    [code, &SAY_END].concat()
}

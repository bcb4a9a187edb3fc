//! Kicks at every time of a vCPU's life.

use crate::guest::host;
use lockstep_core::machine::boot;
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::memory;
use lockstep_kvm::{ClockKind, Kicker, Vm};
use std::sync::{Arc, Mutex};

const MEMORY_BYTES: u64 = 4 << 20;
const VCPUS: u32 = 60;

/// What the kicking thread is to do.
#[derive(Clone, Copy)]
enum Order {
    Wait,
    Kick,
    End,
}

/// The handler writes to the run page of its thread's vCPU: it must know when there is none any
/// more.
#[test]
fn those_that_come_while_it_goes_away_are_harmless() {
    let Some(host) = host() else { return };
    let make = || {
        let memory = memory::allocate(MEMORY_BYTES).unwrap();
        Vm::new(&host, memory)
            .unwrap()
            .cpu(
                &boot::small::entry_state(0x10_0000),
                &cpuid::TABLE,
                ClockKind::None,
            )
            .unwrap()
    };
    // The first one installs the handler.
    drop(make());
    let order = Arc::new(Mutex::new(Order::Wait));
    let (kicker, _target) = Kicker::for_this_thread();
    let heard = order.clone();
    let kicking = std::thread::spawn(move || {
        let mut kicks = 0_u64;
        loop {
            // Held over the kick: none comes after the order to wait.
            let order = heard.lock().unwrap();
            match *order {
                Order::Wait => {}
                Order::Kick => {
                    kicker.kick();
                    kicks += 1;
                }
                Order::End => return kicks,
            }
            drop(order);
            std::thread::yield_now();
        }
    });

    for _ in 0..VCPUS {
        let cpu = make();
        *order.lock().unwrap() = Order::Kick;
        drop(cpu);
        *order.lock().unwrap() = Order::Wait;
        // What was sent before is handled when this call returns.
        std::thread::yield_now();
    }
    *order.lock().unwrap() = Order::End;

    assert!(kicking.join().unwrap() > 0, "nothing was kicked");
}

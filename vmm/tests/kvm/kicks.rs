//! Kicks come from other threads at any time, also while the vCPU they are for goes away.

use crate::guest::host;
use lockstep::kvm::{ClockKind, Kicker, Vm};
use lockstep::machine::memory;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const MEMORY_BYTES: u64 = 16 << 20;
const VCPUS: usize = 5;

#[test]
fn a_kick_while_its_vcpu_goes_away_hits_nothing() {
    let Some(host) = host() else { return };
    let (over, kicking, kicks) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let (kicker, _target) = Kicker::for_this_thread();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if kicking.load(Ordering::Relaxed) {
                    kicker.kick();
                    kicks.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for _ in 0..VCPUS {
            let vm = Vm::new(&host, memory::allocate(MEMORY_BYTES).unwrap()).unwrap();
            let cpu = vm.cpu(0x10_0000, ClockKind::None).unwrap();
            let before = kicks.load(Ordering::Relaxed);
            kicking.store(true, Ordering::Relaxed);
            while kicks.load(Ordering::Relaxed) == before {
                thread::yield_now();
            }
            drop(cpu);
            kicking.store(false, Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
    });
}

//! Points at which events enter, and at which the guest is interrupted: only those that a replay
//! finds again.

use super::*;

/// Vector that each run was entered with.
fn injected(cpu: &FakeCpu) -> Vec<Option<u8>> {
    cpu.entries.iter().map(|entry| entry.interrupt).collect()
}

/// Runs after the set-up.
fn injected_after_set_up(cpu: &FakeCpu) -> Vec<Option<u8>> {
    injected(cpu).split_off(SET_UP_EXITS as usize)
}

#[test]
fn an_interrupt_enters_at_the_exit_at_which_its_event_does() {
    let mut cpu = console_interrupts([write(0x80, 0), write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor::with([((SET_UP_EXITS + 1, 0), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(injected_after_set_up(&cpu), [None, Some(CONSOLE_VECTOR), None]);
}

#[test]
fn where_the_guest_can_take_none_it_waits_for_the_next_exit_at_which_it_can() {
    let closed = || {
        Turn::closed(Exit::PortWrite {
            port: 0x80,
            size_bytes: 1,
            value: 0,
        })
    };
    let mut cpu = console_interrupts([closed(), closed(), write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor::with([((SET_UP_EXITS, 0), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(
        injected_after_set_up(&cpu),
        [None, None, None, Some(CONSOLE_VECTOR)]
    );
}

/// Runs after the set-up that were to stop where the guest can take an interrupt.
fn windows_asked_for_after_set_up(cpu: &FakeCpu) -> Vec<bool> {
    let asked: Vec<_> = cpu.entries.iter().map(|entry| entry.stop_at_window).collect();
    asked[SET_UP_EXITS as usize..].to_vec()
}

/// The guest shuts interrupts out at the exit at which one comes, and lets them in between two
/// exits.
fn let_in_between_exits(window_exits: bool, between: &[Turn]) -> (FakeCpu, Ended) {
    let shut = Turn::closed(Exit::PortWrite {
        port: 0x80,
        size_bytes: 1,
        value: 0,
    });
    let rest = [write(0x80, 0), power_off(0)];
    let turns = std::iter::once(shut).chain(between.iter().cloned()).chain(rest);
    let mut cpu = console_interrupts(turns);
    let mut door = FakeDoor::with([((SET_UP_EXITS, 0), typed())]);
    let policy = Policy {
        window_exits,
        ..NEVER
    };
    let ended = run_with(&mut cpu, &mut door, Sites::default(), policy).unwrap();
    (cpu, ended)
}

#[test]
fn where_windows_count_an_interrupt_enters_at_the_window_which_is_an_exit() {
    let (cpu, ended) = let_in_between_exits(true, &[Turn::new(Exit::Window)]);

    assert_eq!(
        injected_after_set_up(&cpu),
        [None, None, Some(CONSOLE_VECTOR), None]
    );
    assert_eq!(
        windows_asked_for_after_set_up(&cpu),
        [true, true, false, false],
        "asked for as long as an interrupt waits"
    );
    assert_eq!(ended.point.exits, SET_UP_EXITS + 4);
}

#[test]
fn where_windows_count_a_kick_before_one_changes_nothing() {
    let (_, undisturbed) = let_in_between_exits(true, &[Turn::new(Exit::Window)]);
    let (cpu, kicked) = let_in_between_exits(true, &[Turn::closed(Exit::Kicked), Turn::new(Exit::Window)]);

    assert_eq!(
        injected_after_set_up(&cpu),
        [None, None, None, Some(CONSOLE_VECTOR), None]
    );
    assert_eq!(kicked, undisturbed);
}

#[test]
fn where_windows_do_not_count_none_is_asked_for() {
    let (cpu, _) = let_in_between_exits(false, &[]);

    assert_eq!(injected_after_set_up(&cpu), [None, None, Some(CONSOLE_VECTOR)]);
    assert_eq!(windows_asked_for_after_set_up(&cpu), [false; 3]);
}

#[test]
fn a_kick_alone_interrupts_nothing() {
    let closed = Turn::closed(Exit::PortWrite {
        port: 0x80,
        size_bytes: 1,
        value: 0,
    });
    // Pending from the first exit on; the guest could take it where the kicks find it.
    let mut cpu = console_interrupts([
        closed,
        Turn::new(Exit::Kicked),
        Turn::new(Exit::Kicked),
        write(0x80, 0),
        power_off(0),
    ]);
    let mut door = FakeDoor::with([((SET_UP_EXITS, 0), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(
        injected_after_set_up(&cpu),
        [None, None, None, None, Some(CONSOLE_VECTOR)]
    );
}

#[test]
fn an_event_at_an_exact_instruction_interrupts_there() {
    let stop = Turn::new(Exit::Instruction { instructions: 1234 });
    let mut cpu = console_interrupts([write(0x80, 0), stop, power_off(0)]);
    let mut door = FakeDoor::with([((SET_UP_EXITS + 1, 1234), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(injected_after_set_up(&cpu), [None, None, Some(CONSOLE_VECTOR)]);
    assert_eq!(door.arrivals, []);
}

#[test]
fn a_stop_at_which_nothing_enters_is_no_place_for_an_interrupt() {
    let closed = Turn::closed(Exit::PortWrite {
        port: 0x80,
        size_bytes: 1,
        value: 0,
    });
    let stop = Turn::new(Exit::Instruction { instructions: 50 });
    let mut cpu = console_interrupts([closed, stop, write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor::with([((SET_UP_EXITS, 0), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(
        injected_after_set_up(&cpu),
        [None, None, None, Some(CONSOLE_VECTOR)],
        "a replay does not stop there"
    );
}

#[test]
fn between_exits_nothing_enters_where_its_interrupt_could_not() {
    let at = SET_UP_EXITS + 1;
    let stops = [
        Turn::closed(Exit::Instruction { instructions: 10 }),
        Turn::new(Exit::Instruction { instructions: 20 }),
    ];
    let mut cpu = console_interrupts([write(0x80, 0)].into_iter().chain(stops).chain([power_off(0)]));
    let mut door = FakeDoor::with([((at, 20), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert!(door.was_closed_at((at, 10)));
    assert!(!door.was_closed_at((at, 20)));
    assert!(!door.was_closed_at((at, 0)));
}

#[test]
fn several_events_enter_at_one_point() {
    let mut cpu = console_interrupts([write(0x80, 0), power_off(0)]);
    let at = (SET_UP_EXITS + 1, 0);
    let mut door = FakeDoor::with([
        (at, typed()),
        (at, EventKind::Frame(vec![0; 60])),
        (at, EventKind::Timer),
    ]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(door.arrivals, []);
    assert_eq!(injected_after_set_up(&cpu), [None, Some(CONSOLE_VECTOR)]);
}

#[test]
fn a_halted_guest_is_not_entered_until_an_interrupt_wakes_it() {
    let mut cpu = console_interrupts([Turn::new(Exit::Halt), power_off(3)]);
    let halted_at = (SET_UP_EXITS + 1, 0);
    // A frame finds no driver and wakes nobody.
    let mut door = FakeDoor::with([(halted_at, EventKind::Frame(vec![0; 60])), (halted_at, typed())]);

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::PoweredOff(3));

    assert_eq!(injected_after_set_up(&cpu), [None, Some(CONSOLE_VECTOR)]);
    assert_eq!(
        door.ready
            .iter()
            .filter(|(at, readiness)| *at == halted_at && readiness.idle)
            .count(),
        1
    );
}

#[test]
fn the_time_of_an_event_is_written_to_the_clock_page() {
    let page = 0x5000;
    let read_back = |digest_of: u32| {
        let set = Turn::new(Exit::PortWrite {
            port: 0x518,
            size_bytes: 4,
            value: digest_of,
        });
        let mut cpu = FakeCpu::new([set, power_off(0)]);
        let mut door = FakeDoor::with([((1, 0), EventKind::Timer)]);
        run(&mut cpu, &mut door).unwrap();
        let parts = door.end.unwrap().1.parts;
        parts.into_iter().find(|part| part.part == "memory").unwrap()
    };
    let mut expected = vec![0; memory::MEMORY_BYTES_MIN as usize];
    expected[page as usize..][..8].copy_from_slice(&MONOTONIC_NS.to_le_bytes());

    assert_eq!(
        read_back(page).digest,
        lockstep_logging_channel::Digest::of(&expected)
    );
    assert_ne!(read_back(0).digest, read_back(page).digest);
    assert_eq!(
        read_back(0xffff_f000).digest,
        read_back(0).digest,
        "a page outside memory gets none"
    );
}

#[test]
fn within_an_instruction_an_interrupt_waits_for_the_last_part() {
    let part = || {
        Turn::part(Exit::MmioRead {
            address: 0xe000_0000,
            size_bytes: 8,
        })
    };
    let whole = Turn::new(Exit::MmioRead {
        address: 0xe000_0010,
        size_bytes: 8,
    });
    let mut cpu = console_interrupts([part(), part(), whole, write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor::with([((SET_UP_EXITS + 1, 0), typed())]);

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(
        injected_after_set_up(&cpu),
        [None, None, None, Some(CONSOLE_VECTOR), None]
    );
}

#[test]
fn the_timer_expires_once_at_each_point_at_most() {
    // Channel 0, mode 2, count 1: it is always due.
    let load = [(0x43, 0x34), (0x40, 1), (0x40, 0)].map(|(port, value)| write(port, value));
    let mut cpu = FakeCpu::new(load.into_iter().chain([write(0x80, 0), power_off(0)]));
    let timers = (0..2).map(|exit| ((3 + exit, 0), EventKind::Timer));
    let mut door = FakeDoor::with(timers);

    run(&mut cpu, &mut door).unwrap();

    let ready: Vec<(Position, bool)> = door
        .ready
        .iter()
        .map(|(position, readiness)| (*position, readiness.timer_entered()))
        .filter(|((exits, _), _)| *exits >= 3)
        .collect();
    let expected = [((3, 0), false), ((3, 0), true), ((4, 0), false), ((4, 0), true)];
    assert_eq!(ready, expected, "a new point, a new expiry");
}

#[test]
fn a_halted_guest_whose_timer_is_masked_hears_of_it_once() {
    let load = [(0x21, 1), (0x43, 0x34), (0x40, 1), (0x40, 0)].map(|(port, value)| write(port, value));
    let mut cpu = FakeCpu::new(load.into_iter().chain([Turn::new(Exit::Halt)]));
    let mut door = FakeDoor::with([((5, 0), EventKind::Timer)]);

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::Stopped);

    let (_, last) = door.ready.last().unwrap();
    assert!(last.idle && last.timer_entered(), "{last:?}");
}

#[test]
fn a_flood_of_arrivals_lets_the_guest_run_on() {
    use crate::machine::run::ARRIVALS_MAX;
    let flood = (0..2 * ARRIVALS_MAX).map(|_| ((1, 0), EventKind::Frame(vec![0; 60])));
    let mut cpu = FakeCpu::new([write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor::with(flood);

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::PoweredOff(0));

    assert_eq!(door.arrivals.len(), ARRIVALS_MAX, "what did not enter");
}

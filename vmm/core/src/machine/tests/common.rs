//! Common points: when a machine makes one and what it gives for it, and how another machine meets
//! it.

use super::*;
use crate::machine::gathering::Shares;
use crate::machine::memory::Memory;
use crate::machine::page_set::PageSet;
use crate::machine::saved::pages::PAGES_PER_PART;

const SHARES: Shares = Shares::OF_A_MACHINE;
/// Pages of a memory of which a machine cannot take all at once.
const PAGES: u64 = 1024;

fn kick() -> Turn {
    Turn::new(Exit::Kicked)
}

fn follows() -> FakeDoor {
    FakeDoor {
        makes_common_points: true,
        is_followed: true,
        ..FakeDoor::default()
    }
}

fn memory(pages: u64) -> Memory {
    memory::allocate(pages * memory::PAGE_BYTES).unwrap()
}

/// Runs a machine with this memory to its end.
fn run_in(memory: &Memory, cpu: &mut FakeCpu, door: &mut FakeDoor) -> Position {
    let mut machine = Machine::new(cpu, memory.clone(), devices(), Sites::default(), NEVER);
    machine.run(door).unwrap().point.position()
}

/// Positions at which the machine asked what enters.
fn asked_at(door: &FakeDoor) -> Vec<Position> {
    door.ready.iter().map(|(position, _)| *position).collect()
}

/// Page counts of the parts, and their pages in order.
fn parts(door: &FakeDoor) -> (Vec<usize>, Vec<u64>) {
    let counts = door.parts.iter().map(|(_, pages)| pages.len()).collect();
    let pages = door.parts.iter().flat_map(|(_, pages)| pages.clone()).collect();
    (counts, pages)
}

#[test]
fn where_nobody_follows_it_is_an_exit_and_nothing_else() {
    let mut cpu = FakeCpu::new([write(0x80, 0), kick(), kick(), power_off(0)]);
    cpu.given = PageSet::first(3);
    let mut door = FakeDoor {
        is_followed: false,
        ..follows()
    };

    let end = run_in(&memory(PAGES), &mut cpu, &mut door);

    assert_eq!(end, (4, 0));
    assert_eq!(asked_at(&door), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    assert!(door.parts.is_empty() && door.common.is_empty());
    assert!(!cpu.logs_writes);
}

#[test]
fn events_enter_at_the_point_and_not_at_a_kick_without_one() {
    let kicked = [kick(), kick(), write(0x80, 0), power_off(0)];
    let arrival = ((1, 0), EventKind::Timer);
    for (makes_common_points, runs_before_it) in [(true, 1), (false, 3)] {
        let mut cpu = FakeCpu::new(kicked.clone());
        let mut door = FakeDoor {
            makes_common_points,
            ..FakeDoor::with([arrival.clone()])
        };
        let memory = memory(PAGES);
        let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
        machine
            .run_until(&mut door, &mut |pause| pause.point.exits == 1 && !pause.between)
            .unwrap();
        assert_eq!(machine.vcpu().entries.len(), runs_before_it);
        machine.run(&mut door).unwrap();
        assert!(door.arrivals.is_empty());
    }
}

/// A newcomer has all of memory.
#[test]
fn who_joins_a_guest_that_computes_gets_what_is_written_from_then_on() {
    let all = vec![0, 1, 2];
    for (computes, is_alone, sent) in [
        (true, true, vec![]),
        (false, true, all.clone()),
        (true, false, all),
    ] {
        let alone = if computes { kick() } else { write(0x80, 0) };
        let mut cpu = FakeCpu::new([alone, power_off(0), kick(), power_off(0)]);
        cpu.given = PageSet::first(3);
        let mut machine = Machine::new(&mut cpu, memory(PAGES), devices(), Sites::default(), NEVER);
        let mut door = FakeDoor {
            is_followed: false,
            ..follows()
        };
        machine.run(&mut door).unwrap();
        let mut door = follows();
        machine.was_captured(&door, is_alone).unwrap();
        machine.run(&mut door).unwrap();
        assert_eq!(
            (parts(&door).1, door.common.len()),
            (sent, 1),
            "{computes} {is_alone}"
        );
    }
}

#[test]
fn a_guest_within_an_instruction_makes_none() {
    let mut cpu = FakeCpu::new([Turn::part(Exit::Kicked), kick(), power_off(0)]);
    let mut door = follows();

    run_in(&memory(PAGES), &mut cpu, &mut door);

    assert_eq!(door.kicks, [(false, false), (true, false)]);
    let made: Vec<Position> = door.common.iter().map(|(position, _)| *position).collect();
    assert_eq!(made, [(1, 0)], "at the second kick only");
}

#[test]
fn the_point_has_all_given_pages_and_the_machine_as_it_is_there() {
    let mut cpu = FakeCpu::new([write(0x80, 0), kick().at(0x1234), power_off(0)]);
    cpu.given = PageSet::first(40);
    let mut door = follows();

    run_in(&memory(PAGES), &mut cpu, &mut door);

    assert!(cpu.logs_writes);
    assert_eq!(
        parts(&door),
        (vec![PAGES_PER_PART, 40 - PAGES_PER_PART], (0..40).collect())
    );
    assert!(door.parts.iter().all(|(position, _)| *position == (1, 0)));
    let [(position, machine)] = door.common.as_slice() else {
        panic!("{:?}", door.common)
    };
    assert_eq!(*position, (2, 0));
    assert_eq!((machine.position.exits, machine.position.between), (2, false));
    assert_eq!(machine.cpu.registers.rip, 0x1234);
    assert_eq!(machine.devices, devices().saved().unwrap());
}

#[test]
fn the_next_point_has_what_was_written_since_and_that_of_a_restored_machine_has_all() {
    let mut cpu = FakeCpu::new([kick(), kick(), kick(), power_off(0)]);
    (cpu.given, cpu.writes) = (PageSet::first(2), PageSet::first(1));
    let mut door = follows();
    let memory = memory(PAGES);
    let mut machine = Machine::new(&mut cpu, memory.clone(), devices(), Sites::default(), NEVER);
    for expected in [vec![0, 1], vec![0]] {
        machine.run_until(&mut door, &mut |_| true).unwrap();
        assert_eq!(parts(&door).1, expected);
        door.parts.clear();
    }
    let saved = machine.save().unwrap();
    let mut machine = Machine::restore(&mut cpu, memory, &board(), &saved).unwrap();
    machine.run(&mut door).unwrap();
    assert_eq!(parts(&door).1, [0, 1]);
}

#[test]
fn pages_that_are_too_many_at_once_go_in_shares_and_the_guest_runs_between_them() {
    let mut cpu = FakeCpu::new((0..3).map(|_| kick()).chain([power_off(0)]));
    cpu.given = PageSet::first(PAGES);
    let mut door = follows();

    let end = run_in(&memory(PAGES), &mut cpu, &mut door);

    assert_eq!(end, (2, 0), "one point, and the end");
    assert_eq!(door.kicks.len(), 3);
    assert_eq!(asked_at(&door), [(0, 0), (1, 0)]);
    let (counts, pages) = parts(&door);
    assert!(counts.iter().all(|count| *count <= PAGES_PER_PART));
    assert_eq!(pages, (0..PAGES).collect::<Vec<_>>());
    let parts_of = |pages: u64| pages.div_ceil(PAGES_PER_PART as u64);
    let expected = 2 * parts_of(SHARES.pages) + parts_of(SHARES.at_once_max);
    assert_eq!(counts.len() as u64, expected);
}

#[test]
fn a_guest_that_writes_faster_than_it_is_followed_stands_until_all_is_taken() {
    // So many shares are twice all pages.
    let kicks = 2 * PAGES / SHARES.pages;
    let mut cpu = FakeCpu::new((0..kicks).map(|_| kick()).chain([power_off(0)]));
    cpu.writes = PageSet::first(PAGES);
    let mut door = follows();

    let end = run_in(&memory(PAGES), &mut cpu, &mut door);

    assert_eq!(end, (2, 0));
    assert_eq!(cpu.entries.len() as u64, kicks + 1, "it does not run meanwhile");
    assert_eq!(door.common.len(), 1);
}

#[test]
fn a_page_beyond_memory_is_in_no_part() {
    let mut cpu = FakeCpu::new([kick(), power_off(0)]);
    cpu.given = PageSet::first(2);
    cpu.given.insert(PAGES);
    cpu.given.insert(1 << 24);
    let mut door = follows();

    run_in(&memory(PAGES), &mut cpu, &mut door);

    assert_eq!(parts(&door).1, [0, 1]);
}

/// A machine at exit 1, and the content of the common point that comes next to it.
fn made() -> (SavedMachine, Page) {
    let mut cpu = FakeCpu::new([write(0x80, 0), kick().at(0x9999), power_off(0)]);
    let mut door = follows();
    cpu.registers.rbx = 77;
    run_in(&memory(PAGES), &mut cpu, &mut door);
    let bytes = [9; 4096];
    (door.common.remove(0).1, Page { index: 3, bytes })
}

#[test]
fn a_machine_that_meets_a_point_is_put_there_and_does_not_run() {
    let (machine, page) = made();
    let met = Met {
        pages: vec![page.clone()],
        machine: Box::new(machine),
    };
    let mut cpu = FakeCpu::new([write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor {
        meets: [((1, 0), met)].into(),
        ..FakeDoor::default()
    };
    let memory = memory(PAGES);

    let end = run_in(&memory, &mut cpu, &mut door);

    assert_eq!(end, (3, 0));
    assert_eq!(asked_at(&door), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!((cpu.entries.len(), cpu.loaded), (2, 1));
    assert_eq!(cpu.registers.rbx, 77);
    assert_eq!(Page::of(&memory, 3), Some(page));
    assert_eq!(door.met_with, [devices().saved().unwrap()], "they are compared");
}

#[test]
fn a_point_with_a_page_beyond_memory_stops_the_machine() {
    let (machine, page) = made();
    let met = Met {
        pages: vec![Page { index: PAGES, ..page }],
        machine: Box::new(machine),
    };
    let mut cpu = FakeCpu::new([write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor {
        meets: [((1, 0), met)].into(),
        ..FakeDoor::default()
    };
    let memory = memory(PAGES);
    let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
    assert!(matches!(machine.run(&mut door), Err(MachineError::Saved(_))));
}

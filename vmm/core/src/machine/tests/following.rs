//! Checkpoint mode at the machine: common points at exits and at a halt, and a machine that follows
//! by them without running.

use super::*;
use crate::machine::gathering::Shares;
use crate::machine::page_set::PageSet;

fn in_epochs(due_at: &[Position]) -> FakeDoor {
    FakeDoor {
        is_followed: true,
        has_epochs: true,
        due_at: due_at.to_vec(),
        ..FakeDoor::default()
    }
}

fn indices(door: &FakeDoor) -> Vec<u64> {
    door.parts
        .iter()
        .flat_map(|(_, indices)| indices.clone())
        .collect()
}

#[test]
fn a_common_point_that_is_due_is_made_at_an_exit_with_all_that_was_written() {
    let many = 2 * Shares::OF_A_MACHINE.at_once_max;
    let memory = memory::allocate(many * 4096).unwrap();
    let mut cpu = FakeCpu::new([write(0x80, 0), power_off(0)]);
    cpu.given = PageSet::first(many);
    let mut door = in_epochs(&[(1, 0)]);
    let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
    machine.run(&mut door).unwrap();
    assert!(cpu.logs_writes);
    assert_eq!(indices(&door), (0..many).collect::<Vec<_>>());
    let [(position, machine)] = &door.common[..] else {
        panic!("one common point")
    };
    assert_eq!((*position, machine.position.exits), ((2, 0), 2));
    assert_eq!(cpu.entries.len(), 2, "the guest did not run for it");
}

#[test]
fn a_halted_guest_makes_one_and_stays_halted() {
    let mut cpu = console_interrupts([Turn::new(Exit::Halt)]);
    let halted = SET_UP_EXITS + 1;
    let mut door = in_epochs(&[(halted, 0)]);
    run(&mut cpu, &mut door).unwrap();
    let (position, machine) = &door.common[0];
    assert_eq!(*position, (halted + 1, 0));
    assert!(machine.position.halted);
    assert_eq!(cpu.left(), 0);
    assert_eq!(cpu.entries.len() as u64, halted);
}

#[test]
fn where_nobody_follows_any_more_the_log_of_writes_is_switched_off() {
    let mut cpu = FakeCpu::new([write(0x80, 0), write(0x80, 0), power_off(0)]);
    let mut door = in_epochs(&[(1, 0)]);
    door.is_followed = false;
    cpu.logs_writes = true;
    run(&mut cpu, &mut door).unwrap();
    assert!(!cpu.logs_writes && door.common.is_empty());
}

#[test]
fn the_place_of_a_kick_counts_as_an_exit_where_the_door_says_so() {
    let mut cpu = console_interrupts([Turn::new(Exit::Kicked), power_off(0)]);
    let mut door = FakeDoor::with([((SET_UP_EXITS + 1, 0), typed())]);
    door.counts_kicks = true;
    run(&mut cpu, &mut door).unwrap();
    let last = cpu.entries.last().unwrap();
    assert_eq!(last.interrupt, Some(CONSOLE_VECTOR), "it entered there");
    assert!(door.common.is_empty());
}

#[test]
fn who_was_captured_gets_what_is_written_from_then_on() {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    let mut cpu = FakeCpu::new([write(0x80, 0), power_off(0)]);
    cpu.given = PageSet::first(100);
    cpu.written = PageSet::first(7);
    let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
    let mut door = in_epochs(&[(1, 0)]);
    machine.was_captured(&door, false).unwrap();
    machine.run(&mut door).unwrap();
    assert_eq!(indices(&door), Vec::<u64>::new());
    assert_eq!(door.common.len(), 1);
}

#[test]
fn who_follows_is_brought_to_where_the_guest_is_to_stand() {
    for (is_followed, has_epochs) in [(true, true), (false, true), (true, false)] {
        let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
        let mut cpu = FakeCpu::new([]);
        let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
        let mut door = FakeDoor {
            is_followed,
            has_epochs,
            ..FakeDoor::default()
        };
        machine.bring_along(&mut door).unwrap();
        assert_eq!(door.common.len(), usize::from(is_followed && has_epochs));
    }
}

/// A door that gives these, and then has its machine run live.
struct Log(VecDeque<Followed>);

impl Door for Log {
    fn answer(&mut self, _: ExecutionPoint, _: Question) -> Result<Value, DoorError> {
        Err(DoorError::Stopped)
    }

    fn arrival(&mut self, _: ExecutionPoint, _: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        Err(DoorError::Stopped)
    }

    fn horizon(&mut self, _: ExecutionPoint) -> Result<Horizon, DoorError> {
        Err(DoorError::Stopped)
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        Err(DoorError::Stopped)
    }

    fn follow(&mut self, _: ExecutionPoint) -> Result<Followed, DoorError> {
        Ok(self.0.pop_front().unwrap_or(Followed::Live))
    }

    fn output(&mut self, _: ExecutionPoint, _: OutputTarget, _: Vec<u8>) -> Result<(), DoorError> {
        Err(DoorError::Stopped)
    }

    fn digests(&mut self, _: ExecutionPoint, _: Vec<PartDigest>) -> Result<(), DoorError> {
        Ok(())
    }

    fn end(&mut self, _: ExecutionPoint, _: End) -> Result<(), DoorError> {
        Ok(())
    }
}

/// The state of a machine that was interrupted by the console and halted, with these registers.
fn made(rax: u64) -> SavedMachine {
    let mut cpu = console_interrupts([Turn::new(Exit::Halt)]);
    cpu.registers.rax = rax;
    let mut door = in_epochs(&[(SET_UP_EXITS + 1, 0)]);
    run(&mut cpu, &mut door).unwrap();
    door.common.remove(0).1
}

fn met(machine: SavedMachine, page: u64) -> Followed {
    let bytes = [page as u8; 4096];
    Followed::Met(Met {
        pages: vec![Page { index: page, bytes }],
        machine: Box::new(machine),
    })
}

#[test]
fn a_machine_that_follows_is_where_the_last_common_point_was_when_it_runs_live() {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    let mut cpu = FakeCpu::new([]);
    let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
    let last = made(7);
    let mut log = Log([met(made(5), 1), met(made(6), 2), met(last.clone(), 3)].into());
    assert_eq!(machine.follow(&mut log, &board()).unwrap(), None);
    let saved = machine.save().unwrap();
    assert_eq!(saved, last);
    let page = Page::of(machine.memory(), 2).unwrap();
    assert_eq!(page.bytes[0], 2);
    assert_eq!(
        machine.vcpu().loaded,
        2,
        "the first, for a host that refuses it, and the last"
    );
}

#[test]
fn a_machine_that_follows_ends_with_the_other() {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    let mut cpu = FakeCpu::new([]);
    let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
    let point = ExecutionPoint {
        exits: 9,
        ..ExecutionPoint::default()
    };
    let mut log = Log([Followed::Ended(EndReason::PoweredOff(3), point)].into());
    let ended = machine.follow(&mut log, &board()).unwrap().unwrap();
    assert_eq!((ended.reason, ended.point), (EndReason::PoweredOff(3), point));
}

#[test]
fn a_state_of_a_machine_of_another_size_is_refused() {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    let mut cpu = FakeCpu::new([]);
    let mut machine = Machine::new(&mut cpu, memory, devices(), Sites::default(), NEVER);
    let mut other = made(1);
    other.memory_bytes *= 2;
    let error = machine.follow(&mut Log([met(other, 0)].into()), &board());
    assert!(error.unwrap_err().to_string().contains("memory"));
}

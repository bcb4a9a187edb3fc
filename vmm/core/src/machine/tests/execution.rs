//! Exits, points, what leaves, and how a machine ends.

use super::*;

#[test]
fn the_guest_powers_off_with_its_status() {
    let mut cpu = FakeCpu::new([power_off(7)]);
    let mut door = FakeDoor::default();

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::PoweredOff(7));

    let (point, end) = door.end.unwrap();
    assert_eq!(point.position(), (1, 0));
    let names: Vec<&str> = end.parts.iter().map(|part| part.part.as_str()).collect();
    assert_eq!(
        names,
        [
            "registers",
            "interrupt controller",
            "interval timer",
            "clock",
            "serial console",
            "network device",
            "memory",
            "processor"
        ]
    );
}

#[test]
fn a_fault_of_the_guest_ends_the_machine_and_is_named() {
    let mut cpu = FakeCpu::new([
        write(0x3f8, b'x'.into()),
        Turn::new(Exit::Fault("it caused a triple fault".into())),
    ]);
    let mut door = FakeDoor::default();

    assert_eq!(
        reason(run(&mut cpu, &mut door)),
        EndReason::GuestFault("it caused a triple fault".into())
    );
    assert_eq!(
        door.outputs,
        [((2, 0), CONSOLE, b"x".to_vec())],
        "what it had written leaves first"
    );
}

#[test]
fn halting_with_interrupts_off_is_a_fault_and_nothing_is_waited_for() {
    let mut cpu = FakeCpu::new([Turn::closed(Exit::Halt)]);
    let mut door = FakeDoor::default();

    assert_eq!(
        reason(run(&mut cpu, &mut door)),
        EndReason::GuestFault("it halted with interrupts disabled".into())
    );
    assert!(door.ready.iter().all(|(_, readiness)| !readiness.idle));
}

#[test]
fn the_hosts_failure_is_an_error_and_no_end() {
    let mut door = FakeDoor::default();

    assert!(matches!(
        run(&mut FakeCpu::new([]), &mut door),
        Err(MachineError::Cpu(_))
    ));
    assert_eq!(door.end, None);
}

#[test]
fn a_line_leaves_whole_and_the_rest_when_the_guest_halts() {
    let line = b"ab\nc".map(|byte| write(0x3f8, byte.into()));
    let mut cpu = FakeCpu::new(line.into_iter().chain([Turn::new(Exit::Halt)]));
    let mut door = FakeDoor::default();

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::Stopped);
    let console = CONSOLE;
    assert_eq!(
        door.outputs,
        [
            ((3, 0), console, b"ab\n".to_vec()),
            ((5, 0), console, b"c".to_vec())
        ]
    );
}

#[test]
fn kicks_are_not_counted_and_nothing_enters_where_they_find_the_guest() {
    let kick = || Turn::new(Exit::Kicked);
    let mut cpu = FakeCpu::new([write(0x80, 0), kick(), kick(), write(0x80, 0), power_off(0)]);
    let mut door = FakeDoor::default();

    assert_eq!(run(&mut cpu, &mut door).unwrap().point.position(), (3, 0));
    let asked_at: Vec<Position> = door.ready.iter().map(|(position, _)| *position).collect();
    assert_eq!(
        asked_at,
        [(0, 0), (1, 0), (2, 0)],
        "once at each exit, not after a kick"
    );
}

#[test]
fn stopped_between_two_points_says_the_last_point_and_nothing_of_the_state() {
    let mut cpu = FakeCpu::new([write(0x80, 0), Turn::new(Exit::Kicked).at(0x12_3456)]);
    let mut door = FakeDoor {
        stops_when_kicked: true,
        ..FakeDoor::default()
    };

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::Stopped);
    let (point, end) = door.end.unwrap();
    assert_eq!(
        point,
        ExecutionPoint {
            exits: 1,
            instructions: 0,
            rip: 0
        }
    );
    assert_eq!(end.parts, []);
}

#[test]
fn registers_and_devices_are_digested_at_every_interval() {
    let mut cpu = FakeCpu::new((0..6).map(|_| write(0x80, 0)).chain([power_off(0)]));
    let mut door = FakeDoor::default();
    let policy = Policy {
        digest_interval_exits: 3,
        ..NEVER
    };

    run_with(&mut cpu, &mut door, Sites::default(), policy).unwrap();

    let at: Vec<Position> = door.digests.iter().map(|(position, _)| *position).collect();
    assert_eq!(at, [(3, 0), (6, 0)]);
    assert!(
        door.digests
            .iter()
            .all(|(_, parts)| parts.len() == 7 && !parts.contains(&"memory".to_owned()))
    );
}

#[test]
fn reads_of_nothing_are_all_ones_of_their_size() {
    let mmio = |address, size_bytes| Turn::new(Exit::MmioRead { address, size_bytes });
    let mut cpu = FakeCpu::new([
        read(0x80, 1),
        read(0x80, 2),
        read(0x80, 4),
        mmio(0xfee0_0000, 4),
        mmio(0xd000_0000, 4),
        mmio(0xd000_0100, 1),
        power_off(0),
    ]);

    run(&mut cpu, &mut FakeDoor::default()).unwrap();

    let magic = u64::from(u32::from_le_bytes(*b"virt"));
    assert_eq!(cpu.supplied, [0xff, 0xffff, 0xffff_ffff, u64::MAX, magic, 2]);
}

#[test]
fn clocks_and_random_bytes_come_through_the_door() {
    let ports = [0x508, 0x50c, 0x510, 0x514, 0x520];
    let mut cpu = FakeCpu::new(ports.map(|port| read(port, 4)).into_iter().chain([power_off(0)]));
    let mut door = FakeDoor::default();

    run(&mut cpu, &mut door).unwrap();

    assert_eq!(cpu.supplied, [7, 5, 0xb, 9, 0x0403_0201]);
    let random = Question::Random { length_bytes: 4 };
    assert_eq!(
        door.asked,
        [
            ((1, 0), Question::Monotonic),
            ((3, 0), Question::Wall),
            ((5, 0), random)
        ]
    );
}

#[test]
fn a_guest_that_writes_everywhere_harms_only_itself() {
    let everywhere = (0..=u16::MAX).filter(|port| *port != 0xf4).map(|port| {
        Turn::new(Exit::PortWrite {
            port,
            size_bytes: 4,
            value: u32::MAX,
        })
    });
    let mmio = (0..0x1000).step_by(4).map(|offset| {
        Turn::new(Exit::MmioWrite {
            address: 0xd000_0000 + offset,
            size_bytes: 8,
            value: u64::MAX,
        })
    });
    let mut cpu = FakeCpu::new(everywhere.chain(mmio).chain([power_off(0)]));

    assert_eq!(
        reason(run(&mut cpu, &mut FakeDoor::default())),
        EndReason::PoweredOff(0)
    );
    assert_eq!(cpu.left(), 0);
}

fn part_of_a_read(address: u64) -> Exit {
    Exit::MmioRead {
        address,
        size_bytes: 8,
    }
}

#[test]
fn digests_due_within_an_instruction_are_taken_where_it_is_complete() {
    let parts = [
        Turn::part(part_of_a_read(0xe000_0000)),
        Turn::part(part_of_a_read(0xe000_0008)),
        Turn::new(part_of_a_read(0xe000_0010)),
    ];
    let mut cpu = FakeCpu::new(parts.into_iter().chain([write(0x80, 0), power_off(0)]));
    let mut door = FakeDoor::default();
    let policy = Policy {
        digest_interval_exits: 2,
        ..NEVER
    };

    run_with(&mut cpu, &mut door, Sites::default(), policy).unwrap();

    let at: Vec<Position> = door.digests.iter().map(|(position, _)| *position).collect();
    assert_eq!(at, [(3, 0), (4, 0)], "not at exit 2");
}

#[test]
fn stopped_within_an_instruction_it_says_nothing_of_the_state() {
    let mut cpu = FakeCpu::new([Turn::part(part_of_a_read(0xe000_0000))]);
    let mut door = FakeDoor {
        stops_at: Some((1, 0)),
        ..FakeDoor::default()
    };

    assert_eq!(reason(run(&mut cpu, &mut door)), EndReason::Stopped);
    let (point, end) = door.end.unwrap();
    assert_eq!((point.position(), end.parts), ((1, 0), Vec::new()));
}

//! Boards that are refused, and that today's is not.

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn placed(name: &'static str, model: Model, at: At, line: Option<u8>) -> Placed {
    Placed {
        name,
        model,
        at,
        line,
    }
}

fn controller() -> Placed {
    let ports = At::Ports(vec![0x20..=0x21, 0xa0..=0xa1, 0x4d0..=0x4d1]);
    placed("controller", Model::InterruptController, ports, None)
}

fn console(name: &'static str, first: u16, line: u8) -> Placed {
    let ports = At::Ports(vec![first..=first + 7]);
    placed(name, Model::SerialConsole, ports, Some(line))
}

fn network(name: &'static str, address: u64, line: u8) -> Placed {
    placed(name, Model::Network { mac: MAC }, At::Memory(address), Some(line))
}

/// The error of a board with a controller and these.
fn refused<const N: usize>(devices: [Placed; N]) -> BoardError {
    let devices = std::iter::once(controller()).chain(devices).collect();
    Board::new(Kind::Small, devices).expect_err("it is a board")
}

#[test]
fn the_small_board_is_one_and_says_where_everything_is() {
    let board = Board::small(MAC).unwrap();
    assert_eq!(
        board.to_string(),
        "0 interrupt controller at ports 0x20-0x21 0xa0-0xa1 0x4d0-0x4d1, \
         1 interval timer at ports 0x40-0x43 0x61-0x61 line 0, \
         2 clock at ports 0x508-0x523, \
         3 serial console at ports 0x3f8-0x3ff line 4, \
         4 network device in memory at 0xd0000000 line 5, \
         5 power at ports 0xf4-0xf4"
    );
}

/// They are what a log means whose events and outputs name no device.
#[test]
fn the_devices_of_the_small_board_keep_their_numbers() {
    assert_eq!(
        [small::TIMER, small::CONSOLE, small::NETWORK],
        [DeviceId(1), DeviceId(3), DeviceId(4)]
    );
    let board = Board::small(MAC).unwrap();
    let name = |device: DeviceId| board.devices()[usize::from(device.0)].name;
    assert_eq!(
        [small::TIMER, small::CONSOLE, small::NETWORK].map(name),
        ["interval timer", "serial console", "network device"]
    );
}

#[test]
fn two_devices_at_one_port_are_refused() {
    assert_eq!(
        refused([console("one", 0x3f8, 4), console("other", 0x3f1, 3)]),
        BoardError::Overlap {
            one: "one",
            other: "other",
            space: "ports",
            first: 0x3f1,
            last: 0x3f8
        }
    );
}

#[test]
fn two_devices_at_one_address_of_memory_are_refused() {
    let (one, other) = (network("one", 0xd000_0000, 5), network("other", 0xd000_0ffc, 6));
    assert_eq!(
        refused([one, other]),
        BoardError::Overlap {
            one: "one",
            other: "other",
            space: "device memory",
            first: 0xd000_0ffc,
            last: 0xd000_1ffb
        }
    );
}

#[test]
fn the_port_of_rewritten_instructions_is_no_device_s() {
    assert_eq!(
        refused([console("console", 0xdc, 4)]),
        BoardError::TrapPort {
            name: "console",
            port: 0xe0
        }
    );
}

#[test]
fn the_ports_of_a_kernel_s_traps_are_no_device_s_of_a_pc() {
    let board = |kind, first| Board::new(kind, vec![controller(), console("console", first, 4)]);
    for (first, port) in [
        (0xb0, 0xb0),
        (0xb9, 0xb9),
        (0xcf, 0xcf),
        (0xdf, 0xdf),
        (0xe2, 0xe4),
    ] {
        let name = "console";
        assert_eq!(board(Kind::Pc, first), Err(BoardError::TrapPort { name, port }));
    }
    assert_eq!(board(Kind::Pc, 0xe8).unwrap().kind(), Kind::Pc);
    assert_eq!(board(Kind::Small, 0xb9).unwrap().kind(), Kind::Small);
}

#[test]
fn the_board_of_a_pc_is_one_and_says_where_everything_is() {
    let board = Board::pc(pc::Configuration { mac: MAC }).unwrap();
    assert_eq!(board.kind(), Kind::Pc);
    assert_eq!(
        board.to_string(),
        "0 interrupt controller at ports 0x20-0x21 0xa0-0xa1 0x4d0-0x4d1, \
         1 interval timer at ports 0x40-0x43 0x61-0x61 line 0, \
         2 real-time clock at ports 0x70-0x71, \
         3 serial console at ports 0x3f8-0x3ff line 4, \
         4 network device in memory at 0xd0000000 line 5, \
         5 power management at ports 0x600-0x60b 0xcf9-0xcf9 line 9, \
         6 entropy device in memory at 0xd0001000 line 10"
    );
}

/// A console or a network that is found by its number is found on either board.
#[test]
fn the_devices_that_both_boards_have_are_under_one_number() {
    let (small, pc) = (Board::small(MAC), Board::pc(pc::Configuration { mac: MAC }));
    let (small, pc) = (small.unwrap(), pc.unwrap());
    for device in [small::TIMER, small::CONSOLE, small::NETWORK] {
        let index = usize::from(device.0);
        assert_eq!(small.devices()[index], pc.devices()[index]);
    }
}

#[test]
fn a_device_has_as_many_ports_as_registers() {
    let console = placed(
        "console",
        Model::SerialConsole,
        At::Ports(vec![0x3f8..=0x3fe]),
        None,
    );
    assert_eq!(
        refused([console]),
        BoardError::Ports {
            name: "console",
            expected: 8,
            found: 7
        }
    );
}

#[test]
fn device_memory_is_where_no_guest_memory_can_be() {
    for address in [MEMORY_BYTES_MAX - 0x1000, u64::MAX - 0xffe] {
        assert_eq!(
            refused([network("network", address, 5)]),
            BoardError::Memory {
                name: "network",
                address
            }
        );
    }
    let highest = network("network", u64::MAX - 0xfff, 5);
    Board::new(Kind::Small, vec![controller(), highest]).unwrap();
}

#[test]
fn a_line_is_one_of_the_controller_s_and_one_device_s() {
    let why = |error| match error {
        BoardError::Line { why, .. } => why,
        other => panic!("{other}"),
    };
    let lines = [
        (refused([console("one", 0x3f8, 16)]), "has no such line"),
        (refused([console("one", 0x3f8, 2)]), "the second chip"),
        (refused([network("one", 0xd000_0000, 1)]), "level-triggered"),
        (
            refused([console("one", 0x3f8, 4), console("other", 0x2f8, 4)]),
            "another device",
        ),
    ];
    for (error, expected) in lines {
        let why = why(error);
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn a_board_has_one_controller_and_names_that_differ() {
    assert_eq!(
        Board::new(Kind::Small, Vec::new()),
        Err(BoardError::Controllers { found: 0 })
    );
    assert_eq!(refused([controller()]), BoardError::Controllers { found: 2 });
    assert_eq!(
        refused([console("one", 0x3f8, 4), console("one", 0x2f8, 3)]),
        BoardError::Repeated { name: "one" }
    );
}

#[test]
fn a_board_has_no_more_devices_than_their_numbers_reach() {
    let device = |index| placed("power", Model::PowerOff, At::Ports(vec![index..=index]), None);
    let devices: Vec<_> = (0..=DEVICES_MAX as u16).map(device).collect();
    assert_eq!(
        Board::new(Kind::Small, devices),
        Err(BoardError::Devices { found: 65 })
    );
}

/// A shape of so many sectors.
fn shape(sectors: u64) -> DiskShape {
    DiskShape {
        sectors,
        block_bytes: 512,
        read_only: false,
        serial: *b"disk\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    }
}

#[test]
fn disks_come_behind_the_devices_of_either_board() {
    let shapes = [1, 2, 3, 4].map(shape);
    let boards = [
        (Board::small(MAC).unwrap(), 0xd000_1000_u64),
        (Board::pc(pc::Configuration { mac: MAC }).unwrap(), 0xd000_2000),
    ];
    for (board, first) in boards {
        let before = board.devices().len();
        let board = board.with_disks(&shapes).unwrap();
        let places: Vec<_> = board.devices()[before..]
            .iter()
            .map(|placed| (placed.at.clone(), placed.line.unwrap()))
            .collect();
        let place = |index: u64, line| (At::Memory(first + 0x1000 * index), line);
        assert_eq!(places, [place(0, 11), place(1, 12), place(2, 14), place(3, 6)]);
        let disks: Vec<_> = board.disks().collect();
        let device = |index: usize| DeviceId((before + index) as u8);
        assert_eq!(disks, [0, 1, 2, 3].map(|index| (device(index), shapes[index])));
        let text = board.to_string();
        assert!(
            text.ends_with("line 6 of 4 sectors in blocks of 512 bytes serial disk"),
            "{text}"
        );
    }
}

#[test]
fn a_board_without_disks_is_what_it_was() {
    let board = Board::small(MAC).unwrap();
    assert_eq!(board.clone().with_disks(&[]).unwrap(), board);
}

#[test]
fn disks_that_cannot_be_and_too_many_are_refused() {
    let with = |disks: &[DiskShape]| Board::small(MAC).unwrap().with_disks(disks);
    assert_eq!(with(&[shape(1); 5]), Err(BoardError::Disks { found: 5 }));
    let why = ShapeError::Size { sectors: 0 };
    assert_eq!(
        with(&[shape(1), shape(0)]),
        Err(BoardError::Disk { name: "disk 1", why })
    );
}

//! Saved states that are refused, each by one clear error.

use super::saved::MEMORY_BYTES;
use super::*;
use crate::machine::devices::saved::{DeviceError, SavedDevice};
use crate::machine::image::{Site, Trapped};
use crate::machine::saved::format::{HEADER_BYTES, Section};
use crate::machine::saved::{Page, SavedError, SavedMachine, stream};
use lockstep_logging_channel::Digest;
use proptest::prelude::*;
use std::error::Error;
use vm_memory::{Bytes, GuestAddress};

/// Before the first section.
const START_BYTES: usize = 8;

fn machine_saved() -> (SavedMachine, memory::Memory) {
    let memory = memory::allocate(MEMORY_BYTES).unwrap();
    for page in [1, 3, 500] {
        memory.write_obj(page, GuestAddress(4096 * page + 8)).unwrap();
    }
    let mut cpu = FakeCpu::default();
    let mut sites = Sites::default();
    let random = Trapped::Random {
        register: 15,
        size_bytes: 8,
    };
    for (address, trapped) in [(0x1000, Trapped::Tsc), (0x1010, random), (0x1020, Trapped::Cpuid)] {
        sites.insert(Site { address, trapped });
    }
    let mut machine = Machine::new(&mut cpu, memory.clone(), devices(), sites, NEVER);
    (machine.save().unwrap(), memory)
}

fn stream_of(saved: SavedMachine, memory: &memory::Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream::write(saved, memory, &mut bytes).unwrap();
    bytes
}

fn whole() -> Vec<u8> {
    let (saved, memory) = machine_saved();
    stream_of(saved, &memory)
}

/// Reads and builds, and gives the error with its sources.
fn refusal(bytes: &[u8]) -> String {
    let error = build(bytes, MEMORY_BYTES).unwrap_err();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn build(bytes: &[u8], memory_bytes: u64) -> Result<(), SavedError> {
    let (saved, memory) = stream::read(&mut { bytes }, memory_bytes)?;
    Machine::restore(&mut FakeCpu::default(), memory, &board(), &saved).map(|_| ())
}

/// Refusal of a machine in which `change` changed something.
fn changed(change: impl FnOnce(&mut SavedMachine)) -> String {
    let (mut saved, memory) = machine_saved();
    change(&mut saved);
    refusal(&stream_of(saved, &memory))
}

#[test]
fn the_whole_one_is_taken() {
    assert!(build(&whole(), MEMORY_BYTES).is_ok());
}

#[test]
fn one_that_was_cut_anywhere_is_refused_as_cut() {
    let whole = whole();
    for length in (0..whole.len()).step_by(61).chain([whole.len() - 1]) {
        let text = refusal(&whole[..length]);
        assert!(text.contains("cut short"), "{length}: {text}");
    }
}

#[test]
fn something_else_and_a_later_version_are_named() {
    let mut later = whole();
    later[4] = 2;
    assert_eq!(
        refusal(&later),
        "the saved state has format version 2; this program reads version 1"
    );
    assert!(refusal(b"#!/bin/sh\nexit 0\n").contains("not a saved state"));
}

#[test]
fn sections_that_are_unknown_or_too_long_or_misplaced_are_named() {
    let mut unknown = whole();
    unknown[START_BYTES] = 9;
    assert!(refusal(&unknown).contains("a section of kind 9"));

    let mut long = whole();
    long[START_BYTES + 4..START_BYTES + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&long).contains("4294967295 bytes in its machine"));

    let (saved, _) = machine_saved();
    let pages = Section::Pages(vec![Page {
        index: 0,
        bytes: [1; 4096],
    }]);
    let machine = Section::Machine(Box::new(saved));
    let start = &whole()[..START_BYTES];
    let in_order = |sections: &[&Section]| {
        let sections = sections.iter().flat_map(|section| section.encode().0);
        refusal(&start.iter().copied().chain(sections).collect::<Vec<u8>>())
    };
    assert!(in_order(&[&pages]).contains("its memory in the wrong place"));
    assert!(in_order(&[&machine, &machine]).contains("its machine in the wrong place"));
    assert!(in_order(&[&machine, &pages, &pages]).contains("memory page 0"));
}

#[test]
fn a_page_beyond_the_memory_and_one_that_was_left_out_are_refused() {
    let (saved, memory) = machine_saved();
    let machine_bytes = Section::Machine(Box::new(saved)).encode().0.len();
    let mut left_out = stream_of(machine_saved().0, &memory);
    let pages = START_BYTES + machine_bytes..START_BYTES + machine_bytes + HEADER_BYTES + 3 * (8 + 4096);
    left_out.drain(pages);
    assert!(refusal(&left_out).contains("damaged in its end"));

    let beyond = Section::Pages(vec![Page {
        index: u64::MAX,
        bytes: [1; 4096],
    }]);
    let mut bytes = whole();
    bytes.truncate(START_BYTES + machine_bytes);
    bytes.extend(beyond.encode().0);
    assert!(refusal(&bytes).contains("memory page 18446744073709551615"));
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let mut more = whole();
    more.push(0);
    assert!(refusal(&more).contains("its end in the wrong place"));
}

#[test]
fn another_memory_size_is_named_with_both() {
    let error = build(&whole(), 2 * MEMORY_BYTES).unwrap_err();
    assert!(
        matches!(error, SavedError::MemorySize { found: MEMORY_BYTES, expected } if expected == 2 * MEMORY_BYTES)
    );
}

#[test]
fn devices_that_are_unknown_missing_or_repeated_are_named() {
    let text = changed(|saved| {
        saved
            .devices
            .push(SavedDevice::new("floppy drive", &1_u8).unwrap())
    });
    assert!(text.contains("a device `floppy drive`"), "{text}");
    let text = changed(|saved| {
        saved.devices.pop();
    });
    assert!(text.contains("no device `network device`"), "{text}");
    let text = changed(|saved| saved.devices.push(saved.devices[1].clone()));
    assert!(text.contains("the device `interval timer` twice"), "{text}");
}

#[test]
fn a_device_with_more_or_less_in_it_is_refused() {
    let text = changed(|saved| saved.devices[0].state.push(0));
    assert!(
        text.contains("`interrupt controller` cannot be decoded"),
        "{text}"
    );
    let text = changed(|saved| {
        saved.devices[2].state.pop();
    });
    assert!(text.contains("`clock` cannot be decoded"), "{text}");
}

#[test]
fn values_that_no_device_has_are_named() {
    // The first chip's vectors; the mode of the first channel; a page that is not one.
    let text = changed(|saved| saved.devices[0].state[5] = 3);
    assert!(text.contains("its first vector is 0x3"), "{text}");
    let text = changed(|saved| saved.devices[1].state[0] = 6);
    assert!(text.contains("the mode of a channel is 0x6"), "{text}");
    let text = changed(|saved| saved.devices[2].state = vec![0, 1, 8, 0]);
    assert!(text.contains("the address of its page is 0x8"), "{text}");
}

#[test]
fn positions_and_sites_that_cannot_be_are_refused() {
    let text = changed(|saved| (saved.position.halted, saved.position.between) = (true, true));
    assert!(text.contains("halted where a kick found it running"), "{text}");
    let text = changed(|saved| saved.position.exits = u64::MAX);
    assert!(text.contains("it has counted too much"), "{text}");
    let text = changed(|saved| saved.position.expired = 0b10);
    assert!(text.contains("more timers have expired than there are"), "{text}");
    let text = changed(|saved| saved.sites.reverse());
    assert!(text.contains("a rewritten instruction at 0x1010"), "{text}");
}

/// Names and contents of devices are in the log format: recordings of the first release have these
/// digests.
#[test]
fn the_digests_of_devices_at_the_start_are_those_of_the_first_release() {
    let digests: Vec<(String, String)> = devices()
        .digests()
        .unwrap()
        .into_iter()
        .map(|part| (part.part, part.digest.to_string()))
        .collect();
    let expected = FIRST_RELEASE.map(|(part, digest)| (part.to_owned(), digest.to_owned()));
    assert_eq!(digests, expected);
}

/// The format never changes: what this release writes, the next one reads.
#[test]
fn the_bytes_of_the_format_stay() {
    assert_eq!(Digest::of(&whole()).to_string(), WHOLE);
}

const WHOLE: &str = "692bb50503d3a7c9e513783411198057";

const FIRST_RELEASE: [(&str, &str); 5] = [
    ("interrupt controller", "bd0e7942da516b155ec2340cec5f7d17"),
    ("interval timer", "f26bb205ea225b1fba8e4065f93a920d"),
    ("clock", "91525ff00a3755a8df93c626b59f6e36"),
    ("serial console", "fe0ceecc2884cee3ce88aae5baec7d3b"),
    ("network device", "ebc99a10c6ba8d8811e504d5517f42ab"),
];

#[test]
fn only_what_a_device_is_can_be_restored_from_it() {
    let error = Devices::restore(&board(), &[]).err();
    let missing = DeviceError::Missing {
        name: "interrupt controller",
    };
    assert_eq!(error, Some(missing));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_changed_byte_anywhere_is_refused(at in any::<prop::sample::Index>(), change in 1_u8..) {
        let mut bytes = whole();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(build(&bytes, MEMORY_BYTES).is_err());
    }

    /// With a digest that matches, whatever is in the body is either taken or refused, and what was
    /// taken can be used.
    #[test]
    fn any_body_of_a_machine_is_taken_or_refused(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..12)) {
        let (saved, memory) = machine_saved();
        let mut body = postcard::to_stdvec(&saved).unwrap();
        let at = at.index(body.len());
        let end = body.len().min(at + bytes.len());
        body[at..end].copy_from_slice(&bytes[..end - at]);
        if let Ok(saved) = postcard::from_bytes::<SavedMachine>(&body)
            && saved.memory_bytes == MEMORY_BYTES
        {
            let mut cpu = FakeCpu::new([write(0x20, 0x20), read(0x40, 1), read(0x3f8, 1), Turn::new(Exit::Halt)]);
            let mut door = FakeDoor::with([((saved.position.exits, saved.position.instructions), typed())]);
            if let Ok(mut machine) = Machine::restore(&mut cpu, memory, &board(), &saved) {
                let _ = machine.run(&mut door);
                prop_assert!(machine.save().is_ok());
            }
        }
    }
}

#[test]
fn a_digest_is_that_of_the_saved_form() {
    let (saved, _) = machine_saved();
    for device in &saved.devices {
        assert_eq!(device.digest().digest, Digest::of(&device.state));
    }
}

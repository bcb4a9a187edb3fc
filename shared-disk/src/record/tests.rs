use super::*;
use crate::fake;

fn claim() -> Claim {
    fake::claim(Generation(2), 1)
}

const CLAIM: &str = "\
lockstep-claim 2
generation 2
machine 09090909090909090909090909090909
id 01010101010101010101010101010101
label party 1
host example
boot 07070707070707070707070707070707
process 1
process-start 0
pid-namespace 0
time-namespace 0
address unix:/run/1
written 1700000000
";

#[test]
fn the_format_of_a_claim_does_not_change() {
    assert_eq!(encode(&claim()), CLAIM);
    assert_eq!(decode(CLAIM), Ok(claim()));
}

#[test]
fn every_record_is_read_as_it_was_written() {
    let lonely = Claim {
        party: Party {
            address: None,
            label: Line::default(),
            ..fake::party(3)
        },
        ..claim()
    };
    assert_eq!(decode(&encode(&lonely)), Ok(lonely));
    let backup = Backup {
        generation: Generation(u32::MAX),
        party: fake::party(255),
    };
    assert_eq!(decode(&encode(&backup)), Ok(backup));
    let seen = Seen::new(Generation(3), [1; 16], u64::MAX, r#"{"role":"alone"}"#).unwrap();
    assert_eq!(decode(&encode(&seen)), Ok(seen));
    let ended = Ended {
        generation: Generation(3),
        machine: MachineId([4; 16]),
        how: Line::shortened("powered off with status 0"),
        at_unix_s: 5,
    };
    assert_eq!(decode(&encode(&ended)), Ok(ended));
    let asked = Switchover {
        generation: Generation(3),
        id: [5; 16],
        by: Line::shortened("host example, process 1"),
        at_unix_s: 5,
    };
    assert_eq!(decode(&encode(&asked)), Ok(asked));
    let name: MachineName = "web".parse().unwrap();
    assert_eq!(decode(&encode(&name)), Ok(name));
}

#[test]
fn what_this_software_would_not_write_is_refused() {
    let cut: Vec<_> = (0..CLAIM.len()).map(|end| CLAIM[..end].to_owned()).collect();
    let changed = [
        ("generation 2", "generation 02"),
        ("generation 2", "generation +2"),
        ("generation 2", "generation 4294967296"),
        ("generation 2\n", "generation 2\ngeneration 2\n"),
        ("generation 2\n", ""),
        ("host example", "host  example"),
        ("host example", "host ex\u{1b}mple"),
        ("host example\n", "host example\r\n"),
        ("machine 09", "machine 0G"),
        ("boot 07070707070707070707070707070707", "boot 0707"),
        ("id 01", "id 0A01"),
        ("written 1700000000\n", "written 1700000000\n\n"),
        ("written 1700000000\n", "written 1700000000\nmore 1\n"),
    ];
    let changed = changed.map(|(from, to)| CLAIM.replacen(from, to, 1));
    for text in cut.iter().chain(&changed) {
        assert!(decode::<Claim>(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_record_of_another_version_is_told_from_one_that_is_no_record() {
    for (line, found) in [("claim 3", 3), ("claim 1", 1), ("claim 4294967295", u32::MAX)] {
        let other = CLAIM.replace("claim 2", line);
        let expected = NotRead::Version { found, known: 2 };
        assert_eq!(decode::<Claim>(&other), Err(expected));
    }
    let of_no_version = CLAIM.replace("claim 2", "claim 03");
    let of_another_kind = CLAIM.replace("claim", "backup");
    for text in ["something\nelse\n", &of_no_version, &of_another_kind] {
        let expected = NotRead::Damaged("it is not a record of this kind");
        assert_eq!(decode::<Claim>(text), Err(expected));
    }
}

#[test]
fn a_status_is_one_bounded_line() {
    let fits = |status: &str| Seen::new(Generation(1), [1; 16], 1, status).is_some();
    assert!(fits(&"x".repeat(crate::STATUS_BYTES_MAX)));
    assert!(!fits(&"x".repeat(crate::STATUS_BYTES_MAX + 1)));
    assert!(!fits("{\n}"));
}

/// The longest of each kind is shorter than the longest file that is read.
#[test]
fn every_record_can_be_read_again() {
    let long = Line::shortened(&"x".repeat(1000));
    let party = Party {
        label: long.clone(),
        host: long.clone(),
        address: Some(long),
        process: Process {
            id: u32::MAX,
            start_ticks: u64::MAX,
            pid_namespace: u64::MAX,
            time_namespace: u64::MAX,
        },
        written_unix_s: u64::MAX,
        ..fake::party(1)
    };
    let claim = Claim { party, ..claim() };
    let status = "x".repeat(crate::STATUS_BYTES_MAX);
    let seen = Seen::new(Generation(u32::MAX), [1; 16], u64::MAX, &status).unwrap();
    for length in [encode(&claim).len(), encode(&seen).len()] {
        assert!(length as u64 <= crate::publish::CONTENT_BYTES_MAX, "{length}");
    }
}

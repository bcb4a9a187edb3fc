//! Counting, and what Linux's i8253 and tsc do with the timer.

use super::*;

fn loaded(mode: u8, count: u16, now_ns: u64) -> Pit {
    let mut pit = Pit::default();
    pit.write(CONTROL, 0b0011_0000 | mode << 1, now_ns);
    let [low, high] = count.to_le_bytes();
    pit.write(0, low, now_ns);
    pit.write(0, high, now_ns);
    pit
}

#[test]
fn one_shot_expires_once() {
    let mut pit = loaded(0, 1193, 1_000);
    let deadline_ns = pit.deadline_ns().unwrap();
    assert!((1_000_800..1_001_000).contains(&deadline_ns), "{deadline_ns}");
    assert!(pit.expire(deadline_ns));
    assert_eq!(pit.deadline_ns(), None);
    assert!(!pit.expire(deadline_ns));
}

#[test]
fn periodic_keeps_its_phase_and_skips_what_was_missed() {
    let mut pit = loaded(2, 1193, 0);
    let period_ns = pit.deadline_ns().unwrap();
    assert!(pit.expire(period_ns + 10));
    assert_eq!(pit.deadline_ns(), Some(2 * period_ns));
    assert!(pit.expire(5 * period_ns + 1));
    assert_eq!(pit.deadline_ns(), Some(6 * period_ns));
}

#[test]
fn the_counter_counts_down() {
    let mut pit = loaded(2, 0, 0);
    let half_ns = 0x8000 * 1_000_000_000 / FREQUENCY_HZ;
    let low = pit.read(0, half_ns);
    let high = pit.read(0, half_ns * 2);
    assert!(
        (0x7fff..=0x8001).contains(&u16::from_le_bytes([low, high])),
        "both halves are of one value"
    );
}

#[test]
fn a_latched_count_stays() {
    let mut pit = loaded(2, 1000, 0);
    pit.write(CONTROL, 0, 0);
    assert_eq!(
        u16::from_le_bytes([pit.read(0, 500_000), pit.read(0, 500_000)]),
        1000
    );
}

#[test]
fn the_end_of_time_is_no_overflow() {
    let mut pit = loaded(2, 1193, u64::MAX - 10);
    assert_eq!(pit.deadline_ns(), Some(u64::MAX));
    let mut pit_from_the_start = loaded(2, 1193, 0);
    assert!(pit.expire(u64::MAX));
    assert!(pit_from_the_start.expire(u64::MAX));
    assert!(pit_from_the_start.deadline_ns() > Some(u64::MAX - 2_000_000));
    pit.read(0, u64::MAX);
}

#[test]
fn only_a_completed_count_needs_the_time() {
    let mut pit = Pit::default();
    pit.write(CONTROL, 0x30, 0);
    assert_eq!(pit.write_needs_time(0, 1), NeedsTime::No);
    pit.write(0, 1, 0);
    assert_eq!(pit.write_needs_time(0, 1), NeedsTime::Yes);
}

/// The count of Linux's clock at 250 Hz.
const LATCH: u16 = 4773;

/// Writes the registers, as Linux does them, at `now_ns`.
fn written(pit: &mut Pit, writes: &[(u64, u8)], now_ns: u64) {
    for (offset, value) in writes {
        pit.write(*offset, *value, now_ns);
    }
}

/// `pit_set_oneshot` and `pit_next_event`: mode 4, armed again by the count alone.
#[test]
fn linux_s_one_shot_clock_interrupts_once_for_each_count() {
    let mut pit = Pit::default();
    written(&mut pit, &[(CONTROL, 0x38)], 0);
    assert_eq!(pit.deadline_ns(), None);
    for now_ns in [1_000_000, 5_000_000] {
        let [low, high] = 1194_u16.to_le_bytes();
        written(&mut pit, &[(0, low), (0, high)], now_ns);
        let deadline_ns = pit.deadline_ns().unwrap();
        assert_eq!(deadline_ns - now_ns, 1_000_686, "1,194 ticks, rounded up");
        assert!(pit.expire(deadline_ns));
        assert_eq!(pit.deadline_ns(), None);
    }
}

/// A count that is written while another runs takes its place.
#[test]
fn linux_s_one_shot_clock_can_be_set_anew_before_it_expires() {
    let mut pit = Pit::default();
    written(&mut pit, &[(CONTROL, 0x38), (0, 0xff), (0, 0x7f)], 0);
    written(&mut pit, &[(0, 0x10), (0, 0)], 1_000);
    assert!(pit.deadline_ns().unwrap() < 20_000);
}

/// `pit_set_periodic`, then `pit_shutdown`.
#[test]
fn linux_s_periodic_clock_ticks_until_it_is_shut_down() {
    let mut pit = Pit::default();
    let [low, high] = LATCH.to_le_bytes();
    written(&mut pit, &[(CONTROL, 0x34), (0, low), (0, high)], 0);
    let period_ns = pit.deadline_ns().unwrap();
    assert_eq!(period_ns, 4_000_228);
    assert!(pit.expire(period_ns));
    assert_eq!(pit.deadline_ns(), Some(2 * period_ns));
    // Mode 0 with the longest count: as in the chip, one more interrupt is on its way.
    written(&mut pit, &[(CONTROL, 0x30), (0, 0), (0, 0)], period_ns);
    let last_ns = pit.deadline_ns().unwrap();
    assert!(last_ns - period_ns > 54_000_000);
    assert!(pit.expire(last_ns));
    assert_eq!(pit.deadline_ns(), None);
}

/// `i8253_read`, the clock source: the count is latched and read in two halves.
#[test]
fn linux_s_clock_source_goes_down_from_its_count() {
    let mut pit = Pit::default();
    let [low, high] = LATCH.to_le_bytes();
    written(&mut pit, &[(CONTROL, 0x34), (0, low), (0, high)], 0);
    let mut count = |now_ns| {
        pit.write(CONTROL, 0, now_ns);
        u16::from_le_bytes([pit.read(0, now_ns), pit.read(0, now_ns + 3_000)])
    };
    assert_eq!([count(0), count(838), count(839)], [LATCH, LATCH, LATCH - 1]);
    assert_eq!([count(4_000_000), count(4_000_228)], [1, LATCH]);
}

/// `pit_calibrate_tsc` and `mach_prepare_counter`: mode 0 of channel 2, by its gate and output.
#[test]
fn linux_waits_for_the_output_of_channel_2() {
    let mut pit = Pit::default();
    let gate = pit.read(GATE_PORT, 0) & !2 | 1;
    let count = 11_932_u16.to_le_bytes();
    let writes = [(GATE_PORT, gate), (CONTROL, 0xb0), (2, count[0]), (2, count[1])];
    written(&mut pit, &writes, 1_000);
    let end_ns = 1_000 + 11_932 * 1_000_000_000 / FREQUENCY_HZ;
    let mut output = |now_ns| pit.read(GATE_PORT, now_ns) & OUTPUT_2;
    assert_eq!([output(1_000), output(end_ns)], [0, 0]);
    assert_eq!([output(end_ns + 1), output(u64::MAX)], [OUTPUT_2; 2]);
    assert_eq!(pit.deadline_ns(), None, "only channel 0 interrupts");
    // The next attempt begins anew.
    written(
        &mut pit,
        &[(CONTROL, 0xb0), (2, count[0]), (2, count[1])],
        end_ns + 1,
    );
    assert_eq!(pit.read(GATE_PORT, end_ns + 2) & OUTPUT_2, 0);
}

/// `quick_pit_calibrate`: the high half of the longest count is seen to go down by one each 256
/// ticks.
#[test]
fn linux_sees_the_high_half_of_channel_2_go_down() {
    let mut pit = Pit::default();
    let writes = [(GATE_PORT, 1), (CONTROL, 0xb0), (2, 0xff), (2, 0xff)];
    written(&mut pit, &writes, 0);
    for step in 0..255 {
        let now_ns = (256 * step + 128) * 1_000_000_000 / FREQUENCY_HZ;
        pit.read(2, now_ns);
        assert_eq!(u64::from(pit.read(2, now_ns)), 0xff - step);
    }
}

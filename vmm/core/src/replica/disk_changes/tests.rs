use super::*;

const LAYOUT: Layout = Layout {
    size_bytes: 1000,
    block_bytes: 10,
    region_blocks: 4,
    changes_min: 2,
    changes_a_region: 1,
};

fn write(number: u64, offset_bytes: u64) -> Request {
    let operation = Operation::Write {
        offset_bytes,
        bytes: vec![1; 10],
    };
    Request { number, operation }
}

fn flush(number: u64) -> Request {
    Request {
        number,
        operation: Operation::Flush,
    }
}

/// Asks for a write, and carries it out.
fn writes(changes: &mut DiskChanges, number: u64, offset_bytes: u64) {
    let request = write(number, offset_bytes);
    changes.ask(&request);
    let range = changed(&request.operation).unwrap();
    let _ = changes.mark(Some(number), &range);
}

fn joined() -> DiskChanges {
    let mut changes = DiskChanges::new(LAYOUT);
    changes.join([]);
    changes
}

#[test]
fn whole_regions_are_marked_within_the_disk() {
    assert_eq!(LAYOUT.marked(&(0..1)), 0..4);
    assert_eq!(LAYOUT.marked(&(39..41)), 0..8);
    assert_eq!(LAYOUT.marked(&(40..80)), 4..8);
    assert_eq!(LAYOUT.marked(&(999..1000)), 96..100);
    assert!(LAYOUT.marked(&(50..50)).is_empty());
}

#[test]
fn a_flush_is_a_state_after_enough_changes() {
    let mut changes = joined();
    writes(&mut changes, 0, 0);
    changes.ask(&flush(1));
    assert_eq!(changes.reached_by(1), None);
    writes(&mut changes, 2, 40);
    writes(&mut changes, 3, 80);
    changes.ask(&flush(4));
    assert_eq!(changes.reached_by(4), Some(5));
    changes.ask(&flush(5));
    assert_eq!(changes.reached_by(5), None, "nothing was changed since");
}

#[test]
fn marks_are_cleared_when_both_sides_have_a_state_and_those_behind_it_are_kept() {
    let mut changes = joined();
    writes(&mut changes, 0, 0);
    writes(&mut changes, 1, 40);
    changes.ask(&flush(2));
    // Behind the flush, and carried out before it is done.
    writes(&mut changes, 3, 80);
    assert_eq!(changes.joined(), None, "this side has not recorded it");
    changes.recorded(JOINED);
    let cleared = changes.joined().unwrap();
    assert_eq!(cleared.blocks, Blocks::of(100, std::iter::once(0..12)));
    changes.recorded(3);
    changes.logged(2, Sequence(7));
    assert_eq!(changes.replayed(Sequence(6)), None);
    let cleared = changes.replayed(Sequence(7)).unwrap();
    assert_eq!(cleared.number, 3);
    assert!(cleared.blocks.ranges().into_iter().eq(Some(8..12)));
    assert_eq!(changes.replayed(Sequence(8)), None, "once");
}

#[test]
fn a_backup_clears_at_the_entry_that_says_that_the_primary_has_it() {
    let mut changes = joined();
    writes(&mut changes, 0, 0);
    writes(&mut changes, 1, 0);
    changes.ask(&flush(2));
    changes.recorded(3);
    assert_eq!(changes.completed(1), None);
    let cleared = changes.completed(2).unwrap();
    assert!(cleared.blocks.is_empty());
}

#[test]
fn a_side_without_a_peer_chooses_and_clears_nothing() {
    let mut changes = joined();
    changes.recorded(JOINED);
    changes.alone();
    assert_eq!(changes.joined(), None);
    writes(&mut changes, 0, 0);
    writes(&mut changes, 1, 0);
    changes.ask(&flush(2));
    assert_eq!(changes.reached_by(2), None);
}

#[test]
fn marks_are_given_up_where_the_other_side_is_too_many_states_behind() {
    let mut changes = joined();
    for nth in 0..STATES_MAX as u64 {
        assert!(!changes.is_given_up());
        writes(&mut changes, nth * 3, 0);
        writes(&mut changes, nth * 3 + 1, 0);
        changes.ask(&flush(nth * 3 + 2));
    }
    assert!(changes.is_given_up());
    assert!(!changes.is_given_up());
}

#[test]
fn what_is_outstanding_at_a_join_is_counted_on_both_sides() {
    let mut holder = DiskChanges::new(LAYOUT);
    let outstanding = [write(3, 0), write(5, 0), flush(6)];
    holder.join(&outstanding);
    assert_eq!(holder.reached_by(6), Some(7));
}

#[test]
fn images_may_differ_in_what_either_side_has_marked_since_a_common_state() {
    let (one, other) = (Blocks::of(10, Some(1..3)), Blocks::of(10, [2..4, 9..10]));
    let blocks = may_differ((&[1, 2], &one), (&[2, 3], &other)).unwrap();
    assert_eq!(blocks.ranges(), [1..4, 9..10]);
    assert_eq!(blocks.len(), 4);
    assert_eq!(may_differ((&[1], &one), (&[2], &other)), None);
}

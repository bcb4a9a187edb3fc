//! Segment registers in KVM's form and in the saved one.

use super::failed;
use kvm_bindings::kvm_segment;
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::cpu::saved::SavedSegment;

/// A 64-bit task-state segment in TR, as the manuals have it: busy.
const TASK_BUSY: u8 = 0b1011;
/// The same as AMD processors hold it after LTR: as it was in the table before LTR marked it there.
/// Their KVM always reports busy.
const TASK_AVAILABLE: u8 = 0b1001;
const KIND_MAX: u8 = 0b1111;
const PRIVILEGE_MAX: u8 = 3;

/// The saved form.
pub(super) fn saved_segment(segment: kvm_segment) -> SavedSegment {
    let kvm_segment {
        base,
        limit,
        selector,
        type_,
        present,
        dpl,
        db,
        s,
        l,
        g,
        avl,
        unusable,
        padding: _,
    } = segment;
    SavedSegment {
        selector,
        base,
        limit,
        kind: type_,
        privilege: dpl,
        code_or_data: s != 0,
        present: present != 0,
        available: avl != 0,
        long: l != 0,
        big: db != 0,
        pages: g != 0,
        unusable: unusable != 0,
    }
}

/// KVM's form of what no guest can have made impossible.
pub(super) fn kvm_segment_of(saved: SavedSegment) -> Result<kvm_segment, CpuError> {
    let SavedSegment {
        selector,
        base,
        limit,
        kind,
        privilege,
        code_or_data,
        present,
        available,
        long,
        big,
        pages,
        unusable,
    } = saved;
    if kind > KIND_MAX || privilege > PRIVILEGE_MAX {
        return Err(failed("set segment registers")(format!(
            "type {kind:#x} at privilege level {privilege} cannot be"
        )));
    }
    Ok(kvm_segment {
        base,
        limit,
        selector,
        type_: kind,
        present: u8::from(present),
        dpl: privilege,
        db: u8::from(big),
        s: u8::from(code_or_data),
        l: u8::from(long),
        g: u8::from(pages),
        avl: u8::from(available),
        unusable: u8::from(unusable),
        padding: 0,
    })
}

/// TR as the host's processor holds it after LTR: QEMU's emulation of AMD processors refuses every
/// port to ring 3 where it is not so.
pub(super) fn as_loaded(task: SavedSegment, on_amd: bool) -> SavedSegment {
    let kind = if on_amd && task.kind == TASK_BUSY {
        TASK_AVAILABLE
    } else {
        task.kind
    };
    SavedSegment { kind, ..task }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_the_same_again() {
        let segment = kvm_segment {
            base: 1,
            limit: 2,
            selector: 3,
            type_: 4,
            present: 1,
            dpl: 3,
            db: 0,
            s: 1,
            l: 1,
            g: 0,
            avl: 1,
            unusable: 1,
            padding: 0,
        };
        assert_eq!(kvm_segment_of(saved_segment(segment)).unwrap(), segment);
    }

    #[test]
    fn a_segment_that_cannot_be_is_refused() {
        for (kind, privilege) in [(16, 0), (0, 4)] {
            let saved = SavedSegment {
                kind,
                privilege,
                ..SavedSegment::default()
            };
            assert!(kvm_segment_of(saved).is_err());
        }
    }

    #[test]
    fn a_task_segment_is_as_the_processor_loads_it() {
        let task = |kind| SavedSegment {
            kind,
            ..SavedSegment::default()
        };
        assert_eq!(as_loaded(task(TASK_BUSY), true), task(TASK_AVAILABLE));
        assert_eq!(as_loaded(task(TASK_BUSY), false), task(TASK_BUSY));
        assert_eq!(as_loaded(task(0), true), task(0));
    }
}

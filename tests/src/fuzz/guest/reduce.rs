//! Makes a case that fails smaller: leaves out slot after slot as long as it fails all the same.

use super::{Case, run};
use lockstep_kvm::Host;

/// Times a smaller case is tried: where kicks fall is not in the seed.
const TRIES: usize = 4;
const NOP: u8 = 0x90;

/// The smallest case found, and how it fails.
#[must_use]
pub fn reduce(host: &Host, case: &Case, why: String) -> (Case, String) {
    let (mut smallest, mut last) = (case.clone(), why);
    for index in (0..case.slots.len()).rev() {
        let mut smaller = smallest.clone();
        if let Some(slot) = smaller.slots.get_mut(index) {
            slot.fill(NOP);
        }
        if let Some(why) = (0..TRIES).find_map(|_| run(host, &smaller).err()) {
            (smallest, last) = (smaller, why);
        }
    }
    (smallest, last)
}

/// The slots that are left, as bytes.
#[must_use]
pub fn listing(case: &Case) -> String {
    let mut text = format!(
        "seed {}, clock {}, digests every {} exits",
        case.seed, case.clock, case.digest_interval_exits
    );
    for (index, slot) in case.slots.iter().enumerate() {
        let end = slot
            .iter()
            .rposition(|byte| *byte != NOP)
            .map_or(0, |last| last + 1);
        if end > 0 {
            let bytes: Vec<String> = slot[..end].iter().map(|byte| format!("{byte:02x}")).collect();
            text = format!("{text}\n  slot {index:2}: {}", bytes.join(" "));
        }
    }
    text
}

//! Names of the files in a machine's folder.

use crate::name::Hex;
use lockstep_generation::Generation;

/// The claim of a generation.
pub(super) fn claim_name(generation: Generation) -> String {
    format!("generation-{:010}", generation.0)
}

/// The generation whose claim has this name.
pub(super) fn claim_number(name: &str) -> Option<Generation> {
    let generation = Generation(name.strip_prefix("generation-")?.parse().ok()?);
    (claim_name(generation) == name).then_some(generation)
}

/// The signs of life of its holder.
pub(super) fn seen_name(generation: Generation) -> String {
    format!("seen-{:010}", generation.0)
}

/// A newcomer that may have become its backup.
pub(super) fn backup_name(generation: Generation, party: [u8; 16]) -> String {
    format!("backup-{:010}-{}", generation.0, Hex(&party))
}

/// A request that its holder hands the machine over.
pub(super) fn switchover_name(generation: Generation) -> String {
    format!("switchover-{:010}", generation.0)
}

/// The end of the machine in it.
pub(super) fn ended_name(generation: Generation) -> String {
    format!("ended-{:010}", generation.0)
}

//! The making and the meeting of a common point, for the machine and for whatever is judged in its
//! place (docs/determinism.md, Common points).
//!
//! ```text
//!   live:      exit n --runs--> kick: parts, machine --> exit n + 1
//!   replaying: exit n -----------------------------> takes their content: exit n + 1
//! ```
//!
//! The replaying machine does not run from exit n: pages that were written on the live one since
//! they were last sent are in the parts, with what they contain at the common point; all others are
//! the same on both. Devices change only at exits, and are compared.

use super::devices::saved::SavedDevice;
use super::door::{Door, DoorError};
use super::gathering::{Gathering, Shares};
use super::page_set::PageSet;
use super::saved::pages::PAGES_PER_PART;
use super::saved::{Page, SavedMachine};
use crate::mutant::{self, Mutant};
use lockstep_logging_channel::ExecutionPoint;

/// A machine that stands still where a kick has found it, or at an exit.
///
/// # Errors
/// Every method refuses with the machine's own error; the machine then stops.
#[allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "said once for all methods, above"
)]
pub trait Still {
    type Error: From<DoorError>;

    /// Sizes of the shares of its pages.
    const SHARES: Shares = Shares::OF_A_MACHINE;

    /// The last execution point.
    fn point(&mut self) -> ExecutionPoint;

    /// Logs which pages are written, from now on, or no longer.
    fn log_writes(&mut self, on: bool) -> Result<(), Self::Error>;

    /// Pages that were written since this was last asked, or since the log was switched on.
    fn written_pages(&mut self) -> Result<PageSet, Self::Error>;

    /// Pages that may be other than zeros.
    fn given_pages(&self) -> PageSet;

    /// The page of that ordinal; none beyond the end.
    fn page(&self, index: u64) -> Option<Page>;

    /// Takes this moment for an exit.
    fn pass_exit(&mut self) -> Result<(), Self::Error>;

    /// All of it but its memory.
    fn save(&mut self) -> Result<SavedMachine, Self::Error>;

    /// The devices.
    fn devices(&self) -> Result<Vec<SavedDevice>, Self::Error>;

    /// Replaces a page.
    fn put(&mut self, page: &Page) -> Result<(), Self::Error>;

    /// Takes over the vCPU and its position; the devices are those it has.
    fn load(&mut self, machine: SavedMachine) -> Result<(), Self::Error>;
}

/// The common points of a machine that is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonPoints {
    /// Pages for the next, since the first was wanted.
    gathering: Option<Gathering>,
    /// The guest is one that needs them: it has computed for longer than events may wait.
    computes: bool,
}

impl CommonPoints {
    /// True where the guest stands until all pages of the next are taken.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.gathering.as_ref().is_some_and(Gathering::stands)
    }

    /// True where pages have been taken for a common point that is not made yet.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.gathering.as_ref().is_some_and(Gathering::has_begun)
    }
}

/// Makes a common point, or takes the next pages for it and lets the guest run on.
///
/// # Errors
/// The machine's, or the door's.
pub fn make<M: Still>(
    machine: &mut M,
    points: &mut CommonPoints,
    door: &mut dyn Door,
) -> Result<(), M::Error> {
    points.computes = true;
    if !door.is_followed() {
        // Nobody has to come here by another way.
        points.gathering = None;
        machine.log_writes(false)?;
        return machine.pass_exit();
    }
    let gathering = match &mut points.gathering {
        Some(gathering) => gathering,
        None => {
            machine.log_writes(true)?;
            let gathering = points.gathering.insert(Gathering::new(M::SHARES));
            gathering.add(&machine.given_pages());
            gathering
        }
    };
    let reads_late = mutant::is(Mutant::ReadWritesLate);
    if !reads_late {
        gathering.add(&machine.written_pages()?);
    }
    let share = if door.has_epochs() {
        gathering.take_all()
    } else {
        gathering.take()
    };
    if reads_late {
        gathering.add(&machine.written_pages()?);
    }
    let point = machine.point();
    let skipped = usize::from(share.is_last && mutant::is(Mutant::LeaveOutOfPart));
    for indices in share.pages.chunks(PAGES_PER_PART) {
        // A page beyond the end is in no memory: the set has a bit for it, no more.
        let pages = indices
            .iter()
            .skip(skipped)
            .filter_map(|index| machine.page(*index));
        door.part(point, pages.collect())?;
    }
    if share.is_last {
        machine.pass_exit()?;
        let saved = machine.save()?;
        door.common_point(machine.point(), saved)?;
    }
    Ok(())
}

/// Begins anew: the guest is one that needs common points, and the next has what is written from
/// this moment on.
///
/// # Errors
/// The machine's.
pub fn begin<M: Still>(machine: &mut M, points: &mut CommonPoints) -> Result<(), M::Error> {
    if !mutant::is(Mutant::LogWritesTooLate) {
        machine.log_writes(true)?;
    }
    let _before = machine.written_pages()?;
    *points = CommonPoints {
        gathering: Some(Gathering::new(M::SHARES)),
        computes: true,
    };
    Ok(())
}

/// Begins anew where the machine was captured at this moment: who goes on from there has all of
/// memory. Where it follows without running, or nobody followed until then (`is_alone`) and the
/// guest is one that needs common points, the next has what is written from now on. Otherwise the
/// first has all pages: a log of writes costs a guest that never needs one.
///
/// # Errors
/// The machine's.
pub fn captured<M: Still>(
    machine: &mut M,
    points: &mut CommonPoints,
    door: &dyn Door,
    is_alone: bool,
) -> Result<(), M::Error> {
    if door.has_epochs() || is_alone && points.computes {
        begin(machine, points)?;
    }
    Ok(())
}

/// Brings whoever follows without running to this moment, at which the guest is to stand.
///
/// # Errors
/// The machine's, or the door's.
pub fn bring_along<M: Still>(
    machine: &mut M,
    points: &mut CommonPoints,
    door: &mut dyn Door,
) -> Result<(), M::Error> {
    if door.has_epochs() && door.is_followed() {
        make(machine, points, door)?;
    }
    Ok(())
}

/// Meets the common point that comes next: the guest does not run there, it is put there. Nobody
/// follows whoever is put there, so that what it writes is of no use until it has gone live and is
/// followed itself; that begins anew.
///
/// # Errors
/// The machine's, or the door's.
pub fn meet<M: Still>(
    machine: &mut M,
    points: &mut CommonPoints,
    door: &mut dyn Door,
) -> Result<(), M::Error> {
    points.gathering = None;
    machine.log_writes(false)?;
    let devices = machine.devices()?;
    let point = machine.point();
    let met = door.meet(point, &devices)?;
    for page in &met.pages {
        machine.put(page)?;
    }
    if mutant::is(Mutant::KeepRegisters) {
        return machine.pass_exit();
    }
    machine.load(*met.machine)
}

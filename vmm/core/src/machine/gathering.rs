//! The pages of a common point: which of them are taken now, while the guest stands, and which
//! later.
//!
//! A guest stands for a share of them at a time, and runs on in between, until few are left: those
//! are taken at the point itself. Where it writes faster than it is followed, it stands until all
//! are taken.

use super::page_set::PageSet;

/// Pages of a share: 1 MiB, which takes about 1 ms to copy, compress and hand over.
pub const SHARE_PAGES: u64 = 256;
/// Pages that are taken at the point itself: two shares.
pub const AT_ONCE_PAGES_MAX: u64 = 2 * SHARE_PAGES;
/// How many times all pages that there were at first are taken before the guest has to stand.
const SWEEPS_MAX: u64 = 2;

/// Pages to be taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Their ordinals.
    pub pages: Vec<u64>,
    /// Nothing is left: the common point is here.
    pub is_last: bool,
}

/// Pages that were written and not taken yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathering {
    left: PageSet,
    /// Where the next share begins, so that what is written again and again keeps no page out.
    next: u64,
    /// Pages taken since the last common point, and the number after which the guest stands.
    taken: u64,
    taken_max: Option<u64>,
}

impl Gathering {
    /// Adds pages that were written.
    pub fn add(&mut self, written: &PageSet) {
        self.left.add(written);
    }

    /// True where the guest stands until all is taken.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.taken_max.is_some_and(|max| self.taken >= max)
    }

    /// The next share.
    pub fn take(&mut self) -> Share {
        let left = self.left.len();
        if left <= AT_ONCE_PAGES_MAX {
            let pages = self.left.iter().collect();
            *self = Self::default();
            return Share { pages, is_last: true };
        }
        self.taken_max.get_or_insert(SWEEPS_MAX * left);
        let mut pages = Vec::with_capacity(SHARE_PAGES as usize);
        while pages.len() < SHARE_PAGES as usize {
            let Some(page) = self.left.next_from(self.next).or_else(|| self.left.next_from(0)) else {
                break;
            };
            self.left.remove(page);
            self.next = page + 1;
            pages.push(page);
        }
        self.taken += SHARE_PAGES;
        Share {
            pages,
            is_last: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_pages_are_taken_at_the_point() {
        let mut gathering = Gathering::default();
        gathering.add(&PageSet::first(AT_ONCE_PAGES_MAX));
        let share = gathering.take();
        assert_eq!(
            (share.pages.len() as u64, share.is_last),
            (AT_ONCE_PAGES_MAX, true)
        );
        assert_eq!(gathering, Gathering::default());
    }

    #[test]
    fn every_page_of_many_is_taken_once_in_shares() {
        let mut gathering = Gathering::default();
        gathering.add(&PageSet::first(5 * SHARE_PAGES));
        let mut taken = Vec::new();
        let shares = (1..10).find(|_| {
            let share = gathering.take();
            taken.extend(share.pages);
            share.is_last
        });
        assert_eq!(shares, Some(4), "the last has two");
        assert_eq!(taken, (0..5 * SHARE_PAGES).collect::<Vec<_>>());
    }

    #[test]
    fn a_guest_that_writes_faster_than_it_is_followed_has_to_stand() {
        let all = PageSet::first(1_000);
        let mut gathering = Gathering::default();
        let mut seen = PageSet::default();
        let mut shares = 0;
        while !gathering.stands() {
            gathering.add(&all);
            gathering
                .take()
                .pages
                .into_iter()
                .for_each(|page| seen.insert(page));
            shares += 1;
        }
        assert_eq!(shares, (SWEEPS_MAX * 1_000).div_ceil(SHARE_PAGES));
        assert_eq!(seen, all, "none is kept out");
        while !gathering.take().is_last {
            assert!(gathering.stands());
        }
        assert!(!gathering.stands());
    }
}

//! The pages of a common point: which of them are taken now, while the guest stands, and which
//! later.
//!
//! A guest stands for a share of them at a time, and runs on in between, until few are left: those
//! are taken at the point itself. Where it writes faster than it is followed, it stands until all
//! are taken.

use super::page_set::PageSet;

/// Sizes of what is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Pages of a share.
    pub pages: u64,
    /// Pages that are taken at the point itself, at most.
    pub at_once_max: u64,
}

impl Shares {
    /// 1 MiB, which takes about 1 ms to copy, compress and hand over; at the point itself, two
    /// shares.
    pub const OF_A_MACHINE: Self = Self {
        pages: 256,
        at_once_max: 2 * 256,
    };
}

/// Sweeps over all pages that there were at first, before the guest has to stand.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathering {
    shares: Shares,
    left: PageSet,
    /// Page with which the next share begins, so that what is written again and again keeps none
    /// out.
    next: u64,
    /// Pages taken since the last common point, and the number after which the guest stands.
    taken: u64,
    taken_max: Option<u64>,
}

impl Gathering {
    /// Nothing was written.
    #[must_use]
    pub fn new(shares: Shares) -> Self {
        Self {
            shares,
            left: PageSet::default(),
            next: 0,
            taken: 0,
            taken_max: None,
        }
    }

    /// True where pages have been taken for a common point that is not made yet.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.taken > 0
    }

    /// Adds pages that were written.
    pub fn add(&mut self, written: &PageSet) {
        self.left.add(written);
    }

    /// True where the guest stands until all is taken.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.taken_max.is_some_and(|max| self.taken >= max)
    }

    /// All that there is, as the last share.
    pub fn take_all(&mut self) -> Share {
        let pages = self.left.iter().collect();
        *self = Self::new(self.shares);
        Share { pages, is_last: true }
    }

    /// The next share.
    pub fn take(&mut self) -> Share {
        let left = self.left.len();
        let share_pages = self.shares.pages;
        if left <= self.shares.at_once_max {
            return self.take_all();
        }
        self.taken_max.get_or_insert(SWEEPS_MAX * left);
        let mut pages = Vec::with_capacity(share_pages as usize);
        while (pages.len() as u64) < share_pages {
            let Some(page) = self.left.next_from(self.next).or_else(|| self.left.next_from(0)) else {
                break;
            };
            self.left.remove(page);
            self.next = page + 1;
            pages.push(page);
        }
        self.taken += share_pages;
        Share {
            pages,
            is_last: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARES: Shares = Shares::OF_A_MACHINE;

    #[test]
    fn few_pages_are_taken_at_the_point() {
        let mut gathering = Gathering::new(SHARES);
        gathering.add(&PageSet::first(SHARES.at_once_max));
        let share = gathering.take();
        assert_eq!(
            (share.pages.len() as u64, share.is_last),
            (SHARES.at_once_max, true)
        );
        assert_eq!(gathering, Gathering::new(SHARES));
    }

    #[test]
    fn all_of_many_pages_are_taken_where_the_guest_stands_for_them() {
        let mut gathering = Gathering::new(SHARES);
        gathering.add(&PageSet::first(5 * SHARES.pages));
        let share = gathering.take_all();
        assert_eq!(
            (share.pages.len() as u64, share.is_last),
            (5 * SHARES.pages, true)
        );
        assert_eq!(gathering, Gathering::new(SHARES));
    }

    #[test]
    fn every_page_of_many_is_taken_once_in_shares() {
        let mut gathering = Gathering::new(SHARES);
        gathering.add(&PageSet::first(5 * SHARES.pages));
        let mut taken = Vec::new();
        let shares = (1..10).find(|_| {
            let share = gathering.take();
            taken.extend(share.pages);
            share.is_last
        });
        assert_eq!(shares, Some(4), "the last has two");
        assert_eq!(taken, (0..5 * SHARES.pages).collect::<Vec<_>>());
    }

    #[test]
    fn a_guest_that_writes_faster_than_it_is_followed_has_to_stand() {
        let all = PageSet::first(1_000);
        let mut gathering = Gathering::new(SHARES);
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
        assert_eq!(shares, (SWEEPS_MAX * 1_000).div_ceil(SHARES.pages));
        assert_eq!(seen, all, "none is kept out");
        while !gathering.take().is_last {
            assert!(gathering.stands());
        }
        assert!(!gathering.stands());
    }
}

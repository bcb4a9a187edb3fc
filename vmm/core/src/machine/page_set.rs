//! A set of memory pages, one bit a page.

/// Pages of guest memory, by their ordinals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// The pages whose bits are set: bit 0 of the first word is page 0.
    #[must_use]
    pub fn from_words(words: Vec<u64>) -> Self {
        Self { words }
    }

    /// The first `count` pages.
    #[must_use]
    pub fn first(count: u64) -> Self {
        let mut words = vec![u64::MAX; (count / u64::from(u64::BITS)) as usize];
        let rest = count % u64::from(u64::BITS);
        if rest > 0 {
            words.push((1 << rest) - 1);
        }
        Self { words }
    }

    /// Its bits, a word for each 64 pages.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Adds a page.
    pub fn insert(&mut self, index: u64) {
        let (word, bit) = place(index);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }

    /// Removes a page.
    pub fn remove(&mut self, index: u64) {
        let (word, bit) = place(index);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Removes all pages before `index`.
    pub fn keep_from(&mut self, index: u64) {
        let (number, bit) = place(index);
        let before = number.min(self.words.len());
        self.words.iter_mut().take(before).for_each(|word| *word = 0);
        if let Some(word) = self.words.get_mut(number) {
            *word &= !(bit - 1);
        }
    }

    /// Adds all pages of `other`.
    pub fn add(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// True where the page is in it.
    #[must_use]
    pub fn contains(&self, index: u64) -> bool {
        let (word, bit) = place(index);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Number of pages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// True without a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The first page from `index` on.
    #[must_use]
    pub fn next_from(&self, index: u64) -> Option<u64> {
        let (first, bit) = place(index);
        let behind = |number: usize| if number == first { !(bit - 1) } else { u64::MAX };
        let numbered = self.words.iter().enumerate().skip(first);
        let mut found = numbered.filter_map(|(number, word)| {
            let word = word & behind(number);
            (word != 0).then(|| number as u64 * u64::from(u64::BITS) + u64::from(word.trailing_zeros()))
        });
        found.next()
    }

    /// Its pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::successors(self.next_from(0), |last| self.next_from(last + 1))
    }
}

fn place(index: u64) -> (usize, u64) {
    let bits = u64::from(u64::BITS);
    ((index / bits) as usize, 1 << (index % bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(pages: &BTreeSet<u64>) -> PageSet {
        let mut set = PageSet::default();
        pages.iter().for_each(|page| set.insert(*page));
        set
    }

    #[test]
    fn the_first_pages_are_all_of_them_and_no_more() {
        for count in [0, 1, 63, 64, 65, 512] {
            let pages: Vec<u64> = PageSet::first(count).iter().collect();
            assert_eq!(pages, (0..count).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(some in prop::collection::btree_set(0_u64..300, 0..40),
                       more in prop::collection::btree_set(0_u64..300, 0..40),
                       from in 0_u64..400) {
            let mut both = set(&some);
            both.add(&set(&more));
            let expected: BTreeSet<u64> = some.union(&more).copied().collect();
            prop_assert_eq!(both.iter().collect::<BTreeSet<_>>(), expected.clone());
            prop_assert_eq!(both.len(), expected.len() as u64);
            prop_assert_eq!(both.is_empty(), expected.is_empty());
            let mut less = both.clone();
            more.iter().for_each(|page| less.remove(*page));
            less.remove(1 << 20);
            prop_assert_eq!(less.iter().collect::<BTreeSet<_>>(), &some - &more);
            let mut rest = both.clone();
            rest.keep_from(from);
            prop_assert_eq!(rest.iter().collect::<BTreeSet<_>>(), expected.range(from..).copied().collect());
            for page in 0..310 {
                prop_assert_eq!(both.contains(page), expected.contains(&page));
                prop_assert_eq!(both.next_from(page), expected.range(page..).next().copied());
            }
        }
    }
}

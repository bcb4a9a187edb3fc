//! Lists.

use super::{Kind, Value, allocated};
use crate::failure::Failure;
use alloc::boxed::Box;
use alloc::collections::VecDeque;

/// Elements an almost empty list keeps room for.
const KEPT_ELEMENTS: usize = 16;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Where the head is.
    Left,
    /// Where the tail is.
    Right,
}

/// Elements in order.
#[derive(Default)]
pub(crate) struct List {
    elements: VecDeque<Box<[u8]>>,
    elements_cost_bytes: usize,
}

impl List {
    /// How many elements.
    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Makes room for more elements, or says that there is no memory.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<(), Failure> {
        self.elements.try_reserve(more).map_err(|_| Failure::OutOfMemory)
    }

    /// Adds an element.
    pub(crate) fn push(&mut self, end: End, element: &[u8]) {
        self.elements_cost_bytes = self.elements_cost_bytes.saturating_add(allocated(element.len()));
        match end {
            End::Left => self.elements.push_front(element.into()),
            End::Right => self.elements.push_back(element.into()),
        }
    }

    /// Takes an element.
    pub(crate) fn pop(&mut self, end: End) -> Option<Box<[u8]>> {
        let element = match end {
            End::Left => self.elements.pop_front(),
            End::Right => self.elements.pop_back(),
        }?;
        self.elements_cost_bytes = self.elements_cost_bytes.saturating_sub(allocated(element.len()));
        if self.elements.capacity() > KEPT_ELEMENTS && self.elements.len() < self.elements.capacity() / 4 {
            self.elements.shrink_to(self.elements.capacity() / 2);
        }
        Some(element)
    }

    /// One element.
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        self.elements.get(index).map(AsRef::as_ref)
    }

    /// So many elements from `start` on, or as many as there are.
    pub(crate) fn range(&self, start: usize, count: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        self.elements.iter().skip(start).take(count).map(AsRef::as_ref)
    }
}

impl Kind for List {
    fn of(value: &Value) -> Option<&Self> {
        if let Value::List(list) = value {
            Some(list)
        } else {
            None
        }
    }

    fn of_mut(value: &mut Value) -> Option<&mut Self> {
        if let Value::List(list) = value {
            Some(list)
        } else {
            None
        }
    }

    fn wrap(self) -> Value {
        Value::List(self)
    }

    fn cost_bytes(&self) -> usize {
        let slots = self.elements.capacity().saturating_mul(size_of::<Box<[u8]>>());
        allocated(slots).saturating_add(self.elements_cost_bytes)
    }

    fn is_vacant(&self) -> bool {
        self.elements.is_empty()
    }
}

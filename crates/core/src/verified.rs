//! The mark of what was checked.

use std::ops::Deref;

/// Something whose signature and rules were checked. Only this crate makes one: by verifying
/// bytes from outside, or by signing with the own key. Store and engine accept nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T> {
    inner: T,
}

impl<T> Verified<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self { inner }
    }

    /// Takes the mark off.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

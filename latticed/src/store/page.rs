//! Pages of a list: what follows the last one that the reader has, so that rows which come and go shift nothing.

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The key of the last row that the reader has.
    pub after: Option<String>,
    /// How many rows are wanted. One more is returned when there is one.
    pub limit: u32,
}

impl Page {
    /// The whole list.
    #[cfg(test)]
    pub fn all() -> Self {
        Self { after: None, limit: u32::MAX }
    }

    pub(super) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

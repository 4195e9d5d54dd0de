//! Pages of lists, and their bounds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{Invalid, Problem};

/// The most items a page can have.
pub const MAX_LIMIT: u32 = 100;
/// The last page one can ask for: beyond it, narrow the list instead.
pub const MAX_PAGE: u32 = 10_000;

/// Which page of a list: `?page=2&limit=20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageQuery {
    /// From 1 to [`MAX_PAGE`].
    pub page: u32,
    /// From 1 to [`MAX_LIMIT`].
    pub limit: u32,
}

impl PageQuery {
    /// What a client asked for: the first page of 20 if it did not say. Outside the bounds it is a 422 that names
    /// the field.
    pub fn of(page: Option<u32>, limit: Option<u32>) -> Result<Self, Problem> {
        let query = Self { page: page.unwrap_or(1), limit: limit.unwrap_or(20) };
        let mut invalid = Invalid::default();
        if !(1..=MAX_PAGE).contains(&query.page) {
            invalid.field("page", format!("must be from 1 to {MAX_PAGE}"));
        }
        if !(1..=MAX_LIMIT).contains(&query.limit) {
            invalid.field("limit", format!("must be from 1 to {MAX_LIMIT}"));
        }
        invalid.or(query)
    }

    /// How many items stand before this page.
    #[must_use]
    pub fn offset(self) -> i64 {
        i64::from(self.page - 1) * i64::from(self.limit)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub page: u32,
    pub limit: u32,
    /// How many items the whole list has.
    pub total: i64,
}

impl<T> Page<T> {
    #[must_use]
    pub fn new(items: Vec<T>, query: PageQuery, total: i64) -> Self {
        Self { items, page: query.page, limit: query.limit, total }
    }

    pub fn map<U>(self, to: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(to).collect(), page: self.page, limit: self.limit, total: self.total }
    }
}

//! Pages of lists, and their bounds.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{Invalid, Problem};

/// The most items a page can have.
pub const MAX_LIMIT: u32 = 100;
/// The last page one can ask for: beyond it, narrow the list instead.
pub const MAX_PAGE: u32 = 10_000;

/// `?page=2&limit=20`, as a client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Which page, from 1. Default 1, at most 10,000.
    #[serde(default = "first")]
    #[param(minimum = 1, maximum = 10_000)]
    pub page: u32,
    /// How many items a page has. Default 20, at most 100.
    #[serde(default = "twenty")]
    #[param(minimum = 1, maximum = 100)]
    pub limit: u32,
}

fn first() -> u32 {
    1
}

fn twenty() -> u32 {
    20
}

impl PageQuery {
    /// Refuses what is outside the bounds with a 422 that names the field.
    pub fn check(self) -> Result<Self, Problem> {
        let mut invalid = Invalid::default();
        if !(1..=MAX_PAGE).contains(&self.page) {
            invalid.field("page", format!("must be from 1 to {MAX_PAGE}"));
        }
        if !(1..=MAX_LIMIT).contains(&self.limit) {
            invalid.field("limit", format!("must be from 1 to {MAX_LIMIT}"));
        }
        invalid.or(self)
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

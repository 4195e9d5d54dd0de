//! Events that auth publishes.

use common::{Role, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Event;

/// A user can sign in from now on. Published once per user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserRegistered {
    pub user_id: UserId,
    /// As the user wrote it; shown to other users.
    pub full_name: String,
    pub role: Role,
}

impl Event for UserRegistered {
    const NAME: &'static str = "auth.user.registered.v1";
    const SUMMARY: &'static str = "A user registered.";

    fn example() -> Self {
        Self {
            user_id: UserId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001)),
            full_name: "Ana Nguyen".to_owned(),
            role: Role::Member,
        }
    }
}

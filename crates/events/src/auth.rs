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
    /// Shown to other users only where they share a room, and an installation may hide it. Absent in events of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

impl Event for UserRegistered {
    const NAME: &'static str = "auth.user.registered.v1";
    const SUMMARY: &'static str = "A user registered.";

    fn example() -> Self {
        let email = Some("ana@example.org".to_owned());
        Self { user_id: example_user(), full_name: "Ana Nguyen".to_owned(), role: Role::Member, email }
    }
}

/// A user has another e-mail address, and has shown that it is theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserEmailChanged {
    pub user_id: UserId,
    /// From now on. As [`UserRegistered::email`].
    pub email: String,
}

impl Event for UserEmailChanged {
    const NAME: &'static str = "auth.user.email_changed.v1";
    const SUMMARY: &'static str = "A user has another e-mail address.";

    fn example() -> Self {
        Self { user_id: example_user(), email: "ana@example.net".to_owned() }
    }
}

/// An administrator has shut a user out: all their sessions have ended, and none begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserSuspended {
    pub user_id: UserId,
}

impl Event for UserSuspended {
    const NAME: &'static str = "auth.user.suspended.v1";
    const SUMMARY: &'static str = "An administrator shut a user out.";

    fn example() -> Self {
        Self { user_id: example_user() }
    }
}

/// An administrator lets a user sign in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserReinstated {
    pub user_id: UserId,
}

impl Event for UserReinstated {
    const NAME: &'static str = "auth.user.reinstated.v1";
    const SUMMARY: &'static str = "An administrator let a user in again.";

    fn example() -> Self {
        Self { user_id: example_user() }
    }
}

/// An administrator has given a user another role. What tokens say of it is overruled by auth's feed of trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserRoleChanged {
    pub user_id: UserId,
    /// From now on.
    pub role: Role,
}

impl Event for UserRoleChanged {
    const NAME: &'static str = "auth.user.role_changed.v1";
    const SUMMARY: &'static str = "A user has another role.";

    fn example() -> Self {
        Self { user_id: example_user(), role: Role::Admin }
    }
}

/// A user is no more: the account was deleted. Whoever keeps anything about the user forgets it. Published once per user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserDeleted {
    pub user_id: UserId,
}

impl Event for UserDeleted {
    const NAME: &'static str = "auth.user.deleted.v1";
    const SUMMARY: &'static str = "A user deleted the account.";

    fn example() -> Self {
        Self { user_id: example_user() }
    }
}

fn example_user() -> UserId {
    UserId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001))
}

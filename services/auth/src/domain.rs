//! What an e-mail address, a name and a password may be. Parsed once, then trusted.

use std::fmt;

use chrono::{DateTime, Utc};
use common::{Invalid, InvitationId, Problem, Role, Secret, UserId};

/// As the table of 003 has it, in characters.
const LONGEST_TEXT: usize = 100;
/// NIST SP 800-63B: at least 8, and long passphrases are welcome.
pub(crate) const PASSWORD_LENGTHS: std::ops::RangeInclusive<usize> = 8..=128;

/// An e-mail address in lower case: one address is one account, however it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Accepts what looks like an address; whether it exists only a mail can tell.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        // Lowered first: some letters become longer.
        let text = text.trim().to_lowercase();
        if text.chars().count() > LONGEST_TEXT {
            return Err("may have at most 100 characters");
        }
        let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
        let has_parts = text.rsplit_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && !local.contains('@')
                && domain.split('.').all(|label| !label.is_empty())
                && domain.contains('.')
        });
        // One that no mail could be sent to is none.
        let can_be_mailed = text.parse::<lettre::Address>().is_ok();
        if is_plain && has_parts && can_be_mailed { Ok(Self(text)) } else { Err("must be an e-mail address") }
    }

    /// The same, of a body whose other fields are looked at elsewhere: a 422 that names it as `field`.
    pub(crate) fn of_field(field: &'static str, text: &str) -> Result<Self, Problem> {
        Self::parse(text).map_err(|reason| invalid(field, reason))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password that somebody wants to have. The error says what it must be.
pub fn new_password(password: &str) -> Result<Secret, &'static str> {
    match PASSWORD_LENGTHS.contains(&password.chars().count()) {
        true => Ok(Secret::new(password)),
        false => Err("must have from 8 to 128 characters"),
    }
}

/// The same, of a body whose other fields are looked at elsewhere.
pub(crate) fn password_of_field(field: &'static str, text: &str) -> Result<Secret, Problem> {
    new_password(text).map_err(|reason| invalid(field, reason))
}

/// A 422 that names one field.
pub(crate) fn invalid(field: &'static str, reason: &str) -> Problem {
    let mut invalid = Invalid::default();
    invalid.field(field, reason);
    invalid.problem()
}

/// What somebody registers with, checked.
#[derive(Debug)]
pub struct Registration {
    pub email: Email,
    pub password: Secret,
    pub full_name: String,
}

impl Registration {
    /// Names every field that is not valid, as the wire names it.
    pub fn parse(email: &str, password: &str, full_name: &str) -> Result<Self, Problem> {
        let mut invalid = Invalid::default();
        let email = Email::parse(email).unwrap_or_else(|reason| {
            invalid.field("user_email", reason);
            Email(String::new())
        });
        let password = new_password(password).unwrap_or_else(|reason| {
            invalid.field("user_password", reason);
            Secret::new("")
        });
        let full_name = full_name.trim();
        if full_name.is_empty() || full_name.chars().count() > LONGEST_TEXT {
            invalid.field("user_fullname", "must have from 1 to 100 characters");
        }
        if full_name.chars().any(char::is_control) {
            invalid.field("user_fullname", "must not have control characters");
        }
        invalid.or(Self { email, password, full_name: full_name.to_owned() })
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub user_id: UserId,
    pub email: String,
    pub full_name: String,
    pub role: Role,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// When the user showed that the address is theirs.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// Since when logins need a code of an authenticator.
    pub totp_enabled_at: Option<DateTime<Utc>>,
    /// `None`: active.
    pub suspension: Option<Suspension>,
}

/// An administrator has shut a user out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    pub since: DateTime<Utc>,
    /// As the administrator wrote it, for the user too.
    pub reason: String,
}

/// What lets somebody register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invitation {
    pub(crate) invitation_id: InvitationId,
    /// `None` once that account is deleted.
    pub(crate) invited_by: Option<UserId>,
    /// Whom it is for; `None`: whoever has the code.
    pub(crate) email: Option<String>,
    /// What they become.
    pub(crate) role: Role,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) used_at: Option<DateTime<Utc>>,
    pub(crate) used_by: Option<UserId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_account_however_it_is_typed() {
        assert_eq!(Email::parse(" Ana@Example.org ").unwrap().as_str(), "ana@example.org");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(100));
        let longer_when_lowered = format!("{}@a.bc", "İ".repeat(60));
        for wrong in [
            "",
            "ana",
            "@example.org",
            "ana@",
            "ana@example",
            "a na@example.org",
            "a@b@c.org",
            "a\0@b.org",
            "ana@example..org",
            "ana,ben@example.org",
            "<ana@example.org>",
            &long,
            &longer_when_lowered,
        ] {
            assert!(Email::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let problem = Registration::parse("ana", "short", "").unwrap_err();
        let fields = problem.body()["fields"].clone();
        for name in ["user_email", "user_password", "user_fullname"] {
            assert!(fields.get(name).is_some(), "{name} in {fields}");
        }
    }
}

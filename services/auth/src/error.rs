//! What can go wrong, and what a client sees of it.

use std::time::Duration;

use chassis::db;
use common::problem::kinds;
use common::{Problem, SessionId, UserId};
use diesel_async::pooled_connection::deadpool::PoolError;

common::problems! {
    /// Somebody has registered with this e-mail address. Log in, or register with another.
    EMAIL_TAKEN = 409 "email-taken" "E-mail address taken";
    /// No account has this e-mail address and this password. Which of the two is wrong is not told.
    BAD_CREDENTIALS = 401 "bad-credentials" "E-mail address or password wrong";
    /// The refresh token is not one of ours, has expired, or its session has ended. Log in again.
    REFRESH_TOKEN_INVALID = 401 "refresh-token-invalid" "Refresh token not valid";
    /// The refresh token was used before, and so was the one that it was exchanged for: somebody has a copy. The session
    /// has ended, for both. Log in again.
    REFRESH_TOKEN_REUSED = 401 "refresh-token-reused" "Refresh token used twice";
    /// The ticket was used, or nobody used it within 30 seconds. Ask for another.
    TICKET_INVALID = 401 "ticket-invalid" "Ticket not valid";
    /// The password is right, but an administrator has suspended the account.
    ACCOUNT_SUSPENDED = 403 "account-suspended" "Account suspended";
    /// The caller has no session of this id: it has ended, or is somebody else's.
    NO_SUCH_SESSION = 404 "no-such-session" "No such session";
    /// Nobody has this id.
    NO_SUCH_USER = 404 "no-such-user" "No such user";
    /// Without this user nobody could manage the installation. Make somebody else an administrator first.
    LAST_ADMINISTRATOR = 409 "last-administrator" "Last administrator";
    /// Too many attempts came in a short time. Wait as long as `Retry-After` says; the more attempts, the longer.
    TOO_MANY_ATTEMPTS = 429 "too-many-attempts" "Too many attempts";
    /// The password is right; the account also wants a code of its authenticator. Try again with `totp_code`, or with one of
    /// the recovery codes as `recovery_code`.
    TOTP_REQUIRED = 401 "totp-required" "Code of the authenticator missing";
    /// The password is right; the code is not the one that the authenticator shows now, or was used before.
    TOTP_WRONG = 401 "totp-wrong" "Code of the authenticator wrong";
    /// The account is protected by an authenticator already. Take that away first.
    TOTP_ENABLED = 409 "totp-enabled" "Authenticator set up already";
    /// The account is protected by no authenticator, or no secret waits for its first code. Ask for a secret first.
    TOTP_NOT_ENABLED = 409 "totp-not-enabled" "No authenticator set up";
    /// The caller has shown before that the address is theirs.
    EMAIL_VERIFIED = 409 "email-verified" "E-mail address confirmed already";
    /// Nobody can register here. Ask an administrator.
    REGISTRATION_CLOSED = 403 "registration-closed" "Registration closed";
    /// Only who is invited can register here. Send the `invitation_code`.
    INVITATION_REQUIRED = 403 "invitation-required" "Invitation required";
    /// The invitation is none of ours, its time is over, it was used or withdrawn, it is for another e-mail address, or
    /// who issued it is no administrator any more.
    INVITATION_INVALID = 403 "invitation-invalid" "Invitation not valid";
    /// There is no invitation with this id, or it was withdrawn.
    NO_SUCH_INVITATION = 404 "no-such-invitation" "No such invitation";
    /// The token of the link is none of ours, its time is over, it was used, or a later change has made it void. Ask for
    /// another mail.
    LINK_INVALID = 403 "link-invalid" "Link not valid";
    /// So many mails were sent to this address that no other is for now. Look into the mailbox, and into what it takes for
    /// spam; try again after `Retry-After`.
    TOO_MANY_MAILS = 429 "too-many-mails" "Too many mails to this address";
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error("the e-mail address or the password is wrong")]
    BadCredentials,
    #[error("the session has ended; log in again")]
    SessionEnded,
    #[error("the refresh token is not valid; log in again")]
    RefreshTokenInvalid,
    #[error("the refresh token was used before; the session has ended, so log in again")]
    RefreshTokenReused,
    #[error("the ticket is not valid any more; ask for another")]
    TicketInvalid,
    #[error("the account is suspended: {0}")]
    AccountSuspended(String),
    #[error("you have no session {0}")]
    NoSuchSession(SessionId),
    #[error("no user has the id {0}")]
    NoSuchUser(UserId),
    #[error("this is the last administrator; make somebody else one first")]
    LastAdministrator,
    #[error("only an administrator may do this")]
    NotAdministrator,
    #[error("too many attempts; try again in {} s", seconds(*.0))]
    TooManyAttempts(Duration),
    #[error("the password is right; send the code of your authenticator too")]
    TotpRequired,
    #[error("the code is wrong, or was used before; take the next one")]
    TotpWrong,
    #[error("an authenticator is set up already; take it away first")]
    TotpEnabled,
    #[error("no authenticator is set up; ask for a secret first")]
    TotpNotEnabled,
    #[error("the e-mail address is confirmed already")]
    EmailVerified,
    #[error("nobody can register here; ask an administrator")]
    RegistrationClosed,
    #[error("only who is invited can register here; send the invitation_code")]
    InvitationRequired,
    #[error("the invitation is not valid, or not any more, or not for this e-mail address")]
    InvitationInvalid,
    #[error("there is no such invitation")]
    NoSuchInvitation,
    #[error("the link is not valid, or not any more; ask for another mail")]
    LinkInvalid,
    #[error("enough mails were sent to this address; try again later")]
    TooManyMails(Duration),
    #[error(transparent)]
    Invalid(#[from] Problem),
    #[error("too many passwords are waiting to be checked")]
    Busy,
    #[error("a password could not be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    #[error("a secret could not be sealed or opened")]
    Seal(#[source] anyhow::Error),
    #[error("a token could not be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("the database failed")]
    Database(#[from] diesel::result::Error),
    #[error("no database connection was free")]
    Pool(#[from] PoolError),
}

/// Whole seconds, rounded up: whoever waits so long has waited long enough.
fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::EmailTaken => EMAIL_TAKEN.say(&error),
            AuthError::BadCredentials => BAD_CREDENTIALS.say(&error),
            AuthError::SessionEnded => kinds::SESSION_ENDED.say(&error),
            AuthError::RefreshTokenInvalid => REFRESH_TOKEN_INVALID.say(&error),
            AuthError::RefreshTokenReused => REFRESH_TOKEN_REUSED.say(&error),
            AuthError::TicketInvalid => TICKET_INVALID.say(&error),
            AuthError::AccountSuspended(_) => ACCOUNT_SUSPENDED.say(&error),
            AuthError::NoSuchSession(_) => NO_SUCH_SESSION.say(&error),
            AuthError::NoSuchUser(_) => NO_SUCH_USER.say(&error),
            AuthError::LastAdministrator => LAST_ADMINISTRATOR.say(&error),
            AuthError::NotAdministrator => kinds::FORBIDDEN.say(&error),
            AuthError::TooManyAttempts(wait) => {
                TOO_MANY_ATTEMPTS.say(&error).retry_after(Duration::from_secs(seconds(wait)))
            }
            AuthError::TotpRequired => TOTP_REQUIRED.say(&error),
            AuthError::TotpWrong => TOTP_WRONG.say(&error),
            AuthError::TotpEnabled => TOTP_ENABLED.say(&error),
            AuthError::TotpNotEnabled => TOTP_NOT_ENABLED.say(&error),
            AuthError::EmailVerified => EMAIL_VERIFIED.say(&error),
            AuthError::RegistrationClosed => REGISTRATION_CLOSED.say(&error),
            AuthError::InvitationRequired => INVITATION_REQUIRED.say(&error),
            AuthError::InvitationInvalid => INVITATION_INVALID.say(&error),
            AuthError::NoSuchInvitation => NO_SUCH_INVITATION.say(&error),
            AuthError::LinkInvalid => LINK_INVALID.say(&error),
            AuthError::TooManyMails(wait) => TOO_MANY_MAILS.say(&error).retry_after(wait),
            AuthError::Invalid(problem) => problem,
            AuthError::Busy => kinds::UNAVAILABLE
                .say("many logins are waiting; try again")
                .retry_after(Duration::from_secs(2))
                .caused_by(error),
            AuthError::Hash(_) | AuthError::Seal(_) | AuthError::Sign(_) => Self::internal(error),
            AuthError::Database(error) => db::query_problem(error),
            AuthError::Pool(error) => db::pool_problem(error),
        }
    }
}

impl From<AuthError> for actix_web::Error {
    fn from(error: AuthError) -> Self {
        Problem::from(error).into()
    }
}

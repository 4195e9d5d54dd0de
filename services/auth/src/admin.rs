//! The first administrator: made at the first start, so that somebody can manage the rest.

use anyhow::bail;
use chassis::db::Pool;
use chassis::secrets::random_hex;
use chrono::{DateTime, Utc};
use common::{Role, Secret};
use diesel_async::AsyncConnection as _;

use crate::config::Config;
use crate::domain::Registration;
use crate::passwords::Passwords;
use crate::store::users::{self, NewUser};

/// Makes the first administrator if there is none, and returns what to tell the person who started us.
///
/// A generated password is told this once and stored only as a hash.
pub(crate) async fn ensure(
    pool: &Pool,
    config: &Config,
    passwords: &Passwords,
    now: DateTime<Utc>,
) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut conn = pool.get().await?;
    if users::has_admin(&mut conn).await? {
        return Ok(Vec::new());
    }
    let generated = config.admin_password.is_none().then(|| random_hex(12));
    let password = config.admin_password.clone().or(generated.clone().map(Secret::new));
    let Some(password) = password else { return Ok(Vec::new()) };
    let Ok(registration) = Registration::parse(&config.admin_email, password.expose(), "Administrator") else {
        bail!(
            "AMPHI_ADMIN_EMAIL must be an e-mail address, and AMPHI_ADMIN_PASSWORD must have from 8 to 128 characters"
        );
    };
    let hash = passwords.hash(registration.password.clone()).await?;
    let user = NewUser::new(&registration, hash, Role::Admin, now);
    let made = conn
        .transaction(async |conn| {
            // Another instance may have been first since we looked.
            users::lock_first_admin(conn).await?;
            if users::has_admin(conn).await? {
                return anyhow::Ok(false);
            }
            if users::insert(conn, &user).await?.is_none() {
                bail!("AMPHI_ADMIN_EMAIL: {} belongs to a member already; choose another", registration.email);
            }
            Ok(true)
        })
        .await?;
    Ok(match (made, generated) {
        (false, _) => Vec::new(),
        (true, None) => vec![("administrator", registration.email.to_string())],
        (true, Some(password)) => {
            vec![("administrator", format!("{}   password: {password}   (shown this once)", registration.email))]
        }
    })
}

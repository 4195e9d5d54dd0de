//! Whether a path means what it says.

/// The path could be read in two ways, so a service might see another path than the gateway checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CrookedPath {
    #[error("the path does not begin with a slash")]
    NoSlash,
    #[error("the path has an empty segment")]
    EmptySegment,
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    #[error("the path has a backslash")]
    Backslash,
    #[error("the path has a `%` without two hexadecimal digits behind it")]
    HalfEncoded,
    #[error("the path has an encoded slash, backslash, dot or control character")]
    Disguise,
}

/// Refuses a path, without its query, that is not in its plain form. Only the last segment may be empty.
pub fn check(path: &str) -> Result<(), CrookedPath> {
    let segments = path.strip_prefix('/').ok_or(CrookedPath::NoSlash)?;
    let mut rest = segments.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'%' | b'\\')) {
        let &[b'%', high, low, ..] = &rest[at..] else {
            return Err(if rest[at] == b'%' { CrookedPath::HalfEncoded } else { CrookedPath::Backslash });
        };
        let digit = |byte: u8| (byte as char).to_digit(16).ok_or(CrookedPath::HalfEncoded);
        let decoded = char::from_u32(digit(high)? * 16 + digit(low)?);
        if decoded.is_none_or(|decoded| decoded.is_ascii_control() || matches!(decoded, '/' | '\\' | '.')) {
            return Err(CrookedPath::Disguise);
        }
        rest = &rest[at + 3..];
    }
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_some() => return Err(CrookedPath::EmptySegment),
            "." | ".." => return Err(CrookedPath::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_pass() {
        for path in ["/", "/a", "/a/", "/a/b.m3u8", "/.well-known/x", "/a/...", "/a/%20b", "/a/%C3%A9", "/a/%25"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn paths_with_two_meanings_are_refused() {
        for (path, why) in [
            ("", CrookedPath::NoSlash),
            ("*", CrookedPath::NoSlash),
            ("//", CrookedPath::EmptySegment),
            ("/a//b", CrookedPath::EmptySegment),
            ("/a/../b", CrookedPath::DotSegment),
            ("/a/.", CrookedPath::DotSegment),
            ("/a/..", CrookedPath::DotSegment),
            ("/a\\b", CrookedPath::Backslash),
            ("/a%", CrookedPath::HalfEncoded),
            ("/a%2", CrookedPath::HalfEncoded),
            ("/a%zz", CrookedPath::HalfEncoded),
            ("/a%2fb", CrookedPath::Disguise),
            ("/a%2Fb", CrookedPath::Disguise),
            ("/%2e%2e/b", CrookedPath::Disguise),
            ("/a%5Cb", CrookedPath::Disguise),
            ("/a%00", CrookedPath::Disguise),
            ("/a%0d%0a", CrookedPath::Disguise),
            ("/a%7f", CrookedPath::Disguise),
        ] {
            assert_eq!(check(path), Err(why), "{path}");
        }
    }
}

//! Finds the route of a path, and the path that its service knows.

use std::borrow::Cow;

use crate::table::Route;

/// The name of a segment that must not be logged.
const SECRET: &str = "secret";

/// The table, arranged by segments.
pub struct Router {
    root: Node,
}

#[derive(Default)]
struct Node {
    literals: Vec<(&'static str, Node)>,
    /// Any one segment.
    parameter: Option<Box<Node>>,
    /// Any number of further segments, none as well.
    rest: Option<Leaf>,
    /// Nothing more.
    end: Option<Leaf>,
}

/// The end of a pattern.
#[derive(Clone, Copy)]
struct Leaf {
    route: &'static Route,
    pattern: &'static str,
    canonical: &'static str,
}

/// What is at a path.
pub struct Found<'a> {
    pub route: &'static Route,
    /// The pattern that fits the path as it was sent.
    pub pattern: &'static str,
    /// The path for the service.
    pub path: Cow<'a, str>,
    /// The path for the log, where the path itself holds a secret.
    pub logged: Option<String>,
}

/// A pattern of the table that cannot work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("{0} stands twice")]
    Twice(&'static str),
    #[error("{alias} cannot be translated into {canonical}: their names differ")]
    OtherNames { alias: &'static str, canonical: &'static str },
    #[error("{0} does not begin with a slash, or has something behind `{{..}}`")]
    Crooked(&'static str),
}

impl Router {
    /// Arranges `routes`. Fails if two of them claim the same path, or an alias cannot be translated.
    pub fn new(routes: &'static [Route]) -> Result<Self, TableError> {
        let mut root = Node::default();
        for route in routes {
            for pattern in route.paths {
                let canonical = route.paths[0];
                if !names(pattern).eq(names(canonical)) {
                    return Err(TableError::OtherNames { alias: pattern, canonical });
                }
                root.add(Leaf { route, pattern, canonical })?;
            }
        }
        Ok(Self { root })
    }

    /// What is at `path`, which begins with a slash and has no empty segments save the last.
    #[must_use]
    pub fn find<'a>(&self, path: &'a str) -> Option<Found<'a>> {
        let mut captured = Vec::new();
        let leaf = self.root.find(path.get(1..)?, &mut captured)?;
        let Leaf { route, pattern, canonical } = *leaf;
        let has_rest = pattern.ends_with("..}");
        let path = if pattern != canonical {
            Cow::Owned(fill(canonical, &captured, |_| false))
        } else if has_rest {
            Cow::Borrowed(path)
        } else {
            Cow::Borrowed(path.strip_suffix('/').unwrap_or(path))
        };
        let is_secret = |name: &str| name == SECRET;
        let logged = names(pattern).any(is_secret).then(|| fill(pattern, &captured, is_secret));
        Some(Found { route, pattern, path, logged })
    }
}

impl Node {
    fn add(&mut self, leaf: Leaf) -> Result<(), TableError> {
        let mut node = self;
        let mut segments = leaf.pattern.strip_prefix('/').ok_or(TableError::Crooked(leaf.pattern))?.split('/');
        while let Some(segment) = segments.next() {
            node = match name_of(segment) {
                Some(name) if name.ends_with("..") => {
                    return match (segments.next(), node.rest.replace(leaf)) {
                        (None, None) => Ok(()),
                        (None, Some(_)) => Err(TableError::Twice(leaf.pattern)),
                        (Some(_), _) => Err(TableError::Crooked(leaf.pattern)),
                    };
                }
                Some(_) => node.parameter.get_or_insert_default(),
                None => node.literal(segment),
            };
        }
        node.end.replace(leaf).map_or(Ok(()), |_| Err(TableError::Twice(leaf.pattern)))
    }

    fn literal(&mut self, segment: &'static str) -> &mut Self {
        let index = match self.literals.iter().position(|(literal, _)| *literal == segment) {
            Some(index) => index,
            None => {
                self.literals.push((segment, Self::default()));
                self.literals.len() - 1
            }
        };
        &mut self.literals[index].1
    }

    /// The leaf for `path`, which has no slash in front; what its names stand for goes to `captured`, in order.
    fn find<'n, 'p>(&'n self, path: &'p str, captured: &mut Vec<&'p str>) -> Option<&'n Leaf> {
        if path.is_empty() {
            let leaf = self.end.as_ref().or(self.rest.as_ref());
            if leaf.is_some_and(|leaf| leaf.pattern.ends_with("..}")) {
                captured.push("");
            }
            return leaf;
        }
        let (segment, further) = path.split_once('/').unwrap_or((path, ""));
        let literal = self.literals.iter().find(|(literal, _)| *literal == segment);
        if let Some(leaf) = literal.and_then(|(_, node)| node.find(further, captured)) {
            return Some(leaf);
        }
        if let Some(node) = &self.parameter {
            let before = captured.len();
            captured.push(segment);
            if let Some(leaf) = node.find(further, captured) {
                return Some(leaf);
            }
            captured.truncate(before);
        }
        let leaf = self.rest.as_ref()?;
        captured.push(path);
        Some(leaf)
    }
}

/// The name in `{name}`.
fn name_of(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn names(pattern: &'static str) -> impl Iterator<Item = &'static str> {
    pattern.split('/').filter_map(name_of)
}

/// `pattern` with its names replaced by what they stand for, or by `…` if they are hidden.
fn fill(pattern: &'static str, captured: &[&str], is_hidden: impl Fn(&str) -> bool) -> String {
    let mut path = String::with_capacity(64);
    let mut captured = captured.iter();
    for segment in pattern.split('/').skip(1) {
        let value = match name_of(segment) {
            None => segment,
            Some(name) => match captured.next() {
                Some(_) if is_hidden(name) => "…",
                // No further segment: then no slash either, as `{rest..}` stands for none.
                Some(&"") | None => continue,
                Some(value) => value,
            },
        };
        path.push('/');
        path.push_str(value);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Service;
    use crate::table::{Access, ROUTE, ROUTES};

    const fn route(paths: &'static [&'static str]) -> Route {
        Route { paths, service: Service::Stream, access: Access::Public, ..ROUTE }
    }

    #[test]
    fn the_table_works() {
        Router::new(ROUTES).unwrap();
    }

    #[test]
    fn every_documented_path_leads_to_its_canonical_one() {
        let router = Router::new(ROUTES).unwrap();
        for (path, pattern, canonical) in [
            ("/api/v1/auth/login", "/api/v1/auth/login", "/api/v1/auth/login"),
            ("/api/auth/login", "/api/auth/login", "/api/v1/auth/login"),
            ("/api/auth/me", "/api/auth/{rest..}", "/api/v1/auth/me"),
            ("/api/v1/auth/sessions/7", "/api/v1/auth/{rest..}", "/api/v1/auth/sessions/7"),
            ("/.well-known/jwks.json", "/.well-known/jwks.json", "/.well-known/jwks.json"),
            ("/api/v1/streams", "/api/v1/streams", "/api/v1/streams"),
            ("/streams", "/streams", "/api/v1/streams"),
            ("/streams/", "/streams", "/api/v1/streams"),
            ("/api/v1/streams/", "/api/v1/streams", "/api/v1/streams"),
            ("/api/streams/7", "/api/streams/{id}", "/api/v1/streams/7"),
            ("/streams/7/key/x", "/streams/{id}/{rest..}", "/api/v1/streams/7/key/x"),
            ("/webhook/stream-event", "/webhook/stream-event", "/api/v1/webhook/stream-event"),
            ("/hls/abc/index.m3u8", "/hls/{playback_id}/{file}", "/hls/abc/index.m3u8"),
        ] {
            let found = router.find(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((found.pattern, &*found.path, found.logged), (pattern, canonical, None), "{path}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_found() {
        let router = Router::new(ROUTES).unwrap();
        for path in
            ["", "/", "/api", "/api/v2/streams", "/Streams", "/hls", "/hls/abc", "/hls/a/b/c", "/%73treams", "*"]
        {
            assert!(router.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_secret_in_the_path_is_passed_on_but_not_logged() {
        let router = Router::new(ROUTES).unwrap();
        let found = router.find("/webhook/stream-event/hunter2").unwrap();
        assert_eq!(found.path, "/api/v1/webhook/stream-event/hunter2");
        assert_eq!(found.logged.as_deref(), Some("/webhook/stream-event/…"));
    }

    #[test]
    fn the_most_literal_pattern_counts() {
        static TABLE: &[Route] =
            &[route(&["/a/{rest..}"]), route(&["/a/{x}/c"]), route(&["/a/b/{y}"]), route(&["/a/b"])];
        let router = Router::new(TABLE).unwrap();
        for (path, pattern) in [
            ("/a", "/a/{rest..}"),
            ("/a/b", "/a/b"),
            ("/a/b/c", "/a/b/{y}"),
            ("/a/z/c", "/a/{x}/c"),
            ("/a/z/d", "/a/{rest..}"),
            ("/a/b/c/d", "/a/{rest..}"),
        ] {
            assert_eq!(router.find(path).map(|found| found.pattern), Some(pattern), "{path}");
        }
    }

    #[test]
    fn a_rest_keeps_its_last_slash() {
        static TABLE: &[Route] = &[route(&["/v1/socket/{rest..}", "/socket/{rest..}"])];
        let router = Router::new(TABLE).unwrap();
        for (path, canonical) in
            [("/socket/a/", "/v1/socket/a/"), ("/v1/socket/a/", "/v1/socket/a/"), ("/socket", "/v1/socket")]
        {
            assert_eq!(router.find(path).unwrap().path, canonical);
        }
    }

    #[test]
    fn a_table_that_cannot_work_is_refused() {
        static TWICE: &[Route] = &[route(&["/a/{x}"]), route(&["/a/{y}"])];
        static NAMES: &[Route] = &[route(&["/a/{x}", "/b/{y}"])];
        static CROOKED: &[Route] = &[route(&["/a/{x..}/b"])];
        assert_eq!(Router::new(TWICE).err(), Some(TableError::Twice("/a/{y}")));
        assert_eq!(Router::new(NAMES).err(), Some(TableError::OtherNames { alias: "/b/{y}", canonical: "/a/{x}" }));
        assert_eq!(Router::new(CROOKED).err(), Some(TableError::Crooked("/a/{x..}/b")));
    }
}

//! What MediaMTX tells of itself (`api/openapi.yaml`).

use serde::Deserialize;

use super::{NoAnswer, Seen};

/// How many paths a page has.
const PAGE: usize = 1000;
/// No more pages are asked for.
pub(super) const MOST_PAGES: usize = 100;

/// The list of paths, from `page`, counted from 0.
pub(super) fn paths(page: usize) -> String {
    format!("/v3/paths/list?itemsPerPage={PAGE}&page={page}")
}

/// A page of paths.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Paths {
    pub(super) page_count: usize,
    #[serde(default)]
    items: Vec<Path>,
}

#[derive(Deserialize)]
struct Path {
    source: Option<End>,
    #[serde(default)]
    readers: Vec<End>,
}

/// Who is at an end of a path.
#[derive(Deserialize)]
struct End {
    r#type: String,
    #[serde(default)]
    id: String,
}

impl Paths {
    pub(super) fn read(body: &[u8]) -> Result<Self, NoAnswer> {
        serde_json::from_slice(body).map_err(|_not_shown| NoAnswer::Unreadable("it is no list of paths"))
    }

    /// Adds who is on these paths. Their ids are random: no two runs have the same.
    pub(super) fn add_to(self, seen: &mut Seen) {
        for path in self.items {
            // What MediaMTX fetches by itself has no id.
            seen.publishers.extend(path.source.map(|source| source.id).filter(|id| !id.is_empty()));
            seen.players.extend(path.readers.into_iter().map(|reader| reader.id).filter(|id| !id.is_empty()));
        }
    }

    /// How the publisher `id` is ordered to leave, if it is on one of these paths.
    pub(super) fn kick(&self, id: &str) -> Option<String> {
        let source = self.items.iter().filter_map(|path| path.source.as_ref()).find(|source| source.id == id)?;
        let collection = match source.r#type.as_str() {
            "rtmpConn" => "rtmpconns",
            "rtmpsConn" => "rtmpsconns",
            "rtspSession" => "rtspsessions",
            "rtspsSession" => "rtspssessions",
            "srtConn" => "srtconns",
            "webRTCSession" => "webrtcsessions",
            "moqSession" => "moqsessions",
            _ => return None,
        };
        Some(format!("/v3/{collection}/kick/{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"itemCount":3,"pageCount":1,"items":[
        {"name":"a","confName":"all","ready":true,"source":{"type":"rtmpConn","id":"c1"},"readers":[{"type":"hlsSession","id":"r1"},{"type":"hidden","id":""}]},
        {"name":"b","source":{"type":"rtspSource","id":""},"readers":[]},
        {"name":"c","source":null,"readers":[]}]}"#;

    #[test]
    fn publishers_and_readers_are_told_apart() {
        let mut seen = Seen::default();
        Paths::read(BODY.as_bytes()).unwrap().add_to(&mut seen);
        assert_eq!((seen.publishers, seen.players), (["c1".to_owned()].into(), ["r1".to_owned()].into()));
    }

    #[test]
    fn a_publisher_is_kicked_by_what_it_is() {
        let paths = Paths::read(BODY.as_bytes()).unwrap();
        assert_eq!(paths.kick("c1").as_deref(), Some("/v3/rtmpconns/kick/c1"));
        assert_eq!(paths.kick("r1"), None);
    }
}

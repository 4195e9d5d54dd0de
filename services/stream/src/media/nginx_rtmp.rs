//! What nginx-rtmp tells of itself (`ngx_rtmp_stat_module.c`), and what it has recorded (`autoindex_format json`).

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::{NoAnswer, Recording, Seen};
use crate::call::Name;

/// Reads `/stat`. Names of streams are keys in it: they go nowhere.
pub(super) fn seen(body: &[u8], run: Option<String>) -> Result<Seen, NoAnswer> {
    // What players say of themselves is in it, with whatever characters they like.
    let text: String = String::from_utf8_lossy(body)
        .chars()
        .map(|c| if c.is_control() && !c.is_whitespace() { '?' } else { c })
        .collect();
    let document = roxmltree::Document::parse(&text).map_err(|_not_shown| NoAnswer::Unreadable("it is no XML"))?;
    if !document.root_element().has_tag_name("rtmp") {
        return Err(NoAnswer::Unreadable("it is not nginx-rtmp's"));
    }
    let mut seen = Seen { run, ..Seen::default() };
    for client in document.descendants().filter(|node| node.has_tag_name("client")) {
        let text_of = |node: roxmltree::Node<'_, '_>, name| {
            let child = node.children().find(|child| child.has_tag_name(name))?;
            Some(child.text().unwrap_or_default().to_owned())
        };
        let Some(id) = text_of(client, "id") else { continue };
        let is_publishing = client.children().any(|child| child.has_tag_name("publishing"));
        // What it hands on to itself under the public name is no encoder's.
        let is_relayed = || {
            let name = client.parent().and_then(|stream| text_of(stream, "name"));
            name.is_some_and(|name| matches!(Name::of(&name), Name::Public(_)))
        };
        match is_publishing {
            true if !is_relayed() => seen.publishers.insert(id),
            true => false,
            false => seen.players.insert(id),
        };
    }
    Ok(seen)
}

/// Reads the list of `folder` as it was at `now`, by the media server's own clock.
pub(super) fn recordings(body: &[u8], folder: &str, now: &str) -> Result<Vec<Recording>, NoAnswer> {
    #[derive(Deserialize)]
    struct Entry {
        name: String,
        r#type: String,
        mtime: String,
    }
    let entries: Vec<Entry> =
        serde_json::from_slice(body).map_err(|_not_shown| NoAnswer::Unreadable("it is no list of files"))?;
    let now = date(now).ok_or(NoAnswer::Unreadable("it has no date"))?;
    let recording = |entry: Entry| {
        // `<playback id>-<seconds since 1970>.flv`
        let playback_id = Uuid::try_parse(entry.name.get(..36)?).ok()?;
        let begun = entry.name.get(36..)?.strip_prefix('-')?.strip_suffix(".flv")?.parse().ok()?;
        let quiet_for = (now - date(&entry.mtime)?).to_std().unwrap_or(Duration::ZERO);
        let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
        Some(Recording { playback_id, begun, path, quiet_for })
    };
    Ok(entries.into_iter().filter(|entry| entry.r#type == "file").filter_map(recording).collect())
}

/// A date as HTTP writes it.
fn date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYBACK_ID: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

    /// As nginx-rtmp 1.2.2 writes it.
    fn stat(client: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\" ?>\r\n<?xml-stylesheet type=\"text/xsl\" href=\"stat.xsl\" ?>\r\n\
             <rtmp>\r\n<nginx_version>1.22.1</nginx_version>\r\n<pid>7</pid><uptime>9</uptime>\r\n<server>\r\n\
             <application>\r\n<name>live</name>\r\n<live>\r\n<stream>\r\n<name>the-key</name>\r\n<time>1</time>\
             <client><id>1</id><address>127.0.0.1</address>{client}<publishing/><active/></client>\r\n\
             <nclients>1</nclients>\r\n<publishing/>\r\n<active/>\r\n</stream>\r\n<nclients>1</nclients>\r\n</live>\r\n\
             </application>\r\n<application>\r\n<name>watch</name>\r\n<live>\r\n<stream>\r\n<name>{PLAYBACK_ID}</name>\r\n\
             <client><id>5</id><publishing/></client>\r\n<client><id>9</id></client>\r\n</stream>\r\n</live>\r\n\
             </application>\r\n</server>\r\n</rtmp>\r\n"
        )
    }

    #[test]
    fn publishers_and_players_are_told_apart_and_relays_are_neither() {
        let seen = seen(stat("").as_bytes(), Some("1000".into())).unwrap();
        assert_eq!(seen.publishers, ["1".to_owned()].into());
        assert_eq!(seen.players, ["9".to_owned()].into());
        assert_eq!(seen.run.as_deref(), Some("1000"));
    }

    #[test]
    fn nobody_spoils_the_answer_by_what_it_says_of_itself() {
        let mut body = stat("<flashver>\u{1}~</flashver>").into_bytes();
        let at = body.iter().position(|byte| *byte == b'~').unwrap();
        body[at] = 0xff;
        assert_eq!(seen(&body, None).unwrap().publishers.len(), 1);
    }

    #[test]
    fn what_is_no_statistic_is_no_answer() {
        for body in ["", "<html/>", "{}", "<rtmp>"] {
            assert!(matches!(seen(body.as_bytes(), None), Err(NoAnswer::Unreadable(_))), "{body}");
        }
    }

    #[test]
    fn recordings_are_known_by_their_names_and_how_long_they_are_quiet() {
        let body = format!(
            r#"[{{ "name":"{PLAYBACK_ID}-1795226177.flv", "type":"file", "mtime":"Sat, 21 Nov 2026 10:00:00 GMT", "size":9 }},
                {{ "name":"old", "type":"directory", "mtime":"Sat, 21 Nov 2026 10:00:00 GMT" }},
                {{ "name":"notes.txt", "type":"file", "mtime":"Sat, 21 Nov 2026 10:00:00 GMT", "size":9 }}]"#
        );
        let found = recordings(body.as_bytes(), "/media/rec", "Sat, 21 Nov 2026 10:01:05 GMT").unwrap();
        let expected = Recording {
            playback_id: Uuid::try_parse(PLAYBACK_ID).unwrap(),
            begun: 1_795_226_177,
            path: format!("/media/rec/{PLAYBACK_ID}-1795226177.flv"),
            quiet_for: Duration::from_secs(65),
        };
        assert_eq!(found, [expected]);
    }
}

//! Events that stream publishes. In order within one stream.

use chrono::{DateTime, TimeDelta, Utc};
use common::{BroadcastId, StreamId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Event;

/// A stream is on air: viewers can play it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamWentLive {
    pub stream_id: StreamId,
    pub broadcast_id: BroadcastId,
    /// The stream's owner.
    pub user_id: UserId,
    /// What viewers ask for. It is public; the key that the encoder publishes with is not in any event.
    pub playback_id: Uuid,
    /// What its owner calls it; may be empty.
    #[serde(default)]
    pub title: String,
    /// Whether it is in lists, for everybody.
    #[serde(default)]
    pub is_public: bool,
    /// RFC 3339, UTC.
    pub started_at: DateTime<Utc>,
}

/// A broadcast is over. One for every [`StreamWentLive`], and after it: not while its encoder may still come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamEnded {
    pub stream_id: StreamId,
    pub broadcast_id: BroadcastId,
    /// The stream's owner.
    pub user_id: UserId,
    /// RFC 3339, UTC.
    pub started_at: DateTime<Utc>,
    /// When it went off the air. RFC 3339, UTC. Not before `started_at`.
    pub ended_at: DateTime<Utc>,
    pub reason: EndReason,
}

/// Why a stream is off the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The encoder stopped publishing.
    Left,
    /// The media server had not reported the encoder for too long.
    Stale,
    /// The media server says that the encoder is not there any more, and never said that it left.
    Vanished,
    /// The owner ended it.
    StoppedByOwner,
    /// An administrator ended it.
    StoppedByAdministrator,
    /// The key that it was published with was revoked or replaced.
    KeyRevoked,
    /// The stream was deleted.
    Deleted,
    /// Another encoder took over with the same key.
    Replaced,
}

/// The recording of a broadcast is complete and can be fetched from the media server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingReady {
    pub stream_id: StreamId,
    pub broadcast_id: BroadcastId,
    /// The stream's owner.
    pub user_id: UserId,
    pub playback_id: Uuid,
    /// The media server that holds the file, as it is named in the configuration.
    pub media_server: String,
    /// The file, as that media server names it.
    pub path: String,
    /// RFC 3339, UTC.
    pub ready_at: DateTime<Utc>,
}

/// A stream is no more, and with it its keys, broadcasts and recordings. After the end of its last broadcast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamDeleted {
    pub stream_id: StreamId,
    /// The stream's owner.
    pub user_id: UserId,
}

/// Followers of a channel are told that one of its streams is live. For one broadcast as many as there are pages of
/// followers; each follower is in one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamAnnounced {
    pub stream_id: StreamId,
    pub broadcast_id: BroadcastId,
    /// Whose channel it is: the stream's owner.
    pub channel_id: UserId,
    /// What viewers ask for.
    pub playback_id: Uuid,
    /// What its owner calls it; may be empty.
    pub title: String,
    /// RFC 3339, UTC.
    pub started_at: DateTime<Utc>,
    /// Followers who want a mail. With `others` at most 500.
    pub by_mail: Vec<UserId>,
    /// Followers who want none.
    pub others: Vec<UserId>,
}

/// A public stream begins soon, by its schedule. Published once for each schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamScheduledSoon {
    pub stream_id: StreamId,
    /// The stream's owner.
    pub user_id: UserId,
    pub playback_id: Uuid,
    /// What its owner calls it; may be empty.
    pub title: String,
    /// When it is to begin. RFC 3339, UTC.
    pub scheduled_at: DateTime<Utc>,
}

impl Event for StreamWentLive {
    const NAME: &'static str = "stream.live.started.v1";
    const SUMMARY: &'static str = "A stream went on air.";

    fn example() -> Self {
        Self {
            stream_id: StreamId(42),
            broadcast_id: BroadcastId(7),
            user_id: example_user(),
            playback_id: example_playback(),
            title: "Cooking with Ana".to_owned(),
            is_public: true,
            started_at: example_start(),
        }
    }
}

impl Event for StreamEnded {
    const NAME: &'static str = "stream.live.ended.v1";
    const SUMMARY: &'static str = "A stream went off the air.";

    fn example() -> Self {
        Self {
            stream_id: StreamId(42),
            broadcast_id: BroadcastId(7),
            user_id: example_user(),
            started_at: example_start(),
            ended_at: example_start() + TimeDelta::minutes(90),
            reason: EndReason::Left,
        }
    }
}

impl Event for RecordingReady {
    const NAME: &'static str = "stream.recording.ready.v1";
    const SUMMARY: &'static str = "The recording of a broadcast is complete.";

    fn example() -> Self {
        Self {
            stream_id: StreamId(42),
            broadcast_id: BroadcastId(7),
            user_id: example_user(),
            playback_id: example_playback(),
            media_server: "nginx-rtmp".to_owned(),
            path: "/var/recordings/7.flv".to_owned(),
            ready_at: example_start() + TimeDelta::minutes(91),
        }
    }
}

impl Event for StreamDeleted {
    const NAME: &'static str = "stream.stream.deleted.v1";
    const SUMMARY: &'static str = "A stream was deleted.";

    fn example() -> Self {
        Self { stream_id: StreamId(42), user_id: example_user() }
    }
}

impl Event for StreamAnnounced {
    const NAME: &'static str = "stream.live.announced.v1";
    const SUMMARY: &'static str = "Followers were told that a stream is live.";

    fn example() -> Self {
        Self {
            stream_id: StreamId(42),
            broadcast_id: BroadcastId(7),
            channel_id: example_user(),
            playback_id: example_playback(),
            title: "Cooking with Ana".to_owned(),
            started_at: example_start(),
            by_mail: vec![example_follower(3)],
            others: vec![example_follower(4)],
        }
    }
}

impl Event for StreamScheduledSoon {
    const NAME: &'static str = "stream.schedule.came_near.v1";
    const SUMMARY: &'static str = "A public stream begins soon.";

    fn example() -> Self {
        Self {
            stream_id: StreamId(42),
            user_id: example_user(),
            playback_id: example_playback(),
            title: "Cooking with Ana".to_owned(),
            scheduled_at: example_start(),
        }
    }
}

fn example_follower(number: u128) -> UserId {
    UserId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number))
}

fn example_user() -> UserId {
    UserId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001))
}

fn example_playback() -> Uuid {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0002)
}

fn example_start() -> DateTime<Utc> {
    // 2026-01-01T12:00:00Z.
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_767_268_800)
}

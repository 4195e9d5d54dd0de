//! How many watch a stream.

use std::time::Duration;

use actix_web::web;
use common::{BroadcastId, Caller, Invalid, Json, Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::App;
use crate::audience::Told;
use crate::domain::StreamName;
use crate::error::StreamError;
use crate::store::audience::numbers;

/// How long a session's name is, in characters.
const SESSION: std::ops::RangeInclusive<usize> = 16..=64;
/// No player gets beyond: thirty years, in seconds.
const FARTHEST: f64 = 1e9;

/// What a player says while it plays.
#[derive(Deserialize, ToSchema)]
pub(crate) struct View {
    /// Names this player: random, made by it when it begins, and the same in each of its beats.
    #[schema(min_length = 16, max_length = 64, pattern = "^[A-Za-z0-9_-]+$", example = "k3dP0_x9QmZr4TtW")]
    session: String,
    /// How far it has played, in seconds from wherever it likes: `currentTime` of a video element.
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 61.25)]
    position: f64,
}

impl View {
    fn parse(self) -> Result<(String, Duration), Problem> {
        let mut invalid = Invalid::default();
        let is_plain = self.session.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !SESSION.contains(&self.session.len()) || !is_plain {
            invalid.field("session", "must be 16 to 64 letters, digits, `_` and `-`");
        }
        if !(0.0..=FARTHEST).contains(&self.position) {
            invalid.field("position", format!("must be from 0 to {FARTHEST} seconds"));
        }
        invalid.or(())?;
        Ok((self.session, Duration::from_secs_f64(self.position)))
    }
}

/// What a player is told.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Viewed {
    /// How many watch the stream now.
    viewers: u64,
    /// When to beat again, in seconds.
    beat_seconds: u64,
    /// Whether this player is one of them.
    is_counted: bool,
}

/// How a stream is watched.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ViewersView {
    /// Which broadcast it is: the one that is on, or else the last one. Null if there was none.
    #[schema(required)]
    broadcast_id: Option<BroadcastId>,
    /// Who watches now: `rtmp` and `hls`.
    current: i32,
    /// Players that the media server has reported over RTMP and not yet reported gone.
    rtmp: i32,
    /// Players over HLS that say where they are, and got on within the last minute. A few seconds old at most.
    hls: i32,
    /// The most that watched at once in this broadcast.
    peak: i32,
    /// How many players over HLS have watched this broadcast, each once however often it came back. Beyond some hundreds
    /// an estimate, a percent off. Players over RTMP cannot be told apart, and are not in it.
    unique: i64,
    /// How long all players over HLS have watched this broadcast, in seconds. Of each beat counts what was played since the
    /// one before, and no more than has passed.
    watch_seconds: i64,
}

/// Say that a player plays, for it to be counted.
///
/// A player over HLS only fetches files, from us or from a cache, so it says itself that it plays, every `beatSeconds`:
/// under a random name of its own, and where it is. It counts from the second beat on, if `position` is ahead of that of
/// the beat before, and for a minute from then: who has paused does not count, nor a bot that fetches and does not play.
/// Somebody who makes numbers up is counted: it is a number for people to look at, not to be paid by. Needs no token.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{id}/view",
    tag = "viewers",
    params((
        "id" = String,
        Path,
        description = "The stream's id, or its playback id",
        pattern = "^([0-9]{1,18}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$",
        example = "42",
    )),
    request_body = View,
    responses(
        (status = 200, description = "Taken", body = Viewed),
        (status = 400, description = "`bad-request`"),
        (status = 404, description = "`no-such-stream`"),
        (status = 409, description = "`not-live`: begin again when it is"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
pub(crate) async fn view(
    app: web::Data<App>,
    id: web::Path<StreamName>,
    body: Json<View>,
) -> Result<web::Json<Viewed>, StreamError> {
    let (session, position) = body.into_inner().parse()?;
    let Told { viewers, is_counted } = app.audience.beat(&app.pool, *id, &session, position).await?;
    Ok(web::Json(Viewed { viewers, beat_seconds: app.audience.beat_every().as_secs().max(1), is_counted }))
}

/// How many watch a stream, and have watched it: the numbers of the broadcast that is on, or else of the last one.
///
/// Each number says how it is counted. None is ever below zero.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{id}/viewers",
    tag = "viewers",
    security((), ("cookie" = []), ("bearer" = [])),
    params((
        "id" = String,
        Path,
        description = "The stream's id, or its playback id",
        pattern = "^([0-9]{1,18}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$",
        example = "42",
    )),
    responses(
        (status = 200, description = "The numbers", body = ViewersView),
        (status = 404, description = "`no-such-stream`"),
    )
)]
#[tracing::instrument(name = "stream.viewers.get", skip_all, fields(stream.id = %id))]
pub(crate) async fn get(
    app: web::Data<App>,
    caller: Option<Caller>,
    id: web::Path<StreamName>,
) -> Result<web::Json<ViewersView>, StreamError> {
    let found = numbers(&mut *app.pool.get().await?, *id).await?;
    let caller = caller.map(|caller| caller.user_id);
    let numbers = found.filter(|numbers| numbers.are_for(*id, caller));
    let numbers = numbers.ok_or(StreamError::NoSuchName(*id))?;
    let (current, hls) = numbers.now();
    Ok(web::Json(ViewersView {
        broadcast_id: numbers.broadcast_id.map(BroadcastId),
        current,
        rtmp: current - hls,
        hls,
        peak: numbers.peak,
        unique: numbers.unique,
        watch_seconds: numbers.watch_seconds,
    }))
}

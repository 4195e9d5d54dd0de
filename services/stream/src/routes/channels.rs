//! Channels: all streams of a user, and who follows them.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use common::{Caller, Invalid, Json, Page, PageQuery, UserId};
use diesel_async::AsyncConnection as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::App;
use crate::error::StreamError;
use crate::store::follows;

/// How to follow.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Follow {
    /// Whether to be told by mail when a stream of the channel goes live, at most once an hour a stream, and only to a
    /// confirmed address.
    #[serde(default = "yes", alias = "by_mail")]
    #[schema(default = true)]
    by_mail: bool,
}

fn yes() -> bool {
    true
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListChannels {
    /// Which page, from 1. Default 1, at most 10,000.
    #[param(minimum = 1, maximum = 10_000)]
    page: Option<u32>,
    /// How many items a page has. Default 20, at most 100.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

/// A channel.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelView {
    user_id: UserId,
    user_name: String,
    /// How many follow it.
    followers: i64,
    /// Whether the caller does; null without a token.
    #[schema(required)]
    is_followed: Option<bool>,
    /// Whether the caller is told by mail; null if the caller does not follow it.
    #[schema(required)]
    by_mail: Option<bool>,
    /// How many of its public streams are live.
    live_streams: i64,
}

/// A channel that the caller follows.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FollowedView {
    user_id: UserId,
    #[schema(required)]
    user_name: Option<String>,
    by_mail: bool,
    followed_at: DateTime<Utc>,
    /// How many of its public streams are live.
    live_streams: i64,
}

/// Follow a channel: all streams of a user. A repeat sets `byMail` anew.
///
/// When one of its public streams goes live, each follower is told once: by the event `stream.live.announced.v1`, and by
/// mail if wanted. At most once an hour a stream.
#[utoipa::path(
    put,
    path = "/api/v1/channels/{user_id}/follow",
    tag = "channels",
    security(("cookie" = []), ("bearer" = [])),
    params(("user_id" = UserId, Path)),
    request_body = Follow,
    responses(
        (status = 204, description = "The caller follows the channel"),
        (status = 400, description = "`bad-request`"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 404, description = "`no-such-channel`"),
        (status = 422, description = "`invalid-fields`: it is the caller's own"),
    )
)]
#[tracing::instrument(name = "stream.channel.follow", skip_all, fields(channel.id = %channel_id))]
pub(crate) async fn follow(
    app: web::Data<App>,
    caller: Caller,
    channel_id: web::Path<UserId>,
    body: Json<Follow>,
) -> Result<HttpResponse, StreamError> {
    if *channel_id == caller.user_id {
        let mut invalid = Invalid::default();
        invalid.field("userId", "is your own: nobody follows themselves");
        invalid.or(())?;
    }
    let mut conn = app.pool.get().await?;
    conn.transaction(async |conn| {
        let is_there = follows::put(conn, *channel_id, caller.user_id, body.by_mail, app.clock.now()).await?;
        if is_there { Ok(()) } else { Err(StreamError::NoSuchChannel(*channel_id)) }
    })
    .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Follow a channel no more. Whoever does not gets the same answer.
#[utoipa::path(
    delete,
    path = "/api/v1/channels/{user_id}/follow",
    tag = "channels",
    security(("cookie" = []), ("bearer" = [])),
    params(("user_id" = UserId, Path)),
    responses(
        (status = 204, description = "The caller does not follow the channel"),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
    )
)]
#[tracing::instrument(name = "stream.channel.unfollow", skip_all, fields(channel.id = %channel_id))]
pub(crate) async fn unfollow(
    app: web::Data<App>,
    caller: Caller,
    channel_id: web::Path<UserId>,
) -> Result<HttpResponse, StreamError> {
    follows::remove(&mut *app.pool.get().await?, *channel_id, caller.user_id).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A channel. Every user is one.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{user_id}",
    tag = "channels",
    security((), ("cookie" = []), ("bearer" = [])),
    params(("user_id" = UserId, Path)),
    responses(
        (status = 200, description = "The channel", body = ChannelView),
        (status = 404, description = "`no-such-channel`"),
    )
)]
#[tracing::instrument(name = "stream.channel.get", skip_all, fields(channel.id = %channel_id))]
pub(crate) async fn get(
    app: web::Data<App>,
    caller: Option<Caller>,
    channel_id: web::Path<UserId>,
) -> Result<web::Json<ChannelView>, StreamError> {
    let caller = caller.map(|caller| caller.user_id);
    let found = follows::find(&mut *app.pool.get().await?, *channel_id, caller).await?;
    let channel = found.ok_or(StreamError::NoSuchChannel(*channel_id))?;
    Ok(web::Json(ChannelView {
        user_id: *channel_id,
        user_name: channel.user_name,
        followers: channel.followers,
        is_followed: caller.map(|_| channel.follows_by_mail.is_some()),
        by_mail: channel.follows_by_mail,
        live_streams: channel.live_streams,
    }))
}

/// The channels that the caller follows, the latest first.
#[utoipa::path(
    get,
    path = "/api/v1/channels",
    tag = "channels",
    security(("cookie" = []), ("bearer" = [])),
    params(ListChannels),
    responses(
        (status = 200, description = "A page of channels", body = Page<FollowedView>),
        (status = 401, description = "`token-missing`, `token-invalid` or `token-expired`"),
        (status = 422, description = "`invalid-fields`"),
    )
)]
#[tracing::instrument(name = "stream.channel.list", skip_all)]
pub(crate) async fn list(
    app: web::Data<App>,
    caller: Caller,
    query: web::Query<ListChannels>,
) -> Result<web::Json<Page<FollowedView>>, StreamError> {
    let query = PageQuery::of(query.page, query.limit)?;
    let page = follows::page(&mut *app.pool.get().await?, caller.user_id, query).await?;
    Ok(web::Json(page.map(|followed| FollowedView {
        user_id: followed.channel_id,
        user_name: followed.user_name,
        by_mail: followed.by_mail,
        followed_at: followed.followed_at,
        live_streams: followed.live_streams,
    })))
}

//! Stores messages: each room's in one order, many at once.
//!
//! What comes while a transaction runs is stored together by the next one. A message is acknowledged when that has
//! committed, and only then told to anybody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use actix_web::ResponseError as _;
use actix_web::http::StatusCode;
use chassis::db::Pool;
use common::{MessageId, Problem, RoomId, SharedClock, UserId};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use futures_util::future::try_join;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::{Draft, Emails, Message};
use crate::error::ChatError;
use crate::hub::Hub;
use crate::rates::Rates;
use crate::store::messages::{self, OwnName};

/// Each writes the rooms that fall to it, so that a room's messages keep their order.
const WRITERS: usize = 4;
/// No more messages than these are stored in one transaction.
const BATCH: usize = 256;
/// No more messages than these wait for a writer.
const MOST_WAITING: usize = 4096;

/// Takes messages to whoever stores them.
#[derive(Clone)]
pub(crate) struct Writer {
    queues: Arc<[mpsc::Sender<Waiting>]>,
    rates: Arc<Rates>,
}

pub(crate) struct Waiting {
    order: Order,
    stored: oneshot::Sender<Result<Stored, ChatError>>,
}

#[derive(Debug, Clone)]
struct Order {
    room_id: RoomId,
    user_id: UserId,
    draft: Draft,
}

/// A message that is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) message: Message,
    /// Whether it was not there before: the same sent twice is one.
    pub(crate) is_new: bool,
}

impl Writer {
    pub(crate) fn new(rates: Arc<Rates>) -> (Self, Vec<mpsc::Receiver<Waiting>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..WRITERS).map(|_| mpsc::channel(MOST_WAITING)).unzip();
        (Self { queues: senders.into(), rates }, receivers)
    }

    /// Stores a message; returns when that is committed.
    ///
    /// Messages that one caller sends into one room, one call begun after the other, keep their order.
    pub(crate) fn store(
        &self,
        room_id: RoomId,
        user_id: UserId,
        draft: Draft,
    ) -> Result<oneshot::Receiver<Result<Stored, ChatError>>, ChatError> {
        self.rates.user(user_id)?;
        let (stored, receiver) = oneshot::channel();
        let writer = &self.queues[room_id.0.unsigned_abs() as usize % self.queues.len()];
        let waiting = Waiting { order: Order { room_id, user_id, draft }, stored };
        writer.try_send(waiting).map_err(|_full| ChatError::Busy)?;
        Ok(receiver)
    }
}

/// Stores what waits in `queue`, until `shutdown`.
pub(crate) async fn work(
    pool: Pool,
    clock: SharedClock,
    rates: Arc<Rates>,
    hub: Arc<Hub>,
    mut queue: mpsc::Receiver<Waiting>,
    shutdown: CancellationToken,
) {
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            count = queue.recv_many(&mut batch, BATCH) => if count == 0 { return },
            () = shutdown.cancelled() => return,
        }
        let (orders, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.order, one.stored)).unzip();
        let results = match store_all(&pool, &clock, &rates, hub.emails, &orders).await {
            Ok(results) => results,
            Err(error) => alone(&pool, &clock, &rates, hub.emails, &orders, error).await,
        };
        let mut new: HashMap<_, Vec<_>> = HashMap::new();
        for stored in results.iter().flatten().filter(|stored| stored.is_new) {
            new.entry(stored.message.room_id).or_default().push(stored.message.clone());
        }
        for (room_id, messages) in new {
            hub.tell_messages(room_id, messages).await;
        }
        // Of one whose commit was not heard of, nobody was told.
        for Stored { message, .. } in results.iter().flatten().filter(|stored| !stored.is_new) {
            hub.has_up_to(message.room_id, message.seq);
        }
        for (result, waiting) in results.into_iter().zip(waiting) {
            let _ = waiting.send(result); // Whoever sent it may be gone; it is stored all the same.
        }
    }
}

/// Each by itself: one that cannot be stored takes no other with it. If it is the database that failed, none is tried.
async fn alone(
    pool: &Pool,
    clock: &SharedClock,
    rates: &Rates,
    emails: Emails,
    orders: &[Order],
    error: ChatError,
) -> Vec<Result<Stored, ChatError>> {
    let problem = Problem::from(error);
    if problem.status_code() == StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(messages = orders.len(), "messages could not be stored: the database is away");
        return orders.iter().map(|_| Err(ChatError::Away)).collect();
    }
    let mut results = Vec::with_capacity(orders.len());
    for order in orders {
        let stored = store_all(pool, clock, rates, emails, std::slice::from_ref(order)).await;
        results.push(stored.and_then(|mut all| all.pop().unwrap_or(Err(ChatError::Busy))));
    }
    results
}

async fn store_all(
    pool: &Pool,
    clock: &SharedClock,
    rates: &Rates,
    emails: Emails,
    orders: &[Order],
) -> Result<Vec<Result<Stored, ChatError>>, ChatError> {
    let mut conn = pool.get().await?;
    conn.transaction(async |conn| store_within(conn, clock, rates, emails, orders).await).await
}

async fn store_within(
    conn: &mut AsyncPgConnection,
    clock: &SharedClock,
    rates: &Rates,
    emails: Emails,
    orders: &[Order],
) -> Result<Vec<Result<Stored, ChatError>>, ChatError> {
    let ids: Vec<i64> = orders.iter().map(|order| order.room_id.0).collect();
    let mut rooms = messages::lock_rooms(conn, &ids).await?;
    // Asked after the rooms are held: who was taken out before is no member, and what was sent before is found.
    let pairs: HashSet<_> = orders.iter().map(|order| (order.room_id, order.user_id)).collect();
    let names: Vec<_> = orders.iter().filter_map(own_name).collect();
    let (members, sent) =
        try_join(messages::find_members(conn, &pairs), messages::find_sent(conn, &names, emails)).await?;
    let now = clock.now();

    let mut new: Vec<Message> = Vec::new();
    let mut new_names: HashMap<OwnName, usize> = HashMap::new();
    let mut results: Vec<Result<Place, ChatError>> = Vec::with_capacity(orders.len());
    for order in orders {
        let Order { room_id, user_id, draft } = order;
        let (Some(room), Some(user)) = (rooms.get_mut(room_id), members.get(&(*room_id, *user_id))) else {
            results.push(Err(ChatError::NoSuchRoom(*room_id)));
            continue;
        };
        let name = own_name(order);
        if let Some(message) = name.as_ref().and_then(|name| sent.get(name)) {
            results.push(Ok(Place::Before(message.clone())));
            continue;
        }
        if let Some(index) = name.as_ref().and_then(|name| new_names.get(name)) {
            results.push(Ok(Place::Again(*index)));
            continue;
        }
        if room.is_closed {
            results.push(Err(ChatError::RoomClosed(*room_id)));
            continue;
        }
        // Only here: who is no member takes nothing of the room's rate.
        if let Err(error) = rates.room(*room_id) {
            results.push(Err(error));
            continue;
        }
        room.last_seq += 1;
        if let Some(name) = name {
            new_names.insert(name, new.len());
        }
        results.push(Ok(Place::New(new.len())));
        new.push(Message {
            id: MessageId(0),
            room_id: *room_id,
            conversation_id: room.conversation_id,
            seq: room.last_seq,
            user_id: *user_id,
            user_name: user.name.clone(),
            user_email: emails.seen_in(room.is_of_stream, user.email.clone()),
            kind: draft.kind,
            content: draft.content.clone(),
            file_url: draft.file_url.clone(),
            client_message_id: draft.client_message_id.clone(),
            created_at: now,
        });
    }
    if !new.is_empty() {
        messages::insert(conn, &mut new, now).await?;
    }
    let stored = |place| match place {
        Place::Before(message) => Stored { message, is_new: false },
        Place::Again(index) => Stored { message: new[index].clone(), is_new: false },
        Place::New(index) => Stored { message: new[index].clone(), is_new: true },
    };
    Ok(results.into_iter().map(|result| result.map(stored)).collect())
}

/// Where a message of the batch is.
enum Place {
    /// Stored long ago.
    Before(Message),
    /// The same as an earlier one of the batch.
    Again(usize),
    New(usize),
}

fn own_name(order: &Order) -> Option<OwnName> {
    Some((order.room_id, order.user_id, order.draft.client_message_id.clone()?))
}

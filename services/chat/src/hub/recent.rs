//! What was said last in a room, for those who come back to it: one reads it from the database, and the others have it too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Room;
use crate::error::ChatError;
use crate::event::{Event, Told};
use crate::store::messages;

/// So much more is read than the first one asks for: others were away for longer.
const MORE: i64 = 100;
/// It is forgotten after this time: whoever comes back later reads it anew.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// No more messages than these are kept,
const MOST: usize = 1000;
/// nor more bytes than these.
const MOST_BYTES: usize = 1024 * 1024;

/// Messages, without gaps, up to the one that everybody here was told last.
#[derive(Default)]
pub(super) struct Recent {
    told: VecDeque<Arc<Told>>,
    bytes: usize,
}

impl Recent {
    /// Messages after `after`, up to and including `last`, if all of them are there.
    fn between(&self, after: i64, last: i64) -> Option<Vec<Arc<Told>>> {
        let first = self.told.front()?.seq()?;
        let begin = usize::try_from(after + 1 - first).ok()?;
        let end = usize::try_from(last + 1 - first).ok()?;
        (end <= self.told.len()).then(|| self.told.range(begin..end).cloned().collect())
    }

    /// What was told now.
    pub(super) fn push(&mut self, told: &Arc<Told>) {
        self.bytes += told.size();
        self.told.push_back(Arc::clone(told));
        self.bound();
    }

    /// What was told before.
    fn begin_with(&mut self, told: &[Arc<Told>]) {
        self.bytes += told.iter().map(|told| told.size()).sum::<usize>();
        for told in told.iter().rev() {
            self.told.push_front(Arc::clone(told));
        }
        self.bound();
    }

    fn bound(&mut self) {
        while self.bytes > MOST_BYTES || self.told.len() > MOST {
            let Some(first) = self.told.pop_front() else { return };
            self.bytes -= first.size();
        }
    }
}

impl Room {
    /// Messages after `after`, up to and including `last`, which was told; `None`: not all of them are there.
    pub(super) async fn between(self: &Arc<Self>, after: i64, last: i64) -> Result<Option<Vec<Arc<Told>>>, ChatError> {
        // One reads; for the others it is there then.
        let _turn = self.reading.lock().await;
        let told = {
            let mut state = self.lock();
            if let Some(found) = state.recent.as_ref().and_then(|recent| recent.between(after, last)) {
                return Ok(Some(found));
            }
            // What is told while it is read follows on what is read.
            state.recent = Some(Recent::default());
            state.told.unwrap_or(last).max(last)
        };
        let from = after.min(told - MORE).max(0);
        let read = match self.read_between(from, told).await {
            Ok(Some(read)) => read,
            other => {
                self.lock().recent = None;
                return other;
            }
        };
        if let Some(recent) = &mut self.lock().recent {
            recent.begin_with(&read);
        }
        self.forget_in_time();
        let wanted = read.into_iter().filter(|told| told.seq().is_some_and(|seq| seq > after && seq <= last));
        Ok(Some(wanted.collect()))
    }

    async fn read_between(&self, from: i64, last: i64) -> Result<Option<Vec<Arc<Told>>>, ChatError> {
        let mut conn = self.hub.pool.get().await?;
        let messages = messages::after(&mut conn, self.place.room_id, from, last - from, self.hub.emails).await?;
        // Nothing is between them: they are numbered without gaps.
        let is_whole = messages.iter().zip(from + 1..).all(|(message, seq)| message.seq == seq);
        let is_whole = is_whole && messages.len() as i64 == last - from;
        let told = messages.into_iter().map(|message| Arc::new(Told::new(self.place, Event::Message(message))));
        Ok(is_whole.then(|| told.collect()))
    }

    fn forget_in_time(self: &Arc<Self>) {
        let (room, shutdown) = (Arc::downgrade(self), self.hub.tasks.shutdown());
        self.hub.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(KEPT_FOR) => {}
                () = shutdown.cancelled() => return,
            }
            if let Some(room) = room.upgrade() {
                room.lock().recent = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use common::{ConversationId, RoomId};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::domain::Place;

    #[test]
    fn what_is_kept_has_no_gaps_and_a_bound() {
        let nobody = "00000000-0000-0000-0000-000000000000";
        let place = Place { room_id: RoomId(1), conversation_id: ConversationId(Uuid::nil()), stream_id: None };
        let told = |seq: i64| {
            let event = json!({
                "is": "message", "id": seq, "room_id": 1, "conversation_id": nobody, "seq": seq, "user_id": nobody,
                "user_name": null, "kind": "text", "content": "x".repeat(1000), "file_url": null,
                "client_message_id": null, "created_at": "2026-01-01T00:00:00Z",
            });
            Arc::new(Told::new(place, serde_json::from_value(event).unwrap()))
        };
        let seqs = |found: Option<Vec<Arc<Told>>>| {
            found.map(|found| found.iter().filter_map(|told| told.seq()).collect::<Vec<_>>())
        };
        let mut recent = Recent::default();
        recent.push(&told(6));
        recent.begin_with(&[told(3), told(4), told(5)]);
        assert_eq!(seqs(recent.between(3, 6)), Some(vec![4, 5, 6]));
        assert_eq!(seqs(recent.between(2, 4)), Some(vec![3, 4]));
        assert_eq!(seqs(recent.between(1, 4)), None, "2 is not there");
        assert_eq!(seqs(recent.between(3, 7)), None, "nor is 7");
        for seq in 7..5000 {
            recent.push(&told(seq));
        }
        assert!(recent.bytes <= MOST_BYTES && recent.told.len() <= MOST);
        assert_eq!(seqs(recent.between(4990, 4992)), Some(vec![4991, 4992]));
    }
}

//! The rules of going live: what follows from a call, from an order, or from silence.
//!
//! A pure function of what is known and what has happened; [`crate::broadcasting`] reads the one and carries out the
//! other. One encoder is on air per stream at a time, known by its media server, that server's run, and the connection's
//! name. Only its own connection takes it off the air: `done` is sent for players and for refused second publishers too,
//! under the same name. Whoever comes back within the grace period goes on with the same broadcast.

#[cfg(test)]
mod properties;

use std::time::Duration;

use chrono::{DateTime, Utc};
use common::BroadcastId;
use events::EndReason;
use uuid::Uuid;

use crate::domain::{Broadcast, Connection, KeyId, OffAir, Publication, PublicationId, Stream, Visibility};

/// How long is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// An encoder that was not heard of for longer than this is gone.
    pub(crate) stale_after: Duration,
    /// A broadcast whose encoder has left can be gone on with for so long.
    pub(crate) grace: Duration,
    /// An encoder that was sent away stays away for so long: it would be back before its owner has let go of the button.
    pub(crate) hold: Duration,
}

/// What is known of a stream when something happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Situation {
    pub(crate) stream: Stream,
    /// The broadcast that is not over for good.
    pub(crate) broadcast: Option<Broadcast>,
    /// Who is on air.
    pub(crate) on_air: Option<Publication>,
    /// The last publication of the connection that calls.
    pub(crate) callers_last: Option<Publication>,
    /// Whether the connection that calls is a player that we count.
    pub(crate) is_player: bool,
}

/// Something that happens to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A connection wants to publish, with a key of this stream.
    Publish { caller: Connection, key: KeyId, under: Option<String> },
    /// A connection is publishing.
    Heartbeat { caller: Connection, key: Option<KeyId> },
    /// What a connection was let publish has arrived; it may have another name from now on.
    Confirm { caller: Connection },
    /// A connection is gone.
    Leave { caller: Connection },
    /// A connection wants to play.
    Play { caller: Connection },
    /// A connection asks whether it may play.
    MayPlay,
    /// The media server hands on what is published.
    HandOn,
    /// Somebody who may do so ends the broadcast.
    Stop { reason: EndReason },
    /// This publication is not heard of any more.
    Gone { publication: PublicationId, reason: EndReason },
    /// Nobody came back in time.
    Close,
}

/// What the media server is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Go on.
    Fine,
    /// Go on, and let viewers find it under this name.
    PublishAs(Uuid),
}

/// Why a connection is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    WrongKey,
    AlreadyLive,
    BroadcastEnded,
    SentAway,
    NotItsName,
    NoSuchPlayback,
}

/// What to do. In this order, where a step has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The encoder is there.
    Heard(PublicationId),
    /// Its connection is called otherwise from now on.
    Rename(PublicationId, String),
    /// The publication has ended, and the broadcast is off the air.
    TakeOff {
        publication: PublicationId,
        broadcast: BroadcastId,
        off_air: OffAir,
    },
    /// The broadcast is over for good.
    Close {
        broadcast: BroadcastId,
        started_at: DateTime<Utc>,
        off_air: OffAir,
    },
    /// A broadcast begins.
    Begin {
        encoder: Connection,
        key: Option<KeyId>,
    },
    /// The same broadcast goes on.
    GoOn {
        broadcast: BroadcastId,
        encoder: Connection,
        key: Option<KeyId>,
    },
    /// The key was used.
    Used(KeyId),
    /// No encoder is taken until then.
    Hold {
        until: DateTime<Utc>,
    },
    PlayerCame(Connection),
    PlayerLeft(Connection),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) answer: Result<Answer, Refusal>,
    /// What was decided and why, in words, without secrets.
    pub(crate) verdict: String,
    pub(crate) changes: Vec<Change>,
}

impl Step {
    fn fine(verdict: impl Into<String>, changes: Vec<Change>) -> Self {
        Self { answer: Ok(Answer::Fine), verdict: verdict.into(), changes }
    }

    fn refuse(refusal: Refusal, verdict: impl Into<String>) -> Self {
        Self { answer: Err(refusal), verdict: verdict.into(), changes: Vec::new() }
    }
}

/// What follows from `happening`.
pub(crate) fn decide(known: &Situation, happening: &Happening, now: DateTime<Utc>, rules: Rules) -> Step {
    let at = Moment { known, now, rules };
    match happening {
        Happening::Publish { caller, key, under } => at.publish(caller, *key, under.as_deref()),
        Happening::Heartbeat { caller, key } => at.heartbeat(caller, *key),
        Happening::Confirm { caller } => at.confirm(caller),
        Happening::Leave { caller } => at.leave(caller),
        Happening::Play { caller } => at.play(caller),
        Happening::MayPlay => at.may_play(),
        Happening::HandOn => at.hand_on(),
        Happening::Stop { reason } => at.stop(*reason),
        Happening::Gone { publication, reason } => at.gone(*publication, *reason),
        Happening::Close => at.close(),
    }
}

/// What follows from a heartbeat of the encoder that is on air, whatever else is known.
pub(crate) fn still_there(current: PublicationId) -> Step {
    Step::fine("the encoder is still there", vec![Change::Heard(current)])
}

struct Moment<'a> {
    known: &'a Situation,
    now: DateTime<Utc>,
    rules: Rules,
}

impl Moment<'_> {
    fn publish(&self, caller: &Connection, key: KeyId, under: Option<&str>) -> Step {
        let Situation { stream, on_air, .. } = self.known;
        if let Some(name) = under
            && name != stream.playback_id.to_string()
        {
            let verdict = "refused: this media server shows viewers the name that one publishes under, so that has to be the \
                           stream's playback id, with the key beside it";
            return Step::refuse(Refusal::NotItsName, verdict);
        }
        if let Some(until) = stream.refused_until
            && until > self.now
        {
            let wait = (until - self.now).num_seconds() + 1;
            return Step::refuse(
                Refusal::SentAway,
                format!("refused: the broadcast was ended by order; again in {wait} s"),
            );
        }
        let mut changes = Vec::new();
        let mut off_air = self.known.broadcast.as_ref().and_then(|broadcast| broadcast.off_air);
        let mut why = "";
        if let Some(current) = on_air {
            if current.encoder == *caller {
                // Asked twice, or its leaving got lost: it is there now.
                return Step {
                    answer: Ok(Answer::PublishAs(stream.playback_id)),
                    verdict: format!("{} is on air already", who(caller)),
                    changes: vec![Change::Heard(current.id), Change::Used(key)],
                };
            }
            let (old, new) = (&current.encoder.media_server, &caller.media_server);
            let was_restarted = old.name == new.name && old.run != new.run;
            if !was_restarted && !current.is_stale(self.now, self.rules.stale_after) {
                let verdict = format!("refused: {} is on air, and still there", who(&current.encoder));
                return Step::refuse(Refusal::AlreadyLive, verdict);
            }
            why = if was_restarted {
                ", as the media server was started anew"
            } else {
                ", as the former encoder is not heard of any more"
            };
            let ended = self.off_air(current.last_seen_at, EndReason::Stale);
            changes.extend(self.take_off(current, ended));
            off_air = Some(ended);
        }
        let (begins, verdict) = self.go_live(off_air, caller, Some(key), &mut changes);
        changes.push(begins);
        changes.push(Change::Used(key));
        let verdict = format!("{verdict}: {} publishes{why}", who(caller));
        Step { answer: Ok(Answer::PublishAs(stream.playback_id)), verdict, changes }
    }

    fn heartbeat(&self, caller: &Connection, key: Option<KeyId>) -> Step {
        let Situation { on_air, callers_last, .. } = self.known;
        if let Some(current) = on_air
            && current.encoder == *caller
        {
            return still_there(current.id);
        }
        match (on_air, callers_last.as_ref().map(|last| last.end)) {
            // Seen as gone because nobody could report to us, or the report came late: it was there all the time.
            (None, Some(Some((_, EndReason::Stale | EndReason::Vanished)))) => {
                let off_air = self.known.broadcast.as_ref().and_then(|broadcast| broadcast.off_air);
                let mut changes = Vec::new();
                let (begins, verdict) = self.go_live(off_air, caller, key, &mut changes);
                changes.push(begins);
                Step::fine(format!("{verdict}: {} had never left", who(caller)), changes)
            }
            // It may be reported before its `publish` is answered.
            (_, None) => Step::fine(format!("{} has not been taken yet", who(caller)), Vec::new()),
            (_, Some(_)) => {
                let verdict = match on_air {
                    Some(current) => format!("sent away: {} is on air now, not {}", who(&current.encoder), who(caller)),
                    None => format!("sent away: what {} publishes has ended here", who(caller)),
                };
                Step::refuse(Refusal::BroadcastEnded, verdict)
            }
        }
    }

    fn confirm(&self, caller: &Connection) -> Step {
        let Some(current) = &self.known.on_air else {
            return Step::fine(format!("ignored: nobody was let publish as {}", who(caller)), Vec::new());
        };
        if current.encoder == *caller {
            return Step::fine("the encoder is on air", vec![Change::Heard(current.id)]);
        }
        // Asking and arriving are told of under different names by some media servers; nobody else was let publish there. Who
        // was on air before has left since, and this is told late.
        if current.encoder.media_server == caller.media_server && self.known.callers_last.is_none() {
            let changes = vec![Change::Heard(current.id), Change::Rename(current.id, caller.client_id.clone())];
            return Step::fine(format!("the encoder is on air, as {}", who(caller)), changes);
        }
        Step::fine(format!("ignored: {} is on air", who(&current.encoder)), Vec::new())
    }

    fn leave(&self, caller: &Connection) -> Step {
        if let Some(current) = &self.known.on_air
            && current.encoder == *caller
        {
            let off_air = self.off_air(self.now, EndReason::Left);
            let mut changes: Vec<_> = self.take_off(current, off_air).into_iter().collect();
            let Some(until) = off_air.open_until else {
                changes.extend(self.close_with(off_air));
                return Step::fine(format!("the stream has ended: {} left", who(caller)), changes);
            };
            let wait = (until - self.now).num_seconds();
            let verdict =
                format!("the stream has ended: {} left; if it is back within {wait} s it goes on", who(caller));
            return Step::fine(verdict, changes);
        }
        if self.known.is_player {
            return Step::fine("a viewer left", vec![Change::PlayerLeft(caller.clone())]);
        }
        let verdict = match (&self.known.on_air, &self.known.callers_last) {
            (Some(current), _) => {
                format!("`done` from {} ignored: the publisher is {}", who(caller), who(&current.encoder))
            }
            (None, Some(_)) => format!("`done` from {} ignored: its broadcast has ended already", who(caller)),
            (None, None) => format!("`done` from {} ignored: it neither published nor played", who(caller)),
        };
        Step::fine(verdict, Vec::new())
    }

    fn play(&self, caller: &Connection) -> Step {
        let may = self.may_play();
        if may.answer.is_err() {
            return may;
        }
        let verdict = match self.known.on_air {
            Some(_) => "a viewer came",
            None => "a viewer came, and waits for the stream to begin",
        };
        Step::fine(verdict, vec![Change::PlayerCame(caller.clone())])
    }

    fn may_play(&self) -> Step {
        if self.known.stream.visibility == Visibility::Private {
            return Step::refuse(Refusal::NoSuchPlayback, "refused: the stream is private");
        }
        Step::fine("a viewer may play", Vec::new())
    }

    fn hand_on(&self) -> Step {
        match self.known.on_air {
            Some(_) => Step::fine("the media server hands the broadcast on", Vec::new()),
            None => Step::refuse(Refusal::NoSuchPlayback, "refused: nobody is on air under this name"),
        }
    }

    fn stop(&self, reason: EndReason) -> Step {
        let off_air = OffAir { since: self.now, reason, open_until: None };
        let mut changes: Vec<_> = Vec::new();
        if let Some(current) = &self.known.on_air {
            changes.extend(self.take_off(current, off_air));
        }
        // One that waited for its encoder is over as well; it ended when that left.
        let ended = self.known.broadcast.as_ref().and_then(|broadcast| broadcast.off_air).unwrap_or(off_air);
        changes.extend(self.close_with(ended));
        if self.known.on_air.is_some() {
            changes.push(Change::Hold { until: self.now + self.rules.hold });
        }
        Step::fine("ended by order", changes)
    }

    fn gone(&self, publication: PublicationId, reason: EndReason) -> Step {
        let Some(current) = self.known.on_air.as_ref().filter(|current| current.id == publication) else {
            return Step::fine("it has ended since", Vec::new());
        };
        // Heard of since we looked.
        if reason == EndReason::Stale && !current.is_stale(self.now, self.rules.stale_after) {
            return Step::fine("it is there", Vec::new());
        }
        let off_air = self.off_air(current.last_seen_at, reason);
        let mut changes: Vec<_> = self.take_off(current, off_air).into_iter().collect();
        if off_air.open_until.is_none() {
            changes.extend(self.close_with(off_air));
        }
        Step::fine("the stream has ended: its encoder is gone", changes)
    }

    fn close(&self) -> Step {
        let off_air = self.known.broadcast.as_ref().and_then(|broadcast| broadcast.off_air);
        match off_air {
            Some(off_air) if off_air.open_until.is_none_or(|until| until <= self.now) => {
                Step::fine("nobody came back: the broadcast is over", self.close_with(off_air).into_iter().collect())
            }
            _ => Step::fine("it goes on", Vec::new()),
        }
    }

    /// Goes on with the broadcast that is open, if there is one, else begins one.
    fn go_live(
        &self,
        off_air: Option<OffAir>,
        encoder: &Connection,
        key: Option<KeyId>,
        changes: &mut Vec<Change>,
    ) -> (Change, &'static str) {
        let encoder = encoder.clone();
        match (&self.known.broadcast, off_air) {
            (Some(broadcast), Some(OffAir { open_until: Some(until), .. })) if self.now <= until => {
                (Change::GoOn { broadcast: broadcast.id, encoder, key }, "the broadcast goes on")
            }
            (_, off_air) => {
                changes.extend(off_air.and_then(|off_air| self.close_with(off_air)));
                (Change::Begin { encoder, key }, "the stream is live")
            }
        }
    }

    fn off_air(&self, since: DateTime<Utc>, reason: EndReason) -> OffAir {
        let open_until = (!self.rules.grace.is_zero()).then(|| self.now + self.rules.grace);
        OffAir { since, reason, open_until }
    }

    fn take_off(&self, current: &Publication, off_air: OffAir) -> Option<Change> {
        let broadcast = self.known.broadcast.as_ref()?;
        // Clocks of instances differ a little; an end is never before its beginning.
        let off_air = OffAir { since: off_air.since.max(broadcast.started_at), ..off_air };
        Some(Change::TakeOff { publication: current.id, broadcast: broadcast.id, off_air })
    }

    fn close_with(&self, off_air: OffAir) -> Option<Change> {
        let Broadcast { id, started_at, .. } = *self.known.broadcast.as_ref()?;
        let off_air = OffAir { since: off_air.since.max(started_at), ..off_air };
        Some(Change::Close { broadcast: id, started_at, off_air })
    }
}

/// A connection, as an operator finds it in the media server's own log.
fn who(connection: &Connection) -> String {
    match connection.client_id.as_str() {
        "" => "the client".to_owned(),
        name => format!("client {name}"),
    }
}

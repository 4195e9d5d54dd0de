//! What every event travels in.

use chrono::{DateTime, Utc};
use common::EventId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::Event;

/// An event with what carries it: JSON, the same on the wire, in a queue and where it is parked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Envelope {
    /// The same for every copy of the event. A consumer remembers it, so that the event takes effect once.
    pub event_id: EventId,
    /// The event's name and routing key.
    pub name: String,
    /// When it happened, by the clock of the service that publishes it. RFC 3339, UTC.
    pub occurred_at: DateTime<Utc>,
    /// The trace that caused the event, as W3C Trace Context writes it. Absent when nothing was traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The event itself. Its fields are those of the event that `name` names.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// Why an envelope does not hold the event that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the envelope holds {actual}, not {expected}")]
    OtherEvent { expected: &'static str, actual: String },
    #[error("the data does not fit {name}: {source}")]
    Unreadable { name: &'static str, source: serde_json::Error },
}

impl Envelope {
    /// The event inside. Fields that this version does not know are ignored.
    ///
    /// Fails when the envelope holds another event, or data that does not fit.
    pub fn open<E: Event>(&self) -> Result<E, OpenError> {
        if self.name != E::NAME {
            return Err(OpenError::OtherEvent { expected: E::NAME, actual: self.name.clone() });
        }
        E::deserialize(&self.data).map_err(|source| OpenError::Unreadable { name: E::NAME, source })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{StreamEnded, UserRegistered};

    fn envelope(name: &str, data: Value) -> Envelope {
        Envelope {
            event_id: EventId::new(),
            name: name.to_owned(),
            occurred_at: DateTime::UNIX_EPOCH,
            traceparent: None,
            data,
        }
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let event = UserRegistered::example();
        let sent = envelope(UserRegistered::NAME, serde_json::to_value(&event).unwrap());

        let received: Envelope = serde_json::from_str(&serde_json::to_string(&sent).unwrap()).unwrap();

        assert_eq!(received, sent);
        assert_eq!(received.open::<UserRegistered>().unwrap(), event);
    }

    #[test]
    fn a_field_added_later_is_ignored() {
        let mut data = serde_json::to_value(UserRegistered::example()).unwrap();
        data["added_in_a_later_version"] = json!(true);

        assert_eq!(envelope(UserRegistered::NAME, data).open::<UserRegistered>().unwrap(), UserRegistered::example());
    }

    #[test]
    fn another_event_is_not_opened() {
        let sent = envelope(UserRegistered::NAME, json!({}));

        assert!(matches!(sent.open::<StreamEnded>(), Err(OpenError::OtherEvent { .. })));
        assert!(matches!(sent.open::<UserRegistered>(), Err(OpenError::Unreadable { .. })));
    }
}

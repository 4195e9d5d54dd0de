//! The contract as an AsyncAPI 3.0 document, for people and tools.

use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::{Envelope, Event, RecordingReady, SUBSCRIPTIONS, StreamDeleted, StreamEnded, StreamWentLive};
use crate::{StreamAnnounced, StreamScheduledSoon};
use crate::{UserDeleted, UserEmailChanged, UserRegistered, UserReinstated, UserRoleChanged, UserSuspended};

/// The document: a channel and a message for every event, and an operation for every queue that receives it.
///
/// It says the same every time, so a difference from the stored one is a change of the contract.
#[must_use]
pub fn asyncapi() -> Value {
    let events = all();
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    let mut schemas = Map::new();

    schemas.extend(schemas_of::<Envelope>());
    for event in &events {
        schemas.extend(event.schemas.clone());
        channels.insert(
            event.name.to_owned(),
            json!({
                "address": event.name,
                "summary": event.summary,
                "messages": { (&event.title): { "$ref": format!("#/components/messages/{}", event.title) } },
                "bindings": { "amqp": {
                    "is": "routingKey",
                    "exchange": { "name": "amphi.events", "type": "topic", "durable": true, "autoDelete": false },
                } },
            }),
        );
        operations.insert(
            format!("publish.{}", event.name),
            json!({
                "action": "send",
                "channel": { "$ref": channel_pointer(event.name) },
                "summary": event.summary,
                "bindings": { "amqp": { "deliveryMode": 2, "mandatory": is_subscribed(event.name) } },
            }),
        );
        messages.insert(event.title.clone(), message(event));
    }
    for subscription in SUBSCRIPTIONS {
        for event in &events {
            if subscription.takes(event.name) {
                operations.insert(
                    format!("{}.receives.{}", subscription.queue, event.name),
                    json!({
                        "action": "receive",
                        "channel": { "$ref": channel_pointer(event.name) },
                        "summary": subscription.purpose,
                        "bindings": { "amqp": { "ack": true } },
                    }),
                );
            }
        }
    }

    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Amphi events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

const DESCRIPTION: &str = "What services tell each other. A change and its event are committed together; \
    the event is then published at least once, in order per publishing service, and takes effect once per queue. \
    What cannot be handled is retried, then parked until an operator replays it \
    (`amphi events parked`, `amphi events replay`). A queue keeps what it received until its consumer has handled or \
    parked it, however long that takes. The bindings are those of RabbitMQ with the default namespace, `amphi`.";

/// Every event of the house, in the order of the document.
fn all() -> Vec<Described> {
    vec![
        describe::<UserRegistered>(),
        describe::<UserEmailChanged>(),
        describe::<UserSuspended>(),
        describe::<UserReinstated>(),
        describe::<UserRoleChanged>(),
        describe::<UserDeleted>(),
        describe::<StreamWentLive>(),
        describe::<StreamEnded>(),
        describe::<RecordingReady>(),
        describe::<StreamDeleted>(),
        describe::<StreamAnnounced>(),
        describe::<StreamScheduledSoon>(),
    ]
}

/// An event, as the document needs it.
struct Described {
    name: &'static str,
    summary: &'static str,
    /// The type's name: the title of the message and of its schema.
    title: String,
    schemas: Vec<(String, Value)>,
    example: Value,
}

fn describe<E: Event>() -> Described {
    Described {
        name: E::NAME,
        summary: E::SUMMARY,
        title: E::name().into_owned(),
        schemas: schemas_of::<E>(),
        example: json!(E::example()),
    }
}

/// The schema of a type and of every type that it names.
fn schemas_of<T: ToSchema>() -> Vec<(String, Value)> {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    schemas.into_iter().map(|(name, schema)| (name, json!(schema))).collect()
}

fn message(event: &Described) -> Value {
    json!({
        "name": event.name,
        "title": event.title,
        "summary": event.summary,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": { "traceparent": {
                "type": "string",
                "description": "W3C Trace Context, as in the envelope. Absent when nothing was traced.",
            } },
        },
        "payload": { "allOf": [
            { "$ref": "#/components/schemas/Envelope" },
            {
                "type": "object",
                "properties": {
                    "name": { "const": event.name },
                    "data": { "$ref": format!("#/components/schemas/{}", event.title) },
                },
            },
        ] },
        "bindings": { "amqp": { "messageType": event.name } },
        "examples": [{ "payload": {
            "event_id": "01990000-0000-7000-8000-000000000000",
            "name": event.name,
            "occurred_at": "2026-01-01T12:00:00Z",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "data": event.example,
        } }],
    })
}

fn channel_pointer(name: &str) -> String {
    format!("#/channels/{name}")
}

fn is_subscribed(name: &str) -> bool {
    SUBSCRIPTIONS.iter().any(|subscription| subscription.takes(name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::matches;

    #[test]
    fn names_are_unique_lower_case_and_versioned() {
        let mut seen = HashSet::new();
        for event in all() {
            assert!(seen.insert(event.name), "{} is there twice", event.name);
            let (stem, version) = event.name.rsplit_once(".v").expect("a name ends with its version");
            assert!(version.parse::<u32>().is_ok_and(|version| version > 0), "{}", event.name);
            assert!(stem.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.'), "{}", event.name);
            assert!(stem.split('.').count() >= 3 && !stem.split('.').any(str::is_empty), "{}", event.name);
            assert!(event.name.len() <= 255, "{}", event.name);
        }
    }

    #[test]
    fn queues_are_unique_and_every_pattern_takes_an_event() {
        let mut seen = HashSet::new();
        for subscription in SUBSCRIPTIONS {
            assert!(seen.insert(subscription.queue), "{} is there twice", subscription.queue);
            for pattern in subscription.patterns {
                assert!(all().iter().any(|event| matches(pattern, event.name)), "{pattern} takes nothing");
            }
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn check(part: &Value, document: &Value) {
            if let Some(pointer) = part.get("$ref").and_then(Value::as_str) {
                let target = document.pointer(pointer.trim_start_matches('#'));
                assert!(target.is_some(), "{pointer} leads nowhere");
            }
            match part {
                Value::Object(fields) => fields.values().for_each(|field| check(field, document)),
                Value::Array(items) => items.iter().for_each(|item| check(item, document)),
                _ => {}
            }
        }
        let document = asyncapi();
        check(&document, &document);
    }

    /// A difference here is a difference on the wire: a field may be added, nothing else may change.
    #[test]
    fn the_wire_stays_as_it_is() {
        let examples: Map<String, Value> =
            all().into_iter().map(|event| (event.name.to_owned(), event.example)).collect();
        insta::assert_json_snapshot!(examples);
    }
}

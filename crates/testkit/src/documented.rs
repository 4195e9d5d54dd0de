//! An AsyncAPI document, and whether what is said is as it has it.

use std::collections::BTreeMap;

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

/// The messages of an AsyncAPI document.
pub struct Documented {
    messages: BTreeMap<String, Validator>,
}

impl Documented {
    /// Reads `document`. Panics if a schema in it is none, or an example of a message is not as its schema.
    ///
    /// A field that a schema does not name is an error here, though readers of the document are to ignore it.
    #[must_use]
    pub fn new(document: &Value) -> Self {
        let mut components = document["components"].clone();
        let messages = document["components"]["messages"].as_object().expect("the document has messages");
        close(&mut components);
        let validators = messages.iter().map(|(name, message)| {
            let schema = json!({
                "$ref": format!("#/components/messages/{name}/payload"),
                "components": components,
            });
            let options = jsonschema::options().with_draft(Draft::Draft7).should_validate_formats(true);
            let validator = options.build(&schema).unwrap_or_else(|error| panic!("the schema of {name}: {error}"));
            for example in message["examples"].as_array().into_iter().flatten() {
                check(name, &validator, &example["payload"]);
            }
            (name.clone(), validator)
        });
        Self { messages: validators.collect() }
    }

    /// The names of all messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.messages.keys().map(|name| &**name)
    }

    /// Checks what a server said on `channel`: JSON with a `type`, or a message of Engine.IO. Returns which message of the document
    /// that was; `None`: none, but of the protocol beneath.
    pub fn heard(&self, channel: &str, text: &str) -> Option<String> {
        let (name, said): (_, Value) = if let Some(event) = text.strip_prefix("42") {
            let event: Value = serde_json::from_str(event).expect("an event is JSON");
            (event[0].as_str().expect("an event has a name").to_owned(), event)
        } else if let Some(answer) = text.strip_prefix("43") {
            let answer = answer.trim_start_matches(|c: char| c.is_ascii_digit());
            ("acknowledgement".to_owned(), serde_json::from_str(answer).expect("an acknowledgement is JSON"))
        } else if text.starts_with('{') {
            let said: Value = serde_json::from_str(text).expect("what is said is JSON");
            (said["type"].as_str().expect("what is said has a type").to_owned(), said)
        } else {
            return None;
        };
        let name = format!("{channel}.server.{name}");
        self.check(&name, &said);
        Some(name)
    }

    fn check(&self, name: &str, said: &Value) {
        let validator = self.messages.get(name).unwrap_or_else(|| panic!("{name} is not in the document: {said}"));
        check(name, validator, said);
    }
}

fn check(name: &str, validator: &Validator, said: &Value) {
    let errors: Vec<_> =
        validator.iter_errors(said).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{name} is not as the document has it: {}\n{said}", errors.join("; "));
}

/// Lets no object have fields that are not named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.get("properties").is_some_and(Value::is_object) {
                members.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

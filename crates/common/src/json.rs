//! JSON bodies.

use std::future::Future;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A body that is a JSON object. What `web::Json` would take as well is refused: an array of the fields in their order, which
/// no document describes.
///
/// Errors and limits are those of `web::JsonConfig`.
#[derive(Debug)]
pub struct Json<T>(T);

impl<T> Json<T> {
    #[must_use]
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = actix_web::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Self::Error>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = web::Json::<Object<T>>::from_request(request, payload);
        Box::pin(async { Ok(Self(body.await?.into_inner().0)) })
    }
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Login {
        name: String,
    }

    fn parse(text: &str) -> Result<String, String> {
        let parsed = serde_json::from_str::<Object<Login>>(text);
        parsed.map(|object| object.0.name).map_err(|error| error.to_string())
    }

    #[test]
    fn an_object_is_taken_and_an_array_of_its_fields_is_not() {
        assert_eq!(parse(r#"{"name": "ana", "more": 1}"#).unwrap(), "ana");
        assert_eq!(parse(r#"["ana"]"#).unwrap_err(), "invalid type: sequence, expected an object at line 1 column 0");
        assert_eq!(parse("{}").unwrap_err(), "missing field `name` at line 1 column 2");
        assert!(parse("null").is_err() && parse("\"ana\"").is_err());
    }
}

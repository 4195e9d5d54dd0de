//! Writes the documents that follow from the code, so that they cannot drift from it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use common::problem::{Kind, kinds};
use common::token;
use serde::Serialize;
use serde_json::{Value, json};

use crate::env::Env;
use crate::run;
use crate::service::Service;

const TABLE_BEGINS: &str = "<!-- settings: written by `make generated` -->";
const TABLE_ENDS: &str = "<!-- end of settings -->";

/// OpenAPI a service, AsyncAPI of events and of WebSockets, and the list of problems into `out`, and the table of settings into `readme`.
pub fn write(services: &[Service], out: &Path, readme: &Path) -> anyhow::Result<()> {
    let openapi = out.join("openapi");
    fs::create_dir_all(&openapi)?;
    let asyncapi = out.join("asyncapi");
    fs::create_dir_all(&asyncapi)?;
    for service in services {
        write_json(&openapi.join(format!("{}.json", service.name)), &openapi_of(service)?)?;
        if let Some(document) = service.asyncapi {
            write_json(&asyncapi.join(format!("{}.json", service.name)), &document())?;
        }
    }
    write_json(&out.join("asyncapi.json"), &events::asyncapi())?;
    fs::write(out.join("problems.md"), problems(services))?;

    let text = fs::read_to_string(readme).with_context(|| format!("{} cannot be read", readme.display()))?;
    let (before, rest) = text.split_once(TABLE_BEGINS).context("the README has no place for the table of settings")?;
    let (_, after) = rest.split_once(TABLE_ENDS).context("the README's table of settings has no end")?;
    let table = settings(services)?;
    fs::write(readme, format!("{before}{TABLE_BEGINS}\n\n{table}\n{TABLE_ENDS}{after}"))?;
    Ok(())
}

/// The API of `service`, with what all have in common: how one logs in, and the format of errors.
pub(crate) fn openapi_of(service: &Service) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value((service.openapi)())?;
    if let Some(info) = document["info"].as_object_mut() {
        // Taken from the package, which has none.
        info.remove("license");
    }
    let components = &mut document["components"];
    components["securitySchemes"] = json!({
        "cookie": { "type": "apiKey", "in": "cookie", "name": token::COOKIE },
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
    });
    components["schemas"]["Problem"] = problem_schema();
    for kind in COMMON {
        components["responses"][kind.code] = problem_response(&[*kind]);
    }
    for operation in operations_of(&mut document) {
        for status in statuses_of(operation) {
            if status.starts_with(['4', '5']) {
                complete(&status, &mut operation["responses"][&status]);
            }
        }
        for kind in COMMON {
            if can_answer(operation, *kind) {
                document_response(operation, kind.status, kind.code);
            }
        }
    }
    Ok(document)
}

/// What every service can answer beside what its operations say of themselves.
const COMMON: &[Kind] = &[
    kinds::BAD_REQUEST,
    kinds::NO_SUCH_PATH,
    kinds::BODY_TOO_LARGE,
    kinds::UNSUPPORTED_MEDIA_TYPE,
    kinds::INTERNAL,
    kinds::UNAVAILABLE,
];

/// Whether there is something in what `operation` takes that can be wrong in this way.
fn can_answer(operation: &Value, kind: Kind) -> bool {
    let has_parameter_in = |place: &str| {
        let parameters = operation["parameters"].as_array();
        parameters.is_some_and(|parameters| parameters.iter().any(|parameter| parameter["in"] == place))
    };
    let body = &operation["requestBody"];
    match kind.status {
        400 => body.is_object() || has_parameter_in("query"),
        // What cannot be an id names nothing.
        404 => has_parameter_in("path"),
        413 => body.is_object(),
        // Who takes something else than JSON takes whatever it is called.
        415 => body["content"].get("application/json").is_some(),
        _ => true,
    }
}

/// Every operation of an OpenAPI document.
fn operations_of(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths =
        document.get_mut("paths").and_then(Value::as_object_mut).into_iter().flat_map(|paths| paths.values_mut());
    // A path has members of its own beside its methods.
    let members = paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    members.filter(|member| member.get("responses").is_some_and(Value::is_object))
}

fn statuses_of(operation: &Value) -> Vec<String> {
    operation["responses"].as_object().into_iter().flat_map(|responses| responses.keys().cloned()).collect()
}

/// Adds the response `name` of the components to `operation`, if it says nothing about this status itself.
pub fn document_response(operation: &mut Value, status: u16, name: &str) {
    let response = &mut operation["responses"][status.to_string()];
    if response.is_null() {
        *response = json!({ "$ref": format!("#/components/responses/{name}") });
    }
}

/// The response of problems of these kinds, which have one status, for the components of an OpenAPI document.
#[must_use]
pub fn problem_response(kinds: &[Kind]) -> Value {
    let words: Vec<_> = kinds.iter().map(|kind| format!("`{}`: {}", kind.code, kind.title)).collect();
    let mut response = json!({ "description": words.join("; ") });
    if let Some(kind) = kinds.first() {
        complete(&kind.status.to_string(), &mut response);
    }
    response
}

/// Gives the response of a problem what all of them have: a body in the one format, and the headers of its status.
fn complete(status: &str, response: &mut Value) {
    if response.get("content").is_none() {
        response["content"] =
            json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
    }
    let (name, header) = match status {
        "401" => ("WWW-Authenticate", json!({ "required": true, "schema": { "type": "string", "const": "Bearer" } })),
        "429" | "503" => (
            "Retry-After",
            json!({
                "description": "In seconds.",
                "required": status == "429",
                "schema": { "type": "integer", "minimum": 1 },
            }),
        ),
        _ => return,
    };
    response["headers"][name] = header;
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457). Some kinds add members of their own.",
        "required": ["type", "title", "status", "detail", "code", "trace_id"],
        "properties": {
            "type": { "type": "string", "format": "uri", "pattern": "^urn:amphi:problem:[a-z-]+$" },
            "title": { "type": "string", "minLength": 1, "description": "The same at every occurrence." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "minLength": 1, "description": "What to do about this occurrence." },
            "code": { "type": "string", "pattern": "^[a-z-]+$", "description": "Stable, for programs." },
            "trace_id": {
                "type": ["string", "null"],
                "pattern": "^[0-9a-f]{32}$",
                "description": "The log has it too.",
            },
            "fields": {
                "type": "object",
                "additionalProperties": { "type": "string" },
                "description": "With 422: why each of these fields is not valid.",
            },
            "max_bytes": { "type": "integer", "minimum": 0, "description": "With 413: how long a body may be." },
        },
    })
}

fn write_json(path: &Path, document: &impl Serialize) -> anyhow::Result<()> {
    fs::write(path, serde_json::to_string_pretty(document)? + "\n")
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn settings(services: &[Service]) -> anyhow::Result<String> {
    let env = Env::of([("", "")]).describing();
    run::read_all(services, &env)?;
    let mut table = "| setting | default | meaning |\n|---|---|---|\n".to_owned();
    for setting in env.described() {
        let default = match setting.default.contains(' ') || setting.default.contains('`') {
            true => setting.default,
            false => format!("`{}`", setting.default),
        };
        writeln!(table, "| `{}` | {default} | {} |", setting.name, setting.meaning)?;
    }
    Ok(table)
}

fn problems(services: &[Service]) -> String {
    let mut text = "# Problems\n\n\
        Every error body is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, `code` and\n\
        `trace_id`. `code` is stable: programs go by it. `detail` tells what to do about this occurrence. Written by\n\
        `make generated` from the code.\n"
        .to_owned();
    let sections = [("every service", kinds::ALL)];
    let own = services.iter().filter(|service| !service.problems.is_empty());
    for (name, kinds) in sections.into_iter().chain(own.map(|service| (service.name, service.problems))) {
        text.push_str(&format!("\n## Of {name}\n"));
        for kind in kinds {
            let explanation = kind.explanation.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(&format!("\n### `{}`\n\n{} · {}\n\n{explanation}\n", kind.code, kind.status, kind.title));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(operation: &Value) -> Vec<u16> {
        COMMON.iter().filter(|kind| can_answer(operation, **kind)).map(|kind| kind.status).collect()
    }

    #[test]
    fn an_operation_can_answer_what_is_wrong_with_what_it_takes() {
        let json = json!({ "requestBody": { "content": { "application/json": {} } } });
        let form = json!({ "requestBody": { "content": { "application/x-www-form-urlencoded": {} } } });
        let page = json!({ "parameters": [{ "in": "query" }] });
        let one = json!({ "parameters": [{ "in": "path" }] });
        assert_eq!(statuses(&json), [400, 413, 415, 500, 503]);
        assert_eq!(statuses(&form), [400, 413, 500, 503]);
        assert_eq!(statuses(&page), [400, 500, 503]);
        assert_eq!(statuses(&one), [404, 500, 503]);
        assert_eq!(statuses(&json!({})), [500, 503]);
    }

    #[test]
    fn what_an_operation_says_of_a_status_itself_stays() {
        let mut operation = json!({ "responses": { "404": { "description": "`no-such-user`" } } });
        document_response(&mut operation, 404, "no-such-path");
        document_response(&mut operation, 413, "body-too-large");
        assert_eq!(operation["responses"]["404"]["description"], "`no-such-user`");
        assert_eq!(operation["responses"]["413"]["$ref"], "#/components/responses/body-too-large");
    }

    #[test]
    fn problems_are_described_with_their_format_and_headers() {
        let response = problem_response(&[kinds::TOKEN_MISSING, kinds::TOKEN_EXPIRED]);
        assert_eq!(response["description"], "`token-missing`: Not logged in; `token-expired`: Token expired");
        assert!(response["content"]["application/problem+json"].is_object());
        assert_eq!(response["headers"]["WWW-Authenticate"]["required"], true);
    }
}

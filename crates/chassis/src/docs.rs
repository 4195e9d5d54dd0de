//! Writes the documents that follow from the code, so that they cannot drift from it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use common::problem::kinds;
use common::token;
use serde::Serialize;
use serde_json::{Value, json};

use crate::env::Env;
use crate::run;
use crate::service::Service;

const TABLE_BEGINS: &str = "<!-- settings: written by `make generated` -->";
const TABLE_ENDS: &str = "<!-- end of settings -->";

/// OpenAPI a service, AsyncAPI and the list of problems into `out`, and the table of settings into `readme`.
pub fn write(services: &[Service], out: &Path, readme: &Path) -> anyhow::Result<()> {
    let openapi = out.join("openapi");
    fs::create_dir_all(&openapi)?;
    for service in services {
        write_json(&openapi.join(format!("{}.json", service.name)), &openapi_of(service)?)?;
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
    components["schemas"]["Problem"] = json!({
        "type": "object",
        "description": "What went wrong (RFC 9457). Some kinds add members of their own.",
        "required": ["type", "title", "status", "detail", "code", "trace_id"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string", "description": "The same at every occurrence." },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What to do about this occurrence." },
            "code": { "type": "string", "description": "Stable, for programs." },
            "trace_id": { "type": ["string", "null"], "description": "The log has it too." },
        },
    });
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    for responses in operations.filter_map(|operation| operation.get_mut("responses")?.as_object_mut()) {
        for (status, response) in responses.iter_mut() {
            if status.starts_with(['4', '5']) && response.get("content").is_none() {
                response["content"] =
                    json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } });
            }
        }
    }
    Ok(document)
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

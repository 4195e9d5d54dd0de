//! What the gateway says of itself: the OpenAPI documents of all services as one, and a page of paths.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use chassis::docs::{document_response, problem_response};
use common::problem::{chain, kinds};
use common::token::InQuery;
use common::{Kind, Problem};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::admit::is_safe;
use crate::config::Service;
use crate::problems::{
    BAD_GATEWAY, CROOKED_PATH, CROOKED_UPGRADE, FOREIGN_ORIGIN, HEAD_TOO_LARGE, NOT_INSTALLED, REQUEST_STALLED,
    TOO_MANY_REQUESTS, UPSTREAM_TIMEOUT, URI_TOO_LONG,
};
use crate::router::Router;
use crate::table::{Access, Limits, ROUTES, Route};
use crate::upstream::Fault;
use crate::worker::Worker;

/// How long an aggregated document is served before the services are asked again.
const FRESH: Duration = Duration::from_secs(10);
/// The same for one that lacks a service: it may be back soon.
const FRESH_PARTIAL: Duration = Duration::from_secs(1);
/// How long a service may take to describe itself.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest document taken from a service, in bytes.
const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// The aggregated document that a worker made last.
#[derive(Default)]
pub struct Documents {
    /// Until when it is fresh, and its text.
    last: RefCell<Option<(Instant, Bytes)>>,
    /// Held by the one request that asks the services.
    asking: Mutex<()>,
}

impl Documents {
    fn fresh(&self) -> Option<Bytes> {
        self.last.borrow().as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, document)| document.clone())
    }

    fn any(&self) -> Option<Bytes> {
        self.last.borrow().as_ref().map(|(_, document)| document.clone())
    }
}

/// Adds `/docs/`, `/docs/paths` and `/openapi.json`.
pub fn routes(config: &mut web::ServiceConfig) {
    // Swagger UI would otherwise show the document to a validator on the internet.
    let page = Config::new(["/openapi.json"]).validator_url("none");
    config
        .route("/docs/paths", web::get().to(index))
        .route("/openapi.json", web::get().to(openapi))
        .service(web::redirect("/docs", "/docs/"))
        .service(SwaggerUi::new("/docs/{file:.*}").config(page));
}

/// Every public operation of every service, as one OpenAPI document.
///
/// A service that does not answer is named in the description, and its operations are missing.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "gateway",
    responses((status = 200, description = "An OpenAPI 3.1 document", content_type = "application/json"))
)]
pub async fn openapi(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let document = document(Worker::of(&request)?).await;
    Ok(HttpResponse::Ok().content_type("application/json").body(document))
}

/// The document of a worker. However many ask for it, one asks the services; the others get the last one, or wait for
/// the first.
async fn document(worker: &Worker) -> Bytes {
    let documents = &worker.documents;
    if let Some(fresh) = documents.fresh() {
        return fresh;
    }
    let _asking = match (documents.asking.try_lock(), documents.any()) {
        (Ok(asking), _) => asking,
        (Err(_), Some(old)) => return old,
        (Err(_), None) => documents.asking.lock().await,
    };
    // Whoever asked before us has brought it, unless its client left.
    match documents.fresh() {
        Some(fresh) => fresh,
        None => aggregate(worker).await,
    }
}

async fn aggregate(worker: &Worker) -> Bytes {
    let described =
        Service::ALL.into_iter().filter(|service| service.has_openapi() && worker.upstream(*service).is_ok());
    let parts = join_all(described.map(async |service| (service, describe(worker, service).await))).await;
    let is_partial = parts.iter().any(|(_, part)| part.is_err());
    let document = Bytes::from(merge(&worker.gateway.router, parts).to_string());
    let fresh = if is_partial { FRESH_PARTIAL } else { FRESH };
    worker.documents.last.replace(Some((Instant::now() + fresh, document.clone())));
    document
}

/// The document of one service. The error says in words why there is none.
async fn describe(worker: &Worker, service: Service) -> Result<Value, String> {
    let upstream = worker.upstream(service).map_err(|problem| problem.to_string())?;
    let answer = timeout(PATIENCE, upstream.get("/openapi.json", MAX_DOCUMENT));
    let text = answer.await.unwrap_or(Err(Fault::Silent(PATIENCE).into())).map_err(|error| chain(&error))?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Joins the documents of services. Paths that the gateway does not lead to are left out.
fn merge(router: &Router, parts: Vec<(Service, Result<Value, String>)>) -> Value {
    let mut description = String::from("Livestreams, meetings, chat and recordings, behind one gateway.");
    let mut paths = Map::new();
    let mut components = Map::new();
    let mut tags = Vec::new();
    for (service, part) in parts {
        let mut part = match part {
            Ok(part) => part,
            Err(why) => {
                // Writing to a string cannot fail.
                let _ =
                    write!(description, "\n\nThe service `{}` is away: its operations are missing.", service.name());
                tracing::warn!(service = service.name(), why, "a service did not describe its API");
                continue;
            }
        };
        set_apart(&mut part, service, &components);
        for (path, mut item) in members(&mut part, "paths") {
            if let Some(found) = router.find(&path).filter(|found| found.route.service == service) {
                add_own_problems(found.route, &mut item);
                paths.insert(path, item);
            }
        }
        let mut sections = members(&mut part, "components");
        for (section, _) in sections.clone() {
            let known = components.entry(section.clone()).or_insert_with(|| json!({}));
            if let Value::Object(known) = known {
                known.extend(members_of(sections.remove(&section)));
            }
        }
        if let Some(Value::Array(more)) = part.get_mut("tags").map(Value::take) {
            tags.extend(more);
        }
    }
    let own = OWN_PROBLEMS.iter().map(|(name, kinds)| ((*name).to_owned(), problem_response(kinds)));
    if let Some(responses) = components.entry("responses").or_insert_with(|| json!({})).as_object_mut() {
        responses.extend(own);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Amphi", "version": env!("CARGO_PKG_VERSION"), "description": description },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": components,
        "tags": tags,
    })
}

/// What the gateway answers itself: the names of the responses, and the kinds of problems, of one status each.
const OWN_PROBLEMS: &[(&str, &[Kind])] = &[
    ("gateway-400", &[CROOKED_PATH, CROOKED_UPGRADE, kinds::BAD_REQUEST]),
    ("gateway-401", &[kinds::TOKEN_MISSING, kinds::TOKEN_INVALID, kinds::TOKEN_EXPIRED, kinds::SESSION_ENDED]),
    ("gateway-403", &[FOREIGN_ORIGIN]),
    ("gateway-408", &[REQUEST_STALLED]),
    ("gateway-413", &[kinds::BODY_TOO_LARGE]),
    ("gateway-414", &[URI_TOO_LONG]),
    ("gateway-429", &[TOO_MANY_REQUESTS]),
    ("gateway-431", &[HEAD_TOO_LARGE]),
    ("gateway-502", &[BAD_GATEWAY]),
    ("gateway-503", &[kinds::UNAVAILABLE, NOT_INSTALLED]),
    ("gateway-504", &[UPSTREAM_TIMEOUT]),
];

/// Adds what the gateway answers itself at `route` to the operations of a path, where they say nothing of that status.
fn add_own_problems(route: &Route, item: &mut Value) {
    for (method, operation) in item.as_object_mut().into_iter().flatten() {
        let Ok(method) = method.to_ascii_uppercase().parse::<Method>() else { continue };
        if !operation["responses"].is_object() {
            continue;
        }
        for (name, kinds) in OWN_PROBLEMS {
            let Some(status) = kinds.first().map(|kind| kind.status) else { continue };
            let is_possible = match status {
                401 => route.access.needs_token(&method),
                403 => !is_safe(&method),
                408 | 413 => operation["requestBody"].is_object(),
                429 => route.limits == Limits::Rates,
                _ => true,
            };
            if is_possible {
                document_response(operation, status, name);
            }
        }
    }
}

/// Gives the components of `part` another name where another service uses theirs for something else.
fn set_apart(part: &mut Value, service: Service, known: &Map<String, Value>) {
    let mut renamed = Vec::new();
    let Some(Value::Object(sections)) = part.get_mut("components") else {
        return;
    };
    for (section, entries) in sections {
        // Security schemes are referred to by bare names, and are the same everywhere.
        let (Some(known), Value::Object(entries), true) = (known.get(section), entries, section != "securitySchemes")
        else {
            continue;
        };
        let clashing: Vec<_> = entries
            .iter()
            .filter(|(name, entry)| known.get(*name).is_some_and(|other| other != *entry))
            .map(|(name, _)| name.clone())
            .collect();
        for name in clashing {
            let own = format!("{}_{name}", service.name());
            let entry = entries.remove(&name).unwrap_or_default();
            entries.insert(own.clone(), entry);
            renamed.push((format!("#/components/{section}/{name}"), format!("#/components/{section}/{own}")));
        }
    }
    follow(part, &renamed);
}

/// Makes references in `value` follow what was renamed.
fn follow(value: &mut Value, renamed: &[(String, String)]) {
    match value {
        Value::String(text) => {
            if let Some((_, own)) = renamed.iter().find(|(name, _)| name == text) {
                text.clone_from(own);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| follow(item, renamed)),
        Value::Object(members) => members.values_mut().for_each(|member| follow(member, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn members(value: &mut Value, name: &str) -> Map<String, Value> {
    members_of(value.get_mut(name).map(Value::take))
}

fn members_of(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    }
}

/// A page for whoever opens the gateway's address in a browser: where the documents are, and every path of the table.
pub async fn index() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(page())
}

fn page() -> String {
    let rows = ROUTES.iter().fold(String::new(), |mut rows, route| {
        let access = match (route.access, route.token_in_query) {
            (Access::Public, _) => "everybody",
            (Access::PublicToRead, InQuery::Ignored) => "everybody to read, a token to change",
            (Access::PublicToRead, InQuery::Allowed) => {
                "everybody to read, a token (also <code>?token=</code>) to change"
            }
            (Access::Token, InQuery::Ignored) => "a token",
            (Access::Token, InQuery::Allowed) => "a token, also <code>?token=</code>",
        };
        let paths = route.paths.join("</code><br><code>");
        // Writing to a string cannot fail.
        let _ = writeln!(rows, "<tr><td>{}</td><td><code>{paths}</code></td><td>{access}</td></tr>", route.purpose);
        rows
    });
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Amphi</title>\n\
         <h1>Amphi</h1>\n\
         <p><a href=\"/docs/\">API documentation</a> · <a href=\"/openapi.json\">OpenAPI</a></p>\n\
         <table>\n<tr><th>What</th><th>Paths</th><th>Open to</th></tr>\n{rows}</table>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(parts: Vec<(Service, Result<Value, String>)>) -> Value {
        merge(&Router::new(ROUTES).unwrap(), parts)
    }

    #[test]
    fn paths_that_are_not_routed_are_left_out() {
        let stream = json!({ "paths": { "/api/v1/streams/{id}": { "get": {} }, "/internal": { "get": {} } } });
        let document = merged(vec![(Service::Stream, Ok(stream))]);
        assert_eq!(document["paths"], json!({ "/api/v1/streams/{id}": { "get": {} } }));
    }

    #[test]
    fn a_service_cannot_describe_the_paths_of_another() {
        let stream = json!({ "paths": { "/api/v1/auth/login": { "post": {} } } });
        assert_eq!(merged(vec![(Service::Stream, Ok(stream))])["paths"], json!({}));
    }

    #[test]
    fn operations_tell_what_the_gateway_answers_itself_where_the_service_says_nothing_of_that_status() {
        let own = json!({ "description": "of the service" });
        let auth = json!({ "paths": {
            "/api/v1/auth/me": { "get": { "responses": { "200": {}, "401": own } } },
            "/api/v1/auth/login": { "post": { "requestBody": {}, "responses": { "200": {} } } },
        } });

        let document = merged(vec![(Service::Auth, Ok(auth))]);

        let me = &document["paths"]["/api/v1/auth/me"]["get"]["responses"];
        assert_eq!(me["401"], own);
        assert_eq!(me["429"]["$ref"], "#/components/responses/gateway-429");
        assert!(me.get("403").is_none() && me.get("413").is_none(), "{me}");
        let login = &document["paths"]["/api/v1/auth/login"]["post"]["responses"];
        assert!(login["403"].is_object() && login["413"].is_object() && login.get("401").is_none(), "{login}");
        assert!(document["components"]["responses"]["gateway-429"]["headers"]["Retry-After"].is_object());
    }

    #[test]
    fn a_service_that_is_away_is_named() {
        let document = merged(vec![(Service::Auth, Err("refused".into()))]);
        assert!(document["info"]["description"].as_str().unwrap().contains("`auth` is away"));
    }

    #[test]
    fn components_of_one_name_and_two_meanings_are_kept_apart() {
        let part = |path: &str, schema: Value| {
            json!({
                "paths": { path: { "get": { "$ref": "#/components/schemas/View" } } },
                "components": { "schemas": { "View": schema, "Problem": { "type": "object" } } },
            })
        };
        let document = merged(vec![
            (Service::Auth, Ok(part("/api/v1/auth/me", json!({ "title": "user" })))),
            (Service::Stream, Ok(part("/api/v1/streams", json!({ "title": "stream" })))),
        ]);
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["View"]["title"], "user");
        assert_eq!(schemas["stream_View"]["title"], "stream");
        assert_eq!(schemas.as_object().unwrap().len(), 3);
        assert_eq!(document["paths"]["/api/v1/streams"]["get"]["$ref"], "#/components/schemas/stream_View");
        assert_eq!(document["paths"]["/api/v1/auth/me"]["get"]["$ref"], "#/components/schemas/View");
    }

    #[test]
    fn the_page_names_every_path() {
        let page = page();
        assert!(ROUTES.iter().flat_map(|route| route.paths).all(|path| page.contains(path)));
    }
}

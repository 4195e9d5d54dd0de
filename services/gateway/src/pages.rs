//! What the gateway serves itself: the web client from its folder, the documents, and whether it takes requests.

use std::path::Path;
use std::rc::Rc;

use actix_files::{Files, NamedFile};
use actix_http::Response;
use actix_service::boxed::rc_service;
use actix_service::{IntoServiceFactory as _, ServiceExt as _, ServiceFactory as _, map_config};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{AppConfig, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, ResponseError as _, web};
use common::Problem;
use common::problem::kinds;

use crate::docs;
use crate::front::Pages;
use crate::worker::Worker;

/// What pages of ours may load, and from where: media and calls may come from elsewhere, code may not.
const CONTENT_SECURITY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob: https:; \
     media-src 'self' blob: https: http:; connect-src 'self' ws: wss: https:; frame-src https:; worker-src 'self' blob:; \
     object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// The folder of files whose names change with their content.
const IMMUTABLE: &str = "/assets/";

/// The pages of one worker thread.
///
/// Fails only if the pages contradict each other.
pub async fn pages(worker: Rc<Worker>) -> anyhow::Result<Pages> {
    let web = worker.gateway.config.web.clone();
    let app = App::new()
        .wrap(from_fn(page_headers))
        .app_data(Rc::clone(&worker))
        .configure(docs::routes)
        .route("/healthz", web::get().to(healthz));
    let app = match web {
        Some(folder) => app.service(web_client(&folder)),
        None => app.route("/", web::get().to(docs::index)),
    };
    let app = app.default_service(web::to(no_such_path));
    let factory = map_config(app.into_factory(), |(): ()| AppConfig::default());
    let service = factory.new_service(()).await.map_err(|()| anyhow::anyhow!("the pages could not be set up"))?;
    Ok(rc_service(service.map(|answer: ServiceResponse<BoxBody>| Response::from(answer))))
}

/// What every page has.
async fn page_headers(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let is_immutable = request.path().starts_with(IMMUTABLE);
    let mut answer = next.call(request).await?.map_into_boxed_body();
    // A file that nobody may see, or a name that no file has: for whoever asks, there is none.
    if answer.status().is_client_error() && !is_problem(&answer) {
        let path = answer.request().path().to_owned();
        answer = answer.into_response(not_found(&path).error_response());
    }
    let caching = match (is_immutable, answer.status().is_success()) {
        (true, true) => "public, max-age=31536000, immutable",
        _ => "no-cache",
    };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    }
    Ok(answer)
}

fn is_problem(answer: &ServiceResponse<BoxBody>) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json")
}

/// The files of the web client. A path that is no file is a page that the client draws itself, if a browser asks for one.
fn web_client(folder: &Path) -> Files {
    let index = folder.join("index.html");
    Files::new("/", folder).index_file("index.html").prefer_utf8(true).default_handler(web::to(
        move |request: HttpRequest| {
            let index = index.clone();
            async move {
                let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
                match NamedFile::open(index) {
                    Ok(file) if accept.is_some_and(|accept| accept.contains("text/html")) => {
                        Ok(file.into_response(&request))
                    }
                    _ => Err(not_found(request.path())),
                }
            }
        },
    ))
}

async fn healthz(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let health = &Worker::of(&request)?.gateway.health;
    Ok(chassis::run::healthz(health, health.takes_requests()))
}

async fn no_such_path(request: HttpRequest) -> HttpResponse {
    not_found(request.path()).error_response()
}

fn not_found(path: &str) -> Problem {
    kinds::NO_SUCH_PATH.say(format!("nothing is at {path}"))
}

//! Every public path, in one place.
//!
//! A path reads `/streams/{id}`: `{name}` stands for one segment, `{name..}` at the end for any number of further ones.
//! Where several patterns fit, the most literal one counts, whatever their order. A path may end in a slash or not.
//! Patterns are compared with the path as it was sent, so a disguised path (`/%61uth`) is an unknown one.

use actix_web::http::Method;
use common::token::InQuery;

use crate::config::Service;

/// A public resource: its paths, who answers, and who may ask.
#[derive(Debug)]
pub struct Route {
    /// The canonical path first: the one that the service knows. The others are translated into it, and have the same
    /// `{names}` in the same order.
    pub paths: &'static [&'static str],
    pub service: Service,
    pub methods: Methods,
    pub access: Access,
    /// Whether `?token=` counts as a token.
    pub token_in_query: InQuery,
    /// Headers that pass here and are stripped everywhere else.
    pub headers: &'static [&'static str],
    /// What one does here, in a few words.
    pub purpose: &'static str,
}

/// Which methods the gateway lets through. What of them a resource knows is for its service to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Methods {
    /// All but CONNECT and TRACE: those speak to a proxy itself, and to whoever echoes secrets back.
    Any,
    /// GET and HEAD.
    Read,
}

/// Whose requests pass. A service checks every token again, and may ask for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody's. A token is not looked at here: to a service, a bad one on a public path is none.
    Public,
    /// Everybody's to read (GET, HEAD), only with a valid token to change.
    PublicToRead,
    /// Only those with a valid token.
    Token,
}

impl Methods {
    /// Whether `method` is let through.
    #[must_use]
    pub fn contains(self, method: &Method) -> bool {
        match self {
            Self::Any => !matches!(*method, Method::CONNECT | Method::TRACE),
            Self::Read => is_read(method),
        }
    }

    /// The value of `Allow` for a client whose method is not let through.
    #[must_use]
    pub fn allow(self) -> &'static str {
        match self {
            Self::Any => "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            Self::Read => "GET, HEAD",
        }
    }
}

impl Access {
    /// Whether a request with `method` needs a valid token.
    #[must_use]
    pub fn needs_token(self, method: &Method) -> bool {
        match self {
            Self::Public => false,
            Self::PublicToRead => !is_read(method),
            Self::Token => true,
        }
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What most routes have in common.
const ROUTE: Route = Route {
    paths: &[],
    service: Service::Auth,
    methods: Methods::Any,
    access: Access::Token,
    token_in_query: InQuery::Ignored,
    headers: &[],
    purpose: "",
};

/// The table.
pub const ROUTES: &[Route] = &[
    // Accounts
    Route {
        paths: &["/api/v1/auth/register", "/api/auth/register"],
        access: Access::Public,
        purpose: "Create an account",
        ..ROUTE
    },
    Route { paths: &["/api/v1/auth/login", "/api/auth/login"], access: Access::Public, purpose: "Log in", ..ROUTE },
    Route {
        paths: &["/api/v1/auth/logout", "/api/auth/logout"],
        // Whoever holds an expired token wants to be rid of its cookie too.
        access: Access::Public,
        purpose: "Log out",
        ..ROUTE
    },
    Route { paths: &["/api/v1/auth/{rest..}", "/api/auth/{rest..}"], purpose: "One's own account", ..ROUTE },
    Route {
        paths: &["/.well-known/jwks.json"],
        access: Access::Public,
        purpose: "The public keys that verify tokens",
        ..ROUTE
    },
    // Livestreams
    Route {
        paths: &["/api/v1/streams", "/api/streams", "/streams"],
        service: Service::Stream,
        access: Access::PublicToRead,
        purpose: "List streams, create one",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/streams/{id}", "/api/streams/{id}", "/streams/{id}"],
        service: Service::Stream,
        access: Access::PublicToRead,
        purpose: "Look at a stream, change it",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/streams/{id}/{rest..}", "/api/streams/{id}/{rest..}", "/streams/{id}/{rest..}"],
        service: Service::Stream,
        access: Access::PublicToRead,
        purpose: "What belongs to a stream",
        ..ROUTE
    },
    // Callbacks of media servers, which can send no token: the stream service knows their secret.
    Route {
        paths: &["/api/v1/webhook/stream-event", "/api/webhook/stream-event", "/webhook/stream-event"],
        service: Service::Stream,
        access: Access::Public,
        headers: &["x-webhook-secret", "x-media-server", "x-media-server-started"],
        purpose: "Callbacks of media servers",
        ..ROUTE
    },
    Route {
        paths: &[
            "/api/v1/webhook/stream-event/{secret}",
            "/api/webhook/stream-event/{secret}",
            "/webhook/stream-event/{secret}",
        ],
        service: Service::Stream,
        access: Access::Public,
        headers: &["x-webhook-secret", "x-media-server", "x-media-server-started"],
        purpose: "Callbacks of media servers, with the secret in the path",
        ..ROUTE
    },
    // Media
    Route {
        paths: &["/hls/{playback_id}/{file}"],
        service: Service::Hls,
        methods: Methods::Read,
        access: Access::Public,
        purpose: "Playlists and segments of live streams",
        ..ROUTE
    },
];

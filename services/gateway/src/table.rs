//! Every public path, in one place.
//!
//! A path reads `/streams/{id}`: `{name}` stands for one segment, `{name..}` at the end for any number of further ones.
//! Where several patterns fit, the most literal one counts, whatever their order. A path may end in a slash or not.
//! Patterns are compared with the path as it was sent, so a disguised path (`/%61uth`) is an unknown one.

use std::time::Duration;

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
    /// The largest body of a request, in bytes.
    pub max_body: u64,
    /// How long the service may be silent, where that is not `GATEWAY_ANSWER_TIMEOUT`.
    pub patience: Option<Duration>,
    pub limits: Limits,
    /// Whether `?sid=` says in front which instance began: Socket.IO's long polls go on where they began.
    pub is_sticky: bool,
    /// Whether pages of any origin may show what is here: media, which they get without cookies.
    pub is_embeddable: bool,
    /// What one does here, in a few words.
    pub purpose: &'static str,
}

/// Whether requests count towards the rates of their address and user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    Rates,
    /// None: video comes in many small requests, of a whole school at one address; media servers must never wait.
    None,
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

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// What most routes have in common.
pub(crate) const ROUTE: Route = Route {
    paths: &[],
    service: Service::Auth,
    methods: Methods::Any,
    access: Access::Token,
    token_in_query: InQuery::Ignored,
    headers: &[],
    max_body: MIB,
    patience: None,
    limits: Limits::Rates,
    is_sticky: false,
    is_embeddable: false,
    purpose: "",
};

/// Callbacks of media servers, which can send no token: the service knows their secret.
const WEBHOOK: Route = Route {
    service: Service::Stream,
    access: Access::Public,
    headers: &["x-webhook-secret", "x-media-server", "x-media-server-started"],
    max_body: 64 * KIB,
    limits: Limits::None,
    ..ROUTE
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
    Route {
        paths: &["/api/v1/auth/refresh", "/api/auth/refresh"],
        access: Access::Public,
        purpose: "A new token for a refresh token",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/auth/password-reset/{rest..}", "/api/auth/password-reset/{rest..}"],
        access: Access::Public,
        purpose: "A new password for one that was forgotten",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/auth/email-verification/confirm", "/api/auth/email-verification/confirm"],
        access: Access::Public,
        purpose: "Confirm an e-mail address",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/auth/config", "/api/auth/config"],
        access: Access::Public,
        purpose: "Who may register",
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
    Route {
        paths: &["/api/v1/webhook/stream-event", "/api/webhook/stream-event", "/webhook/stream-event"],
        purpose: "Callbacks of media servers",
        ..WEBHOOK
    },
    Route {
        paths: &[
            "/api/v1/webhook/stream-event/{secret}",
            "/api/webhook/stream-event/{secret}",
            "/webhook/stream-event/{secret}",
        ],
        purpose: "Callbacks of media servers, with the secret in the path",
        ..WEBHOOK
    },
    // Meetings
    Route {
        paths: &["/api/v1/sessions", "/api/sessions"],
        service: Service::Session,
        purpose: "List meetings, create one",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/sessions/{id}/{rest..}", "/api/sessions/{id}/{rest..}"],
        service: Service::Session,
        purpose: "A meeting: join, leave, who is there",
        ..ROUTE
    },
    // Lessons
    Route {
        paths: &["/api/v1/video-call/{rest..}", "/api/video-call/{rest..}"],
        service: Service::VideoCall,
        purpose: "Paid lessons: create, join, leave, what is coming",
        ..ROUTE
    },
    Route {
        // Whoever calls these shows a secret of their own.
        paths: &["/api/v1/cron/{rest..}", "/api/cron/{rest..}"],
        service: Service::VideoCall,
        access: Access::Public,
        purpose: "Scheduled work of lessons",
        ..ROUTE
    },
    // Chat
    Route {
        paths: &["/api/v1/rooms", "/api/rooms"],
        service: Service::Chat,
        purpose: "List chat rooms, create one",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/rooms/{rest..}", "/api/rooms/{rest..}"],
        service: Service::Chat,
        purpose: "A chat room: join, leave, members, messages",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/conversations", "/api/conversations"],
        service: Service::Chat,
        purpose: "List conversations, begin one",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/conversations/{rest..}", "/api/conversations/{rest..}"],
        service: Service::Chat,
        purpose: "A conversation: its messages, what was read",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/chat/ws", "/api/chat/ws"],
        service: Service::Chat,
        token_in_query: InQuery::Allowed,
        purpose: "The WebSocket of rooms",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/chat/{rest..}", "/api/chat/{rest..}"],
        service: Service::Chat,
        purpose: "The state of rooms",
        ..ROUTE
    },
    Route {
        // Public, as the document has a missing token answered on the open WebSocket: by the close code 1008.
        paths: &["/ws/chat"],
        service: Service::Chat,
        access: Access::Public,
        token_in_query: InQuery::Allowed,
        purpose: "The WebSocket of conversations and calls",
        ..ROUTE
    },
    Route {
        // Public, as Socket.IO sends its token in its first packet. A long poll waits for 25 s and longer.
        paths: &["/socket.io/{rest..}"],
        service: Service::Chat,
        access: Access::Public,
        token_in_query: InQuery::Allowed,
        limits: Limits::None,
        is_sticky: true,
        purpose: "The chat of streams, over Socket.IO",
        ..ROUTE
    },
    // Recordings
    Route {
        paths: &["/api/v1/vod/upload", "/api/vod/upload", "/vod/upload"],
        service: Service::Vod,
        max_body: 64 * GIB,
        patience: Some(Duration::from_secs(15 * 60)),
        purpose: "Upload a recording",
        ..ROUTE
    },
    Route {
        paths: &["/api/v1/vod/{rest..}", "/api/vod/{rest..}", "/vod/{rest..}"],
        service: Service::Vod,
        access: Access::PublicToRead,
        token_in_query: InQuery::Allowed,
        max_body: 64 * MIB,
        limits: Limits::None,
        purpose: "Recordings: list, watch, change",
        ..ROUTE
    },
    // Media
    Route {
        paths: &["/hls/{playback_id}/{file}"],
        service: Service::Hls,
        methods: Methods::Read,
        access: Access::Public,
        limits: Limits::None,
        is_embeddable: true,
        purpose: "Playlists and segments of live streams",
        ..ROUTE
    },
];

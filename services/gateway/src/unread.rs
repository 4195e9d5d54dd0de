//! Closes the connection of a client that is answered before its body in chunks has come whole.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use actix_http::Response;
use actix_web::dev::Payload;
use futures_util::Stream as _;
use futures_util::stream::poll_fn;

use crate::answer::Answer;

/// A request's body in chunks, which the answer holds as well.
///
/// The server closes a connection behind an answer if somebody still holds the unfinished body of its request. If nobody
/// does, it reads such a body to its end, and for that it waits for ever.
#[derive(Clone)]
pub struct Unread(Rc<RefCell<Payload>>);

impl Unread {
    /// `payload` twice: to be read, and to be held.
    #[must_use]
    pub fn share(payload: Payload) -> (Payload, Self) {
        let unread = Self(Rc::new(RefCell::new(payload)));
        let read = Rc::clone(&unread.0);
        let pieces = poll_fn(move |cx| Pin::new(&mut *read.borrow_mut()).poll_next(cx));
        (Payload::Stream { payload: Box::pin(pieces) }, unread)
    }

    /// `answer`, which holds the body until it is sent.
    #[must_use]
    pub fn held_by(self, mut answer: Response<Answer>) -> Response<Answer> {
        // The server decides with the head if an answer has no body, else once that has ended.
        answer.extensions_mut().insert(self.clone());
        answer.map_body(|_, body| Answer::Holding(Box::new(body), self))
    }
}

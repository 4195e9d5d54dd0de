//! Read and write buffers that the exchanges of one worker thread take in turn.
//!
//! An exchange holds a buffer only while it has bytes in hand, so that thousands of idle event streams cost none.

use std::cell::RefCell;

use bytes::BytesMut;

/// The capacity of a fresh buffer, in bytes: a small answer fits, and so does most of a response head.
pub(super) const SMALL: usize = 16 * 1024;
/// What a read asks for once a body has filled a whole small buffer, in bytes.
pub(super) const LARGE: usize = 64 * 1024;
/// How many spare buffers a worker keeps. More are freed.
const SPARE: usize = 64;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`SMALL`] bytes.
pub(super) fn take() -> BytesMut {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    // A spare one may have been split: this joins its parts again, or allocates if somebody still reads them.
    buffer.reserve(SMALL);
    buffer
}

/// Hand a buffer back, whatever is in it.
pub(super) fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    // What grew for a large body is freed rather than kept by a worker that may never need it again.
    if buffer.capacity() > SMALL {
        return;
    }
    BUFFERS.with_borrow_mut(|spare| {
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    });
}

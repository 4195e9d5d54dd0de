//! Where a message body ends on the wire, in both directions.

use bytes::{Buf, Bytes, BytesMut};

/// How the body of a request goes to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFraming {
    /// There is no body.
    None,
    /// `Content-Length`: this many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The connection asks to become something else: nothing until the upstream agrees with 101, then bytes as they come.
    Upgrade,
}

/// How the body of a response ends, and how much of it is still to come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResponseFraming {
    /// This many bytes are still to come.
    Length(u64),
    /// Chunks, with the place we are at.
    Chunked(Chunks),
    /// Until the upstream closes: a response without a length, or an upgraded connection.
    UntilClose,
}

/// What one look into the buffer brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Bytes of the body, never none.
    Data(Bytes),
    /// The buffer is used up and the body goes on.
    More,
    /// The body is complete. What is left in the buffer does not belong to it.
    End,
}

/// The upstream does not speak HTTP as we understand it; the text says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl ResponseFraming {
    /// Take the next part of the body out of `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            _ if buffer.is_empty() => Ok(Decoded::More),
            Self::Length(remaining) => Ok(Decoded::Data(take_up_to(buffer, remaining))),
            Self::Chunked(chunks) => chunks.decode(buffer),
            Self::UntilClose => Ok(Decoded::Data(buffer.split().freeze())),
        }
    }
}

/// Takes at most `remaining` bytes, and counts them off.
fn take_up_to(buffer: &mut BytesMut, remaining: &mut u64) -> Bytes {
    let size = usize::try_from(*remaining).map_or(buffer.len(), |size| size.min(buffer.len()));
    *remaining -= size as u64;
    buffer.split_to(size).freeze()
}

/// The most bytes of chunk extensions, or of trailers, that one message may carry beside its data.
const MAX_OVERHEAD: u32 = 8 * 1024;

/// Reads a chunked body. Strict: lines end in CR LF, sizes are bare hexadecimal digits.
///
/// Extensions and trailers are read and dropped: both belong to the connection that they came on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunks {
    state: ChunkState,
    /// Bytes of extensions and trailers seen so far.
    overhead: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ChunkState {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size(u64),
    Extension(u64),
    /// After the CR of a size line.
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLf,
    /// At the start of a trailer line, or of the empty line that ends the message.
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLf,
    End,
}

impl Chunks {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            if let ChunkState::Data(remaining) = &mut self.state {
                if buffer.is_empty() {
                    return Ok(Decoded::More);
                }
                let data = take_up_to(buffer, remaining);
                if *remaining == 0 {
                    self.state = ChunkState::DataEnd;
                }
                return Ok(Decoded::Data(data));
            }
            if self.state == ChunkState::End {
                return Ok(Decoded::End);
            }
            if buffer.is_empty() {
                return Ok(Decoded::More);
            }
            self.state = self.step(buffer.get_u8())?;
        }
    }

    /// The state after one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<ChunkState, Malformed> {
        use ChunkState::*;
        Ok(match (self.state, byte) {
            (Start, _) => Size(hex(byte).ok_or(Malformed("a chunk has no size"))?),
            (Size(size), b'\r') => SizeEnd(size),
            (Size(size), b';') => Extension(size),
            (Size(size), _) => {
                let digit = hex(byte).ok_or(Malformed("a chunk size is not hexadecimal"))?;
                let shifted = size.checked_mul(16).ok_or(Malformed("a chunk is too large"))?;
                Size(shifted + digit)
            }
            (Extension(size), b'\r') => SizeEnd(size),
            (Extension(_) | Trailer, b'\n') | (TrailerStart, b'\n') => {
                return Err(Malformed("a line of a chunked body ends without CR"));
            }
            (Extension(size), _) => {
                self.count_overhead()?;
                Extension(size)
            }
            (SizeEnd(0), b'\n') => TrailerStart,
            (SizeEnd(size), b'\n') => Data(size),
            (DataEnd, b'\r') => DataEndLf,
            (DataEndLf, b'\n') => Start,
            (TrailerStart, b'\r') => LastLf,
            (Trailer, b'\r') => TrailerEnd,
            (TrailerStart | Trailer, _) => {
                self.count_overhead()?;
                Trailer
            }
            (TrailerEnd, b'\n') => TrailerStart,
            (LastLf, b'\n') => End,
            _ => return Err(Malformed("a chunk does not end in CR LF")),
        })
    }

    fn count_overhead(&mut self) -> Result<(), Malformed> {
        self.overhead += 1;
        if self.overhead > MAX_OVERHEAD {
            return Err(Malformed("a chunked body has too many extensions or trailers"));
        }
        Ok(())
    }
}

fn hex(byte: u8) -> Option<u64> {
    (byte as char).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `wire` as it would come in pieces of `step` bytes; answers the body and what lies behind it.
    fn decode(wire: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let mut framing = ResponseFraming::Chunked(Chunks::default());
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        let mut pieces = wire.chunks(step);
        loop {
            match framing.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::End => {
                    pieces.for_each(|piece| buffer.extend_from_slice(piece));
                    return Ok((body, buffer.to_vec()));
                }
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Err(Malformed("unfinished")),
                },
            }
        }
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        let wire = b"4\r\nwiki\r\n6;name=value\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nTrailer: x\r\n\r\nnext";
        for step in 1..wire.len() {
            let (body, rest) = decode(wire, step).unwrap();
            assert_eq!(body, b"wikipedia in \r\n\r\nchunks.");
            assert_eq!(rest, b"next");
        }
    }

    #[test]
    fn crooked_chunks_are_refused() {
        for wire in [
            &b"\r\n"[..],
            b"+4\r\nwiki\r\n",
            b"0x4\r\nwiki\r\n",
            b"-1\r\n",
            b"4\nwiki\r\n0\r\n\r\n",
            b"4;a\nwiki\r\n0\r\n\r\n",
            b"4\r\nwikiX\r\n0\r\n\r\n",
            b"4\r\nwiki\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\na: b\n\r\n",
            b"10000000000000000\r\n",
        ] {
            let answer = decode(wire, 1).unwrap_err();
            assert_ne!(answer, Malformed("unfinished"), "{:?}", wire.escape_ascii().to_string());
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = "x".repeat(MAX_OVERHEAD as usize + 1);
        assert!(decode(format!("1;{long}\r\na\r\n0\r\n\r\n").as_bytes(), 100).is_err());
        assert!(decode(format!("0\r\na: {long}\r\n\r\n").as_bytes(), 100).is_err());
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut framing = ResponseFraming::Length(3);
        let mut buffer = BytesMut::from("abcdef");
        assert_eq!(framing.decode(&mut buffer), Ok(Decoded::Data(Bytes::from("abc"))));
        assert_eq!(framing.decode(&mut buffer), Ok(Decoded::End));
        assert_eq!(&buffer[..], b"def");
    }
}

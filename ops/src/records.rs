//! Records on their way in: lines of a stream, or made up.
//!
//! Cuts a stream into lines without copying them: a record is a slice of the chunk it was read in.
//! Knows no log. A line is whatever stands between newlines, text or not; a last line without one
//! counts too.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use ringwood_core::limits::RECORD_SIZE_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked of the stream at a time.
const CHUNK_SIZE: usize = 256 << 10;

/// Why no further record comes from a stream.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The line of this number, counted from 1, is longer than a record may be.
    TooLong(u64),
    /// The stream could not be read.
    Read(io::Error),
}

/// The lines of a stream.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    stream: R,
    buffer: BytesMut,
    /// Bytes at the buffer's start that are known to hold no newline.
    searched: usize,
    ended: bool,
    line_count: u64,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of `stream`, from where it stands.
    pub(crate) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            searched: 0,
            ended: false,
            line_count: 0,
        }
    }

    /// The next line without its newline, if it can be had without reading.
    pub(crate) fn take_ready(&mut self) -> Result<Option<Bytes>, LineError> {
        assert!(
            self.searched <= self.buffer.len(),
            "searched what is not there"
        );
        let newline = self.buffer[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n');
        let line = match newline {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                line
            }
            None if self.ended && !self.buffer.is_empty() => self.buffer.split().freeze(),
            None => {
                self.searched = self.buffer.len();
                // Refused before the whole of it is read: it may have no end at all.
                if self.searched > RECORD_SIZE_MAX {
                    return Err(LineError::TooLong(self.line_count + 1));
                }
                return Ok(None);
            }
        };
        self.searched = 0;
        self.line_count += 1;
        if line.len() > RECORD_SIZE_MAX {
            return Err(LineError::TooLong(self.line_count));
        }
        Ok(Some(line))
    }

    /// Whether the stream's end was read: what `take_ready` then gives is all that comes.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Reads a chunk more. Dropping the future loses nothing.
    pub(crate) async fn fill(&mut self) -> Result<(), LineError> {
        if !self.ended {
            self.buffer.reserve(CHUNK_SIZE);
            let size = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(LineError::Read)?;
            self.ended = size == 0;
        }
        Ok(())
    }
}

/// Made-up records: the sequence number, a space, then printable filling.
#[derive(Debug)]
pub(crate) struct Generated {
    next: u64,
    count: u64,
    size: usize,
}

impl Generated {
    /// `count` records of `size` bytes. `None` if the highest number would not fit that size.
    pub(crate) fn new(count: u64, size: usize) -> Option<Self> {
        let digits = count.saturating_sub(1).to_string().len();
        (size >= digits).then_some(Self {
            next: 0,
            count,
            size,
        })
    }
}

impl Iterator for Generated {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.next == self.count {
            return None;
        }
        let mut record = self.next.to_string().into_bytes();
        if record.len() < self.size {
            record.push(b' ');
        }
        // Begins elsewhere in each record, so that two that are mixed up differ all along.
        let filling = (b'a'..=b'z').cycle().skip((self.next % 26) as usize);
        let missing = self.size - record.len();
        record.extend(filling.take(missing));
        self.next += 1;
        assert_eq!(record.len(), self.size, "a record has the size asked for");
        Some(record.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that yields its bytes in pieces of a fixed size.
    struct Pieces<'a> {
        bytes: &'a [u8],
        size: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            out: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let size = self.size.min(self.bytes.len()).min(out.remaining());
            let (piece, rest) = self.bytes.split_at(size);
            out.put_slice(piece);
            self.bytes = rest;
            std::task::Poll::Ready(Ok(()))
        }
    }

    fn lines(bytes: &[u8], size: usize) -> Result<Vec<Bytes>, LineError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut lines = Lines::new(Pieces { bytes, size });
            let mut all = Vec::new();
            loop {
                lines.fill().await?;
                while let Some(line) = lines.take_ready()? {
                    all.push(line);
                }
                if lines.is_ended() {
                    return Ok(all);
                }
            }
        })
    }

    #[test]
    fn lines_are_the_bytes_between_newlines_however_they_arrive() {
        let text = b"one\n\n\xff\x00\r\nlast";
        let expected: [&[u8]; 4] = [b"one", b"", b"\xff\x00\r", b"last"];
        for size in 1..=text.len() {
            assert_eq!(
                lines(text, size).expect("readable"),
                expected,
                "pieces of {size}"
            );
        }
        assert!(lines(b"", 1).expect("readable").is_empty());
        assert_eq!(lines(b"\n", 1).expect("readable"), [Bytes::new()]);
    }

    #[test]
    fn a_line_above_the_limit_is_refused_and_one_at_the_limit_is_not() {
        let mut text = vec![b'x'; RECORD_SIZE_MAX];
        assert_eq!(lines(&text, 100_000).expect("at the limit").len(), 1);
        text.push(b'\n');
        assert_eq!(lines(&text, 100_000).expect("at the limit").len(), 1);
        text.insert(0, b'\n');
        text.insert(1, b'x');
        assert!(matches!(lines(&text, 100_000), Err(LineError::TooLong(2))));
        text.pop();
        assert!(matches!(
            lines(&text, text.len()),
            Err(LineError::TooLong(2))
        ));
    }

    #[test]
    fn generated_records_are_printable_numbered_and_of_one_size() {
        let records: Vec<_> = Generated::new(12, 8).expect("they fit").collect();
        assert_eq!(records[0], "0 abcdef");
        assert_eq!(records[11], "11 lmnop");
        assert_eq!(
            Generated::new(11, 2)
                .expect("they fit")
                .last()
                .expect("some"),
            "10"
        );
        assert!(Generated::new(11, 1).is_none());
        assert_eq!(Generated::new(0, 1).expect("none fits").count(), 0);
    }
}

//! What a reader of segments will want next, read before it asks.
//!
//! Whoever reads a log's past asks for a piece, gets it, and asks for the next one; meanwhile the disk
//! would rest. So where a fetch begins where another has ended, what comes behind it in that file is
//! read as well, a piece at a time, a few pieces ahead:
//!
//! ```text
//!    forgotten │ what the fetch wants │ ahead: up to two pieces
//!   ───────────┼──────────────────────┼───────────┬───────────┤ ◀─ one read under way
//! ```
//!
//! Keeps bytes, and knows no blocks: `locate` walks over them as over those of any read. What is not
//! right there, and whatever fails here, is read anew by whoever wants it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::id::Nanos;
use crate::limits::AHEAD_STREAM_COUNT_MAX;

use super::effects::Source;
use super::load::Purpose;
use super::locate::{Job, Step};
use super::segment_map::Point;
use super::{Effects, Shard};

/// Pieces that are read beyond what is wanted: one that waits, and one that comes.
const PIECE_COUNT: usize = 2;

/// Nobody reads on where nobody has read for so long.
const IDLE_SPAN: Nanos = Nanos::from_millis(1_000);

/// A job whose bytes come with the read under way.
#[derive(Debug)]
struct Waiting {
    purpose: Purpose,
    job: Job,
    /// Where these bytes are, from which place on, and how many.
    read: (Source, u64, usize),
}

/// One reader's way through one file.
#[derive(Debug)]
struct Stream {
    id: u64,
    /// Position of the log's group.
    group: usize,
    number: u32,
    layout: u32,
    /// Where what is kept begins.
    begin: u64,
    pieces: VecDeque<Bytes>,
    /// Size of the piece that is being read.
    coming: Option<usize>,
    waiting: Option<Waiting>,
    /// Where the last that was wanted ends.
    wanted: u64,
    used_at: Nanos,
}

impl Stream {
    fn size(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn end(&self) -> u64 {
        self.begin + self.size() as u64
    }

    /// Whether a reader at this place of this file goes along.
    fn covers(&self, group: usize, point: &Point, layout: u32, position: u64) -> bool {
        (self.group, self.number, self.layout) == (group, point.number, layout)
            && (self.begin..=self.end()).contains(&position)
    }

    /// Forgets the pieces before a place, and keeps the one it is in.
    fn release(&mut self, position: u64) {
        while let Some(first) = self.pieces.front()
            && self.begin + first.len() as u64 <= position
        {
            self.begin += first.len() as u64;
            self.pieces.pop_front();
        }
    }

    /// What is wanted, if all of it is here.
    fn take(&self, position: u64, size: usize) -> Option<Bytes> {
        let mut at = usize::try_from(position - self.begin).expect("a few pieces");
        if at + size > self.size() {
            return None;
        }
        let mut bytes = BytesMut::new();
        for piece in &self.pieces {
            if at < piece.len() {
                let end = piece.len().min(at + size - bytes.len());
                if end - at == size {
                    return Some(piece.slice(at..end));
                }
                bytes.reserve(size - bytes.len());
                bytes.extend_from_slice(&piece[at..end]);
            }
            at = at.saturating_sub(piece.len());
            if bytes.len() == size {
                break;
            }
        }
        Some(bytes.freeze())
    }
}

/// All that is read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    next: u64,
    streams: Vec<Stream>,
}

impl Ahead {
    /// Bytes kept and on their way.
    #[cfg(feature = "sim")]
    pub(super) fn size(&self) -> usize {
        let size = |stream: &Stream| stream.size() + stream.coming.unwrap_or(0);
        self.streams.iter().map(size).sum()
    }

    /// Pieces that may be kept and on their way.
    #[cfg(feature = "sim")]
    pub(super) const PIECE_COUNT_MAX: usize = AHEAD_STREAM_COUNT_MAX * (PIECE_COUNT + 2);

    /// Forgets what nobody has wanted for a while.
    pub(super) fn expire(&mut self, now: Nanos) {
        self.streams
            .retain(|stream| stream.coming.is_some() || now.since(stream.used_at) < IDLE_SPAN);
    }
}

impl Shard {
    /// Does a job's read, or finds it done. Gives the job back with its bytes if they are here; else
    /// it is told of them when they come.
    pub(super) fn read_along(
        &mut self,
        now: Nanos,
        purpose: Purpose,
        job: Job,
        read: (Source, u64, usize),
        effects: &mut Effects,
    ) -> Option<(Job, Bytes)> {
        let (_, position, size) = read;
        let Some(at) = self.stream_for(now, purpose, &job, position) else {
            self.load_for_job(purpose, job, read, effects);
            return None;
        };
        let stream = &mut self.ahead.streams[at];
        stream.used_at = now;
        stream.wanted = position + size as u64;
        stream.release(position);
        self.advance_stream(at, effects);
        let stream = &mut self.ahead.streams[at];
        if let Some(bytes) = stream.take(position, size) {
            return Some((job, bytes));
        }
        if stream.coming.is_none() || stream.waiting.is_some() {
            self.load_for_job(purpose, job, read, effects);
            return None;
        }
        stream.waiting = Some(Waiting { purpose, job, read });
        None
    }

    /// The stream that a job's read belongs to; a new one if a reader goes on where one has ended.
    fn stream_for(&mut self, now: Nanos, purpose: Purpose, job: &Job, place: u64) -> Option<usize> {
        let Purpose::Fetch { position, .. } = purpose else {
            return None;
        };
        let (point, layout) = job.segment_place()?;
        let streams = &mut self.ahead.streams;
        let covers = |stream: &Stream| stream.covers(position, &point, layout, place);
        if let Some(at) = streams.iter().position(covers) {
            return Some(at);
        }
        let is_before = |stream: &Stream| {
            stream.group == position && stream.number + 1 == point.number && stream.coming.is_none()
        };
        let map = &self.groups[position].segments.map;
        if let Some(at) = streams.iter().position(is_before) {
            streams.remove(at);
        } else if !map.is_cursor(&point) {
            return None;
        }
        self.ahead.expire(now);
        if self.ahead.streams.len() == AHEAD_STREAM_COUNT_MAX {
            return None;
        }
        self.ahead.next += 1;
        self.ahead.streams.push(Stream {
            id: self.ahead.next,
            group: position,
            number: point.number,
            layout,
            begin: place,
            pieces: VecDeque::new(),
            coming: None,
            waiting: None,
            wanted: place,
            used_at: now,
        });
        Some(self.ahead.streams.len() - 1)
    }

    /// Reads the next piece, if none is on its way and few are ahead.
    fn advance_stream(&mut self, at: usize, effects: &mut Effects) {
        let stream = &mut self.ahead.streams[at];
        let group = &self.groups[stream.group];
        let Some(file) = group.segments.map.file(stream.number) else {
            return;
        };
        let piece_size = self.shape.segment_read_size;
        let end = stream.end();
        let is_far = end > stream.wanted + ((PIECE_COUNT - 1) * piece_size) as u64;
        if stream.coming.is_some() || is_far || end >= file.size || file.layout != stream.layout {
            return;
        }
        let rest = usize::try_from(file.size - end).expect("a segment fits in memory");
        let size = piece_size.min(rest);
        stream.coming = Some(size);
        let (id, number, group) = (stream.id, stream.number, group.id);
        self.load_ahead(id, Source::Segment { group, number }, end, size, effects);
    }

    /// A piece has come, or could not be read.
    pub(super) fn on_ahead_loaded(
        &mut self,
        now: Nanos,
        id: u64,
        bytes: &Bytes,
        effects: &mut Effects,
    ) {
        let mut streams = self.ahead.streams.iter();
        let at = streams.position(|stream| stream.id == id);
        let at = at.expect("a stream stays while it is read for");
        let stream = &mut self.ahead.streams[at];
        let size = stream.coming.take().expect("a piece was on its way");
        let waiting = stream.waiting.take();
        if bytes.len() < size {
            self.ahead.streams.remove(at);
            if let Some(Waiting { purpose, job, read }) = waiting {
                self.load_for_job(purpose, job, read, effects);
            }
            return;
        }
        stream.pieces.push_back(bytes.clone());
        self.advance_stream(at, effects);
        if let Some(Waiting { purpose, job, read }) = waiting {
            let (source, position, size) = read;
            let step = Step::Read {
                source,
                position,
                size,
            };
            self.on_load_step(now, purpose, job, step, effects);
        }
    }
}

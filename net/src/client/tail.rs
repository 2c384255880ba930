//! Following a log: record after record, for ever, across changes of leader.
//!
//! Keeps the next offset, what was fetched and not given out yet, and what was asked for meanwhile:
//! two answers at most. Knows no node.

use std::collections::VecDeque;
use std::time::Duration;

use ringwood_core::frame::code::ReadMode;
use ringwood_core::limits::FETCH_SIZE_MAX;

use super::{Asked, Client, FetchError, Record};

/// How long one fetch waits at the log's end. Bounds how late a leader that has frozen while
/// nothing was appended is noticed.
const WAIT: Duration = Duration::from_millis(500);

/// Wait before a fetch that failed for now is repeated.
const RETRY: Duration = Duration::from_millis(10);

/// Follows one log. Dropping it ends nothing but itself.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    log: String,
    /// Offset of the next record to be fetched.
    from: u64,
    /// Highest end of the log that was told: all below is committed.
    end_offset: u64,
    fetched: VecDeque<Record>,
    /// What comes from `from` on.
    asked: Option<Asked>,
}

impl Tail {
    pub(super) fn new(client: Client, log: String, from: u64) -> Self {
        Self {
            client,
            log,
            from,
            end_offset: 0,
            fetched: VecDeque::new(),
            asked: None,
        }
    }

    /// Offset of the record that comes next.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.fetched.front().map_or(self.from, |next| next.offset)
    }

    /// The next record, as soon as it is committed. Cancel safe.
    ///
    /// # Errors
    ///
    /// What waiting does not mend: no such log, an offset that is trimmed or was never reached,
    /// damage, a closed client. The position stays; it may be called again.
    pub async fn next(&mut self) -> Result<Record, FetchError> {
        loop {
            if let Some(record) = self.fetched.pop_front() {
                return Ok(record);
            }
            self.fetch().await?;
        }
    }

    /// All records that one fetch brings, at least one. Cancel safe.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub async fn next_batch(&mut self) -> Result<Vec<Record>, FetchError> {
        while self.fetched.is_empty() {
            self.fetch().await?;
        }
        Ok(std::mem::take(&mut self.fetched).into())
    }

    /// One fetch; it may bring nothing.
    async fn fetch(&mut self) -> Result<(), FetchError> {
        if self.asked.is_none() {
            self.asked = Some(self.ask()?);
        }
        let asked = self.asked.as_mut().expect("asked just now");
        let answer = asked.answer().await;
        self.asked = None;
        match answer {
            Ok(fetched) => {
                self.end_offset = self.end_offset.max(fetched.end_offset);
                if let Some(last) = fetched.records.last() {
                    self.from = last.offset + 1;
                }
                self.fetched.extend(fetched.records);
                // There is more: it comes while what is here is given out.
                if self.from < self.end_offset {
                    self.asked = Some(self.ask()?);
                }
                Ok(())
            }
            // A new leader may not know yet how far the one before it had committed.
            Err(FetchError::BeyondEnd { .. }) if self.from <= self.end_offset => {
                tokio::time::sleep(RETRY).await;
                Ok(())
            }
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(RETRY).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn ask(&self) -> Result<Asked, FetchError> {
        let mode = ReadMode::Committed;
        self.client
            .ask_for(&self.log, self.from, FETCH_SIZE_MAX, WAIT, mode)
    }
}

//! Readers beside the load: what they get, while the generator tells what appends cost meanwhile.
//!
//! They have a thread of their own, and clients of their own on it: what they cost is not charged to
//! the generator. Each reads one log as fast as it is given records, either as they are appended or,
//! again and again, all that is kept. Knows no schedule, and judges no record but by its coming.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringwood_net::client::{Client, FetchError, Record};
use ringwood_net::clock;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::schedule::Window;

/// After a read that failed the next one waits so long.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// From the oldest that is kept through the newest, then again.
    Start,
    /// Those that are appended meanwhile.
    End,
}

/// What readers came to within the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it, units included")]
pub struct Reading {
    pub readers: usize,
    /// "start" or "end".
    pub from: &'static str,
    pub records: u64,
    /// Of records, without what is around them.
    pub bytes: u64,
    pub records_per_s: f64,
    pub bytes_per_s: f64,
    /// Reads that failed and were tried again.
    pub errors: u64,
    /// Why the first of them did.
    pub first_error: Option<String>,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readers, from, .. } = self;
        write!(
            f,
            "read       {:.1}/s  {:.2} MiB/s  by {readers} reader{} from the {from}, {} errors",
            self.records_per_s,
            self.bytes_per_s / f64::from(1 << 20),
            if *readers == 1 { "" } else { "s" },
            self.errors
        )?;
        match &self.first_error {
            Some(error) => write!(f, ", the first: {error}"),
            None => Ok(()),
        }
    }
}

/// Why no readers are at work.
#[derive(Debug)]
pub enum StartError<E> {
    /// They have no thread, or no timer.
    Thread(io::Error),
    /// They have no clients.
    Open(E),
}

/// Readers at work.
#[derive(Debug)]
pub struct Readers {
    /// What counts, once that is known.
    window: Arc<OnceLock<Window>>,
    /// Dropped when they are to end.
    until: oneshot::Sender<()>,
    thread: JoinHandle<Reading>,
}

impl Readers {
    /// Sets them to work on `logs` in turn, one for each client that `open` gives. They read from now
    /// on, and count nothing before [`Readers::count_in`].
    ///
    /// # Errors
    /// [`StartError`]; nothing reads then.
    pub async fn start<E, F>(
        logs: Vec<String>,
        from: ReadFrom,
        open: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self, StartError<E>>
    where
        E: Send + 'static,
        F: Future<Output = Result<Vec<Client>, E>>,
    {
        let (opened, is_open) = oneshot::channel();
        let (until, end) = oneshot::channel();
        let window = Arc::new(OnceLock::new());
        let counted = Arc::clone(&window);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let builder = thread::Builder::new().name("readers".into());
        let thread = builder.spawn(move || {
            LocalSet::new().block_on(&runtime, async move {
                let clients = match open().await {
                    Ok(clients) => clients,
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        return Reading::default();
                    }
                };
                let _ = opened.send(Ok(()));
                read_all(clients, logs, from, counted, end).await
            })
        });
        let thread = thread.map_err(StartError::Thread)?;
        let opened = is_open.await.expect("it is told, or the thread panicked");
        opened
            .map(|()| Self {
                window,
                until,
                thread,
            })
            .map_err(StartError::Open)
    }

    /// Has them count what they get within `window`, which is that of the load.
    ///
    /// # Panics
    /// If they were told before.
    pub fn count_in(&self, window: Window) {
        self.window.set(window).expect("a run has one window");
    }

    /// Ends them, and tells what they got.
    ///
    /// # Panics
    /// If a reader did.
    #[must_use]
    pub fn end(self) -> Reading {
        drop(self.until);
        self.thread.join().expect("readers do not panic")
    }
}

async fn read_all(
    clients: Vec<Client>,
    logs: Vec<String>,
    from: ReadFrom,
    window: Arc<OnceLock<Window>>,
    end: oneshot::Receiver<()>,
) -> Reading {
    let count = Rc::new(RefCell::new(Count {
        window,
        reading: Reading {
            readers: clients.len(),
            from: match from {
                ReadFrom::Start => "start",
                ReadFrom::End => "end",
            },
            ..Reading::default()
        },
    }));
    for (number, client) in clients.into_iter().enumerate() {
        let log = logs[number % logs.len()].clone();
        tokio::task::spawn_local(read(client, log, from, count.clone()));
    }
    // Its sender is dropped, not used.
    let _ = end.await;
    count.borrow().told()
}

/// One reader's work, without end.
async fn read(client: Client, log: String, from: ReadFrom, count: Rc<RefCell<Count>>) {
    let mut next = None;
    loop {
        let ended = match read_on(&client, &log, from, &mut next, &count).await {
            Ok(()) => continue,
            Err(FetchError::Trimmed { first_offset }) => {
                next = Some(first_offset);
                continue;
            }
            Err(error) => error,
        };
        count.borrow_mut().on_error(&ended);
        sleep(ERROR_PAUSE).await;
    }
}

/// Reads from `next` on, or where a reader begins, until it has come to the end once.
async fn read_on(
    client: &Client,
    log: &str,
    from: ReadFrom,
    next: &mut Option<u64>,
    count: &RefCell<Count>,
) -> Result<(), FetchError> {
    let end = client.end_offset(log).await?;
    let begin = next.unwrap_or(match from {
        ReadFrom::Start => 0,
        ReadFrom::End => end,
    });
    let mut tail = client.tail(log, begin);
    loop {
        let records = tail.next_batch().await?;
        count.borrow_mut().on_records(&records);
        *next = Some(tail.offset());
        if from == ReadFrom::Start && tail.offset() >= end {
            *next = None;
            return Ok(());
        }
    }
}

struct Count {
    window: Arc<OnceLock<Window>>,
    reading: Reading,
}

impl Count {
    fn on_records(&mut self, records: &[Record]) {
        let now = clock::now();
        if self.window.get().is_some_and(|window| window.measures(now)) {
            let sizes = records.iter().map(|record| record.bytes.len() as u64);
            self.reading.records += records.len() as u64;
            self.reading.bytes += sizes.sum::<u64>();
        }
    }

    fn on_error(&mut self, error: &FetchError) {
        self.reading.errors += 1;
        self.reading.first_error.get_or_insert(error.to_string());
    }

    fn told(&self) -> Reading {
        let span_s = self
            .window
            .get()
            .map_or(f64::INFINITY, |window| window.duration().as_secs_f64());
        let rate = |count: u64| (count as f64 / span_s * 10.0).round() / 10.0;
        Reading {
            records_per_s: rate(self.reading.records),
            bytes_per_s: rate(self.reading.bytes),
            ..self.reading.clone()
        }
    }
}

//! Work beside the loop, for the few things that the kernel makes whoever asks wait for: one thread
//! for one kind of work, asleep but for that.
//!
//! Knows no work. Questions and answers have bounds; the loop never waits for either.

use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::ring::Waker;

/// The thread, and the loop's ends of its queues. Dropping it waits for the work under way.
#[derive(Debug)]
pub(crate) struct Beside<Question, Answer> {
    questions: Option<Sender<Question>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl<Question, Answer> Beside<Question, Answer>
where
    Question: Send + 'static,
    Answer: Send + 'static,
{
    /// A thread that answers each question by `work`, and ends the loop's wait for each answer. No
    /// more than `count_max` questions wait for theirs.
    ///
    /// # Errors
    /// That of starting a thread.
    pub(crate) fn start(
        name: &str,
        count_max: usize,
        waker: Waker,
        work: impl Fn(Question) -> Answer + Send + 'static,
    ) -> std::io::Result<Self> {
        let (questions, asked) = bounded::<Question>(count_max);
        let (answered, answers) = bounded(count_max);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                for question in asked {
                    // The loop is gone: nobody wants the rest either.
                    if answered.send(work(question)).is_err() {
                        return;
                    }
                    waker.wake();
                }
            })?;
        Ok(Self {
            questions: Some(questions),
            answers,
            thread: Some(thread),
        })
    }

    pub(crate) fn ask(&self, question: Question) {
        let questions = self.questions.as_ref().expect("there until the end");
        let asked = questions.try_send(question);
        assert!(asked.is_ok(), "within the bound, and the thread lives");
    }

    pub(crate) fn take(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Drops it without waiting: the thread ends with the work under way, whenever that is.
    pub(crate) fn leave(mut self) {
        self.thread = None;
    }
}

impl<Question, Answer> Drop for Beside<Question, Answer> {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let joined = thread.join();
            assert!(
                joined.is_ok() || std::thread::panicking(),
                "work beside the loop does not panic"
            );
        }
    }
}

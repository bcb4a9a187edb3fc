//! A question to the store that is asked again and again, for as long as a process runs, and beside
//! those that hang.

use lockstep_shared_disk::{Asked, StoreError};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Longest silence of the store before it is asked again beside the questions that hang.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Questions that may hang, each with a thread. Asked after 0, 1, 3, 7, 15, 31 and 63 s, then once
/// a minute: the last after ten minutes.
const QUESTIONS_MAX: usize = 16;

/// Asks every `interval` after an answer, until `answered` breaks or there is no question any more.
/// One that is not answered is asked again beside it, after twice the silence each time.
pub(super) async fn repeat<T: Send + 'static>(
    interval: Duration,
    mut ask: impl FnMut() -> Option<Asked<T>>,
    mut answered: impl FnMut(Result<T, StoreError>) -> ControlFlow<()>,
) {
    let (to_us, mut answers) = mpsc::channel(QUESTIONS_MAX);
    let (mut open, mut silence, mut ask_at) = (0, interval, Instant::now());
    loop {
        tokio::select! {
            biased;
            Some(answer) = answers.recv() => {
                open -= 1;
                (silence, ask_at) = (interval, Instant::now() + interval);
                if answered(answer).is_break() {
                    return;
                }
            }
            () = sleep_until(ask_at), if open < QUESTIONS_MAX => {
                let Some(question) = ask() else { return };
                let to_us = to_us.clone();
                tokio::spawn(async move { drop(to_us.send(question.await).await) });
                open += 1;
                ask_at = Instant::now() + silence;
                silence = (silence * 2).min(SILENCE_MAX);
            }
        }
    }
}

//! Activity on a connection: requests under way, and the rate at which their answers are taken.
//!
//! hyper closes a connection of HTTP/1 that waits too long for a request. It does not close one of HTTP/2 as long as
//! pings are answered. It waits without end for the first bytes, which tell the two protocols apart. Nor does it end a
//! download that nobody reads. So a connection is watched from outside.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use service::door::Reason;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Bounds of a connection's inactivity.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the connection's beginning to the end of its first request's head.
    pub first_request: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Bytes a second at which an answer must be taken, …
    pub least_rate: u64,
    /// … as a mean over this time.
    pub rate_window: Duration,
}

/// The requests of one connection.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Time at which the last request ended.
    idle_since: Option<Instant>,
    /// Bytes of the answer that have been taken, for each request that is not done.
    under_way: HashMap<u64, Arc<AtomicU64>>,
}

impl Activity {
    pub fn new(opened: Instant) -> Arc<Self> {
        Arc::new(Self {
            opened,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Records the start of a request.
    pub fn begin(self: &Arc<Self>) -> Request {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let taken = Arc::new(AtomicU64::new(0));
        state.under_way.insert(id, Arc::clone(&taken));
        drop(state);
        self.changed.notify_one();
        Request {
            activity: Arc::clone(self),
            id,
            taken,
        }
    }

    /// Waits until the connection has exceeded a bound of its listener, and returns which.
    pub async fn overdue(&self, patience: Patience) -> Reason {
        let mut window = Window::begin(&self.lock().under_way);
        loop {
            let due = self.due(patience);
            let (at, reason) = due.unwrap_or((window.began + patience.rate_window, Reason::Slow));
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(at) => {
                    if reason != Reason::Slow {
                        return reason;
                    }
                    let least = patience.least_rate as f64 * patience.rate_window.as_secs_f64();
                    let next = Window::begin(&self.lock().under_way);
                    if window.has_slower(&next, least as u64) {
                        return Reason::Slow;
                    }
                    window = next;
                }
            }
        }
    }

    /// Returns the time at which a connection without a request is overdue, and the reason.
    fn due(&self, patience: Patience) -> Option<(Instant, Reason)> {
        let state = self.lock();
        if !state.under_way.is_empty() {
            return None;
        }
        Some(match state.idle_since {
            Some(since) => (since + patience.idle, Reason::Idle),
            None => (self.opened + patience.first_request, Reason::Silent),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }
}

/// The answers as they were when a window of time began.
struct Window {
    began: Instant,
    taken: HashMap<u64, u64>,
}

impl Window {
    fn begin(under_way: &HashMap<u64, Arc<AtomicU64>>) -> Self {
        let taken = under_way
            .iter()
            .map(|(id, taken)| (*id, taken.load(Ordering::Relaxed)));
        Self {
            began: Instant::now(),
            taken: taken.collect(),
        }
    }

    /// Returns true if an answer was under way all the time until `next`, and fewer than `least` bytes of it were
    /// taken.
    fn has_slower(&self, next: &Self, least: u64) -> bool {
        self.taken.iter().any(|(id, before)| {
            let now = next.taken.get(id);
            now.is_some_and(|now| now - before < least)
        })
    }
}

/// A request that is not done until its whole answer has been taken, or dropped.
#[derive(Debug)]
pub struct Request {
    activity: Arc<Activity>,
    id: u64,
    taken: Arc<AtomicU64>,
}

impl Request {
    /// Returns the answer, which keeps the request alive until its end.
    pub fn answered(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| {
            Body::new(Watched {
                body,
                request: self,
            })
        })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.under_way.remove(&self.id);
        state.idle_since = Some(Instant::now());
        drop(state);
        self.activity.changed.notify_one();
    }
}

struct Watched {
    body: Body,
    request: Request,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.request.taken.fetch_add(bytes, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::{Duration, sleep, timeout};

    use super::*;

    const PATIENCE: Patience = Patience {
        first_request: Duration::from_secs(20),
        idle: Duration::from_secs(60),
        least_rate: 1000,
        rate_window: Duration::from_secs(60),
    };

    /// Returns the reason for a connection's end and the seconds until then, if it ends within an hour.
    async fn end(activity: &Activity, began: Instant) -> Option<(Reason, u64)> {
        let overdue = timeout(Duration::from_secs(3600), activity.overdue(PATIENCE));
        let reason = overdue.await.ok()?;
        Some((reason, began.elapsed().as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_without_a_first_request_and_without_another() {
        let began = Instant::now();
        let activity = Activity::new(began);
        assert_eq!(end(&activity, began).await, Some((Reason::Silent, 20)));

        let began = Instant::now();
        let activity = Activity::new(began);
        let requests = async {
            for _ in 0..3 {
                let request = activity.begin();
                sleep(Duration::from_secs(3)).await;
                drop(request);
                sleep(Duration::from_secs(30)).await;
            }
        };
        let (ended, ()) = tokio::join!(end(&activity, began), requests);
        assert_eq!(ended, Some((Reason::Idle, 3 * 33 + 30)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_ends_its_connection_and_a_slow_one_does_not() {
        for (bytes, ends) in [(0, true), (500, true), (1100, false)] {
            let began = Instant::now();
            let activity = Activity::new(began);
            let stream =
                futures::stream::repeat_with(move || Ok::<_, std::io::Error>(vec![0; bytes]));
            let response = activity
                .begin()
                .answered(Response::new(Body::from_stream(stream)));
            let reading = async {
                let mut body = response.into_body();
                loop {
                    sleep(Duration::from_secs(1)).await;
                    if bytes > 0 {
                        body.frame().await;
                    }
                }
            };
            let ended = tokio::select! {
                ended = end(&activity, began) => ended,
                () = reading => None,
            };
            let expected = ends.then_some(Reason::Slow);
            assert_eq!(
                ended.map(|(reason, _)| reason),
                expected,
                "{bytes} bytes a second"
            );
        }
    }
}

//! `run`: takes connections, each with bounds on headers and patience, until a signal comes; then lets answers end.

use super::http::{Server, routes};
use super::patient::Patient;
use crate::say::note;
use crate::signal::Stop;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections that are open at once; others wait to be taken.
    pub connections: usize,
    /// Headers of a request.
    pub headers: usize,
    /// Bytes of all of them.
    pub header_bytes: usize,
    /// How long the headers may take to come, those of the next request too.
    pub header_time: Duration,
    /// How long a client may read nothing of an answer.
    pub write_time: Duration,
    /// How long answers may take to end after a signal.
    pub drain_time: Duration,
}

/// How often a signal is looked for.
const GLANCE: Duration = Duration::from_millis(100);

/// Serves on a listener until a signal comes.
///
/// # Errors
/// If the runtime or the listener cannot be set up.
pub fn run(
    listener: TcpListener,
    server: &Arc<Server>,
    bounds: &Bounds,
    stop: &Stop,
) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Threads for tokenizers.
    let runtime = runtime.enable_all().max_blocking_threads(4).build()?;
    let served = runtime.block_on(serve(listener, server, bounds, stop));
    // A tokenizer in the middle of a long text keeps nobody.
    runtime.shutdown_background();
    served
}

async fn serve(
    listener: TcpListener,
    server: &Arc<Server>,
    bounds: &Bounds,
    stop: &Stop,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = routes(server.clone());
    let room = Arc::new(Semaphore::new(bounds.connections));
    let open = GracefulShutdown::new();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.header_bytes);
    while stop.requested().is_none() {
        let Ok(Ok(place)) = timeout(GLANCE, room.clone().acquire_owned()).await else {
            continue;
        };
        let stream = match timeout(GLANCE, listener.accept()).await {
            Err(_) => continue,
            Ok(Ok((stream, _))) => stream,
            // Too many open files, or a client that has left again.
            Ok(Err(_)) => {
                sleep(GLANCE).await;
                continue;
            }
        };
        // Events are small and shall not wait for each other.
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Patient::new(stream, bounds.write_time));
        let service = TowerToHyperService::new(routes.clone());
        let connection = open.watch(builder.serve_connection(stream, service));
        let metrics = server.metrics.clone();
        tokio::spawn(async move {
            let _counted = metrics.connection();
            // What goes wrong with a connection is the client's to know.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if timeout(bounds.drain_time, open.shutdown()).await.is_err() {
        let waited = bounds.drain_time.as_secs();
        note(&format!(
            "answers that did not end within {waited} s are broken off"
        ));
    }
    Ok(())
}

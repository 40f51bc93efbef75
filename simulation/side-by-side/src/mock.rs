//! Replicas that answer at once: one process, one thread, a port for each.
//!
//! They speak as much of vLLM as a gateway needs to work with them: chat completions as JSON and as events, models,
//! health, metrics. `POST /control` changes on all of them how large and how slow the next answers are.

mod answer;
mod chat;
mod control;
mod events;
mod metrics;
mod replica;

use std::net::Ipv4Addr;
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use answer::answer;
use replica::{Pace, Replica};

/// Connections that wait to be accepted: all of the largest scenario may come at once.
const BACKLOG: u32 = 4096;

/// Answer as several vLLM replicas until stopped
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One replica on each of these ports of 127.0.0.1
    #[arg(long, value_delimiter = ',', default_values_t = [9001, 9002, 9003, 9004])]
    ports: Vec<u16>,
}

/// Serves until the process is stopped. Errors: a port cannot be listened on.
pub(crate) async fn run(args: Args) -> Result<(), String> {
    let pace = Rc::new(Pace::default());
    let replicas: Rc<[Replica]> = args.ports.iter().map(|port| Replica::new(*port, pace.clone())).collect();
    let mut listeners = JoinSet::new();
    for (index, port) in args.ports.iter().enumerate() {
        let listener = listen(*port).map_err(|error| format!("cannot listen on port {port}: {error}"))?;
        listeners.spawn_local(serve(listener, replicas.clone(), index));
    }
    while listeners.join_next().await.is_some() {}
    Ok(())
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(BACKLOG)
}

async fn serve(listener: TcpListener, replicas: Rc<[Replica]>, index: usize) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // Without it the kernel would hold small pieces back, which no model server does.
        let _ = stream.set_nodelay(true);
        let replicas = replicas.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| answer(&replicas, index, request));
            // A connection that breaks is the gateway's to notice.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

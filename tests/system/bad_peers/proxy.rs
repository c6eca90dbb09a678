//! A TCP proxy that resets the connection after so many bytes in one direction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::support::{Serving, listen};

/// Whose bytes are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Questions,
    Answers,
}

/// A proxy to `target`, and the bytes that it carried in `direction` over its first connection.
pub async fn start(
    target: String,
    direction: Direction,
    limit: usize,
) -> (Serving, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let carried = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&carried);
    let serving = Serving::new(address, async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&target).await else { continue };
            tokio::spawn(carry(client, server, direction, limit, Arc::clone(&count)));
        }
    });
    (serving, carried)
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    direction: Direction,
    limit: usize,
    count: Arc<AtomicUsize>,
) {
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        // Closing is a reset from here on.
        let _ = stream.set_zero_linger();
    }
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (questions, answers) = match direction {
        Direction::Questions => (limit, usize::MAX),
        Direction::Answers => (usize::MAX, limit),
    };
    let none = Arc::default();
    let (asked, answered) = match direction {
        Direction::Questions => (&count, &none),
        Direction::Answers => (&none, &count),
    };
    tokio::select! {
        () = copy(from_client, to_server, questions, asked) => {}
        () = copy(from_server, to_client, answers, answered) => {}
    }
}

/// Ends at the limit, or when either side ends.
async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, limit: usize, count: &AtomicUsize) {
    let mut rest = limit;
    let mut buffer = [0; 4_096];
    while rest > 0 {
        let most = rest.min(buffer.len());
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { return };
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        rest -= read;
        count.fetch_add(read, Ordering::Relaxed);
    }
}

//! A socket before Postgres's own that loses the answer to a COMMIT.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The name that libpq gives a server's socket.
const SOCKET: &str = ".s.PGSQL.5432";

/// Passes everything on, but for answers to commits of transactions in which a marked statement ran: these are swallowed, and
/// both sides find their connection closed. Statements are prepared once for each connection, so it is the first one of each.
pub struct Cutter {
    cuts: Arc<AtomicU32>,
}

impl Cutter {
    /// Listens in `folder`, and cuts at most `most` times.
    pub fn start(folder: &Path, server: PathBuf, marked: &'static str, most: u32) -> Self {
        let listener = UnixListener::bind(folder.join(SOCKET)).expect("the proxy's socket");
        let cuts = Arc::new(AtomicU32::new(0));
        let counter = cuts.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&server) else { continue };
                pass_on(client, server, marked, counter.clone(), most);
            }
        });
        Self { cuts }
    }

    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn pass_on(client: UnixStream, server: UnixStream, marked: &'static str, cuts: Arc<AtomicU32>, most: u32) {
    let armed = Arc::new(AtomicBool::new(false));
    let (from, to) =
        (client.try_clone().expect("a second handle"), server.try_clone().expect("a second handle"));
    let arm = armed.clone();
    std::thread::spawn(move || {
        copy(from, to, |bytes| {
            if holds(bytes, marked.as_bytes()) {
                arm.store(true, Ordering::SeqCst);
            }
            true
        });
    });
    std::thread::spawn(move || {
        copy(server, client, |bytes| {
            // A command that is complete: its tag, and a byte that ends it.
            let committed = armed.load(Ordering::SeqCst) && holds(bytes, b"COMMIT\0");
            let cut = committed
                && cuts
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < most).then_some(n + 1))
                    .is_ok();
            if committed {
                armed.store(false, Ordering::SeqCst);
            }
            !cut
        });
    });
}

/// Copies until one side ends or `look` says no, then closes both.
fn copy(mut from: UnixStream, mut to: UnixStream, mut look: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if !look(&buffer[..n]) || to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

//! pgbouncer in transaction mode before the server: the system's, or the one that `scripts/setup.sh pgbouncer` fetched.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tidemill::pg::embedded::account::Account;

use super::reaper;
use super::server::{NAME, Server};

/// Server connections; each host has up to 20 sessions.
const SERVER_CONNECTIONS: usize = 8;

/// Starts it; it ends with the cluster. Gives the URL for hosts. None: there is no pgbouncer, see [`program`].
pub fn start(run: &Path, server: &Server) -> Result<Option<String>> {
    let Some(program) = program() else { return Ok(None) };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let options = server.options()?;
    let socket = server.socket();
    let config = run.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n{NAME} = host={} port={} user={NAME}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
         max_client_conn = 200\npool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n",
        socket.parent().context("a socket is in a folder")?.display(),
        options.get_port(),
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new(&program);
    // It refuses to run as root, and must be able to reach the server's socket.
    if let Account::Other { name, .. } = Account::choose()? {
        command.args(["-u", &name]);
    }
    command.arg(&config).env("LD_LIBRARY_PATH", program.parent().context("a program is in a folder")?);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(run.join("pgbouncer.log"))?);
    let child = command.spawn().context(program.display().to_string())?;
    reaper::note(run, child.id(), "KILL")?;
    Ok(Some(format!("postgres://{NAME}@127.0.0.1:{port}/{NAME}")))
}

pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.setup/pgbouncer");
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), fetched])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}

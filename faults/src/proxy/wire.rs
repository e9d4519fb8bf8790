//! Finds commits in the traffic between a client and Postgres (protocol 3, without TLS).
//!
//! A commit is
//! * a simple query `COMMIT`, or the execution of a prepared one;
//! * the `Sync` after the execution of an append outside of a transaction block: a statement of its own, committed there.

use std::collections::HashMap;

/// Statements that count as an append when they stand alone.
const APPENDS: [&str; 3] = ["append_requests", "append_many", "tidemill.append("];
/// The first message has no type. These two ask for encryption, and are answered by one byte.
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// Type and length.
const HEADER: usize = 5;

/// What the client's bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A part of a message.
    More,
    /// A message of so many bytes.
    Message(usize),
    /// The same, and it commits.
    Commit(usize),
}

/// What is to be done with the server's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Pass,
    /// They belong to an answer that the client is not to get.
    Withhold,
    /// The server is done with what was committed.
    Answered,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Commit,
    Append,
    #[default]
    Other,
}

/// One connection's protocol, followed as it goes by.
#[derive(Debug, Default)]
pub struct Session {
    started: bool,
    statements: HashMap<Vec<u8>, Kind>,
    bound: Kind,
    /// An append was executed since the last Sync.
    appended: bool,
    /// Within BEGIN ... COMMIT, as the server said last.
    in_block: bool,
    answer: Answer,
    /// The server's answer is awaited and not passed on.
    cutting: bool,
}

/// Where in the server's stream of messages we are.
#[derive(Debug, Default)]
struct Answer {
    /// Single bytes that are no messages.
    raw: usize,
    head: Vec<u8>,
    /// Bytes of the message's body that are still to come.
    body: usize,
}

impl Session {
    /// Looks at bytes from the client that begin with a message.
    pub fn client(&mut self, bytes: &[u8]) -> Client {
        if !self.started {
            let Some(length) = u32_at(bytes, 0) else { return Client::More };
            let length = length as usize;
            if bytes.len() < length.max(8) {
                return Client::More;
            }
            match u32_at(bytes, 4) {
                Some(SSL_REQUEST | GSS_REQUEST) => self.answer.raw += 1,
                _ => self.started = true,
            }
            return Client::Message(length);
        }
        let Some(length) = u32_at(bytes, 1) else { return Client::More };
        let length = length as usize + 1;
        if bytes.len() < length {
            return Client::More;
        }
        let body = &bytes[HEADER..length];
        let commits = match bytes[0] {
            b'Q' => kind(text(body)) == Kind::Commit,
            b'P' => {
                let name = text(body);
                self.statements.insert(name.to_vec(), kind(text(&body[name.len() + 1..])));
                false
            }
            b'B' => {
                let portal = text(body);
                let name = text(&body[portal.len() + 1..]);
                self.bound = self.statements.get(name).copied().unwrap_or_default();
                false
            }
            b'C' if body.first() == Some(&b'S') => {
                self.statements.remove(text(&body[1..]));
                false
            }
            b'E' => {
                self.appended |= self.bound == Kind::Append;
                self.bound == Kind::Commit
            }
            b'S' => std::mem::take(&mut self.appended) && !self.in_block,
            _ => false,
        };
        if commits { Client::Commit(length) } else { Client::Message(length) }
    }

    /// From now on the server's bytes are kept from the client, until it is ready for the next query.
    pub fn cut_after_answer(&mut self) {
        self.cutting = true;
    }

    /// Looks at the next bytes from the server, which may begin and end anywhere.
    pub fn server(&mut self, mut bytes: &[u8]) -> Server {
        while !bytes.is_empty() {
            if self.answer.raw > 0 {
                self.answer.raw -= 1;
                bytes = &bytes[1..];
                continue;
            }
            if self.answer.body > 0 && self.answer.head[0] != b'Z' {
                let skip = self.answer.body.min(bytes.len());
                self.answer.body -= skip;
                bytes = &bytes[skip..];
                if self.answer.body == 0 {
                    self.answer.head.clear();
                }
                continue;
            }
            self.answer.head.push(bytes[0]);
            bytes = &bytes[1..];
            if self.answer.head.len() == HEADER {
                let length = u32_at(&self.answer.head, 1).unwrap_or(4) as usize;
                self.answer.body = length.saturating_sub(4);
                if self.answer.body == 0 {
                    self.answer.head.clear();
                }
            } else if self.answer.head.len() > HEADER {
                // Ready for the next query; the one byte says whether in a transaction.
                self.in_block = self.answer.head[HEADER] != b'I';
                self.answer = Answer::default();
                if self.cutting {
                    return Server::Answered;
                }
            }
        }
        if self.cutting { Server::Withhold } else { Server::Pass }
    }
}

fn kind(sql: &[u8]) -> Kind {
    let sql = String::from_utf8_lossy(sql);
    let trimmed = sql.trim().trim_end_matches(';');
    if trimmed.eq_ignore_ascii_case("commit") || trimmed.eq_ignore_ascii_case("end") {
        Kind::Commit
    } else if APPENDS.iter().any(|name| sql.contains(name)) {
        Kind::Append
    } else {
        Kind::Other
    }
}

/// Up to the next NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn started() -> Session {
        let mut session = Session::default();
        let mut startup = 12u32.to_be_bytes().to_vec();
        startup.extend(196_608u32.to_be_bytes());
        startup.extend([0; 4]);
        assert_eq!(session.client(&startup), Client::Message(12));
        session
    }

    fn append(session: &mut Session) -> Client {
        for (kind, body) in [
            (b'P', &b"s1\0SELECT tidemill.append_requests($1)\0\0\0"[..]),
            (b'B', b"\0s1\0\0\0\0\0\0\0"),
            (b'E', b"\0\0\0\0\0"),
        ] {
            let bytes = message(kind, body);
            assert_eq!(session.client(&bytes), Client::Message(bytes.len()));
        }
        session.client(&message(b'S', b""))
    }

    #[test]
    fn a_simple_commit_is_found_and_nothing_else() {
        let mut session = started();
        let commit = message(b'Q', b"COMMIT\0");
        assert_eq!(session.client(&commit[..6]), Client::More);
        assert_eq!(session.client(&commit), Client::Commit(commit.len()));
        let other = message(b'Q', b"SELECT 'COMMIT'\0");
        assert_eq!(session.client(&other), Client::Message(other.len()));
    }

    #[test]
    fn an_append_of_its_own_commits_at_its_sync_and_one_in_a_block_does_not() {
        let mut session = started();
        assert_eq!(append(&mut session), Client::Commit(5));
        assert_eq!(session.client(&message(b'S', b"")), Client::Message(5), "nothing was executed since");
        assert_eq!(session.server(&message(b'Z', b"T")), Server::Pass);
        assert_eq!(append(&mut session), Client::Message(5));
        assert_eq!(session.server(&message(b'Z', b"I")), Server::Pass);
        assert_eq!(append(&mut session), Client::Commit(5));
    }

    #[test]
    fn an_answer_that_is_to_be_cut_is_withheld_to_its_end_however_it_comes() {
        let mut answer = message(b'D', b"Z some row Z");
        answer.extend(message(b'C', b"COMMIT\0"));
        answer.extend(message(b'Z', b"I"));
        for step in 1..answer.len() {
            let mut session = started();
            assert_eq!(session.server(&message(b'Z', b"T")), Server::Pass);
            session.cut_after_answer();
            let said: Vec<Server> = answer.chunks(step).map(|part| session.server(part)).collect();
            let (last, before) = said.split_last().unwrap();
            assert_eq!(*last, Server::Answered, "step {step}");
            assert!(before.iter().all(|said| *said == Server::Withhold), "step {step}: {said:?}");
        }
    }

    #[test]
    fn a_refused_encryption_is_followed_by_the_startup() {
        let mut session = Session::default();
        let mut request = 8u32.to_be_bytes().to_vec();
        request.extend(SSL_REQUEST.to_be_bytes());
        assert_eq!(session.client(&request), Client::Message(8));
        assert_eq!(session.server(b"N"), Server::Pass);
        let startup = [0, 0, 0, 9, 0, 3, 0, 0, 0];
        assert_eq!(session.client(&startup), Client::Message(9));
        assert_eq!(append(&mut session), Client::Commit(5));
    }
}

//! The pages `docs/sql.md` and `docs/queues.md` are true: every ```sql block runs through psql in order, and each ```text block
//! after one is exactly what psql printed. `terminal 2` on a block means a second session, `fails` that it must hit an error.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::pg::testing::database;

const LOG: &str = include_str!("../../../docs/sql.md");
const QUEUES: &str = include_str!("../../../docs/queues.md");
const DONE: &str = "--- the block is done ---";

struct Block {
    line: usize,
    terminal: usize,
    fails: bool,
    sql: String,
    output: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let text: String = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .map(|line| format!("{line}\n"))
            .collect();
        match info.split_once(' ').unwrap_or((info, "")) {
            ("sql", how) => blocks.push(Block {
                line: number + 1,
                terminal: usize::from(how.starts_with("terminal 2")),
                fails: how.ends_with("fails"),
                sql: text,
                output: None,
            }),
            ("toml", "") => {}
            ("text", "") => blocks.last_mut().unwrap().output = Some(text),
            other => panic!("line {}: what is a {other:?} block?", number + 1),
        }
    }
    blocks
}

/// A psql session that stays open, as a terminal does.
struct Psql {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Psql {
    fn start(url: &str) -> Self {
        // What psql complains of belongs between its outputs.
        let mut command = Command::new("sh");
        command.args(["-c", "exec psql -X -P pager=off \"$0\" 2>&1", url]);
        command.env("PGTZ", "UTC").env("PGCLIENTENCODING", "UTF8").env("LC_ALL", "C");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql is not installed; its package is called postgresql-client");
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    /// What a block prints.
    fn run(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql}\\echo '{DONE}'").unwrap();
        let lines = self.output.by_ref().map(Result::unwrap);
        lines.take_while(|line| line != DONE).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_the_sql_page_does_what_it_says() {
    hold("docs/sql.md", LOG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_the_page_about_queues_does_what_it_says() {
    hold("docs/queues.md", QUEUES).await;
}

/// Runs a page in two sessions.
async fn hold(name: &str, page: &str) {
    let database = database().await;
    let mut terminals = [Psql::start(&database.url), Psql::start(&database.url)];
    let blocks = blocks(page);
    assert!(blocks.len() >= 8 && blocks.iter().any(|block| block.terminal == 1));
    for block in blocks {
        let printed = terminals[block.terminal].run(&block.sql);
        assert_eq!(printed.contains("ERROR:"), block.fails, "{name}, line {}:\n{printed}", block.line);
        if let Some(output) = block.output {
            assert!(
                printed == output,
                "{name}, line {}: psql printed\n{printed}\nand the page shows\n{output}",
                block.line
            );
        }
    }
}

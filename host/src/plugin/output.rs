//! Does an answer keep to the plugin's own descriptor and to the limits?
//!
//! Everything that would make a later commit fail is found here, where it can be blamed on the plugin: an undeclared
//! port, an index outside the batch, a row that does not fit its table, a text that no store takes.

use std::collections::{HashMap, HashSet};

use super::error::{CallError, Excess};
use super::limits::Limits;
use super::log::printable;
use super::{
    Change, ColumnType, DEFAULT_PORT, Descriptor, Emission, Header, Outcome, Production, Refusal, Refused,
    RowChange, RowOutcome, Table, Value, Verdict, WorkOutcome,
};

/// Times from the year 1 to the year 9999, in microseconds since 1970: what every consumer of the log can show.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// A producer's position is stored with every commit.
const MAX_POSITION_BYTES: usize = 1 << 20;
/// Ten years, in microseconds: a job that is to wait for longer is a mistake of units.
const MAX_WAIT: u64 = 10 * 366 * 86_400 * 1_000_000;
/// Reasons for a refusal are cut past this many characters.
const MAX_REASON: usize = 2_000;

/// What a plugin may answer.
pub(super) struct Contract {
    ports: HashSet<String>,
    tables: HashMap<String, Row>,
    max_records: u32,
    max_bytes: u64,
}

/// The columns of a table: name, type, and whether null is allowed.
struct Row {
    columns: Vec<(String, ColumnType, bool)>,
    /// Indices into `columns`, in the descriptor's order.
    key: Vec<usize>,
}

impl Contract {
    /// `descriptor` has been checked.
    pub(super) fn new(descriptor: &Descriptor, limits: &Limits) -> Self {
        let ports = descriptor.ports.iter().map(|port| port.name.clone());
        let tables = descriptor.tables.iter();
        Self {
            ports: ports.chain([DEFAULT_PORT.to_owned()]).collect(),
            tables: tables.map(|table| (table.name.clone(), Row::new(table))).collect(),
            max_records: limits.output_records,
            max_bytes: limits.output_bytes,
        }
    }

    pub(super) fn check_production(
        &self,
        production: Production,
        asked: u32,
    ) -> Result<Production, CallError> {
        let emissions = &production.emissions;
        check_count(emissions.len(), self.max_records.min(asked))?;
        if production.position.len() > MAX_POSITION_BYTES {
            return Err(bad(format!(
                "its position has {} bytes, more than {MAX_POSITION_BYTES}",
                production.position.len()
            )));
        }
        let mut budget = Budget::new(self.max_bytes);
        for (index, emission) in emissions.iter().enumerate() {
            self.check_emission(emission, &mut budget)
                .and_then(|()| match emission.input {
                    Some(_) => Err(wrong("names an input, but a producer has none")),
                    None => Ok(()),
                })
                .map_err(|fault| fault.of("emission", index))?;
        }
        Ok(production)
    }

    pub(super) fn check_outcome(&self, mut outcome: Outcome, inputs: usize) -> Result<Outcome, CallError> {
        check_count(outcome.emissions.len(), self.max_records)?;
        let mut budget = Budget::new(self.max_bytes);
        let refused = check_refused(&mut outcome.refusals, inputs, &mut budget)?;
        for (index, emission) in outcome.emissions.iter().enumerate() {
            self.check_emission(emission, &mut budget)
                .and_then(|()| match emission.input {
                    Some(input) => refused.check_input(input, inputs),
                    None => Ok(()),
                })
                .map_err(|fault| fault.of("emission", index))?;
        }
        Ok(outcome)
    }

    pub(super) fn check_rows(&self, mut outcome: RowOutcome, inputs: usize) -> Result<RowOutcome, CallError> {
        check_count(outcome.changes.len(), self.max_records)?;
        let mut budget = Budget::new(self.max_bytes);
        let refused = check_refused(&mut outcome.refusals, inputs, &mut budget)?;
        for (index, change) in outcome.changes.iter().enumerate() {
            refused
                .check_input(change.input, inputs)
                .and_then(|()| self.check_change(change, &mut budget))
                .map_err(|fault| fault.of("change", index))?;
        }
        Ok(outcome)
    }

    pub(super) fn check_refusals(
        &self,
        mut refusals: Vec<Refused>,
        inputs: usize,
    ) -> Result<Vec<Refused>, CallError> {
        check_refused(&mut refusals, inputs, &mut Budget::new(self.max_bytes))?;
        Ok(refusals)
    }

    /// Also gives each emission of a single job its input, so that all have one, and drops what jobs emit that are
    /// not done.
    pub(super) fn check_work(&self, mut outcome: WorkOutcome, jobs: usize) -> Result<WorkOutcome, CallError> {
        if outcome.verdicts.len() != jobs {
            return Err(bad(format!(
                "it has {} verdicts for a batch of {jobs} jobs",
                outcome.verdicts.len()
            )));
        }
        check_count(outcome.emissions.len(), self.max_records)?;
        let mut budget = Budget::new(self.max_bytes);
        for (index, verdict) in outcome.verdicts.iter_mut().enumerate() {
            check_verdict(verdict, &mut budget).map_err(|fault| fault.of("verdict", index))?;
        }
        for (index, emission) in outcome.emissions.iter_mut().enumerate() {
            self.check_emission(emission, &mut budget)
                .and_then(|()| job_of(emission, jobs))
                .map(|job| emission.input = Some(job))
                .map_err(|fault| fault.of("emission", index))?;
        }
        let verdicts = &outcome.verdicts;
        outcome.emissions.retain(|emission| {
            let job = emission.input.and_then(|input| verdicts.get(input as usize));
            matches!(job, Some(Verdict::Done(_)))
        });
        Ok(outcome)
    }

    fn check_emission(&self, emission: &Emission, budget: &mut Budget) -> Result<(), Fault> {
        if let Some(port) = &emission.port
            && !self.ports.contains(port)
        {
            return Err(wrong(format!(
                "goes to port `{}`, which its descriptor does not declare",
                printable(port, 100)
            )));
        }
        if let Some(time) = emission.timestamp {
            check_time(time)?;
        }
        let key = emission.key.as_ref().map_or(0, Vec::len);
        budget.spend(key + emission.payload.len())?;
        for Header { name, value } in &emission.headers {
            if name.contains('\0') {
                return Err(wrong("has a NUL character in the name of a header"));
            }
            budget.spend(name.len() + value.len())?;
        }
        Ok(())
    }

    fn check_change(&self, change: &RowChange, budget: &mut Budget) -> Result<(), Fault> {
        budget.spend(change.table.len())?;
        let Some(row) = self.tables.get(&change.table) else {
            return Err(wrong(format!(
                "goes to table `{}`, which its descriptor does not declare",
                printable(&change.table, 100)
            )));
        };
        match &change.change {
            Change::Upsert(values) => row.check_upsert(values, budget),
            Change::Delete(values) => row.check_delete(values, budget),
        }
    }
}

impl Row {
    fn new(table: &Table) -> Self {
        let is_fixed =
            |name: &String| table.key.contains(name) || table.newest_by.as_ref().is_some_and(|by| by == name);
        let columns = table.columns.iter();
        let keys = table.key.iter();
        Self {
            columns: columns
                .map(|column| (column.name.clone(), column.type_, !is_fixed(&column.name)))
                .collect(),
            key: keys.filter_map(|key| table.columns.iter().position(|column| column.name == *key)).collect(),
        }
    }

    fn check_upsert(&self, values: &[Value], budget: &mut Budget) -> Result<(), Fault> {
        if values.len() != self.columns.len() {
            return Err(wrong(format!(
                "has {} values for the {} columns of its table",
                values.len(),
                self.columns.len()
            )));
        }
        for ((name, type_, nullable), value) in self.columns.iter().zip(values) {
            check_value(name, *type_, *nullable, value, budget)?;
        }
        Ok(())
    }

    fn check_delete(&self, values: &[Value], budget: &mut Budget) -> Result<(), Fault> {
        if values.len() != self.key.len() {
            return Err(wrong(format!(
                "deletes by {} values, the key of its table has {} columns",
                values.len(),
                self.key.len()
            )));
        }
        for (&index, value) in self.key.iter().zip(values) {
            let (name, type_, _) = &self.columns[index];
            check_value(name, *type_, false, value, budget)?;
        }
        Ok(())
    }
}

fn check_value(
    column: &str,
    type_: ColumnType,
    nullable: bool,
    value: &Value,
    budget: &mut Budget,
) -> Result<(), Fault> {
    let found = match value {
        Value::Null if nullable => return budget.spend(1),
        Value::Null => {
            return Err(wrong(format!(
                "has no value in column `{column}`, which identifies or orders the row"
            )));
        }
        Value::Boolean(_) => ColumnType::Boolean,
        Value::Integer(_) => ColumnType::Integer,
        Value::Float(_) => ColumnType::Float,
        Value::Text(_) => ColumnType::Text,
        Value::Bytes(_) => ColumnType::Bytes,
        Value::Timestamp(_) => ColumnType::Timestamp,
        Value::Json(_) => ColumnType::Json,
    };
    if found != type_ {
        return Err(wrong(format!(
            "has a value of type {} in column `{column}` of type {}",
            type_name(found),
            type_name(type_)
        )));
    }
    match value {
        Value::Text(text) => {
            budget.spend(text.len())?;
            if text.contains('\0') {
                return Err(wrong(format!("has a NUL character in text column `{column}`")));
            }
            Ok(())
        }
        Value::Json(text) => {
            budget.spend(text.len())?;
            check_json(text).map_err(|why| wrong(format!("has in json column `{column}` {why}")))
        }
        Value::Bytes(bytes) => budget.spend(bytes.len()),
        Value::Timestamp(time) => budget.spend(8).and_then(|()| check_time(*time)),
        Value::Null | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => budget.spend(8),
    }
}

/// A document that parses but holds a NUL character is valid JSON, yet no database takes it.
fn check_json(text: &str) -> Result<(), String> {
    let document: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("no JSON document: {error}"))?;
    if text.contains("\\u0000") && has_nul(&document) {
        return Err("a NUL character".to_owned());
    }
    Ok(())
}

/// The parser bounds the depth.
fn has_nul(document: &serde_json::Value) -> bool {
    match document {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(has_nul),
        serde_json::Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
        }
        _ => false,
    }
}

fn check_time(time: i64) -> Result<(), Fault> {
    if TIMES.contains(&time) {
        Ok(())
    } else {
        Err(wrong(format!(
            "has the time {time}, which is not within the years 1 to 9999 in microseconds since 1970"
        )))
    }
}

fn type_name(type_: ColumnType) -> &'static str {
    match type_ {
        ColumnType::Boolean => "boolean",
        ColumnType::Integer => "integer",
        ColumnType::Float => "float",
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytes",
        ColumnType::Timestamp => "timestamp",
        ColumnType::Json => "json",
    }
}

/// The inputs of a batch that were refused: nothing else may come from them, since they may come again.
struct RefusedInputs(HashSet<u32>);

impl RefusedInputs {
    fn check_input(&self, input: u32, inputs: usize) -> Result<(), Fault> {
        if input as usize >= inputs {
            return Err(wrong(format!("names input {input} of a batch of {inputs}")));
        }
        if self.0.contains(&input) {
            return Err(wrong(format!("comes from input {input}, which is refused")));
        }
        Ok(())
    }
}

/// Also makes the reasons fit to be stored and shown.
fn check_refused(
    refusals: &mut [Refused],
    inputs: usize,
    budget: &mut Budget,
) -> Result<RefusedInputs, CallError> {
    let mut seen = RefusedInputs(HashSet::new());
    for (index, refused) in refusals.iter_mut().enumerate() {
        seen.check_input(refused.input, inputs).map_err(|fault| fault.of("refusal", index))?;
        seen.0.insert(refused.input);
        if let Refusal::Reject(reason) = &mut refused.refusal {
            *reason = printable(reason, MAX_REASON);
            budget.spend(reason.len()).map_err(|fault| fault.of("refusal", index))?;
        }
    }
    Ok(seen)
}

/// Also makes its words fit to be stored and shown.
fn check_verdict(verdict: &mut Verdict, budget: &mut Budget) -> Result<(), Fault> {
    match verdict {
        Verdict::Done(result) => budget.spend(result.as_ref().map_or(0, Vec::len)),
        Verdict::Retry(retry) => {
            retry.reason = printable(&retry.reason, MAX_REASON);
            budget.spend(retry.reason.len())?;
            check_wait(retry.after.unwrap_or(0))
        }
        Verdict::Snooze(after) => check_wait(*after),
        Verdict::Reject(reason) | Verdict::Cancel(reason) => {
            *reason = printable(reason, MAX_REASON);
            budget.spend(reason.len())
        }
    }
}

fn check_wait(micros: u64) -> Result<(), Fault> {
    if micros <= MAX_WAIT {
        Ok(())
    } else {
        Err(wrong(format!("waits for {micros} microseconds, which is more than ten years")))
    }
}

/// The job that an emission was made from.
fn job_of(emission: &Emission, jobs: usize) -> Result<u32, Fault> {
    match emission.input {
        Some(input) if (input as usize) < jobs => Ok(input),
        Some(input) => Err(wrong(format!("names input {input} of a batch of {jobs}"))),
        None if jobs == 1 => Ok(0),
        None => Err(wrong(format!("names no input, but could come from each of {jobs} jobs"))),
    }
}

fn check_count(got: usize, limit: u32) -> Result<(), CallError> {
    if got > limit as usize {
        return Err(CallError::OutputTooLarge(Excess::Records { got, limit }));
    }
    Ok(())
}

/// Bytes that an answer may still have.
struct Budget {
    limit: u64,
    left: u64,
}

impl Budget {
    fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::TooLarge { limit: self.limit }),
        }
    }
}

/// What is wrong with one record.
#[derive(Debug)]
enum Fault {
    TooLarge { limit: u64 },
    Wrong(String),
}

impl Fault {
    fn of(self, what: &str, index: usize) -> CallError {
        match self {
            Self::TooLarge { limit } => CallError::OutputTooLarge(Excess::Bytes { limit }),
            Self::Wrong(message) => bad(format!("{what} {index} {message}")),
        }
    }
}

fn wrong(message: impl Into<String>) -> Fault {
    Fault::Wrong(message.into())
}

fn bad(message: String) -> CallError {
    CallError::BadOutput { message }
}

//! Alerts: emergency squawks and rapid descents.

use serde::Serialize;

use crate::{config::Config, decimal::Decimal, report::Report};

/// What is written for an alert.
#[derive(Debug, PartialEq, Serialize)]
pub struct Alert<'a> {
    id: &'a str,
    callsign: &'a str,
    kind: &'a str,
    alert: Cause,
    squawk: &'a str,
    altitude: i64,
    vertical_rate: i64,
    lat: Decimal<5>,
    lon: Decimal<5>,
    ts: i64,
    /// A sentence for people.
    message: String,
}

/// Why there is an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    Emergency,
    RapidDescent,
}

impl<'a> Alert<'a> {
    /// None, one, or one for each cause.
    pub fn all_of(report: &'a Report<'_>, config: &Config) -> impl Iterator<Item = Self> {
        let emergency = emergency(report).map(|message| (Cause::Emergency, message));
        let descent = rapid_descent(report, config).map(|message| (Cause::RapidDescent, message));
        let causes = emergency.into_iter().chain(descent);
        causes.map(|(alert, message)| Alert {
            id: &report.id,
            callsign: &report.callsign,
            kind: &report.kind,
            alert,
            squawk: &report.squawk,
            altitude: report.altitude,
            vertical_rate: report.vertical_rate,
            lat: Decimal(report.lat),
            lon: Decimal(report.lon),
            ts: report.ts,
            message,
        })
    }
}

fn emergency(report: &Report<'_>) -> Option<String> {
    let meaning = match report.squawk.as_ref() {
        "7500" => "unlawful interference",
        "7600" => "radio failure",
        "7700" => "general emergency",
        _ => return None,
    };
    Some(format!(
        "{} squawks {} ({meaning}) at {} ft",
        report.callsign,
        report.squawk,
        grouped(report.altitude)
    ))
}

fn rapid_descent(report: &Report<'_>, config: &Config) -> Option<String> {
    if report.vertical_rate > -config.rapid_descent_fpm {
        return None;
    }
    Some(format!(
        "{} descends at {} ft/min through {} ft",
        report.callsign,
        grouped(report.vertical_rate.saturating_neg()),
        grouped(report.altitude)
    ))
}

/// A number with a comma before each three digits.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

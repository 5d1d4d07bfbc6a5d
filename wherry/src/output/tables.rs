//! Tables, sizes and durations.

use std::borrow::Cow;
use std::time::Duration;

use domain::printable;
use serde::Serialize;
use serde_json::Value;
use smc::model::{self, Paged};

use super::{json, lines};
use crate::connection::{Api, Output};

/// Entries of one page in calls that list: the most that the API gives.
const PAGE_SIZE: u32 = 50;

/// A table with its columns aligned.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| printable(cell)).collect())
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([headings[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(headings.to_vec());
    for row in &rows {
        text.push_str(&line(row.iter().map(AsRef::as_ref).collect()));
    }
    text
}

/// Bytes of a disk's sectors, as programs address them and as the disk writes them: `512/4096`. Nothing for a file.
pub(crate) fn sectors(logical: Option<u64>, physical: Option<u64>) -> String {
    match (logical, physical) {
        (Some(logical), Some(physical)) => format!("{logical}/{physical}"),
        (Some(logical), None) => logical.to_string(),
        _ => String::new(),
    }
}

/// Names and values, one a line.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:<width$}  {}\n", printable(value)))
        .collect()
}

/// Bytes for people: binary units, three digits at the most.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "";
    for next in UNITS {
        value /= 1024.0;
        unit = next;
        if value < 1000.0 {
            break;
        }
    }
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

/// A duration for people, in its two largest units.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    }
}

/// A field as one printable line; empty if it is not there.
pub(crate) fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => printable(text).into_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Api {
    /// Prints `answer` as JSON, or what `render` makes of it.
    pub(crate) fn show<A: Serialize>(&self, answer: &A, render: impl FnOnce(&A) -> String) {
        match self.output {
            Output::Json => json(format_args!("{:#}", model::to_json(answer))),
            Output::Table => lines(&render(answer)),
        }
    }

    /// Every row of a list, over all pages.
    pub(crate) async fn list<O: Paged>(&self, mut request: O) -> anyhow::Result<Vec<O::Row>> {
        let mut rows = Vec::new();
        for page in 1.. {
            request.set_page(page, PAGE_SIZE);
            let found = O::rows(self.client.call(&request).await?.answer);
            let is_last = found.len() < PAGE_SIZE as usize;
            rows.extend(found);
            if is_last {
                break;
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use domain::printable::{EVIL, is_printable};

    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(20 << 30), "20.0 GiB");
        assert_eq!(bytes(999 << 20), "999 MiB");
        assert_eq!(bytes(1000 << 20), "0.98 GiB");
        assert_eq!(duration(Duration::from_secs(59)), "59s");
        assert_eq!(duration(Duration::from_secs(61)), "1m 1s");
        assert_eq!(duration(Duration::from_secs(90_061)), "1d 1h");
    }

    #[test]
    fn no_value_can_make_a_line_or_move_the_cursor() {
        for evil in EVIL {
            let shown = table(&["ID", "NAME"], &[vec!["a".to_owned(), (*evil).to_owned()]])
                + &fields(&[("Id", (*evil).to_owned())]);
            assert_eq!(shown.lines().count(), 3, "{shown:?}");
            assert!(shown.lines().all(is_printable), "{shown:?}");
        }
    }

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_blanks() {
        let rows = vec![
            vec!["a".to_owned(), "long".to_owned()],
            vec!["longer".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["ID", "NAME"], &rows),
            "ID      NAME\na       long\nlonger\n"
        );
    }
}

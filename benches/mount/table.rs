//! The table that is printed.

use std::fmt;
use std::time::Duration;

/// One measurement.
pub struct Row {
    pub what: String,
    pub program: &'static str,
    pub time: Duration,
    /// Bytes moved, for a rate; 0 for none.
    pub bytes: u64,
    /// Requests by operation.
    pub requests: Vec<(String, u64)>,
    /// The figure that the step is about, if that is another one.
    pub figure: String,
}

/// All of them.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    /// Grouped by what was done, so that programs stand below each other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<28} {:<7} {:>9} {:>10} {:>9}  by operation", "", "", "seconds", "MB/s", "requests")?;
        let mut order: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !order.contains(&row.what.as_str()) {
                order.push(&row.what);
            }
        }
        for what in order {
            for row in self.rows.iter().filter(|row| row.what == what) {
                let seconds = row.time.as_secs_f64();
                let rate =
                    if row.bytes == 0 { String::new() } else { format!("{:.0}", row.bytes as f64 / 1e6 / seconds) };
                let total: u64 = row.requests.iter().map(|(_, count)| count).sum();
                let figure = if row.figure.is_empty() { String::new() } else { format!("; {}", row.figure) };
                let detail: Vec<_> = row.requests.iter().map(|(name, count)| format!("{name} {count}")).collect();
                writeln!(
                    f,
                    "{what:<28} {:<7} {seconds:>9.3} {rate:>10} {total:>9}  {}{figure}",
                    row.program,
                    detail.join(", ")
                )?;
            }
        }
        Ok(())
    }
}

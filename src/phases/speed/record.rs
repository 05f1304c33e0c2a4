//! Rows of the records, and the table that is made of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Workload;
use crate::artifact;
use crate::error::{Error, Result};

const HEADER: &str = "workload,engine,figure,unit,peak_mib,repeats,threads,machine,commit";

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// A workload's name.
    pub workload: String,
    /// `codelora`, or a peer's name.
    pub engine: String,
    /// Median of the repeats.
    pub figure: f64,
    /// Unit of the figure.
    pub unit: String,
    /// Most memory the process held, in MiB.
    pub peak_mib: f64,
    /// Repeats.
    pub repeats: usize,
    /// Threads.
    pub threads: usize,
    /// Processor, its cores and its widest vectors.
    pub machine: String,
    /// Commit of this project.
    pub commit: String,
}

impl Row {
    /// A row of this process on this machine.
    pub(super) fn new(workload: Workload, engine: &str, figure: f64, repeats: usize) -> Self {
        let threads = rayon::current_num_threads();
        Self {
            workload: workload.name().into(),
            engine: engine.into(),
            figure: (figure * 10.0).round() / 10.0,
            unit: workload.unit().into(),
            peak_mib: peak_mib().round(),
            repeats,
            threads,
            machine: machine(),
            commit: commit(),
        }
    }

    fn line(&self) -> String {
        let Self { workload, engine, figure, unit, peak_mib, repeats, threads, machine, commit } = self;
        format!("{workload},{engine},{figure},{unit},{peak_mib},{repeats},{threads},{machine},{commit}")
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let &[workload, engine, figure, unit, peak_mib, repeats, threads, machine, commit] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            workload: workload.into(),
            engine: engine.into(),
            figure: figure.parse().ok()?,
            unit: unit.into(),
            peak_mib: peak_mib.parse().ok()?,
            repeats: repeats.parse().ok()?,
            threads: threads.parse().ok()?,
            machine: machine.into(),
            commit: commit.into(),
        })
    }
}

/// Most memory the process has held, in MiB; not a number where the system does not say.
fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} {cores} cores{}", model.map_or(std::env::consts::ARCH, |(_, name)| name), vectors()).replace(',', " ")
}

/// The widest vectors that the products use here: one processor name stands for machines that differ twofold in them.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        return " AVX-512";
    } else if is_x86_feature_detected!("avx2") {
        return " AVX2";
    }
    ""
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or("unknown".into(), |text| String::from_utf8_lossy(&text).trim().to_string())
}

/// Every row of the records in `folder`, in the order of the workloads and then of the files.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] of a row.
pub fn read(folder: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workload in Workload::ALL {
        let path = folder.join(format!("{}.csv", workload.name()));
        if !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        for (number, line) in text.lines().enumerate().skip(1) {
            let fault = || Error::malformed(&path, number + 1, "not nine fields of a record", "measure it again");
            rows.push(Row::parse(line).ok_or_else(fault)?);
        }
    }
    Ok(rows)
}

/// Writes rows to the files of their workloads in `folder`, in place of earlier ones of the same engine and machine.
///
/// # Errors
/// As [`read`].
pub fn write(folder: &Path, rows: &[Row]) -> Result<()> {
    let mut all = read(folder)?;
    for row in rows {
        let same = |other: &Row| {
            (&other.workload, &other.engine, &other.machine) == (&row.workload, &row.engine, &row.machine)
        };
        all.retain(|other| !same(other));
        all.push(row.clone());
    }
    for name in rows.iter().map(|row| &row.workload).collect::<std::collections::BTreeSet<_>>() {
        let lines = all.iter().filter(|row| row.workload == *name).map(Row::line);
        let text = std::iter::once(HEADER.to_string()).chain(lines).collect::<Vec<_>>().join("\n") + "\n";
        artifact::write_atomic(&folder.join(format!("{name}.csv")), |writer| writer.write_all(text.as_bytes()))?;
    }
    Ok(())
}

/// The table of the records as Markdown: our figure, each peer's, the ratio, and memory.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| workload | machine | unit | codelora | peer | ratio | memory |\n|---|---|---|--:|--:|--:|--:|\n",
    );
    let number = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    for workload in Workload::ALL {
        let of = |row: &&Row| row.workload == workload.name();
        for ours in rows.iter().filter(of).filter(|row| row.engine == "codelora") {
            let head = format!("| {} | {} | {} | {} |", workload.title(), ours.machine, ours.unit, number(ours.figure));
            let peers = rows.iter().filter(of).filter(|row| row.engine != "codelora" && row.machine == ours.machine);
            let mut lines: Vec<String> = peers
                .map(|peer| {
                    format!(
                        "{head} {} {} | {:.2}× | {:.0} : {:.0} MiB |\n",
                        peer.engine,
                        number(peer.figure),
                        ours.figure / peer.figure,
                        ours.peak_mib,
                        peer.peak_mib
                    )
                })
                .collect();
            if lines.is_empty() {
                lines.push(format!("{head} – | – | {:.0} MiB |\n", ours.peak_mib));
            }
            text.extend(lines);
        }
    }
    text
}

/// The comments between which a text keeps the table.
const MARKS: (&str, &str) = ("<!-- speed: made from benches/records -->", "<!-- end of speed -->");

/// `text` with `table` between its two marks.
///
/// # Errors
/// [`Error::Invalid`] when the marks are not there.
pub fn splice(text: &str, table: &str) -> Result<String> {
    let places = text.find(MARKS.0).zip(text.find(MARKS.1)).filter(|(from, to)| from < to);
    let Some((from, to)) = places else {
        return Err(Error::invalid(
            "the text has no place for the table",
            format!("put the lines `{}` and `{}` where it shall stand", MARKS.0, MARKS.1),
        ));
    };
    Ok(format!("{}\n{table}{}", &text[..from + MARKS.0.len()], &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: &str, engine: &str, figure: f64) -> Row {
        Row {
            workload: workload.into(),
            engine: engine.into(),
            figure,
            unit: "tokens/s".into(),
            peak_mib: 512.0,
            repeats: 5,
            threads: 2,
            machine: "a machine 2 cores".into(),
            commit: "abc1234".into(),
        }
    }

    #[test]
    fn rows_come_back_and_replace_their_like() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (row("decode", "codelora", 1.5), row("decode", "codelora", 250.0));
        let peer = row("decode", "transformers", 100.0);
        write(folder.path(), &[old, peer.clone()]).unwrap();
        write(folder.path(), std::slice::from_ref(&new)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), [peer, new]);
        fs::write(folder.path().join("decode.csv"), format!("{HEADER}\ndecode,codelora,fast\n")).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("decode.csv") && error.contains('2'), "{error}");
    }

    #[test]
    fn the_table_says_who_is_faster_and_by_how_much() {
        let rows =
            [row("decode", "codelora", 250.0), row("decode", "transformers", 100.0), row("data", "codelora", 20.0)];
        let text = table(&rows);
        assert!(
            text.contains("| a machine 2 cores | tokens/s | 250 | transformers 100 | 2.50× | 512 : 512 MiB |"),
            "{text}"
        );
        assert!(text.contains("| 20.0 | – | – | 512 MiB |"), "{text}");
        let page = format!("# A page\n\n{}\nold\n{}\n\nThe end.\n", MARKS.0, MARKS.1);
        let spliced = splice(&page, &text).unwrap();
        assert!(!spliced.contains("old") && spliced.contains("2.50×") && spliced.ends_with("The end.\n"));
        assert_eq!(splice(&spliced, &text).unwrap(), spliced);
        assert!(splice("# A page\n", &text).is_err());
    }

    #[test]
    fn workloads_are_found_by_name() {
        for workload in Workload::ALL {
            assert_eq!(Workload::named(workload.name()).unwrap(), workload);
        }
        assert!(Workload::named("speed").unwrap_err().to_string().contains("lora-step"));
    }
}

//! Metrics of this process, from `/proc`, under the names that all client libraries of Prometheus use.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::process::{Resource, getrlimit};

use voxline_support::clock::cpu_time;

/// Ticks per second in which the kernel reports a start time: `USER_HZ`, which is 100 on every architecture
/// that Rust supports (proc(5), `asm-generic/param.h`).
const USER_HZ: f64 = 100.0;

/// Source of the metrics of this process. A metric that can't be read is left out.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    /// Start of the process, in seconds since the Unix epoch.
    started: Option<f64>,
}

impl ProcessCollector {
    /// Creates the collector. The start time is read once: the kernel derives it from the wall clock, and it
    /// would change whenever that clock is set.
    pub(super) fn new() -> ProcessCollector {
        ProcessCollector { started: start_time() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (seconds, bytes) = (|| Some(Unit::Seconds), || Some(Unit::Bytes));
        let metrics = [
            (
                "process_start_time",
                "Start time of the process since unix epoch.",
                seconds(),
                self.started.map(|started| boxed(ConstGauge::new(started))),
            ),
            (
                "process_cpu",
                "Total user and system CPU time spent.",
                seconds(),
                cpu_time().map(|time| boxed(ConstCounter::new(time.as_secs_f64()))),
            ),
            ("process_resident_memory", "Resident memory size.", bytes(), gauge(memory(&status, "VmRSS:"))),
            ("process_virtual_memory", "Virtual memory size.", bytes(), gauge(memory(&status, "VmSize:"))),
            ("process_open_fds", "Number of open file descriptors.", None, gauge(open_descriptors())),
            (
                "process_max_fds",
                "Maximum number of open file descriptors.",
                None,
                gauge(getrlimit(Resource::Nofile).current),
            ),
        ];
        for (name, help, unit, metric) in metrics {
            if let Some(metric) = metric {
                let descriptor =
                    encoder.encode_descriptor(name, help, unit.as_ref(), metric.metric_type())?;
                metric.encode(descriptor)?;
            }
        }
        Ok(())
    }
}

fn gauge(value: Option<u64>) -> Option<Box<dyn EncodeMetric>> {
    value.map(|value| boxed(ConstGauge::new(value)))
}

fn boxed(metric: impl EncodeMetric + 'static) -> Box<dyn EncodeMetric> {
    Box::new(metric)
}

/// Returns the start of the process in seconds since the Unix epoch: the time of the boot, and the ticks
/// from then to the start.
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name comes second, in parentheses, and may contain anything. The start time is field 22.
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: f64 = after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    let machine = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / USER_HZ)
}

/// Returns a size from the text of `/proc/self/status`, in bytes.
fn memory(status: &str, field: &str) -> Option<u64> {
    let size = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the number of open descriptors, without the one that reads the directory of them.
fn open_descriptors() -> Option<u64> {
    let all = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((all as u64).saturating_sub(1))
}

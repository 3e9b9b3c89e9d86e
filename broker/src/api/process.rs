//! What Prometheus' clients tell of their process, under the names that they share: read from `/proc` when asked.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::fmt::Error;
use std::fs;

/// This process, begun then, in Unix seconds.
#[derive(Debug)]
pub(super) struct Process {
    pub began: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut gauge = |name, help, value: Option<f64>| -> Result<(), Error> {
            // What the system does not tell is left out.
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge("process_start_time_seconds", "When the broker began, in Unix seconds", Some(self.began))?;
        gauge("process_resident_memory_bytes", "Memory that the broker has in RAM, in bytes", resident())?;
        gauge("process_open_fds", "Files and sockets that the broker has open", open_fds())?;
        gauge("process_max_fds", "How many of them it may have open", max_fds())?;
        let Some(seconds) = cpu_seconds() else { return Ok(()) };
        let counter = ConstCounter::new(seconds);
        let help = "Processor time that the broker has used, in seconds";
        counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2⁵³ of any of these")]
fn number(of: u64) -> f64 {
    of as f64
}

fn resident() -> Option<f64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(number(pages) * number(u64::try_from(page_size()).ok()?))
}

fn open_fds() -> Option<f64> {
    // Without the one that this look itself opens.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    Some(number(u64::try_from(open).ok()?))
}

fn max_fds() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(number)
}

/// User and system time: the 14th and 15th field, counted behind the name, which may hold anything.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut behind = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || behind.next()?.parse::<u64>().ok();
    Some(number(ticks()? + ticks()?) / number(clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_says_of_itself_is_so() {
        let memory = resident().unwrap();
        assert!((1e6..1e11).contains(&memory), "{memory} bytes");
        let before = open_fds().unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        assert!(open_fds().unwrap() >= 3.0 && max_fds().unwrap() >= open_fds().unwrap(), "{before}");
        drop(file);
        let before = cpu_seconds().unwrap();
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_millis(100) {}
        let used = cpu_seconds().unwrap() - before;
        assert!(used > 0.0 && used < 60.0, "{used} s");
    }
}
